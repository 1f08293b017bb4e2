//! End a stream that stalls: a limit for the wait for each item, and one for the whole.
//!
//! Use it for downloads, query results and subscriptions, whose length says nothing about their health: as long as items
//! keep coming the stream is alive. For one answer use `timeout`.
//!
//! | | |
//! |---|---|
//! | Order | the stream's |
//! | Errors | [`Stalled`] says which limit ran out and after how many items; it is the last item, and the stream was dropped before it comes out |
//! | Cancellation | dropping the future of `next` loses no item and stops no clock: the wait counts on from when it began |
//! | Panics | a panic of the stream is the caller's panic |
//! | Memory | O(1): one timer |
//! | Backpressure | the consumer's: nothing is taken from the stream before it is asked for |
//! | Clock | `tokio::time`: `idle` counts from when the consumer began to wait for an item, so its own work does not count; `total` counts from the first poll, and there it does |
//!
//! ```
//! use std::time::Duration;
//! use futures::{StreamExt, stream};
//! use streams::{StallGuard, Stalled};
//!
//! #[tokio::main]
//! async fn main() {
//!     let stream = stream::iter([1, 2]).chain(stream::pending());
//!     let items: Vec<_> = StallGuard::new(stream, Duration::from_millis(5)).collect().await;
//!     assert_eq!(items, [Ok(1), Ok(2), Err(Stalled::Idle { limit: Duration::from_millis(5), items: 2 })]);
//! }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep_until};

/// Longer than any program runs, and still an instant that exists.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Which limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// The consumer waited for the next item for so long.
    #[error("the stream stalled: no item for {limit:?} (items so far: {items})")]
    Idle {
        /// The limit.
        limit: Duration,
        /// How many items came before.
        items: u64,
    },
    /// The stream had not come to its end when its time was up.
    #[error("the stream took longer than {limit:?} (items so far: {items})")]
    Total {
        /// The limit.
        limit: Duration,
        /// How many items came before.
        items: u64,
    },
}

/// A stream whose waits are limited.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct StallGuard<S> {
    /// `None` after its end, so that what it holds is free.
    stream: Option<S>,
    idle: Duration,
    total: Option<Duration>,
    /// When `total` runs out; known from the first poll on.
    end: Option<Instant>,
    /// Since when the consumer waits for an item.
    waiting: Option<Instant>,
    items: u64,
    /// One timer for all items. It is moved only when it has run out.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S: Stream + Unpin> StallGuard<S> {
    /// Ends `stream` with an error when the consumer has waited for an item for `idle`.
    ///
    /// A stream that is not `Unpin` is passed as `std::pin::pin!(stream)` or `Box::pin(stream)`.
    ///
    /// # Panics
    ///
    /// When polled, if an item is not there yet, outside a Tokio runtime with a timer.
    pub fn new(stream: S, idle: Duration) -> Self {
        StallGuard {
            stream: Some(stream),
            idle,
            total: None,
            end: None,
            waiting: None,
            items: 0,
            timer: None,
        }
    }

    /// Also ends it when it is not at its end `total` after it was first polled. It costs a look at the clock for each item.
    pub fn total(self, total: Duration) -> Self {
        StallGuard { total: Some(total), ..self }
    }
}

impl<S: Stream + Unpin> Stream for StallGuard<S> {
    type Item = Result<S::Item, Stalled>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if let (Some(total), None) = (this.total, this.end) {
            this.end = Some(Instant::now() + total.min(FOR_EVER));
        }
        match stream.poll_next_unpin(context) {
            Poll::Ready(Some(item)) => {
                this.waiting = None;
                if this.end.is_none_or(|end| Instant::now() < end) {
                    this.items += 1;
                    return Poll::Ready(Some(Ok(item)));
                }
            }
            Poll::Ready(None) => {
                this.stream = None;
                return Poll::Ready(None);
            }
            Poll::Pending => ready!(this.poll_limits(context)),
        }
        let stalled = this.stalled();
        this.stream = None;
        Poll::Ready(Some(Err(stalled)))
    }
}

impl<S> StallGuard<S> {
    /// Ready when a limit has run out; otherwise the task is woken then.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let idle_end = self.idle_end();
        let due = self.end.map_or(idle_end, |end| end.min(idle_end));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(timer.as_mut().poll(context));
        if timer.deadline() < due {
            timer.as_mut().reset(due);
            return timer.as_mut().poll(context);
        }
        Poll::Ready(())
    }

    fn idle_end(&mut self) -> Instant {
        *self.waiting.get_or_insert_with(Instant::now) + self.idle.min(FOR_EVER)
    }

    fn stalled(&mut self) -> Stalled {
        let (items, idle_end) = (self.items, self.idle_end());
        match (self.total, self.end) {
            (Some(limit), Some(end)) if end <= idle_end => Stalled::Total { limit, items },
            _ => Stalled::Idle { limit: self.idle, items },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use futures::{FutureExt, stream};
    use tokio::time::{sleep, timeout};

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// The numbers from 1, each so many milliseconds after the one before it.
    fn numbers(pauses: &[u64]) -> impl Stream<Item = u64> + Unpin + '_ {
        let numbers = stream::iter(pauses).zip(stream::iter(1..)).then(async |(pause, number)| {
            sleep(ms(*pause)).await;
            number
        });
        Box::pin(numbers)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_the_streams_however_long_it_takes() {
        let start = Instant::now();
        let guarded = StallGuard::new(numbers(&[9; 1_000]), ms(10)).total(Duration::MAX);
        assert!(guarded.map(Result::unwrap).collect::<Vec<_>>().await.into_iter().eq(1..=1_000));
        assert_eq!(start.elapsed(), ms(9_000));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_the_limit_and_come_last() {
        let start = Instant::now();
        let mut guarded = StallGuard::new(numbers(&[9, 9, 11]), ms(10));
        assert_eq!((guarded.next().await, guarded.next().await), (Some(Ok(1)), Some(Ok(2))));
        let stalled = guarded.next().await.unwrap().unwrap_err();
        assert_eq!(stalled, Stalled::Idle { limit: ms(10), items: 2 });
        assert_eq!(stalled.to_string(), "the stream stalled: no item for 10ms (items so far: 2)");
        assert_eq!((guarded.next().await, start.elapsed()), (None, ms(28)));

        let start = Instant::now();
        let mut guarded = StallGuard::new(numbers(&[9; 9]), ms(10)).total(ms(25));
        assert_eq!((guarded.next().await, guarded.next().await), (Some(Ok(1)), Some(Ok(2))));
        let stalled = guarded.next().await.unwrap().unwrap_err();
        assert_eq!(stalled, Stalled::Total { limit: ms(25), items: 2 });
        assert_eq!(stalled.to_string(), "the stream took longer than 25ms (items so far: 2)");
        assert_eq!((guarded.next().await, start.elapsed()), (None, ms(25)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_come_after_the_stream_was_dropped() {
        let held = Rc::new(());
        let inside = held.clone();
        let mut guarded = StallGuard::new(stream::pending::<()>().inspect(move |()| _ = &inside), ms(10));
        assert!(guarded.next().await.unwrap().is_err());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_idle_leaves_out_the_consumer_and_that_of_total_does_not() {
        let mut guarded = StallGuard::new(numbers(&[5, 5, 5]), ms(10)).total(ms(2_000));
        for number in 1..=2 {
            assert_eq!(guarded.next().await, Some(Ok(number)));
            sleep(ms(900)).await;
        }
        assert_eq!(guarded.next().await, Some(Ok(3)));
        sleep(ms(900)).await;
        // The end is the end, however late.
        assert_eq!(guarded.next().await, None);
        let mut ready = StallGuard::new(stream::repeat(1), ms(10)).total(ms(100));
        assert_eq!(ready.next().await, Some(Ok(1)));
        sleep(ms(100)).await;
        assert_eq!(ready.next().await, Some(Err(Stalled::Total { limit: ms(100), items: 1 })));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_zero() {
        let mut idle = StallGuard::new(stream::iter([1]).chain(stream::pending()), Duration::ZERO);
        assert_eq!(idle.next().await, Some(Ok(1)));
        assert_eq!(idle.next().await, Some(Err(Stalled::Idle { limit: Duration::ZERO, items: 1 })));
        let mut total = StallGuard::new(stream::repeat(1), Duration::MAX).total(Duration::ZERO);
        assert_eq!(total.next().await, Some(Err(Stalled::Total { limit: Duration::ZERO, items: 0 })));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_loses_no_item_and_stops_no_clock() {
        let (start, mut guarded) = (Instant::now(), StallGuard::new(numbers(&[9, 9, 50]), ms(10)));
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(timeout(ms(2), guarded.next()).await.ok().flatten());
        }
        assert_eq!(seen, [Ok(1), Ok(2), Err(Stalled::Idle { limit: ms(10), items: 2 })]);
        assert_eq!(start.elapsed(), ms(28));
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let mut guarded = StallGuard::new(stream::iter(1..4).inspect(|item| assert_ne!(*item, 1)), ms(5));
        assert!(catch_unwind(AssertUnwindSafe(|| guarded.next().now_or_never())).is_err());
        assert_eq!(guarded.next().await, Some(Ok(2)));
    }

    #[tokio::test]
    async fn memory_is_one_timer_and_none_for_what_is_ready() {
        let mut guarded = StallGuard::new(stream::iter(1..9), ms(5));
        assert_eq!(guarded.by_ref().count().await, 8);
        assert!(guarded.timer.is_none());
    }

    #[tokio::test]
    async fn backpressure_takes_one_item_at_a_time() {
        let mut guarded = StallGuard::new(stream::iter(1..9), ms(5));
        assert_eq!(guarded.next().await, Some(Ok(1)));
        assert_eq!(guarded.stream.as_mut().unwrap().next().await, Some(2));
    }
}
