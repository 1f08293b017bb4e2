//! Merge sorted streams into one sorted stream, with one item of each in memory.
//!
//! Use it for logs by time, sorted files, shards of an index. It waits for the slowest source, because its next item may be
//! the smallest; where order does not matter use `merge`.
//!
//! | | |
//! |---|---|
//! | Order | by key; of equal keys the source that was given first comes first; each source keeps its own order |
//! | Errors | a source's error comes where its item would, at once after the item before it, and ends the stream; an item that sorts before the one ahead of it in its source is such an error |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream drops all sources and the item of each that waits |
//! | Panics | a panic of `key` or of a source is the consumer's panic; the stream is then not to be polled again |
//! | Memory | O(sources): one item and its key for each; a source is dropped when it ends |
//! | Backpressure | all sources are asked for their first item together; then only the one whose item was handed out, when the consumer wants another |
//! | Clock | none of its own |
//!
//! An item costs O(log sources) comparisons, and one comparison where it comes from the same source as the one before it.
//!
//! ```
//! use futures::{StreamExt, TryStreamExt, stream};
//! use streams::ordered_merge;
//!
//! #[tokio::main]
//! async fn main() {
//!     let sources = [vec![1, 4, 5], vec![2, 4]].map(|source| stream::iter(source).map(Ok::<i32, String>));
//!     let merged = ordered_merge(sources, |item| *item);
//!     assert_eq!(merged.try_collect::<Vec<_>>().await, Ok(vec![(0, 1), (1, 2), (0, 4), (1, 4), (0, 5)]));
//! }
//! ```

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::{FuturesUnordered, Stream, StreamExt, StreamFuture};
use tokio::task::coop::poll_proceed;

/// Why the stream ended before its sources. The items that waited are dropped with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderedMergeError<T, E> {
    /// A source returned an error.
    #[error("source {index} failed")]
    Failed {
        /// The source's place in the input, from 0.
        index: usize,
        /// What it returned.
        #[source]
        error: E,
    },
    /// A source is not sorted.
    #[error("source {index} is not sorted: an item sorts before the one ahead of it")]
    Unsorted {
        /// The source's place in the input, from 0.
        index: usize,
        /// The item that came too late.
        item: T,
    },
}

/// The sorted stream of all items, each with its source's place in the input. Dropping it drops the sources.
#[must_use = "a stream does nothing unless it is polled"]
pub struct OrderedMerge<S, T, K, F> {
    key: F,
    /// Sources whose first item is not there yet.
    starting: FuturesUnordered<StreamFuture<Source<S>>>,
    /// The next item of every other source but one.
    heads: BinaryHeap<Head<S, T, K>>,
    /// The source whose item was handed out last, and that item's key.
    last: Option<(Source<S>, K)>,
}

/// Merges `sources`, of which each must be sorted by `key`, smallest first.
///
/// `key` is called once for each item. For the opposite order wrap the key in [`std::cmp::Reverse`].
pub fn ordered_merge<S, T, E, K, F>(sources: impl IntoIterator<Item = S>, key: F) -> OrderedMerge<S, T, K, F>
where
    S: Stream<Item = Result<T, E>>,
    K: Ord,
    F: FnMut(&T) -> K,
{
    let sources = sources.into_iter().enumerate();
    let starting =
        sources.map(|(index, stream)| Source { index, stream: Box::pin(stream) }.into_future()).collect();
    OrderedMerge { key, starting, heads: BinaryHeap::new(), last: None }
}

/// What is pinned, is pinned on the heap.
impl<S, T, K, F> Unpin for OrderedMerge<S, T, K, F> {}

impl<S, T, E, K, F> Stream for OrderedMerge<S, T, K, F>
where
    S: Stream<Item = Result<T, E>>,
    K: Ord,
    F: FnMut(&T) -> K,
{
    type Item = Result<(usize, T), OrderedMergeError<T, E>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.starting.is_empty() {
            let budget = ready!(poll_proceed(context));
            let first = ready!(this.starting.poll_next_unpin(context));
            budget.made_progress();
            match first {
                Some((Some(Ok(item)), source)) => {
                    this.heads.push(Head { key: (this.key)(&item), item, source });
                }
                Some((Some(Err(error)), source)) => {
                    return this.end(OrderedMergeError::Failed { index: source.index, error });
                }
                _ => {}
            }
        }
        let budget = ready!(poll_proceed(context));
        let refilled = match &mut this.last {
            Some((source, _)) => ready!(source.poll_next_unpin(context)),
            None => None,
        };
        budget.made_progress();
        let head = match (refilled, this.last.take()) {
            (Some(Ok(item)), Some((source, last))) => {
                let key = (this.key)(&item);
                if key < last {
                    return this.end(OrderedMergeError::Unsorted { index: source.index, item });
                }
                Some(this.first_of(Head { key, item, source }))
            }
            (Some(Err(error)), Some((source, _))) => {
                return this.end(OrderedMergeError::Failed { index: source.index, error });
            }
            _ => this.heads.pop(),
        };
        Poll::Ready(head.map(|Head { key, item, source }| {
            let index = source.index;
            this.last = Some((source, key));
            Ok((index, item))
        }))
    }
}

impl<S, T, K: Ord, F> OrderedMerge<S, T, K, F> {
    /// The smallest of `head` and the heads in the heap, where the other one stays.
    fn first_of(&mut self, mut head: Head<S, T, K>) -> Head<S, T, K> {
        match self.heads.peek_mut() {
            Some(mut top) if *top > head => mem::swap(&mut *top, &mut head),
            _ => {}
        }
        head
    }

    fn end<I, E>(&mut self, error: E) -> Poll<Option<Result<I, E>>> {
        self.starting.clear();
        self.heads.clear();
        Poll::Ready(Some(Err(error)))
    }
}

struct Source<S> {
    index: usize,
    stream: Pin<Box<S>>,
}

impl<S: Stream> Stream for Source<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

/// An item that waits for those before it. The greatest is the one that comes first, for a heap hands out the greatest.
struct Head<S, T, K> {
    key: K,
    item: T,
    source: Source<S>,
}

impl<S, T, K: Ord> Ord for Head<S, T, K> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key).then_with(|| other.source.index.cmp(&self.source.index))
    }
}

impl<S, T, K: Ord> PartialOrd for Head<S, T, K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S, T, K: Ord> PartialEq for Head<S, T, K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<S, T, K: Ord> Eq for Head<S, T, K> {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::stream::BoxStream;
    use futures::{FutureExt, TryStreamExt, stream};
    use tokio::time::{Instant, sleep};

    use super::*;

    type Item = Result<u64, &'static str>;

    /// Its items after so many milliseconds each.
    fn slow(millis: u64, items: &[Item]) -> BoxStream<'static, Item> {
        let wait = move |item| sleep(Duration::from_millis(millis)).map(move |()| item);
        stream::iter(items.to_vec()).then(wait).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_by_key_then_by_source() {
        let sources = [slow(30, &[Ok(10), Ok(11), Ok(40)]), slow(1, &[]), slow(2, &[Ok(12), Ok(20), Ok(21)])];
        let merged: Vec<_> = ordered_merge(sources, |item| item / 10).try_collect().await.unwrap();
        assert_eq!(merged, [(0, 10), (0, 11), (2, 12), (2, 20), (2, 21), (0, 40)]);
        let down = [stream::iter([Ok::<_, ()>(9), Ok(1)]), stream::iter([Ok(5), Ok(5)])];
        let merged: Vec<_> = ordered_merge(down, |item| Reverse(*item)).try_collect().await.unwrap();
        assert_eq!(merged, [(0, 9), (1, 5), (1, 5), (0, 1)]);
    }

    #[tokio::test]
    async fn errors_come_in_place_of_the_item_and_end_the_stream() {
        let sources = [slow(0, &[Ok(1), Err("lost"), Ok(2)]), slow(0, &[Ok(1), Ok(9)])];
        let merged: Vec<_> = ordered_merge(sources, |item| *item).collect().await;
        assert_eq!(merged, [Ok((0, 1)), Err(OrderedMergeError::Failed { index: 0, error: "lost" })]);
        let mut merged = ordered_merge([slow(0, &[Ok(1)]), slow(0, &[Err("lost")])], |item| *item);
        assert_eq!(merged.next().await, Some(Err(OrderedMergeError::Failed { index: 1, error: "lost" })));
        assert_eq!(merged.next().await, None);
    }

    #[tokio::test]
    async fn errors_tell_which_source_is_not_sorted() {
        let sources = [slow(0, &[Ok(1), Ok(7)]), slow(0, &[Ok(2), Ok(5), Ok(4), Ok(6)])];
        let mut merged = ordered_merge(sources, |item| *item);
        let sorted: Vec<_> = merged.by_ref().take(3).try_collect().await.unwrap();
        assert_eq!(sorted, [(0, 1), (1, 2), (1, 5)]);
        assert_eq!(merged.next().await, Some(Err(OrderedMergeError::Unsorted { index: 1, item: 4 })));
        assert_eq!(merged.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_next_loses_nothing() {
        let mut merged = ordered_merge([slow(3, &[Ok(1), Ok(3)]), slow(5, &[Ok(2)])], |item| *item);
        let mut all = Vec::new();
        loop {
            match merged.try_next().now_or_never() {
                Some(Ok(Some(item))) => all.push(item),
                Some(end) => break assert_eq!(end, Ok(None)),
                None => sleep(Duration::from_millis(1)).await,
            }
        }
        assert_eq!(all, [(0, 1), (1, 2), (0, 3)]);
    }

    #[tokio::test]
    async fn panics_are_the_consumers() {
        let mut merged = ordered_merge([slow(0, &[Ok(1)])], |item| assert_ne!(*item, 1));
        assert!(AssertUnwindSafe(merged.next()).catch_unwind().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_one_item_of_each_source_and_all_first_ones_together() {
        let (held, pulled) = (Rc::new(()), Cell::new(0));
        let (start, pulled) = (Instant::now(), &pulled);
        let source = |first: u64| {
            let held = held.clone();
            slow(10, &[Ok(first), Ok(first + 10)]).inspect(move |_| {
                let _ = &held;
                pulled.set(pulled.get() + 1);
            })
        };
        let mut merged = ordered_merge((0..9).map(source), |item| *item);
        assert_eq!(merged.next().await, Some(Ok((0, 0))));
        assert_eq!((start.elapsed(), pulled.get()), (Duration::from_millis(10), 9));
        assert_eq!(merged.next().await, Some(Ok((1, 1))));
        assert_eq!((start.elapsed(), pulled.get()), (Duration::from_millis(20), 10));
        assert_eq!(merged.by_ref().count().await, 16);
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn backpressure_gives_way_to_other_tasks_and_the_stream_is_send() {
        let endless = || stream::repeat(Ok::<_, ()>(0));
        let mut merged = ordered_merge([endless(), endless()], |item| *item);
        let taking = tokio::spawn(async move { while merged.next().await.is_some() {} });
        tokio::task::yield_now().await;
        taking.abort();
        assert!(taking.await.is_err_and(|error| error.is_cancelled()));
    }
}
