//! Retry a call that fails for a moment, within one deadline.
//!
//! Use it for calls that may happen twice: reads, and writes that carry an idempotency key. For calls that are slow rather
//! than failing see `hedge`; when many callers retry the same service give them a `retry_budget`.
//!
//! | | |
//! |---|---|
//! | Order | attempts run one after another, numbered from 1 |
//! | Errors | permanent: at once; transient: retried until attempts, deadline or budget run out; then [`GaveUp`] says which, with the error, number and time of every attempt |
//! | Cancellation | dropping the call drops the running attempt; a retry that was paid for and not begun goes back into the budget |
//! | Panics | an attempt's panic is the caller's panic |
//! | Memory | O(attempts): the errors so far |
//! | Backpressure | one attempt at a time; at most `attempts`, and as many as the budget of all callers allows |
//! | Clock | `tokio::time`: attempts and waits together end by the deadline; an attempt ends by min(`per_attempt`, what remains) |
//!
//! The wait before attempt n + 1 is random between zero and min(`cap`, `base` × 2ⁿ⁻¹): full jitter, as in "Exponential
//! Backoff And Jitter" (AWS, 2015). What a server asks for comes first and the jitter after it, so that clients which were
//! told the same do not return together. A wait that would reach the deadline is not begun: the call gives up at once.
//!
//! ```
//! use std::num::ParseIntError;
//! use timeouts::{Retry, Verdict, retry};
//!
//! #[tokio::main]
//! async fn main() {
//!     let answers = ["busy", "busy", "42"];
//!     let attempt = async |number: usize| answers[number - 1].parse::<u8>();
//!     let answer = retry(&Retry::default(), |_: &ParseIntError| Verdict::Transient, attempt).await;
//!     assert_eq!(answer, Ok(42));
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep};

use super::retry_budget::RetryBudget;

/// How often a call is retried, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Retry<'a> {
    /// The longest that the call may take, attempts and waits together. [`Duration::MAX`] is no limit.
    pub deadline: Duration,
    /// The most attempts, the first included.
    pub attempts: NonZeroUsize,
    /// The longest that one attempt may take; one that takes longer is dropped and retried. [`Duration::MAX`] is no limit.
    pub per_attempt: Duration,
    /// The longest wait before the second attempt. It doubles with each further one.
    pub base: Duration,
    /// The longest wait before any attempt, jitter included, unless the server asks for more.
    pub cap: Duration,
    /// What all callers together may add to the load.
    pub budget: Option<&'a RetryBudget>,
}

impl Default for Retry<'_> {
    fn default() -> Self {
        Retry {
            deadline: Duration::from_secs(30),
            attempts: NonZeroUsize::MIN.saturating_add(3),
            per_attempt: Duration::from_secs(10),
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
            budget: None,
        }
    }
}

/// What an error means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be the same again: give up.
    Permanent,
    /// It may be better in a moment.
    Transient,
    /// The server asks not to be called again for so long: `Retry-After`.
    After(Duration),
}

/// Every attempt failed, or no further one was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gave up, {}: {reason}", failures.last().map_or(String::new(), Failed::to_string))]
pub struct GaveUp<E> {
    /// Why there was no further attempt.
    pub reason: Reason,
    /// All attempts in their order, at least one.
    pub failures: Vec<Failed<E>>,
}

/// Why there was no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The last error is permanent.
    #[error("the error is permanent")]
    Permanent,
    /// There were as many attempts as the policy allows.
    #[error("that is the most attempts")]
    Attempts,
    /// The next attempt would not begin before the deadline, so long after the call began.
    #[error("the next attempt would come after the deadline of {0:?}")]
    Deadline(Duration),
    /// The budget of all callers is exhausted.
    #[error("the retry budget is exhausted")]
    Budget,
}

/// An attempt that failed. Times count from the start of the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} {} after {:?}", if error.is_some() { "failed" } else { "was cut off" }, *ended - *started)]
pub struct Failed<E> {
    /// Its number, from 1.
    pub attempt: usize,
    /// When it began.
    pub started: Duration,
    /// When it ended.
    pub ended: Duration,
    /// What it returned; `None` if its time was up.
    #[source]
    pub error: Option<E>,
}

/// Calls `attempt` with the numbers 1, 2, … until one succeeds or `policy` ends it. `judge` sees each error.
/// An attempt is polled at least once, also when no time is left. The call panics if an attempt does, and if it has to
/// wait outside a Tokio runtime with a timer.
pub async fn retry<F, T, E>(
    policy: &Retry<'_>,
    judge: impl Fn(&E) -> Verdict,
    mut attempt: impl FnMut(usize) -> F,
) -> Result<T, GaveUp<E>>
where
    F: Future<Output = Result<T, E>>,
{
    policy.budget.iter().for_each(|budget| budget.deposit());
    // Read when the first attempt is pending or has failed: one that succeeds at once costs neither a clock nor a timer.
    let mut start = None;
    let mut elapsed = || start.get_or_insert_with(Instant::now).elapsed();
    let mut failures = Vec::new();
    let mut started = Duration::ZERO;
    let reason = loop {
        let number = failures.len() + 1;
        let limit = || policy.per_attempt.min(policy.deadline.saturating_sub(elapsed()));
        let error = match within(limit, attempt(number)).await.transpose() {
            Ok(Some(value)) => return Ok(value),
            error => error.err(),
        };
        let ended = elapsed();
        let verdict = error.as_ref().map_or(Verdict::Transient, &judge);
        failures.push(Failed { attempt: number, started, ended, error });
        let asked = match verdict {
            Verdict::Permanent => break Reason::Permanent,
            Verdict::Transient => Duration::ZERO,
            Verdict::After(asked) => asked,
        };
        if number >= policy.attempts.get() {
            break Reason::Attempts;
        }
        let wait = asked.saturating_add(jitter(policy, number));
        if wait >= policy.deadline.saturating_sub(ended) {
            break Reason::Deadline(policy.deadline);
        }
        let extra = policy.budget.map(RetryBudget::withdraw);
        if let Some(None) = extra {
            break Reason::Budget;
        }
        sleep(wait).await;
        started = elapsed();
        if started >= policy.deadline {
            break Reason::Deadline(policy.deadline);
        }
        if let Some(extra) = extra.flatten() {
            extra.start();
        }
    };
    Err(GaveUp { reason, failures })
}

/// The output of `future`, or `None` when it has not ended within `limit`, which is asked for once `future` is pending.
async fn within<F: Future>(limit: impl FnOnce() -> Duration, future: F) -> Option<F::Output> {
    // Unconstrained: a future that uses up the task's budget at every poll must not hold back its own end.
    let timer = pin!(unconstrained(async { sleep(limit()).await }));
    match select(pin!(future), timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// The random wait after attempt `number`.
fn jitter(policy: &Retry<'_>, number: usize) -> Duration {
    let doublings = u32::try_from(number - 1).unwrap_or(u32::MAX);
    let longest =
        policy.base.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(policy.cap);
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(fastrand::u64(0..=nanos))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fmt;
    use std::future::{pending, ready};
    use std::panic::AssertUnwindSafe;

    use futures::FutureExt;

    use super::*;

    const EVER: Retry<'static> = Retry {
        deadline: Duration::MAX,
        attempts: NonZeroUsize::MAX,
        per_attempt: Duration::MAX,
        base: Duration::MAX,
        cap: Duration::from_millis(40),
        budget: None,
    };

    fn transient(_: &&str) -> Verdict {
        Verdict::Transient
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_one_after_another_and_the_future_is_send() {
        let running = &Cell::new(false);
        let attempt = async |number| {
            assert!(!running.replace(true));
            sleep(ms(5)).await;
            running.set(false);
            if number < 9 { Err("busy") } else { Ok(number) }
        };
        assert_eq!(retry(&EVER, transient, attempt).await, Ok(9));
        let call = retry(&EVER, transient, |number| ready(if number < 3 { Err("busy") } else { Ok(number) }));
        assert_eq!(tokio::spawn(call).await.unwrap(), Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_say_which_limit_and_tell_every_attempt() {
        let permanent = retry(&EVER, |_| Verdict::Permanent, async |_| Err::<(), _>("no such user")).await;
        assert_eq!(permanent.unwrap_err().reason, Reason::Permanent);

        let policy =
            Retry { attempts: NonZeroUsize::MIN.saturating_add(1), per_attempt: ms(10), base: ms(0), ..EVER };
        let attempt =
            async |number| if number == 1 { Err(fmt::Error) } else { pending::<Result<(), _>>().await };
        let gave_up = retry(&policy, |_| Verdict::After(ms(20)), attempt).await.unwrap_err();
        assert_eq!(
            gave_up.to_string(),
            "gave up, attempt 2 was cut off after 10ms: that is the most attempts"
        );
        let first = Failed { attempt: 1, started: ms(0), ended: ms(0), error: Some(fmt::Error) };
        let second = Failed { attempt: 2, started: ms(20), ended: ms(30), error: None };
        assert_eq!(gave_up.failures, [first, second]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_attempt_and_gives_the_retry_back() {
        let (start, budget) = (Instant::now(), RetryBudget::new(0, NonZeroUsize::MIN));
        let policy = Retry { budget: Some(&budget), ..EVER };
        let mut call =
            retry(&policy, |_| Verdict::After(ms(1000)), async |_| Err::<(), _>("busy")).boxed_local();
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(budget.available(), 0);
        drop(call);
        assert_eq!((budget.available(), start.elapsed()), (1, ms(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers() {
        let call = retry(
            &EVER,
            transient,
            async |number| if number < 3 { Err::<(), _>("busy") } else { panic!("3") },
        );
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_and_memory_are_bounded_by_attempts_and_budget() {
        let budget = RetryBudget::new(0, NonZeroUsize::MIN.saturating_add(6));
        let policy = Retry { budget: Some(&budget), ..EVER };
        let gave_up = retry(&policy, transient, async |_| Err::<(), _>("busy")).await.unwrap_err();
        assert_eq!((gave_up.reason, gave_up.failures.len()), (Reason::Budget, 8));
        let start = Instant::now();
        let gave_up = retry(&policy, transient, async |_| Err::<(), _>("busy")).await.unwrap_err();
        assert_eq!(
            (gave_up.failures.len(), start.elapsed()),
            (1, ms(0)),
            "an exhausted budget waits for nothing"
        );
        let gave_up = retry(&Retry::default(), transient, async |_| Err::<(), _>("busy")).await.unwrap_err();
        assert_eq!((gave_up.reason, gave_up.failures.len()), (Reason::Attempts, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_counts_attempts_and_waits_against_one_deadline() {
        let start = Instant::now();
        let policy = Retry { deadline: ms(5_000), base: ms(0), ..EVER };
        let slow = async |_| {
            sleep(ms(2_000)).await;
            Err::<(), _>("busy")
        };
        let gave_up = retry(&policy, transient, slow).await.unwrap_err();
        assert_eq!((gave_up.reason, start.elapsed()), (Reason::Deadline(ms(5_000)), ms(5_000)));
        assert_eq!(
            gave_up.failures[2],
            Failed { attempt: 3, started: ms(4_000), ended: ms(5_000), error: None }
        );
        // A server that asks for more than remains is not waited for.
        let gave_up = retry(&policy, |_| Verdict::After(ms(5_000)), async |_| Err::<(), _>("busy")).await;
        assert_eq!((gave_up.unwrap_err().failures.len(), start.elapsed()), (1, ms(5_000)));
    }
}
