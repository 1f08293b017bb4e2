//! Slow a stream down by leaving items out: debounce, throttle, sample.
//!
//! Use it where only the latest value counts: keystrokes, sensor readings, progress, file changes. Where every item
//! counts, `chunks` puts them together, and a rate limit makes the source wait.
//!
//! | | |
//! |---|---|
//! | Order | the order of the stream, with gaps; the last item of the stream always comes out |
//! | Errors | none of its own; an item that is an error is left out like any other, so handle errors before |
//! | Cancellation | dropping the future of `next` loses nothing: the item that waits stays here, and so does the time when it is due |
//! | Panics | a panic of the stream is the caller's panic, and loses no item |
//! | Memory | O(1): one item and one timer |
//! | Backpressure | none while it is polled: the stream is read as fast as it can; while nobody polls, nothing is read; of what piled up only the latest comes out, and from `throttle` the first |
//! | Clock | `tokio::time`; an item counts from when it is taken from the stream |
//!
//! - [`debounce`]: the latest item, when none has come for `quiet` (trailing edge)
//! - [`throttle`]: the first item at once, then the latest at most once in each `period` (leading and trailing edge)
//! - [`sample`]: the latest item at the end of each `period` in which one came (trailing edge, on a fixed beat)
//!
//! ```
//! use std::time::Duration;
//! use futures::{StreamExt, stream};
//!
//! #[tokio::main]
//! async fn main() {
//!     let progress = stream::iter(1..=100);
//!     let shown: Vec<u32> = streams::throttle(progress, Duration::from_secs(1)).collect().await;
//!     assert_eq!(shown, [1, 100]);
//! }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::task::coop::{has_budget_remaining, poll_proceed};
use tokio::time::{Instant, Sleep, sleep_until};

/// Longer than any program runs, and still an instant that exists.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A stream that leaves items out: see [`debounce`], [`throttle`] and [`sample`]. After the end it may be polled again.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Pace<S: Stream> {
    stream: S,
    ended: bool,
    rule: Rule,
    period: Duration,
    /// Taken from the stream and not handed out.
    latest: Option<S::Item>,
    /// When `latest` may be handed out.
    due: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Debounce,
    Throttle,
    Sample { start: Instant },
}

/// The latest item of `stream`, when none has come for `quiet`, and at its end. A stream that never rests so long is not
/// heard before its end.
///
/// # Panics
///
/// When polled, if an item has to wait outside a Tokio runtime with a timer.
pub fn debounce<S: Stream + Unpin>(stream: S, quiet: Duration) -> Pace<S> {
    pace(stream, quiet, |_| Rule::Debounce)
}

/// The first item of `stream` at once, then the latest one, if there is a new one, at most once in each `period`. At its
/// end the last item comes at once.
///
/// # Panics
///
/// As [`debounce`].
pub fn throttle<S: Stream + Unpin>(stream: S, period: Duration) -> Pace<S> {
    pace(stream, period, |_| Rule::Throttle)
}

/// The latest item of `stream` at the end of each `period` in which one came. The periods count from this call. At the
/// stream's end its last item comes at once.
///
/// # Panics
///
/// As [`debounce`].
pub fn sample<S: Stream + Unpin>(stream: S, period: Duration) -> Pace<S> {
    pace(stream, period, |start| Rule::Sample { start })
}

fn pace<S: Stream>(stream: S, period: Duration, rule: fn(Instant) -> Rule) -> Pace<S> {
    let now = Instant::now();
    let period = period.min(FOR_EVER);
    Pace { stream, ended: false, rule: rule(now), period, latest: None, due: now, timer: None }
}

// No item is ever pinned.
impl<S: Stream + Unpin> Unpin for Pace<S> {}

impl<S: Stream + Unpin> Stream for Pace<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        while !this.ended {
            match this.poll_item(context) {
                Poll::Ready(Some(item)) => {
                    if this.accept(item) {
                        break;
                    }
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Pending if this.latest.is_none() => return Poll::Pending,
                Poll::Pending => {
                    ready!(this.poll_due(context));
                    break;
                }
            }
        }
        if let Rule::Throttle = this.rule {
            this.due = Instant::now() + this.period;
        }
        Poll::Ready(this.latest.take())
    }
}

impl<S: Stream + Unpin> Pace<S> {
    /// The next item, unless the task has had its share of this turn: a stream that is always ready must not keep the thread.
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let budget = ready!(poll_proceed(context));
        let item = ready!(self.stream.poll_next_unpin(context));
        budget.made_progress();
        Poll::Ready(item)
    }

    /// Puts `item` in the place of the one that waits, and says whether it is the first of a throttled burst, which need not.
    fn accept(&mut self, item: S::Item) -> bool {
        let now = Instant::now();
        let waits = self.latest.replace(item).is_some();
        match self.rule {
            Rule::Debounce => self.due = now + self.period,
            Rule::Sample { start } if !waits => self.due = beat(start, self.period, now),
            Rule::Throttle => return !waits && now >= self.due,
            Rule::Sample { .. } => {}
        }
        false
    }

    /// Ready when the item that waits is due; otherwise the task is woken then.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.period.is_zero() {
            return Poll::Ready(());
        }
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready_at(timer.as_mut(), due, context)
    }
}

/// The first end of a period after `now`.
fn beat(start: Instant, period: Duration, now: Instant) -> Instant {
    let into = (now - start).as_nanos().checked_rem(period.as_nanos()).unwrap_or(0);
    // It is less than the period, and the period is less than the 584 years that fit into 64 bits of nanoseconds.
    now + period - Duration::from_nanos(into as u64)
}

/// Ready at `due`, which never moves back. The timer is moved only when it has run out for an earlier one.
fn ready_at(mut timer: Pin<&mut Sleep>, due: Instant, context: &mut Context<'_>) -> Poll<()> {
    let mut ready = timer.as_mut().poll(context);
    if ready.is_ready() && timer.deadline() < due {
        timer.as_mut().reset(due);
        ready = timer.poll(context);
    }
    // A task that has had its share of this turn hears nothing from a timer.
    if !has_budget_remaining() && Instant::now() >= due { Poll::Ready(()) } else { ready }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures::{FutureExt, stream};
    use tokio::time::{sleep, sleep_until, timeout};

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Numbers that come so many milliseconds after the start; the stream ends with the last one.
    fn at(times: &[u64]) -> impl Stream<Item = u64> + Unpin + '_ {
        let start = Instant::now();
        Box::pin(stream::iter(times).then(move |time| sleep_until(start + ms(*time)).map(|()| *time)))
    }

    /// Which number came out of `stream`, and after how many milliseconds.
    async fn seen(stream: impl Stream<Item = u64>) -> Vec<(u64, u64)> {
        let start = Instant::now();
        stream.map(|number| (number, start.elapsed().as_millis() as u64)).collect().await
    }

    const KEYS: [u64; 8] = [5, 15, 25, 33, 100, 110, 121, 230];

    #[tokio::test(start_paused = true)]
    async fn clock_of_debounce_waits_for_quiet() {
        assert_eq!(seen(debounce(at(&KEYS), ms(30))).await, [(33, 63), (121, 151), (230, 230)]);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_throttle_has_both_edges() {
        let expected = [(5, 5), (33, 35), (100, 100), (121, 130), (230, 230)];
        assert_eq!(seen(throttle(at(&KEYS), ms(30))).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_sample_is_a_fixed_beat() {
        let expected = [(25, 30), (33, 60), (110, 120), (121, 150), (230, 230)];
        assert_eq!(seen(sample(at(&KEYS), ms(30))).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_zero_and_of_for_ever() {
        let there = || stream::iter(1..4).chain(stream::pending());
        assert_eq!(debounce(there(), Duration::ZERO).next().now_or_never(), Some(Some(3)));
        assert_eq!(sample(there(), Duration::ZERO).next().now_or_never(), Some(Some(3)));
        let all = throttle(there(), Duration::ZERO).take(3).collect::<Vec<_>>();
        assert_eq!(all.now_or_never(), Some(vec![1, 2, 3]));
        assert_eq!(seen(debounce(at(&KEYS), Duration::MAX)).await, [(230, 230)]);
        assert_eq!(seen(throttle(at(&KEYS), Duration::MAX)).await, [(5, 5), (230, 230)]);
        assert_eq!(seen(sample(at(&KEYS), Duration::MAX)).await, [(230, 230)]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_ends_with_the_last_item_at_once() {
        let numbers = || stream::iter(1..=100_000);
        assert_eq!(debounce(numbers(), ms(9)).collect::<Vec<_>>().await, [100_000]);
        assert_eq!(throttle(numbers(), ms(1_000_000)).collect::<Vec<_>>().await, [1, 100_000]);
        let mut sampled = sample(numbers(), ms(1_000_000));
        assert_eq!(
            (sampled.next().await, sampled.next().await, sampled.next().await),
            (Some(100_000), None, None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_keeps_the_item_and_its_time() {
        for pace in [debounce, throttle, sample] {
            let undisturbed = seen(pace(at(&KEYS), ms(30))).await;
            let (start, mut paced, mut all) = (Instant::now(), pace(at(&KEYS), ms(30)), Vec::new());
            loop {
                match timeout(ms(7), paced.next()).await {
                    Ok(Some(number)) => all.push((number, start.elapsed().as_millis() as u64)),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
            assert_eq!(all, undisturbed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_stream_lose_no_item() {
        let numbers = stream::iter(1..4).inspect(|number| assert_ne!(*number, 3));
        let mut paced = debounce(numbers, ms(5));
        assert!(catch_unwind(AssertUnwindSafe(|| paced.next().now_or_never())).is_err());
        assert_eq!((paced.next().await, paced.next().await), (Some(2), None));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_item() {
        let held = std::rc::Rc::new(());
        let numbers = stream::iter(0..100).map(|_| held.clone()).chain(stream::pending());
        let mut paced = debounce(numbers, ms(5));
        assert_eq!(paced.next().now_or_never(), None);
        assert_eq!(std::rc::Rc::strong_count(&held), 2, "the test's and one item");
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_of_a_busy_consumer_leaves_the_latest() {
        for pace in [debounce, throttle, sample] {
            let (sender, receiver) = tokio::sync::mpsc::channel(8);
            let stream =
                Box::pin(stream::unfold(receiver, async |mut it| it.recv().await.map(|item| (item, it))));
            let mut paced = pace(stream, ms(30));
            sender.send(1).await.unwrap();
            assert_eq!(paced.next().await, Some(1));
            sender.send(2).await.unwrap();
            assert_eq!(paced.next().now_or_never(), None);
            for item in 3..=9 {
                sleep(ms(20)).await;
                sender.send(item).await.unwrap();
            }
            drop(sender);
            assert_eq!(paced.collect::<Vec<u32>>().await, [9]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_nothing_is_read_while_nobody_polls() {
        let mut paced = throttle(at(&KEYS), ms(30));
        assert_eq!(paced.next().await, Some(5));
        sleep(ms(120)).await;
        assert_eq!((paced.next().await, paced.next().await), (Some(15), Some(121)));
    }
}
