//! Turn a source of batches into a stream of its items: with a macro, by `unfold`, or by hand.
//!
//! Use it for what Python writes as `async def … yield`: each function here is the same generator in another style, to
//! copy and to change. When a batch is a page with a cursor to the next one, use `paginate`.
//!
//! | | |
//! |---|---|
//! | Order | batches are read one after another; items come in the order of their batch |
//! | Errors | the first one is the last item; the items before it have all been handed out |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream drops the running read, `read` and the rest of the batch: destructors run, a cleanup that awaits does not |
//! | Panics | a panic of `read` is the consumer's panic; the stream is then not to be polled again |
//! | Memory | O(batch): the rest of one batch, and no other is read before it is used up |
//! | Backpressure | nothing is read unless the consumer asks for an item that is not there |
//! | Clock | none of its own |
//!
//! All three drop `read` as soon as the stream has ended, then say `None` for ever, and give way to other tasks after 128
//! batches that were ready at once.
//!
//! ```
//! use futures::TryStreamExt;
//! use streams::by_macro;
//!
//! #[tokio::main]
//! async fn main() {
//!     let mut batches = [vec![1, 2], vec![3], vec![]].into_iter();
//!     let items = by_macro(|| std::future::ready(batches.next().ok_or("no batch")));
//!     assert_eq!(items.try_collect::<Vec<_>>().await, Ok(vec![1, 2, 3]));
//! }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use async_stream::try_stream;
use futures::future::OptionFuture;
use futures::stream::{Stream, try_unfold};
use tokio::task::coop::{consume_budget, poll_proceed};

/// By the macro of `async-stream`: reads as a loop with `yield` in it. An empty batch is the end.
///
/// The stream has no name and must be pinned before use: `std::pin::pin!` or `StreamExt::boxed`.
pub fn by_macro<T, E, F>(mut read: impl FnMut() -> F) -> impl Stream<Item = Result<T, E>>
where
    F: Future<Output = Result<Vec<T>, E>>,
{
    try_stream! {
        loop {
            consume_budget().await;
            let batch = read().await?;
            if batch.is_empty() {
                break;
            }
            for item in batch {
                yield item;
            }
        }
    }
}

/// By `unfold`: one step from state to item, which hands the state on. An empty batch is the end.
///
/// No macro and no type of its own. The stream has no name and must be pinned before use.
pub fn by_unfold<T, E, F>(read: impl FnMut() -> F) -> impl Stream<Item = Result<T, E>>
where
    F: Future<Output = Result<Vec<T>, E>>,
{
    try_unfold((read, Vec::new().into_iter()), |(mut read, mut batch)| async move {
        if batch.len() == 0 {
            consume_budget().await;
            batch = read().await?.into_iter();
        }
        Ok(batch.next().map(|item| (item, (read, batch))))
    })
}

/// By hand: a type with a name, which need not be pinned and hands out a waiting item without a state machine in between.
/// An empty batch is the end.
pub fn by_hand<T, E, R, F>(read: R) -> Items<T, R, F>
where
    R: FnMut() -> F,
    F: Future<Output = Result<Vec<T>, E>>,
{
    Items { read: Some(read), reading: Box::pin(None.into()), batch: Vec::new().into_iter() }
}

/// The stream that [`by_hand`] returns. Dropping it drops the running read and the items that wait.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Items<T, R, F> {
    /// `None` when the stream has ended.
    read: Option<R>,
    /// Pinned on the heap once; each read takes the place of the one before.
    reading: Pin<Box<OptionFuture<F>>>,
    batch: vec::IntoIter<T>,
}

/// Only the future is ever pinned, and that is on the heap.
impl<T, R, F> Unpin for Items<T, R, F> {}

impl<T, E, R, F> Stream for Items<T, R, F>
where
    R: FnMut() -> F,
    F: Future<Output = Result<Vec<T>, E>>,
{
    type Item = Result<T, E>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(item) = this.batch.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            let Some(read) = &mut this.read else { return Poll::Ready(None) };
            let budget = ready!(poll_proceed(context));
            let Some(result) = ready!(this.reading.as_mut().poll(context)) else {
                this.reading.set(Some(read()).into());
                continue;
            };
            budget.made_progress();
            this.reading.set(None.into());
            match result {
                Ok(batch) if !batch.is_empty() => this.batch = batch.into_iter(),
                Ok(_) => this.read = None,
                Err(error) => {
                    this.read = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::stream::LocalBoxStream;
    use futures::{FutureExt, StreamExt};
    use tokio::time::sleep;

    use super::*;

    type Read = Box<dyn FnMut() -> futures::future::LocalBoxFuture<'static, Result<Vec<u32>, &'static str>>>;

    /// The three generators over the same reads.
    fn all(read: impl Fn() -> Read) -> [LocalBoxStream<'static, Result<u32, &'static str>>; 3] {
        [by_macro(read()).boxed_local(), by_unfold(read()).boxed_local(), by_hand(read()).boxed_local()]
    }

    /// Reads these batches, 10 ms each, and then fails.
    fn reads(batches: &'static [&'static [u32]], held: &Rc<Cell<usize>>) -> impl Fn() -> Read {
        let held = held.clone();
        move || {
            let (mut batches, held) = (batches.iter(), held.clone());
            Box::new(move || {
                held.set(held.get() + 1);
                let (batch, held) = (batches.next().map(|batch| batch.to_vec()), held.clone());
                async move {
                    sleep(Duration::from_millis(10)).await;
                    held.set(held.get() - 1);
                    batch.ok_or("no more")
                }
                .boxed_local()
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_batches_and_the_end_stays() {
        for mut items in all(reads(&[&[1, 2], &[3], &[], &[4]], &Rc::default())) {
            assert_eq!(items.by_ref().collect::<Vec<_>>().await, [Ok(1), Ok(2), Ok(3)]);
            assert_eq!(items.next().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_come_last() {
        for mut items in all(reads(&[&[1, 2]], &Rc::default())) {
            assert_eq!(items.by_ref().collect::<Vec<_>>().await, [Ok(1), Ok(2), Err("no more")]);
            assert_eq!(items.next().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_runs_destructors_and_no_more() {
        let (dropped, after) = (Rc::new(()), Rc::new(Cell::new(false)));
        let (guard, cleanup) = (dropped.clone(), after.clone());
        let streams = all(move || {
            let (guard, cleanup) = (guard.clone(), cleanup.clone());
            Box::new(move || {
                let (guard, cleanup) = (guard.clone(), cleanup.clone());
                async move {
                    let _guard = guard;
                    sleep(Duration::from_millis(10)).await;
                    cleanup.set(true);
                    Ok(vec![1])
                }
                .boxed_local()
            })
        });
        for mut items in streams {
            assert!(items.next().now_or_never().is_none());
            drop(items);
        }
        assert_eq!((Rc::strong_count(&dropped), after.get()), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_next_loses_nothing_and_the_end_drops_the_source() {
        let held = Rc::new(Cell::new(0));
        for mut items in all(reads(&[&[1, 2], &[]], &held)) {
            assert!(items.next().now_or_never().is_none());
            assert_eq!(items.by_ref().collect::<Vec<_>>().await, [Ok(1), Ok(2)]);
            assert_eq!((Rc::strong_count(&held), held.get()), (1, 0));
        }
    }

    #[tokio::test]
    async fn panics_are_the_consumers() {
        for mut items in all(|| Box::new(|| async { panic!("no batch") }.boxed_local())) {
            assert!(AssertUnwindSafe(items.next()).catch_unwind().await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_batch_and_backpressure_is_the_consumer() {
        let reads = Rc::new(Cell::new(0));
        let counted = reads.clone();
        let streams = all(move || {
            let reads = counted.clone();
            Box::new(move || {
                reads.set(reads.get() + 1);
                futures::future::ok(vec![7; 3]).boxed_local()
            })
        });
        for mut items in streams {
            reads.set(0);
            for (taken, read) in [(0, 0), (1, 1), (2, 1), (1, 2)] {
                assert_eq!(items.by_ref().take(taken).count().await, taken);
                assert_eq!(reads.get(), read);
            }
        }
    }

    #[tokio::test]
    async fn backpressure_gives_way_to_other_tasks_and_the_stream_is_send() {
        let endless = || std::future::ready(Ok::<_, ()>(vec![7]));
        let streams = [by_macro(endless).boxed(), by_unfold(endless).boxed(), by_hand(endless).boxed()];
        for mut items in streams {
            let taking = tokio::spawn(async move { while items.next().await.is_some() {} });
            tokio::task::yield_now().await;
            taking.abort();
            assert!(taking.await.is_err_and(|error| error.is_cancelled()));
        }
    }
}
