//! Work on many items, so many at a time, and get the results in input order.
//!
//! Use it for a list of results. When they are too many to hold, or are to be used as they come, [`map_ordered_window`]
//! hands them to a consumer in input order. When the order does not matter use
//! [`map_concurrent`](super::map_concurrent()).
//!
//! | | |
//! |---|---|
//! | Order | items start in input order; results come in input order |
//! | Errors | results are passed on as they are; with a window, whatever the consumer returns ends the call at once |
//! | Cancellation | dropping the call drops the running work and the results; so does the end of a window's consumer |
//! | Panics | a panic of the work or the consumer is the caller's panic; everything else is dropped first |
//! | Memory | O(n) results for the list; with a window at most `window` items that are in work or wait for their turn |
//! | Backpressure | when `window` items are started and not yet taken by the consumer, no further one is pulled |
//! | Clock | none of its own |
//!
//! Two knobs, because they are two questions: `limit` says how many run, `window` how far the rest may run ahead of one
//! slow item. [`buffered`](futures::StreamExt::buffered) has one for both, so one slow head stops all others. A window
//! below the limit is a limit too.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use gather::map_ordered;
//!
//! #[tokio::main]
//! async fn main() {
//!     let limit = NonZeroUsize::new(2).unwrap();
//!     let lengths = map_ordered(["one", "three", "two"], limit, async |word| word.len()).await;
//!     assert_eq!(lengths, [3, 5, 3]);
//! }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::iter::from_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::coop::consume_budget;

use super::gather::gather;

/// Runs `work` on each of `items`, at most `limit` at a time, and returns the results in input order.
///
/// `limit` lanes share one iterator, and each writes its results into their places.
pub async fn map_ordered<I, T, F>(
    items: impl IntoIterator<Item = I>,
    limit: NonZeroUsize,
    work: impl Fn(I) -> F,
) -> Vec<T>
where
    F: Future<Output = T>,
{
    let items = items.into_iter().fuse();
    let results = Vec::with_capacity(items.size_hint().0);
    let shared = Mutex::new((items, results));
    let started = from_fn(|| start(&mut lock(&shared))).take(limit.get());
    gather(started.map(|item| list_lane(item, &shared, &work))).await;
    let (_, results) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result: Option<T>| result.expect("every lane has ended")).collect()
}

/// Pulls an item and makes a place for its result.
fn start<I, T>((items, results): &mut (impl Iterator<Item = I>, Vec<Option<T>>)) -> Option<(usize, I)> {
    let item = items.next()?;
    results.push(None);
    Some((results.len() - 1, item))
}

async fn list_lane<I, T, F: Future<Output = T>>(
    first: (usize, I),
    shared: &Mutex<(impl Iterator<Item = I>, Vec<Option<T>>)>,
    work: &impl Fn(I) -> F,
) {
    let mut current = Some(first);
    while let Some((index, item)) = current {
        consume_budget().await;
        let result = work(item).await;
        let mut shared = lock(shared);
        shared.1[index] = Some(result);
        current = start(&mut shared);
    }
}

/// Runs `work` on each of `items`, at most `limit` at a time, while `consume` takes the results in input order; returns
/// what it returns.
///
/// At most `window` items are started and not yet taken. `consume` is called once. When it returns, work that still runs
/// is dropped.
pub async fn map_ordered_window<I, T, F, C>(
    items: impl IntoIterator<Item = I>,
    limit: NonZeroUsize,
    window: NonZeroUsize,
    work: impl Fn(I) -> F,
    consume: impl FnOnce(InOrder<T>) -> C,
) -> C::Output
where
    F: Future<Output = T>,
    C: Future,
{
    let window = window.get().min(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(window));
    let (sender, arrived) = mpsc::channel(window);
    let results = InOrder { arrived, early: VecDeque::new(), delivered: 0, room: room.clone() };
    let items = Mutex::new(items.into_iter().fuse().enumerate());
    let produce = async {
        // The sender is dropped with this block: the consumer then sees the end.
        let sender = sender;
        gather((0..limit.get().min(window)).map(|_| window_lane(&room, &items, &work, &sender))).await;
    };
    let mut consume = pin!(consume(results));
    tokio::select! {
        biased;
        output = &mut consume => output,
        () = produce => consume.await,
    }
}

async fn window_lane<I, T, F: Future<Output = T>>(
    room: &Semaphore,
    items: &Mutex<impl Iterator<Item = (usize, I)>>,
    work: &impl Fn(I) -> F,
    sender: &mpsc::Sender<(usize, T)>,
) {
    // The semaphore is never closed. Each permit stays with its item until the consumer takes the result.
    while let Ok(permit) = room.acquire().await {
        let Some((index, item)) = lock(items).next() else { return };
        permit.forget();
        if sender.send((index, work(item).await)).await.is_err() {
            return;
        }
    }
}

/// The results of [`map_ordered_window`], in input order.
pub struct InOrder<T> {
    /// Each lane holds a sender. It has a place for each item of the window, so that no lane waits to send.
    arrived: mpsc::Receiver<(usize, T)>,
    /// Results that wait for their turn, beginning with number `delivered`.
    early: VecDeque<Option<T>>,
    delivered: usize,
    room: Arc<Semaphore>,
}

impl<T> InOrder<T> {
    /// The next result, or `None` when all items are done. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<T> {
        while !matches!(self.early.front(), Some(Some(_))) {
            let (index, result) = self.arrived.recv().await?;
            let place = index - self.delivered;
            if self.early.len() <= place {
                self.early.resize_with(place + 1, || None);
            }
            self.early[place] = Some(result);
        }
        self.delivered += 1;
        self.room.add_permits(1);
        self.early.pop_front()?
    }
}

/// Poisoned only if an iterator panicked, and then the caller panics too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    async fn all<T>(mut results: InOrder<T>) -> Vec<T> {
        let mut all = Vec::new();
        while let Some(result) = results.next().await {
            all.push(result);
        }
        all
    }

    async fn slow(millis: u64) -> u64 {
        sleep(Duration::from_millis(millis)).await;
        millis
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_input_order_with_at_most_limit_running() {
        let (running, peak) = (Cell::new(0), Cell::new(0));
        let work = async |millis| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            slow(millis).await;
            running.set(running.get() - 1);
            millis
        };
        let input = [30, 10, 5, 50, 1];
        assert_eq!(map_ordered(input, TWO, work).await, input);
        assert_eq!(map_ordered_window(input, TWO, FOUR, work, all).await, input);
        assert_eq!(map_ordered_window(input, FOUR, TWO, work, all).await, input);
        assert_eq!(peak.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_one_slow_head_does_not_stop_the_rest() {
        let start = Instant::now();
        let jobs = (0..1000).map(|i| if i % 10 == 0 { 100 } else { 1 });
        map_ordered(jobs.clone(), FOUR, slow).await;
        let list = start.elapsed();
        map_ordered_window(jobs, FOUR, NonZeroUsize::new(32).unwrap(), slow, all).await;
        let window = start.elapsed() - list;
        // The floor: 100 × 100 ms and 900 × 1 ms over 4 lanes are 2.725 s.
        assert!(list <= Duration::from_millis(2780), "{list:?}");
        assert!(window <= Duration::from_millis(2780), "{window:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_window() {
        let pulled = Cell::new(0);
        let items = (0..100).inspect(|_| pulled.set(pulled.get() + 1));
        let work = async |item| slow(if item == 0 { 500 } else { 1 }).await;
        let consume = |mut results: InOrder<u64>| async move {
            assert!(results.next().now_or_never().is_none());
            slow(400).await;
            results
        };
        let mut results = map_ordered_window(items, TWO, FOUR, work, consume).await;
        assert_eq!(pulled.get(), 4);
        assert_eq!(results.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_end_the_call_when_the_consumer_returns_them() {
        let work = async |millis| if millis == 7 { Err("seven") } else { Ok(slow(millis).await) };
        let consume = |mut results: InOrder<Result<u64, _>>| async move {
            while let Some(result) = results.next().await {
                result?;
            }
            Ok(())
        };
        assert_eq!(map_ordered_window([1, 7, 60_000], TWO, FOUR, work, consume).await, Err("seven"));
        assert_eq!(map_ordered([1, 7], TWO, work).await, [Ok(1), Err("seven")]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_running_work() {
        let held = Rc::new(());
        let work = async |_| {
            let _held = held.clone();
            std::future::pending::<()>().await;
        };
        assert!(map_ordered(0..9, TWO, work).now_or_never().is_none());
        assert!(map_ordered_window(0..9, TWO, FOUR, work, all).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let call = map_ordered(0..9, TWO, async |item| assert_ne!(item, 5));
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        let call = map_ordered_window(0..9, TWO, FOUR, async |item| assert_ne!(item, 5), all);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test]
    async fn order_holds_in_a_spawned_task_too() {
        assert_eq!(tokio::spawn(map_ordered(0..3, NonZeroUsize::MAX, async |i| i)).await.unwrap(), [0, 1, 2]);
        let call = map_ordered_window(0..3, TWO, NonZeroUsize::MAX, async |i| i, all);
        assert_eq!(tokio::spawn(call).await.unwrap(), [0, 1, 2]);
    }
}
