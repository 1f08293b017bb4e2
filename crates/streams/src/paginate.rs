//! Read a paginated source as one stream, so many pages ahead, and go on later where it was left.
//!
//! Use it when each page names the next one and the consumer works on the items. The next pages are fetched while it works.
//! When all page numbers are known beforehand, fetch several at a time with `map_ordered`; without reading ahead, `generator`.
//!
//! | | |
//! |---|---|
//! | Order | pages are fetched one after another; items come in their order |
//! | Errors | an error comes after the items of the pages before it and ends the stream; a page that was named before is an error, not an endless loop: at once if a page names itself, for longer loops after at most three times as many fetches as there are pages |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream aborts the fetch at its next await, without waiting for it, and drops the pages that wait |
//! | Panics | a panic of `fetch` is the consumer's panic, after the items of the pages before it; the stream has then ended |
//! | Memory | O(pages): the rest of the page that is being taken, and at most `ahead` others |
//! | Backpressure | a page is fetched only when fewer than `ahead` pages wait, the one being fetched counted |
//! | Clock | none of its own |
//!
//! The pages are fetched by a task, because a stream runs only while it is polled. To try a page again, do so in `fetch`.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use futures::TryStreamExt;
//! use streams::{Page, Position, paginate};
//!
//! #[tokio::main]
//! async fn main() {
//!     let fetch = async |page: u32| Ok::<_, String>(Page { items: vec![page; 2], next: (page < 3).then_some(page + 1) });
//!     let mut items = paginate(Position::start(1), NonZeroUsize::MIN, fetch);
//!     assert_eq!(items.try_next().await, Ok(Some(1)));
//!     assert_eq!(items.position(), Some(Position { page: 1, taken: 1 }));
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::task::coop::poll_proceed;

/// A page as the source returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<C, T> {
    /// What stands on it; it may be empty.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<C>,
}

/// Where to go on: write it down, and give it to [`paginate`] in the next run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position<C> {
    /// The page that holds the next item.
    pub page: C,
    /// How many of its items were taken. So many are skipped when it is fetched again.
    pub taken: usize,
}

impl<C> Position<C> {
    /// The beginning of `page`.
    pub fn start(page: C) -> Self {
        Position { page, taken: 0 }
    }
}

/// Why the stream ended before the last page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError<C, E> {
    /// This page could not be fetched, for what `fetch` returned.
    #[error("page {0:?} could not be fetched")]
    Fetch(C, #[source] E),
    /// The source named this page as the next one, and had named it before: that would never end.
    #[error("page {0:?} comes again and again")]
    Repeated(C),
    /// This page was not fetched, because the runtime was shut down.
    #[error("page {0:?} was not fetched: the runtime was shut down")]
    Stopped(C),
}

/// The items of all pages. Dropping it stops the fetching; what was fetched and not taken is dropped.
#[must_use = "pages are fetched ahead, and nobody takes them"]
pub struct Paginate<C, T, E> {
    /// What is left of the page that is being taken.
    items: std::vec::IntoIter<T>,
    /// The cursor of that page, and how many items it had.
    page: Option<(C, usize)>,
    /// Where to go on when that page is used up; `None` after the last one.
    next: Option<Position<C>>,
    /// The task holds the other end, and drops it when it ends.
    pages: mpsc::Receiver<Fetched<C, T, E>>,
    /// Dropping it aborts the task.
    task: JoinSet<()>,
}

type Fetched<C, T, E> = Result<(C, Page<C, T>), PageError<C, E>>;

/// Starts to fetch, at most `ahead` pages before the consumer asks for them, and returns the stream of their items.
/// It panics if called outside a Tokio runtime.
pub fn paginate<C, T, E, F>(
    from: Position<C>,
    ahead: NonZeroUsize,
    fetch: impl FnMut(C) -> F + Send + 'static,
) -> Paginate<C, T, E>
where
    C: Clone + PartialEq + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<Page<C, T>, E>> + Send + 'static,
{
    let (sender, pages) = mpsc::channel(ahead.get().min(Semaphore::MAX_PERMITS));
    let mut task = JoinSet::new();
    task.spawn(fetch_pages(from.page.clone(), fetch, sender));
    Paginate { items: Vec::new().into_iter(), page: None, next: Some(from), pages, task }
}

async fn fetch_pages<C: Clone + PartialEq, T, E, F: Future<Output = Result<Page<C, T>, E>>>(
    mut page: C,
    mut fetch: impl FnMut(C) -> F,
    sender: mpsc::Sender<Fetched<C, T, E>>,
) {
    // Brent's way to find a loop with one page in mind, which is replaced after 1, 2, 4, … steps.
    let (mut known, mut steps, mut limit) = (page.clone(), 0_u64, 1);
    // The place is taken before the fetch: else one page more than `ahead` would be fetched.
    while let Ok(place) = sender.reserve().await {
        let fetched = match fetch(page.clone()).await {
            Ok(fetched) => fetched,
            Err(error) => return place.send(Err(PageError::Fetch(page, error))),
        };
        let next = fetched.next.clone();
        place.send(Ok((page.clone(), fetched)));
        let Some(next) = next else { return };
        if next == known || next == page {
            // Fails only when the stream was dropped.
            return drop(sender.send(Err(PageError::Repeated(next))).await);
        }
        steps += 1;
        if steps == limit {
            (known, steps, limit) = (next.clone(), 0, limit.saturating_mul(2));
        }
        page = next;
    }
}

impl<C: Clone, T, E> Paginate<C, T, E> {
    /// Where the next item stands: behind the items that the consumer has taken, whatever was fetched ahead. `None` when
    /// all were taken. After an error it is the page that failed.
    /// Write it down when the item is safe. Items taken since then come again in the next run.
    pub fn position(&self) -> Option<Position<C>> {
        match (&self.page, self.items.len()) {
            (Some((page, all)), left @ 1..) => Some(Position { page: page.clone(), taken: all - left }),
            _ => self.next.clone(),
        }
    }

    /// Takes the next page. A function of its own, so that the compiler can inline what is done for each item.
    fn poll_page(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), PageError<C, E>>>> {
        if let Some(fetched) = ready!(self.pages.poll_recv(context)) {
            return Poll::Ready(Some(fetched.map(|(page, Page { items, next })| {
                let taken = self.next.take().map_or(0, |from| from.taken);
                (self.page, self.next) = (Some((page, items.len())), next.map(Position::start));
                self.items = items.into_iter();
                self.items.by_ref().take(taken).for_each(drop);
            })));
        }
        let Some(Err(error)) = ready!(self.task.poll_join_next(context)) else { return Poll::Ready(None) };
        // Only the end of its runtime aborts the task while `self` lives.
        let stopped = || Some(Err(PageError::Stopped(self.next.clone()?.page)));
        Poll::Ready(error.try_into_panic().map_or_else(|_| stopped(), |panic| resume_unwind(panic)))
    }
}

/// Nothing in it is ever pinned.
impl<C, T, E> Unpin for Paginate<C, T, E> {}

impl<C: Clone, T, E> Stream for Paginate<C, T, E> {
    type Item = Result<T, PageError<C, E>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            // A consumer that never waits gives way now and then: eight items are one operation of tokio's budget.
            if this.items.len() % 8 == 1 {
                ready!(poll_proceed(context)).made_progress();
            }
            if let Some(item) = this.items.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            let Some(loaded) = ready!(this.poll_page(context)) else { return Poll::Ready(None) };
            if let Err(error) = loaded {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::{FutureExt, StreamExt};
    use tokio::runtime::Handle;
    use tokio::time::{Instant, sleep};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// Page `page` of `pages` after 10 ms, three items each.
    async fn page_of(page: usize, pages: usize) -> Result<Page<usize, usize>, &'static str> {
        sleep(Duration::from_millis(10)).await;
        let items = (page * 10..page * 10 + 3).collect();
        Ok(Page { items, next: (page < pages).then_some(page + 1) })
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_pages_and_every_position_goes_on_there() {
        let start = |from| paginate(from, TWO, |page| page_of(page, 3));
        let mut items = start(Position::start(1));
        let (mut position, mut taken) = (items.position(), Vec::new());
        while let Some(from) = position {
            let rest: Vec<_> = start(from).map(Result::unwrap).collect().await;
            assert_eq!([&taken[..], &rest[..]].concat(), [10, 11, 12, 20, 21, 22, 30, 31, 32]);
            taken.push(items.next().await.unwrap().unwrap());
            position = items.position();
        }
        assert_eq!((taken.len(), items.next().await), (9, None));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_come_after_the_items_before_them_and_can_be_gone_on_from() {
        let fetch = async |page| if page == 2 { Err("lost") } else { page_of(page, 3).await };
        let mut items = paginate(Position::start(1), TWO, fetch);
        assert_eq!(items.by_ref().take(3).count().await, 3);
        let error = PageError::Fetch(2, "lost");
        assert_eq!(error.to_string(), "page 2 could not be fetched");
        assert_eq!((items.next().await, items.next().await), (Some(Err(error)), None));
        assert_eq!(items.position(), Some(Position::start(2)));
    }

    #[tokio::test]
    async fn errors_tell_a_loop_of_pages() {
        let fetch = async |page| Ok::<_, ()>(Page { items: vec![page], next: Some(page) });
        let items: Vec<_> = paginate(Position::start('a'), ONE, fetch).collect().await;
        assert_eq!(items, [Ok('a'), Err(PageError::Repeated('a'))]);
        let fetch = async |page| Ok::<_, ()>(Page { items: vec![page], next: Some((page + 1) % 3) });
        let items: Vec<_> = paginate(Position::start(0), ONE, fetch).collect().await;
        assert!(items.len() <= 9 && matches!(items.last(), Some(Err(PageError::Repeated(_)))), "{items:?}");
    }

    #[test]
    fn errors_tell_a_runtime_that_is_gone() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let mut items = paginate(Position::start(1), ONE, |page| page_of(page, 3));
        drop(runtime);
        let ended = items.by_ref().collect::<Vec<_>>().now_or_never();
        assert_eq!(ended, Some(vec![Err(PageError::Stopped(1))]));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_stops_the_fetch() {
        let held = Arc::new(());
        let fetching = held.clone();
        let mut items = paginate(Position::start(1), TWO, move |page| {
            page_of(page, 3).inspect({
                let held = fetching.clone();
                move |_| drop(held)
            })
        });
        assert!(items.next().now_or_never().is_none());
        assert_eq!(items.next().await, Some(Ok(10)));
        drop(items);
        tokio::task::yield_now().await;
        assert_eq!((Arc::strong_count(&held), Handle::current().metrics().num_alive_tasks()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_fetch_reach_the_consumer_after_the_items_before_them() {
        let fetch = async |page| if page == 2 { panic!("page 2") } else { page_of(page, 3).await };
        let mut items = paginate(Position::start(1), TWO, fetch);
        assert_eq!(items.by_ref().take(3).count().await, 3);
        let panic = AssertUnwindSafe(items.next()).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"page 2"));
        assert_eq!((items.next().await, items.position()), (None, Some(Position::start(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_at_most_so_many_pages_ahead_while_the_consumer_works() {
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = fetched.clone();
        let mut items = paginate(Position::start(1), TWO, move |page| {
            count.fetch_add(1, Ordering::Relaxed);
            page_of(page, 100)
        });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fetched.load(Ordering::Relaxed), 2);
        let start = Instant::now();
        assert_eq!(items.by_ref().take(6).count().await, 6);
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(fetched.load(Ordering::Relaxed), 4);
        let most = paginate(Position::start(1), NonZeroUsize::MAX, |page| page_of(page, 3));
        assert_eq!(most.count().await, 9);
    }

    #[tokio::test]
    async fn backpressure_gives_way_to_other_tasks() {
        let fetch = async |page: u64| Ok::<_, ()>(Page { items: vec![0; 10_000], next: Some(page + 1) });
        let mut items = paginate(Position::start(0), TWO, fetch);
        let mut taken = 0;
        let taking = async {
            while items.next().await.is_some() {
                taken += 1
            }
        };
        let other = async {
            for _ in 0..3 {
                tokio::task::yield_now().await
            }
        };
        tokio::select! { biased; () = taking => {}, () = other => {} }
        assert!(taken < 10_000, "{taken} items in three turns");
    }
}
