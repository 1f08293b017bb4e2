//! Stop calling what keeps failing, and try it again with a few probes after a pause.
//!
//! Use it in front of a service that many callers share, so that a failing one gets time to recover and callers get an answer
//! at once. It does not retry, and it does not limit how long a call takes: put a `timeout` inside the call.
//!
//! | | |
//! |---|---|
//! | Order | none: calls run as they come; the first to come after the pause are the probes |
//! | Errors | the call's own error, or [`Rejected`](BreakerError::Rejected), which names the breaker and says for how long it is open; the call was not started then |
//! | Cancellation | dropping a call drops the work and counts neither as success nor as failure; a probe's slot is free again |
//! | Panics | a panic is the caller's and counts as a failure |
//! | Memory | O(1) |
//! | Backpressure | open: every call is rejected; half open: all but `probes` calls are |
//! | Clock | `tokio::time`, read when a breaker opens and while it is open; no task and no timer |
//!
//! Each change of state begins a generation. A call that began in an earlier one changes nothing: a slow failure from before
//! does not close or open what came after. A probe that never ends keeps its slot, which is why a call needs a limit.
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use timeouts::{BreakerRules, CircuitBreaker};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (one, pause) = (NonZeroUsize::MIN, Duration::from_secs(9));
//!     let rules = BreakerRules { failures: one, pause, probes: one };
//!     let breaker = CircuitBreaker::new("payments", rules);
//!     assert!(breaker.call(async { Err::<(), _>("down") }).await.is_err());
//!     assert!(breaker.call(async { Ok::<_, &str>(()) }).await.unwrap_err().to_string().contains("open"));
//! }
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;

/// When a breaker opens, and when it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// It opens after so many failures with no success between them.
    pub failures: NonZeroUsize,
    /// How long it stays open before it lets probes through.
    pub pause: Duration,
    /// So many probes are let through. It closes when all have succeeded, and opens again when one fails.
    pub probes: NonZeroUsize,
}

/// What a breaker does with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets every call through.
    Closed {
        /// Failures since the last success.
        failures: usize,
    },
    /// It rejects every call until then.
    Open {
        /// The first call at or after this moment is a probe.
        until: Instant,
    },
    /// It lets probes through.
    HalfOpen {
        /// Probes under way.
        running: usize,
        /// Probes that succeeded.
        succeeded: usize,
    },
}

/// Why a call has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerError<E> {
    /// The call was not started.
    #[error("{breaker} is open, for another {remaining:?}")]
    Rejected {
        /// The name of the breaker.
        breaker: Cow<'static, str>,
        /// How long until it lets probes through. Zero: they are under way.
        remaining: Duration,
    },
    /// The call was started, and failed.
    #[error(transparent)]
    Failed(E),
}

/// Rejects calls after too many failures. Shared by reference, or in an `Arc`.
#[derive(Debug)]
pub struct CircuitBreaker {
    name: Cow<'static, str>,
    rules: BreakerRules,
    /// The state, and how many there were before it.
    state: Mutex<(BreakerState, u64)>,
}

impl CircuitBreaker {
    /// A closed breaker. Its name stands in the errors.
    pub fn new(name: impl Into<Cow<'static, str>>, rules: BreakerRules) -> Self {
        let state = Mutex::new((BreakerState::Closed { failures: 0 }, 0));
        CircuitBreaker { name: name.into(), rules, state }
    }

    /// Runs `call` unless the breaker rejects it. Every error counts as a failure.
    pub async fn call<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, BreakerError<E>> {
        self.call_if(call, |_| true).await
    }

    /// As [`call`](Self::call), but only errors for which `counts` is true are failures. The others show that the service
    /// is well, as an answer of 404 does, and count as successes.
    pub async fn call_if<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, BreakerError<E>> {
        let mut slot = self.admit()?;
        // Sound: after a panic the call is dropped and nobody looks at it again.
        let call = AssertUnwindSafe(async { call.await.map_err(|error| (counts(&error), error)) });
        let result = call.catch_unwind().await;
        slot.success = Some(matches!(result, Ok(Ok(_) | Err((false, _)))));
        drop(slot);
        result.unwrap_or_else(|panic| resume_unwind(panic)).map_err(|(_, error)| BreakerError::Failed(error))
    }

    /// The state now. A breaker whose pause is over is open until the next call comes.
    pub fn state(&self) -> BreakerState {
        self.lock().0
    }

    fn admit<E>(&self) -> Result<Slot<'_>, BreakerError<E>> {
        let (state, generation) = &mut *self.lock();
        let mut remaining = Duration::ZERO;
        if let BreakerState::Open { until } = *state {
            remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                (*state, *generation) =
                    (BreakerState::HalfOpen { running: 0, succeeded: 0 }, *generation + 1);
            }
        }
        match state {
            BreakerState::Closed { .. } => {}
            BreakerState::HalfOpen { running, succeeded }
                if *running + *succeeded < self.rules.probes.get() =>
            {
                *running += 1;
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => {
                return Err(BreakerError::Rejected { breaker: self.name.clone(), remaining });
            }
        }
        Ok(Slot { breaker: self, generation: *generation, success: None })
    }

    fn lock(&self) -> MutexGuard<'_, (BreakerState, u64)> {
        // Nothing under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. When it is dropped without an end, it was cancelled.
struct Slot<'a> {
    breaker: &'a CircuitBreaker,
    generation: u64,
    success: Option<bool>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let rules = &self.breaker.rules;
        let (state, generation) = &mut *self.breaker.lock();
        // 30 years at most, because an `Instant` ends somewhere.
        let open =
            || BreakerState::Open { until: Instant::now() + rules.pause.min(Duration::from_secs(1 << 30)) };
        let next = match (&mut *state, self.success) {
            _ if *generation != self.generation => None,
            (BreakerState::Closed { failures }, Some(success)) => {
                *failures = if success { 0 } else { *failures + 1 };
                (*failures >= rules.failures.get()).then(open)
            }
            (BreakerState::HalfOpen { .. }, Some(false)) => Some(open()),
            (BreakerState::HalfOpen { running, succeeded }, success) => {
                *running -= 1;
                *succeeded += usize::from(success.is_some());
                (*succeeded >= rules.probes.get()).then_some(BreakerState::Closed { failures: 0 })
            }
            // An open breaker makes no slot, and a cancelled call says nothing.
            (BreakerState::Open { .. }, _) | (BreakerState::Closed { .. }, None) => None,
        };
        if let Some(next) = next {
            (*state, *generation) = (next, *generation + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const RULES: BreakerRules = BreakerRules { failures: TWO, pause: ms(100), probes: TWO };

    async fn after(milliseconds: u64, result: Result<u8, &'static str>) -> Result<u8, &'static str> {
        sleep(ms(milliseconds)).await;
        result
    }

    async fn opened() -> CircuitBreaker {
        let breaker = CircuitBreaker::new("api", RULES);
        for _ in 0..2 {
            assert_eq!(breaker.call(after(0, Err("down"))).await, Err(BreakerError::Failed("down")));
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_a_rejected_call_say_until_when() {
        let breaker = opened().await;
        let BreakerState::Open { until } = breaker.state() else { panic!("{:?}", breaker.state()) };
        sleep(ms(40)).await;
        let remaining = until - Instant::now();
        let rejected = BreakerError::Rejected { breaker: "api".into(), remaining };
        assert_eq!(rejected.to_string(), format!("api is open, for another {remaining:?}"));
        assert_eq!(breaker.call(after(0, Ok(1))).now_or_never(), Some(Err(rejected)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_that_do_not_count_are_successes() {
        let breaker = CircuitBreaker::new("api", RULES);
        let failing = || after(0, Err("404"));
        assert!(breaker.call(failing()).await.is_err());
        assert!(breaker.call_if(failing(), |error| *error != "404").await.is_err());
        assert!(breaker.call(failing()).await.is_err());
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_exactly_the_probes_are_let_through() {
        let breaker = opened().await;
        sleep(ms(101)).await;
        let call = || breaker.call(after(10, Ok(1)));
        let results: [_; 4] = tokio::join!(call(), call(), call(), call()).into();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
        let (breaker, largest) = (opened().await, Duration::MAX);
        sleep(ms(101)).await;
        assert!(breaker.call(after(0, Err("down"))).await.is_err());
        assert!(matches!(breaker.state(), BreakerState::Open { .. }));
        let rules = BreakerRules { failures: NonZeroUsize::MIN, pause: largest, probes: NonZeroUsize::MAX };
        let breaker = CircuitBreaker::new("largest", rules);
        assert!(
            tokio::spawn(async move { breaker.call(after(0, Err("down"))).await }).await.unwrap().is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_gives_a_probes_slot_back() {
        let breaker = opened().await;
        sleep(ms(101)).await;
        for _ in 0..5 {
            let never = async { pending::<Result<(), ()>>().await };
            assert!(breaker.call(never).now_or_never().is_none());
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen { running: 0, succeeded: 0 });
        assert_eq!(breaker.call(after(0, Ok(1))).await, Ok(1));
        assert_eq!(breaker.call(after(0, Ok(1))).await, Ok(1));
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn panics_count_as_failures_and_the_memory_of_an_earlier_state_does_not() {
        let breaker = CircuitBreaker::new("api", RULES);
        let mut slow = [Ok(1), Err("late")].map(|result| Box::pin(breaker.call(after(150, result))));
        for call in &mut slow {
            assert!(call.now_or_never().is_none());
        }
        for _ in 0..2 {
            let broken = async { resume_unwind(Box::new("broken")) };
            let call = AssertUnwindSafe(breaker.call::<(), ()>(broken)).catch_unwind();
            assert!(call.await.is_err());
        }
        assert!(matches!(breaker.state(), BreakerState::Open { .. }));
        sleep(ms(101)).await;
        assert!(breaker.call(after(0, Ok(1))).await.is_ok());
        let half_open = BreakerState::HalfOpen { running: 0, succeeded: 1 };
        assert_eq!(breaker.state(), half_open);
        for call in slow {
            let _ = call.await;
        }
        assert_eq!(breaker.state(), half_open);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_the_pause_ends_on_time() {
        let breaker = opened().await;
        let BreakerState::Open { until } = breaker.state() else { panic!("{:?}", breaker.state()) };
        assert_eq!(until - Instant::now(), ms(100));
        tokio::time::sleep_until(until - ms(1)).await;
        assert!(breaker.call(after(0, Ok(1))).await.is_err());
        tokio::time::sleep_until(until).await;
        assert!(breaker.call(after(0, Ok(1))).await.is_ok());
    }

    #[test]
    fn memory_is_a_few_words() {
        assert!(std::mem::size_of::<CircuitBreaker>() <= 128);
    }
}
