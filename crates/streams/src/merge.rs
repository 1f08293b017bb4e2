//! Merge many streams into one, fairly, and say of each item where it comes from.
//!
//! Use it when items are to be used as they come, from however many sources: connections, tailed files, queues. When the
//! sources are sorted and the result must be too, see `ordered_merge`.
//!
//! | | |
//! |---|---|
//! | Order | round-robin: a source whose item was handed out goes behind all that are ready; each source keeps its own order |
//! | Errors | items are handed on as they are, a `Result` too: the key says which source failed, and the others go on |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream drops all sources |
//! | Panics | a source's panic is the consumer's panic; that source is dropped, and the others can still be read |
//! | Memory | O(sources): no item is held; a source is dropped when it ends |
//! | Backpressure | a source is polled when it is new, after an item of its own was taken, or when it was woken, and only while the consumer waits |
//! | Clock | none of its own |
//!
//! The work is done by [`SelectAll`], which is fair and never polls a source that has nothing to
//! say. Added are the keys, sources that need not be `Unpin`, and that a consumer of sources which are always ready gives
//! way to other tasks after 128 items.
//!
//! ```
//! use futures::{StreamExt, stream};
//! use streams::merge;
//!
//! #[tokio::main]
//! async fn main() {
//!     let merged = merge([("a", stream::iter(vec![1, 2, 3])), ("b", stream::iter(vec![7]))]);
//!     assert_eq!(merged.collect::<Vec<_>>().await, [("a", 1), ("b", 7), ("a", 2), ("a", 3)]);
//! }
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::{SelectAll, Stream, StreamExt};
use tokio::task::coop::{has_budget_remaining, poll_proceed};

/// A stream of the items of many, each with its source's key. It ends when no source is left. Dropping it drops them all.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Merge<K, S> {
    sources: SelectAll<Source<K, S>>,
}

/// Merges `sources`, each with a key that is cloned for each of its items: a number, a name. Keys may be equal.
///
/// Streams of different types are merged after `StreamExt::boxed`.
pub fn merge<K: Clone, S: Stream>(sources: impl IntoIterator<Item = (K, S)>) -> Merge<K, S> {
    let mut merged = Merge { sources: SelectAll::new() };
    sources.into_iter().for_each(|(key, stream)| merged.push(key, stream));
    merged
}

impl<K: Clone, S: Stream> Merge<K, S> {
    /// Adds a source, behind those that are ready. A merged stream that has ended goes on with it.
    pub fn push(&mut self, key: K, stream: S) {
        self.sources.push(Source { key, stream: Box::pin(stream) });
    }

    /// How many sources have not ended, as far as is known.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether all sources have ended.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

impl<K: Clone, S: Stream> Stream for Merge<K, S> {
    type Item = (K, S::Item);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Looked at beforehand, and not taken: sources that find the budget spent lose their turns.
        drop(ready!(poll_proceed(context)));
        let next = ready!(self.sources.poll_next_unpin(context));
        if has_budget_remaining() {
            let _ = poll_proceed(context).map(|budget| budget.made_progress());
        }
        Poll::Ready(next)
    }
}

struct Source<K, S> {
    key: K,
    stream: Pin<Box<S>>,
}

/// The stream is pinned on the heap, and the key is never pinned.
impl<K, S> Unpin for Source<K, S> {}

impl<K: Clone, S: Stream> Stream for Source<K, S> {
    type Item = (K, S::Item);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.stream.as_mut().poll_next(context));
        Poll::Ready(item.map(|item| (self.key.clone(), item)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::{FutureExt, stream};
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn order_is_round_robin_between_sources_that_are_always_ready() {
        for sources in [2, 3, 4, 7, 64, 127, 128, 129, 1000] {
            let mut merged = merge((0..sources).map(|source| (source, stream::iter(0..))));
            let mut taken = vec![0; sources];
            for _ in 0..sources * 5 {
                let (source, item) = merged.next().await.unwrap();
                assert_eq!(item, taken[source]);
                taken[source] += 1;
            }
            assert_eq!(taken, vec![5; sources]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_time_otherwise_and_a_new_source_joins_in() {
        let every = |millis| {
            Box::pin(stream::unfold(0, move |n| {
                sleep(Duration::from_millis(millis)).map(move |()| Some((n, n + 1)))
            }))
        };
        let mut merged = merge([(30, every(30)), (20, every(20))]);
        assert_eq!((merged.next().await, merged.next().await), (Some((20, 0)), Some((30, 0))));
        merged.push(1, every(1));
        assert_eq!((merged.next().await, merged.next().await), (Some((1, 0)), Some((1, 1))));
    }

    #[tokio::test]
    async fn errors_name_their_source_and_end_nothing() {
        let merged = merge([("a", stream::iter(vec![Err("lost"), Ok(1)])), ("b", stream::iter(vec![Ok(7)]))]);
        assert_eq!(merged.collect::<Vec<_>>().await, [("a", Err("lost")), ("b", Ok(7)), ("a", Ok(1))]);
    }

    #[tokio::test]
    async fn cancellation_of_next_loses_nothing_and_of_the_stream_drops_the_sources() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut merged = merge([((), stream::unfold(receiver, async |mut it| Some((it.recv().await?, it))))]);
        for number in 0..9 {
            assert!(merged.next().now_or_never().is_none());
            sender.send(number).unwrap();
            assert_eq!(merged.next().await, Some(((), number)));
        }
        drop(merged);
        assert!(sender.is_closed());
    }

    #[tokio::test]
    async fn panics_end_their_source_only() {
        let panics = stream::once(async { panic!("lost") }).boxed();
        let mut merged = merge([('a', panics), ('b', stream::iter(vec![1]).boxed())]);
        assert!(AssertUnwindSafe(merged.next()).catch_unwind().await.is_err());
        assert_eq!((merged.next().await, merged.next().await), (Some(('b', 1)), None));
    }

    #[tokio::test]
    async fn memory_holds_no_item_and_an_ended_source_is_dropped() {
        let held = Rc::new(());
        let pulled = Cell::new(0);
        let source = |items| {
            let (held, pulled) = (held.clone(), &pulled);
            stream::iter(0..items).inspect(move |_| {
                let _ = &held;
                pulled.set(pulled.get() + 1);
            })
        };
        let mut merged = merge([(0, source(1)), (1, source(2))]);
        assert_eq!((merged.len(), Rc::strong_count(&held)), (2, 3));
        assert_eq!((merged.next().await, pulled.get()), (Some((0, 0)), 1));
        assert_eq!(merged.by_ref().count().await, 2);
        assert!(merged.is_empty() && Rc::strong_count(&held) == 1);
        merged.push(2, source(1));
        assert_eq!((merged.next().await, merged.next().await), (Some((2, 0)), None));
    }

    #[tokio::test]
    async fn backpressure_only_sources_that_were_woken_are_polled() {
        let polls = Cell::new(0);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..100_000).map(|_| mpsc::unbounded_channel()).unzip();
        let polls = &polls;
        let sources = receivers.into_iter().map(|mut receiver| {
            stream::poll_fn(move |context| {
                polls.set(polls.get() + 1);
                receiver.poll_recv(context)
            })
        });
        let mut merged = merge(sources.enumerate());
        assert!(merged.next().now_or_never().is_none());
        assert_eq!(polls.replace(0), 100_000);
        for round in 0..100 {
            senders[round * 7].send(round).unwrap();
            assert_eq!(merged.next().await, Some((round * 7, round)));
        }
        // One for the item; another, when the next is asked for, finds nothing.
        assert_eq!(polls.get(), 199);
    }

    #[tokio::test]
    async fn backpressure_gives_way_to_other_tasks_and_the_stream_is_send() {
        let mut merged = merge([(1, stream::repeat(0)), (2, stream::repeat(0))]);
        let taking = tokio::spawn(async move { while merged.next().await.is_some() {} });
        tokio::task::yield_now().await;
        taking.abort();
        assert!(taking.await.is_err_and(|error| error.is_cancelled()));
    }
}
