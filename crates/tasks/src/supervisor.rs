//! Restart a task that fails, with growing pauses, and give up when it fails too often.
//!
//! Use it for a task that is meant to run on: a consumer, a connection, a poller. For one call that may be repeated use
//! `retry`. The task runs inside the call, which may be spawned: `tokio::spawn(supervise(..))`.
//!
//! | | |
//! |---|---|
//! | Order | runs follow one another: the next is started when nothing is left of the last |
//! | Errors | each failure is reported at once; more than `limit` within `within` are [`GaveUp`], with every cause in that time, oldest first |
//! | Cancellation | dropping the call drops the run, or ends the pause, at once; nothing is spawned |
//! | Panics | a panic of the task, or of the closure that starts it, is a failure like any other, and its message is the cause |
//! | Memory | O(limit): the failures within `within`, at most `limit + 1` |
//! | Backpressure | a pause before each restart: it doubles from `pause` to `longest_pause`, and starts anew after a run of `stable_after`; half of it is random |
//! | Clock | `tokio::time`; a failure counts until it is older than `within` |
//!
//! To stop it, drop it: with a `CancellationToken`, `token.run_until_cancelled(supervise(..))`. The limit is the restart
//! intensity of supervisors in Erlang/OTP; the pauses are not.
//!
//! ```
//! use tasks::{Restarts, supervise};
//!
//! #[tokio::main]
//! async fn main() {
//!     let worker = async |run| if run < 3 { Err("connection refused") } else { Ok("done") };
//!     let ended = supervise(Restarts::default(), worker, |failure| eprintln!("{failure}")).await;
//!     assert_eq!(ended, Ok("done"));
//! }
//! ```

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

/// How often a task may fail, and how long it pauses after a failure.
#[derive(Clone, Copy, Debug)]
pub struct Restarts {
    /// So many restarts are allowed within `within`. Zero: the first failure is the last. The default is 5.
    pub limit: usize,
    /// How long a failure counts. It must be longer than `limit` pauses, or a task that fails at once every time is restarted
    /// for ever. The default is a minute.
    pub within: Duration,
    /// The first pause. The default is 100 ms.
    pub pause: Duration,
    /// No pause is longer. The default is 10 s.
    pub longest_pause: Duration,
    /// After a run of this length the next pause is the first one again. The default is 10 s.
    pub stable_after: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Restarts {
            limit: 5,
            within: Duration::from_secs(60),
            pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
        }
    }
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {run} ended after {lasted:?}: {cause}")]
pub struct Failure<E> {
    /// Which run, from 1.
    pub run: u64,
    /// How long it ran.
    pub lasted: Duration,
    /// What ended it.
    pub cause: Cause<E>,
    /// The pause until the next run; `None` when there is none.
    pub pause: Option<Duration>,
}

/// What ended a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause<E> {
    /// It returned this error.
    #[error("{0}")]
    Error(E),
    /// It panicked with this message.
    #[error("panicked: {0}")]
    Panic(String),
}

/// The task failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaveUp<E> {
    /// How many restarts were allowed.
    pub limit: usize,
    /// Within which time.
    pub within: Duration,
    /// The failures of that time, oldest first: `limit + 1` of them.
    pub failures: Vec<Failure<E>>,
}

impl<E: fmt::Display> fmt::Display for GaveUp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GaveUp { limit, within, failures } = self;
        write!(f, "gave up: {} failures within {within:?}, {limit} restarts allowed", failures.len())?;
        failures.last().map_or(Ok(()), |last| write!(f, "; the last: {last}"))
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for GaveUp<E> {}

/// Runs what `start` returns until it succeeds, and returns its value. `start` gets the number of the run, from 1; `report`
/// gets each failure before the pause that follows it.
///
/// # Errors
///
/// [`GaveUp`] when there were more failures than the limit allows.
///
/// # Panics
///
/// If `report` does.
pub async fn supervise<F, T, E>(
    restarts: Restarts,
    mut start: impl FnMut(u64) -> F,
    mut report: impl FnMut(&Failure<E>),
) -> Result<T, GaveUp<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let Restarts { limit, within, longest_pause, stable_after, .. } = restarts;
    let mut recent: VecDeque<(Instant, Failure<E>)> = VecDeque::new();
    let (mut run, mut next_pause) = (1, restarts.pause);
    loop {
        let begin = Instant::now();
        // Started and dropped inside the block, so that a panic there is caught too.
        let ended = AssertUnwindSafe(async { start(run).await }).catch_unwind().await;
        let cause = match ended {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Cause::Error(error),
            Err(panic) => Cause::Panic(message(&*panic)),
        };
        let lasted = begin.elapsed();
        if lasted >= stable_after {
            next_pause = restarts.pause;
        }
        while recent.front().is_some_and(|(at, _)| at.elapsed() > within) {
            recent.pop_front();
        }
        let pause = jittered(next_pause.min(longest_pause));
        let pause = (recent.len() < limit).then_some(pause);
        let failure = Failure { run, lasted, cause, pause };
        report(&failure);
        recent.push_back((Instant::now(), failure));
        match pause {
            None => {
                let failures = recent.into_iter().map(|(_, failure)| failure).collect();
                return Err(GaveUp { limit, within, failures });
            }
            // A task that fails at once must not keep others from running.
            Some(Duration::ZERO) => consume_budget().await,
            Some(pause) => sleep(pause).await,
        }
        run += 1;
        next_pause = next_pause.min(longest_pause).saturating_mul(2);
    }
}

/// Between half of `pause` and all of it, so that tasks which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(fastrand::f64())
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_string()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::resume_unwind;
    use std::rc::Rc;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const RESTARTS: Restarts =
        Restarts { limit: 2, within: ms(1000), pause: ms(10), longest_pause: ms(40), stable_after: ms(500) };

    #[tokio::test(start_paused = true)]
    async fn order_is_one_run_after_the_other() {
        let alive = Rc::new(());
        let worker = |run| {
            let alive = alive.clone();
            async move {
                assert_eq!(Rc::strong_count(&alive), 2);
                sleep(ms(5)).await;
                if run < 3 { Err("not yet") } else { Ok(run) }
            }
        };
        assert_eq!(supervise(RESTARTS, worker, |_| ()).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_the_window_are_all_returned() {
        let reported = RefCell::new(Vec::new());
        let worker = async |run| {
            // The first is forgotten when the others fail.
            sleep(ms(if run == 2 { 2000 } else { 1 })).await;
            Err::<(), _>(run)
        };
        let gave_up = supervise(RESTARTS, worker, |failure| reported.borrow_mut().push(failure.clone()));
        let gave_up = gave_up.await.unwrap_err();
        let causes: Vec<_> = gave_up.failures.iter().map(|failure| failure.cause.clone()).collect();
        assert_eq!(causes, [2, 3, 4].map(Cause::Error));
        assert_eq!(reported.borrow()[1..], gave_up.failures);
        assert_eq!(gave_up.failures[2].pause, None);
        let text = "gave up: 3 failures within 1s, 2 restarts allowed; the last: run 4 ended after 1ms: 4";
        assert_eq!(gave_up.to_string(), text);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_causes() {
        let worker = |run: u64| {
            // Not `panic!`: the message would be printed though the panic is expected.
            if run == 2 {
                resume_unwind(Box::new("no worker"));
            }
            async move {
                if run == 1 { resume_unwind(Box::new(format!("run {run}"))) } else { Err::<(), _>("no") }
            }
        };
        // On a task, which shows that the call is `Send`.
        let gave_up = tokio::spawn(supervise(RESTARTS, worker, |_| ())).await.unwrap().unwrap_err();
        let causes: Vec<_> = gave_up.failures.into_iter().map(|failure| failure.cause).collect();
        assert_eq!(
            causes,
            [Cause::Panic("run 1".into()), Cause::Panic("no worker".into()), Cause::Error("no")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_is_at_once_in_a_run_and_in_a_pause() {
        let held = Rc::new(());
        let worker = |run| {
            let held = held.clone();
            async move {
                let _held = held;
                if run == 1 { Err(()) } else { std::future::pending::<Result<(), ()>>().await }
            }
        };
        let start = Instant::now();
        let mut call = Box::pin(supervise(RESTARTS, worker, |_| ()));
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(Rc::strong_count(&held), 1, "in the pause");
        sleep(ms(20)).await;
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(Rc::strong_count(&held), 2, "in the second run");
        drop(call);
        assert_eq!((Rc::strong_count(&held), start.elapsed()), (1, ms(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_pauses_grow_and_start_anew_after_a_stable_run() {
        let pauses = RefCell::new(Vec::new());
        let worker = async |run| {
            sleep(ms(if run == 5 { 500 } else { 0 })).await;
            Err::<(), _>("no")
        };
        let restarts = Restarts { limit: 6, ..RESTARTS };
        let report = |failure: &Failure<_>| pauses.borrow_mut().extend(failure.pause);
        assert!(supervise(restarts, worker, report).await.is_err());
        for (pause, most) in pauses.borrow().iter().zip([10, 20, 40, 40, 10, 20]) {
            assert!((ms(most) / 2..=ms(most)).contains(pause), "{pause:?} of {most}");
        }
        assert_eq!(pauses.borrow().len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_failure_counts_as_long_as_it_is_within() {
        for (length, runs) in [(1000, 2), (1001, 5)] {
            let ran = Cell::new(0);
            let worker = async |run| {
                ran.set(run);
                sleep(ms(if run < 5 { length } else { 0 })).await;
                if run == 5 { Ok(()) } else { Err("no") }
            };
            let restarts = Restarts { limit: 1, pause: Duration::ZERO, ..RESTARTS };
            assert_eq!(supervise(restarts, worker, |_| ()).await.is_ok(), runs == 5);
            assert_eq!(ran.get(), runs);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_window_and_extremes_are_harmless() {
        let held = Rc::new(());
        let worker = async |run| {
            if run == 100_000 {
                return Ok(Rc::strong_count(&held));
            }
            if run % 1000 == 0 {
                sleep(ms(1)).await;
            }
            Err(held.clone())
        };
        let restarts = Restarts { limit: 2000, within: Duration::ZERO, pause: Duration::ZERO, ..RESTARTS };
        // Kept: the run before the last sleep and what failed in the same moment after it.
        let kept = supervise(restarts, worker, |_| ()).await.map_err(|gave_up| gave_up.failures.len());
        assert_eq!(kept, Ok(1 + 1000));
        let longest = Duration::MAX;
        let restarts = Restarts {
            limit: 1,
            within: longest,
            pause: longest,
            longest_pause: longest,
            stable_after: longest,
        };
        let mut call = Box::pin(supervise(restarts, async |_| Err::<(), _>("no"), |_| ()));
        assert!(futures::poll!(&mut call).is_pending());
    }
}
