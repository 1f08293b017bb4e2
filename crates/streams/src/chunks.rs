//! Turn a stream of items into chunks: so many, or what came so long after the first one.
//!
//! Use it where one large write is cheaper than many small ones and the items come out of a stream. Out of a channel,
//! `batcher` receives many at a time, which is cheaper still, and it also counts bytes.
//!
//! | | |
//! |---|---|
//! | Order | items keep the order of the stream, within a chunk and across chunks |
//! | Errors | none of its own; an item that is an error is an item like any other |
//! | Cancellation | dropping the future of `next` loses nothing: the items stay here, and their delay runs on; dropping the stream drops them, [`into_parts`](Chunks::into_parts) gives them back |
//! | Panics | a panic of the stream is the caller's panic, and loses no item |
//! | Memory | O(items): the chunk in the making, with room for as many items as the one before it had |
//! | Backpressure | while nobody polls, nothing is taken from the stream |
//! | Clock | `tokio::time`: a chunk waits at most `delay` from when its first item was taken, also when the stream always has one more item |
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use futures::{StreamExt, stream};
//!
//! #[tokio::main]
//! async fn main() {
//!     let two = NonZeroUsize::new(2).unwrap();
//!     let chunks = streams::chunks(stream::iter([1, 2, 3]), two, Duration::from_millis(5));
//!     assert_eq!(chunks.collect::<Vec<_>>().await, [vec![1, 2], vec![3]]);
//! }
//! ```

use std::future::Future;
use std::mem;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, Sleep, sleep_until};

/// Longer than any program runs, and still an instant that exists.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// After so many items out of one chunk other tasks have their turn, and the clock is looked at.
const LOOK: usize = 64;

/// The chunks of a stream: see [`chunks`]. No chunk is empty. After the end it may be polled again, and is still at its end.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Chunks<S: Stream> {
    stream: S,
    ended: bool,
    items: usize,
    delay: Duration,
    chunk: Vec<S::Item>,
    /// How many items the last chunk had.
    usual: usize,
    /// When `chunk` is handed out, unless it is empty.
    due: Instant,
    /// One timer for all chunks. Most are full before it is needed.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Chunks of at most `items`, each handed out at the latest `delay` after its first item was taken from `stream`. With a
/// delay of zero nothing is waited for.
///
/// A stream that is not `Unpin` is passed as `std::pin::pin!(stream)` or `Box::pin(stream)`.
///
/// # Panics
///
/// When polled, if a chunk has to wait for its delay outside a Tokio runtime with a timer.
pub fn chunks<S: Stream + Unpin>(stream: S, items: NonZeroUsize, delay: Duration) -> Chunks<S> {
    Chunks {
        stream,
        ended: false,
        items: items.get(),
        delay: delay.min(FOR_EVER),
        chunk: Vec::new(),
        usual: 0,
        due: Instant::now(),
        timer: None,
    }
}

impl<S: Stream> Chunks<S> {
    /// Gives back the stream and the items that were taken from it and not handed out.
    pub fn into_parts(self) -> (S, Vec<S::Item>) {
        (self.stream, self.chunk)
    }
}

// No item is ever pinned.
impl<S: Stream + Unpin> Unpin for Chunks<S> {}

impl<S: Stream + Unpin> Stream for Chunks<S> {
    type Item = Vec<S::Item>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.ended && this.chunk.len() < this.items {
            // A stream that is always ready must keep neither the thread nor the chunk.
            if this.chunk.len().is_multiple_of(LOOK) {
                if !this.chunk.is_empty() && Instant::now() >= this.due {
                    break;
                }
                ready!(poll_proceed(context)).made_progress();
            }
            match this.stream.poll_next_unpin(context) {
                Poll::Ready(Some(item)) => {
                    if this.chunk.is_empty() {
                        this.chunk.reserve_exact(this.usual);
                        this.due = Instant::now() + this.delay;
                    }
                    this.chunk.push(item);
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Pending if this.chunk.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    ready!(this.poll_due(context));
                    break;
                }
            }
        }
        if this.chunk.is_empty() {
            return Poll::Ready(None);
        }
        this.usual = this.chunk.len();
        Poll::Ready(Some(mem::take(&mut this.chunk)))
    }
}

impl<S: Stream + Unpin> Chunks<S> {
    /// Ready when the chunk is due; otherwise the task is woken then.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.delay.is_zero() {
            return Poll::Ready(());
        }
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(timer.as_mut().poll(context));
        // It ran out for an earlier chunk. Only now is it worth moving.
        if timer.deadline() < due {
            timer.as_mut().reset(due);
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures::{FutureExt, stream};
    use tokio::time::{advance, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    const DELAY: Duration = Duration::from_millis(50);

    /// The numbers from 1, each so many milliseconds after the one before it.
    fn numbers(pauses: &[u64]) -> impl Stream<Item = usize> + Unpin + '_ {
        let numbers = stream::iter(pauses).enumerate().then(async |(number, pause)| {
            sleep(Duration::from_millis(*pause)).await;
            number + 1
        });
        Box::pin(numbers)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_and_the_end_flushes_at_once() {
        let start = Instant::now();
        let mut chunks = chunks(stream::iter(0..5), TWO, DELAY);
        assert_eq!(chunks.by_ref().collect::<Vec<_>>().await, [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!((chunks.next().await, start.elapsed()), (None, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_runs_from_the_first_item() {
        let start = Instant::now();
        let mut chunks = chunks(numbers(&[20; 9]), TEN, DELAY);
        // The first at 20 ms: two more come before 70 ms. An item at every 20 ms moves no deadline.
        for (expected, at) in [(vec![1, 2, 3], 70), (vec![4, 5, 6], 130), (vec![7, 8, 9], 180)] {
            assert_eq!(chunks.next().await, Some(expected));
            assert_eq!(start.elapsed(), Duration::from_millis(at));
        }
        assert_eq!(chunks.next().await, None);
    }

    /// Not paused: a timer of zero would then be ready at once, which it is not in earnest.
    #[tokio::test]
    async fn clock_of_zero_and_of_for_ever() {
        let there = || stream::iter(1..4).chain(stream::pending());
        assert_eq!(chunks(there(), TEN, Duration::ZERO).next().now_or_never(), Some(Some(vec![1, 2, 3])));
        let mut waiting = chunks(there(), NonZeroUsize::MAX, Duration::MAX);
        assert_eq!(waiting.next().now_or_never(), None);
        assert_eq!(waiting.into_parts().1, [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_keeps_the_items_and_their_deadline() {
        let mut chunks = chunks(numbers(&[0, 60, 20, 500]), TEN, DELAY * 2);
        advance(Duration::from_millis(1)).await;
        let start = Instant::now();
        assert_eq!(chunks.next().now_or_never(), None);
        assert_eq!(tokio::time::timeout(Duration::from_millis(70), chunks.next()).await.ok(), None);
        assert_eq!(chunks.next().await, Some(vec![1, 2, 3]));
        assert_eq!(start.elapsed(), DELAY * 2);
        assert_eq!(chunks.next().now_or_never(), None);
        let (mut rest, taken) = chunks.into_parts();
        assert_eq!((taken, rest.next().await), (vec![], Some(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_stream_lose_no_item() {
        let numbers = stream::iter(1..6).inspect(|number| assert_ne!(*number, 3));
        let mut chunks = chunks(numbers, TEN, DELAY);
        assert!(catch_unwind(AssertUnwindSafe(|| chunks.next().now_or_never())).is_err());
        assert_eq!(chunks.next().await, Some(vec![1, 2, 4, 5]));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_a_small_chunk_is_small_though_the_limit_is_high() {
        let mut chunks = chunks(numbers(&[0, 0, 0, 99]), NonZeroUsize::MAX, DELAY);
        let (first, second) = (chunks.next().await.unwrap(), chunks.next().await.unwrap());
        assert_eq!((first.len(), second.len()), (3, 1));
        assert!(first.capacity() <= 4 && second.capacity() <= 4);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_takes_no_more_than_a_chunk() {
        let taken = std::cell::Cell::new(0);
        let mut chunks = chunks(stream::repeat(1).inspect(|_| taken.set(taken.get() + 1)), TEN, DELAY);
        assert_eq!((chunks.next().await.map(|chunk| chunk.len()), taken.get()), (Some(10), 10));
    }
}
