//! Ask again and again until the answer is good or the time is up; an error keeps the last answer.
//!
//! Use it where nobody tells you when something is ready: a job's status, a port, a file. Where you can be told (a channel,
//! [`tokio::sync::watch::Receiver::wait_for`]), be told.
//!
//! | | |
//! |---|---|
//! | Order | polls run one after another; the first comes at once |
//! | Errors | [`Unmet`] says what was waited for, its limit, how many polls were begun, and the last state seen |
//! | Cancellation | dropping the call drops the poll under way; so does the limit, so each poll is bounded by what remains |
//! | Panics | a panic of the poll or the condition is the caller's |
//! | Memory | one poll and one state |
//! | Backpressure | none needed: one poll at a time, and a pause after each |
//! | Clock | `tokio::time`; pauses are drawn evenly from a range, so that many pollers do not fall into step |
//!
//! An error of a poll is a state like any other: let the state be a `Result`, and the condition decide which errors end it.
//!
//! ```
//! use std::time::Duration;
//! use timeouts::{Polling, poll_until};
//!
//! #[tokio::main]
//! async fn main() {
//!     let ms = Duration::from_millis;
//!     let (rules, mut percent) = (Polling { limit: ms(500), pause: ms(1)..=ms(3) }, 0);
//!     let job = || { percent += 25; std::future::ready(percent) };
//!     assert_eq!(poll_until("job 7", rules, job, |percent| *percent == 100).await, Ok(100));
//! }
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::sleep;

use super::timeout::timeout;

/// A timer's resolution. A shorter pause could keep the thread to itself.
const SHORTEST: Duration = Duration::from_millis(1);

/// How often to ask, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polling {
    /// How long in all. The first poll is begun with a limit of zero too.
    pub limit: Duration,
    /// From when one poll has ended to when the next begins: drawn evenly from this range, at least a millisecond. When the
    /// range is empty, its start counts.
    pub pause: RangeInclusive<Duration>,
}

/// The condition was not met in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} was not there after {limit:?} and {polls} polls{}", last.as_ref().map(|last| format!(", the last of which saw {last:?}")).unwrap_or_default())]
pub struct Unmet<S: std::fmt::Debug> {
    /// What was waited for.
    pub operation: Cow<'static, str>,
    /// How long it could have taken.
    pub limit: Duration,
    /// How many polls were begun.
    pub polls: usize,
    /// What the last poll that ended saw; `None` when none ended.
    pub last: Option<S>,
}

/// Calls `poll` until `condition` is true of the state that it returns, and returns that state.
pub async fn poll_until<F>(
    operation: impl Into<Cow<'static, str>>,
    rules: Polling,
    mut poll: impl FnMut() -> F,
    mut condition: impl FnMut(&F::Output) -> bool,
) -> Result<F::Output, Unmet<F::Output>>
where
    F: Future,
    F::Output: std::fmt::Debug,
{
    let (mut polls, mut last) = (0, None);
    let polling = async {
        loop {
            polls += 1;
            let state = poll().await;
            if condition(&state) {
                return state;
            }
            last = Some(state);
            sleep(draw(&rules.pause)).await;
        }
    };
    match timeout("", rules.limit, polling).await {
        Ok(state) => Ok(state),
        Err(_) => Err(Unmet { operation: operation.into(), limit: rules.limit, polls, last }),
    }
}

fn draw(pause: &RangeInclusive<Duration>) -> Duration {
    let span = pause.end().saturating_sub(*pause.start());
    // Below one, so that the product is not above `span`.
    (*pause.start() + span.mul_f64(fastrand::f64())).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn rules(limit: u64, pause: u64) -> Polling {
        Polling { limit: ms(limit), pause: ms(pause)..=ms(pause) }
    }

    /// Takes 5 ms, and counts.
    async fn count(counter: &Cell<u32>) -> u32 {
        sleep(ms(5)).await;
        counter.set(counter.get() + 1);
        counter.get()
    }

    #[tokio::test(start_paused = true)]
    async fn order_the_first_poll_comes_at_once_and_then_one_after_another() {
        let (start, counter) = (Instant::now(), Cell::new(0));
        let call = poll_until("three", rules(100, 10), || count(&counter), |count| *count == 3);
        assert_eq!((call.await, start.elapsed()), (Ok(3), ms(35)));
        let zero = Polling { limit: Duration::ZERO, pause: Duration::MAX..=Duration::ZERO };
        assert_eq!(poll_until("now", zero, async || 1, |_| true).now_or_never(), Some(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_hold_the_last_state() {
        let (start, counter) = (Instant::now(), Cell::new(0));
        let call = poll_until("job 7", rules(48, 10), || count(&counter), |_| false);
        let unmet = call.await.unwrap_err();
        let text = "job 7 was not there after 48ms and 4 polls, the last of which saw 3";
        assert_eq!((unmet.to_string().as_str(), start.elapsed()), (text, ms(48)));
        let unmet = poll_until("mute", rules(20, 10), pending::<()>, |()| true).await.unwrap_err();
        assert_eq!((unmet.polls, unmet.last), (1, None));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_poll_under_way() {
        let held = Arc::new(());
        let poll = || {
            let held = held.clone();
            async move { pending::<()>().map(|()| drop(held)).await }
        };
        assert!(poll_until("never", rules(20, 10), poll, |()| true).now_or_never().is_none());
        assert!(poll_until("never", rules(20, 10), poll, |()| true).await.is_err());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_pauses_are_drawn_from_the_range() {
        let (start, mut polls) = (Instant::now(), 0);
        let rules = Polling { limit: Duration::MAX, pause: ms(10)..=ms(30) };
        let poll = || {
            polls += 1;
            std::future::ready(polls)
        };
        assert_eq!(poll_until("many", rules, poll, |polls| *polls == 1001).await, Ok(1001));
        // A timer may round up by a millisecond. Even draws are off the middle by this much once in 10^20 runs.
        assert!(start.elapsed() > ms(18_000) && start.elapsed() < ms(23_000), "{:?}", start.elapsed());
        assert!(draw(&(Duration::ZERO..=Duration::MAX)) <= Duration::MAX);
        assert_eq!((draw(&(ms(0)..=ms(0))), draw(&(ms(5)..=ms(2)))), (ms(1), ms(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_state_and_a_poll_that_is_ready_at_once_ends_too() {
        let at_once = Polling { limit: ms(50), pause: Duration::ZERO..=Duration::ZERO };
        let call = poll_until("never", at_once, async || Arc::new(()), |_| false);
        let unmet = tokio::spawn(call).await.unwrap().unwrap_err();
        assert_eq!((unmet.polls, unmet.last.map(|last| Arc::strong_count(&last))), (51, Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers() {
        let poll = async || std::panic::resume_unwind(Box::new("broken"));
        let call = poll_until("broken", rules(20, 10), poll, |_: &()| true);
        assert!(std::panic::AssertUnwindSafe(call).catch_unwind().await.is_err());
    }
}
