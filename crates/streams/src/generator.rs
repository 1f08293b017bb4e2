//! Turn a source that is read in batches into a stream of items: with a macro, by `unfold`, or by hand.
//!
//! Use it for what Python writes as `async def … yield`: each function here is the same generator in another style, to
//! copy and to change. When a batch is a page that names the next one, `paginate` also reads ahead.
//!
//! | | |
//! |---|---|
//! | Order | batches are read one after another; items come in the order of their batch |
//! | Errors | the first one is the last item, behind all items that were read before it |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream drops the running read, the source and the rest of the batch: destructors run, a cleanup that awaits does not |
//! | Panics | a panic of `read` is the consumer's panic; the stream is then not to be polled again |
//! | Memory | O(batch): the rest of one batch; the next one is read when it is used up |
//! | Backpressure | nothing is read unless the consumer asks for an item that is not there |
//! | Clock | none of its own |
//!
//! All three end when `read` returns `None` or an error, drop the source then, and say `None` from there on. They give way
//! to other tasks after 128 batches that were ready at once.
//!
//! ```
//! use futures::TryStreamExt;
//! use streams::by_macro;
//!
//! #[tokio::main]
//! async fn main() {
//!     let countdown = by_macro(3, async |n: u32| Ok::<_, String>((n > 0).then(|| (vec![n; 2], n - 1))));
//!     assert_eq!(countdown.try_collect::<Vec<_>>().await, Ok(vec![3, 3, 2, 2, 1, 1]));
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

/// By the macro of `async-stream`: reads as a loop with `yield` in it.
///
/// `read` takes the source and gives it back with the next batch, so that its future may borrow from it; `None` is the
/// end. The stream has no name and must be pinned before use: `std::pin::pin!` or `StreamExt::boxed`.
pub fn by_macro<S, T, E, F>(source: S, mut read: impl FnMut(S) -> F) -> impl Stream<Item = Result<T, E>>
where
    F: Future<Output = Result<Option<(Vec<T>, S)>, E>>,
{
    try_stream! {
        let mut source = source;
        loop {
            consume_budget().await;
            let Some((batch, next)) = read(source).await? else { break };
            source = next;
            for item in batch {
                yield item;
            }
        }
    }
}

/// By `unfold`: one step from state to item, which hands the state on. The rest as for [`by_macro`], without a macro.
pub fn by_unfold<S, T, E, F>(source: S, read: impl FnMut(S) -> F) -> impl Stream<Item = Result<T, E>>
where
    F: Future<Output = Result<Option<(Vec<T>, S)>, E>>,
{
    let state = (source, read, Vec::new().into_iter());
    try_unfold(state, |(mut source, mut read, mut batch)| async move {
        loop {
            if let Some(item) = batch.next() {
                return Ok(Some((item, (source, read, batch))));
            }
            consume_budget().await;
            let Some((items, next)) = read(source).await? else { return Ok(None) };
            (source, batch) = (next, items.into_iter());
        }
    })
}

/// By hand: a type with a name, which need not be pinned, and hands out a waiting item without resuming a future.
pub fn by_hand<S, T, E, R, F>(source: S, read: R) -> Items<S, T, R, F>
where
    R: FnMut(S) -> F,
    F: Future<Output = Result<Option<(Vec<T>, S)>, E>>,
{
    Items { source: Some(source), read, reading: Box::pin(None.into()), batch: Vec::new().into_iter() }
}

/// The stream that [`by_hand`] returns. Dropping it drops the source, the running read and the items that wait.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Items<S, T, R, F> {
    /// `None` while a read has it, and at the end.
    source: Option<S>,
    read: R,
    /// Pinned on the heap once; each read takes the place of the one before. None is there at the end.
    reading: Pin<Box<OptionFuture<F>>>,
    batch: vec::IntoIter<T>,
}

/// Only the future is ever pinned, and that is on the heap.
impl<S, T, R, F> Unpin for Items<S, T, R, F> {}

impl<S, T, E, R, F> Stream for Items<S, T, R, F>
where
    R: FnMut(S) -> F,
    F: Future<Output = Result<Option<(Vec<T>, S)>, E>>,
{
    type Item = Result<T, E>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(item) = this.batch.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            match ready!(this.poll_batch(context)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<S, T, E, R, F> Items<S, T, R, F>
where
    R: FnMut(S) -> F,
    F: Future<Output = Result<Option<(Vec<T>, S)>, E>>,
{
    /// Reads the next batch. A function of its own, so that the compiler can inline what is done for each item.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), E>>> {
        if let Some(source) = self.source.take() {
            self.reading.set(Some((self.read)(source)).into());
        }
        let budget = ready!(poll_proceed(context));
        let result = ready!(self.reading.as_mut().poll(context));
        budget.made_progress();
        self.reading.set(None.into());
        Poll::Ready(match result {
            Some(Ok(Some((batch, source)))) => {
                self.batch = batch.into_iter();
                self.source = Some(source);
                Some(Ok(()))
            }
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(None)) | None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::future::LocalBoxFuture;
    use futures::stream::LocalBoxStream;
    use futures::{FutureExt, StreamExt};
    use tokio::time::sleep;

    use super::*;

    type Batch = Result<Option<(Vec<u32>, u32)>, &'static str>;

    /// The three generators over the same source: `read` makes of 0 the first batch and 1, and so on.
    fn all<F>(
        read: impl Fn(u32) -> F + Clone + 'static,
    ) -> [LocalBoxStream<'static, Result<u32, &'static str>>; 3]
    where
        F: Future<Output = Batch> + 'static,
    {
        let read = move |source| -> LocalBoxFuture<'static, Batch> { Box::pin(read(source)) };
        let by_macro = by_macro(0, read.clone()).boxed_local();
        [by_macro, by_unfold(0, read.clone()).boxed_local(), by_hand(0, read).boxed_local()]
    }

    /// The numbers up to `source`, after 10 ms; three times.
    async fn numbers(source: u32) -> Batch {
        sleep(Duration::from_millis(10)).await;
        Ok((source < 3).then(|| ((0..source).collect(), source + 1)))
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_batches_and_the_end_stays() {
        for mut items in all(numbers) {
            assert_eq!(items.by_ref().collect::<Vec<_>>().await, [Ok(0), Ok(0), Ok(1)]);
            assert_eq!(items.next().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_come_last() {
        for mut items in all(async |source| if source == 2 { Err("lost") } else { numbers(source).await }) {
            assert_eq!(items.by_ref().collect::<Vec<_>>().await, [Ok(0), Err("lost")]);
            assert_eq!(items.next().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_runs_destructors_and_no_more() {
        let (held, cleaned_up) = (Rc::new(()), Rc::new(Cell::new(false)));
        let (guard, cleanup) = (held.clone(), cleaned_up.clone());
        let streams = all(move |source| {
            let (guard, cleanup) = (guard.clone(), cleanup.clone());
            async move {
                let _guard = guard;
                let batch = numbers(source).await;
                cleanup.set(true);
                batch
            }
        });
        for mut items in streams {
            assert!(items.next().now_or_never().is_none());
        }
        assert_eq!((Rc::strong_count(&held), cleaned_up.get()), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_next_loses_nothing_and_the_end_drops_the_source() {
        let read = async |(left, held): (u32, Rc<()>)| {
            sleep(Duration::from_millis(10)).await;
            Ok::<_, ()>((left > 0).then(|| (vec![left], (left - 1, held))))
        };
        let held = Rc::new(());
        let mut streams = [
            by_macro((2, held.clone()), read).boxed_local(),
            by_unfold((2, held.clone()), read).boxed_local(),
            by_hand((2, held.clone()), read).boxed_local(),
        ];
        for items in &mut streams {
            assert!(items.next().now_or_never().is_none());
            assert_eq!(items.collect::<Vec<_>>().await, [Ok(2), Ok(1)]);
        }
        assert_eq!((Rc::strong_count(&held), streams.len()), (1, 3));
    }

    #[tokio::test]
    async fn panics_are_the_consumers() {
        for mut items in all(async |_| panic!("no batch")) {
            assert!(AssertUnwindSafe(items.next()).catch_unwind().await.is_err());
        }
    }

    #[tokio::test]
    async fn memory_is_one_batch_and_backpressure_is_the_consumer() {
        let reads = Rc::new(Cell::new(0));
        let counted = reads.clone();
        let streams = all(move |source| {
            counted.set(counted.get() + 1);
            futures::future::ok(Some((vec![7; 3], source + 1)))
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
        let read = async |source: ()| Ok::<_, ()>(Some((vec![7], source)));
        for mut items in [by_macro((), read).boxed(), by_unfold((), read).boxed(), by_hand((), read).boxed()]
        {
            let taking = tokio::spawn(async move { while items.next().await.is_some() {} });
            tokio::task::yield_now().await;
            taking.abort();
            assert!(taking.await.is_err_and(|error| error.is_cancelled()));
        }
    }
}
