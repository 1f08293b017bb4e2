//! Send a second copy of a call that is slower than usual, and take the first success.
//!
//! Use it for calls that may happen twice, to a service of which some answers are slow by chance: a pause, a lost packet,
//! a busy replica. For calls that fail use `retry`; to start all copies at once use `race` of the gather family.
//!
//! | | |
//! |---|---|
//! | Order | the first success; of two at the same instant, the first copy's |
//! | Errors | an error never beats a copy that still runs: [`BothFailed`] only when no copy is left; a first copy that fails before it was slow is not hedged |
//! | Cancellation | the loser is dropped before the call returns; dropping the call drops both copies |
//! | Panics | a copy's panic is the caller's panic; the other is dropped |
//! | Memory | two copies a call; [`Latencies`] holds 24 bytes for each call of its window, and as much again while it sorts |
//! | Backpressure | at most two copies, and as many hedges as the [`RetryBudget`] allows; without budget the first copy runs on |
//! | Clock | `tokio::time`; no hedge before `window` first copies have ended |
//!
//! The delay is a quantile of the first copies' latencies: at 0.95, one call in twenty is slow enough for a hedge. A first
//! copy that lost was slower than it seems, because it was dropped. To forget it would make the slow look rare, and the
//! delay too short; instead it counts as "at least so long" in the estimate of Kaplan and Meier (1958). The same holds for one
//! that failed or whose caller went away. The idea is that of Dean and Barroso, "The Tail at Scale" (2013).
//!
//! ```
//! use std::{convert::Infallible, num::NonZeroUsize};
//! use timeouts::{Latencies, RetryBudget, hedge};
//!
//! #[tokio::main]
//! async fn main() {
//!     let latencies = Latencies::new(0.95, NonZeroUsize::new(1000).unwrap()).unwrap();
//!     let budget = RetryBudget::new(10, NonZeroUsize::new(10).unwrap());
//!     let answer = hedge(&latencies, &budget, async |copy| Ok::<_, Infallible>(copy));
//!     assert_eq!(answer.await.unwrap(), 1);
//! }
//! ```

use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep};

use super::retry_budget::{Extra, RetryBudget};

/// The largest window: the estimate sorts it while others wait to record.
const LARGEST: usize = 10_000;

/// How long the first copies of the last calls took. Share one between all calls of the same kind.
#[derive(Debug)]
pub struct Latencies {
    quantile: f64,
    window: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Each latency, and whether it is only known to be at least that long.
    samples: Vec<(Duration, bool)>,
    next: usize,
    delay: Option<Duration>,
}

/// The quantile is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a quantile lies between 0 and 1, as 0.95 does, and {0} does not")]
pub struct NoQuantile(pub f64);

/// No copy succeeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} failed after {elapsed:?}", if hedge.is_some() { "both copies" } else { "the call" })]
pub struct BothFailed<E> {
    /// The error of the first copy.
    #[source]
    pub first: E,
    /// The error of the second copy, if there was one.
    pub hedge: Option<E>,
    /// How long the call took.
    pub elapsed: Duration,
}

impl Latencies {
    /// Hedges what is slower than `quantile` of the last `window` first copies, and nothing before it has seen so many.
    ///
    /// For 0.95 a window of 1000 gives 5 % ± 0.7 %. One above 10,000 counts as 10,000.
    pub fn new(quantile: f64, window: NonZeroUsize) -> Result<Self, NoQuantile> {
        if quantile > 0.0 && quantile < 1.0 {
            return Ok(Latencies { quantile, window: window.get().min(LARGEST), seen: Mutex::default() });
        }
        Err(NoQuantile(quantile))
    }

    /// How long a first copy is waited for until it is hedged; `None` while there are too few to tell.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.seen().delay
    }

    async fn slow(&self) {
        let Some(delay) = self.delay() else { return pending().await };
        sleep(delay).await;
    }

    fn record(&self, latency: Duration, at_least: bool) {
        let mut seen = self.seen();
        let Seen { samples, next, delay } = &mut *seen;
        if samples.len() < self.window {
            samples.push((latency, at_least));
        } else {
            samples[*next] = (latency, at_least);
        }
        *next = (*next + 1) % self.window;
        if samples.len() == self.window && *next % self.window.div_ceil(16) == 0 {
            *delay = estimate(samples.clone(), self.quantile);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The quantile after Kaplan and Meier. Where what is known to be "at least" hides it, the longest latency.
fn estimate(mut samples: Vec<(Duration, bool)>, quantile: f64) -> Option<Duration> {
    samples.sort_unstable();
    let mut slower = 1.0;
    for (index, &(latency, at_least)) in samples.iter().enumerate() {
        if !at_least {
            slower *= 1.0 - 1.0 / (samples.len() - index) as f64;
        }
        if slower <= 1.0 - quantile + 1e-9 {
            return Some(latency);
        }
    }
    samples.last().map(|&(latency, _)| latency)
}

/// Calls `copy` with 1, and with 2 when that is slow and `budget` allows; returns the first success.
/// The copies may borrow. It panics if a copy panics, and if it has to wait outside a Tokio runtime with a timer.
pub async fn hedge<F, T, E>(
    latencies: &Latencies,
    budget: &RetryBudget,
    mut copy: impl FnMut(usize) -> F,
) -> Result<T, BothFailed<E>>
where
    F: Future<Output = Result<T, E>>,
{
    budget.deposit();
    let start = Instant::now();
    let mut timing = Timing { latencies: Some(latencies), start };
    let failed = |first, hedge| BothFailed { first, hedge, elapsed: start.elapsed() };
    let first = pin!(copy(1));
    // Unconstrained: a copy that uses up the task's budget at every poll must not hold back the hedge.
    let slow = pin!(unconstrained(latencies.slow()));
    let first = match select(first, slow).await {
        Either::Left((result, _)) => return timing.end(result).map_err(|error| failed(error, None)),
        Either::Right(((), first)) => first,
    };
    let Some(()) = budget.withdraw().map(Extra::start) else {
        return timing.end(first.await).map_err(|error| failed(error, None));
    };
    match select(first, pin!(copy(2))).await {
        Either::Right((Ok(value), _)) => Ok(value),
        Either::Right((Err(hedge), first)) => {
            timing.end(first.await).map_err(|error| failed(error, Some(hedge)))
        }
        Either::Left((result, second)) => match timing.end(result) {
            Ok(value) => Ok(value),
            Err(error) => second.await.map_err(|hedge| failed(error, Some(hedge))),
        },
    }
}

/// Measures a first copy. Dropped before its end, it records that the copy took at least so long.
struct Timing<'a> {
    latencies: Option<&'a Latencies>,
    start: Instant,
}

impl Timing<'_> {
    fn end<T, E>(&mut self, result: Result<T, E>) -> Result<T, E> {
        self.record(result.is_err());
        result
    }

    fn record(&mut self, at_least: bool) {
        if let Some(latencies) = self.latencies.take() {
            latencies.record(self.start.elapsed(), at_least);
        }
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.record(true);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;

    use futures::FutureExt;

    use super::*;

    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Latencies that hedge after 9 ms, anew estimated after the seventh call from here, and a budget for ten hedges.
    fn measured() -> (Latencies, RetryBudget) {
        let latencies = Latencies::new(0.9, TEN.saturating_mul(TEN)).unwrap();
        for _ in 0..100 {
            assert_eq!(latencies.delay(), None);
            latencies.record(ms(9), false);
        }
        assert_eq!(latencies.delay(), Some(ms(9)));
        (latencies, RetryBudget::new(0, TEN))
    }

    async fn after<T>(millis: u64, result: Result<T, &'static str>) -> Result<T, &'static str> {
        sleep(ms(millis)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_the_first_success() {
        let (latencies, budget) = measured();
        let start = Instant::now();
        let copies = |first, second| {
            hedge(&latencies, &budget, move |copy| after(if copy == 1 { first } else { second }, Ok(copy)))
        };
        assert_eq!(copies(9, 0).await, Ok(1));
        assert_eq!(copies(60_000, 4).await, Ok(2));
        assert_eq!(copies(13, 4).await, Ok(1));
        assert_eq!(copies(12, 60_000).await, Ok(1));
        assert_eq!((start.elapsed(), budget.available()), (ms(9 + 13 + 13 + 12), 7));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_never_beat_a_copy_that_still_runs() {
        let (latencies, budget) = measured();
        let copies = |first: (u64, _), second: (u64, _)| {
            hedge(&latencies, &budget, move |copy| {
                let (millis, result) = if copy == 1 { first } else { second };
                after(millis, result)
            })
        };
        assert_eq!(copies((20, Ok(1)), (0, Err("second"))).await, Ok(1));
        assert_eq!(copies((15, Err("first")), (60, Ok(2))).await, Ok(2));
        let both = BothFailed { first: "first", hedge: Some("second"), elapsed: ms(69) };
        assert_eq!(copies((15, Err("first")), (60, Err("second"))).await, Err(both));
        let alone = BothFailed { first: "first", hedge: None, elapsed: ms(5) };
        assert_eq!(alone.to_string(), "the call failed after 5ms");
        assert_eq!(copies((5, Err("first")), (60, Ok(2))).await, Err(alone));
        assert_eq!(Latencies::new(95.0, TEN).unwrap_err(), NoQuantile(95.0));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_loser_and_records_what_is_known_of_it() {
        let (latencies, budget) = measured();
        let held = Rc::new(());
        let copy = |copy| {
            let held = held.clone();
            async move {
                let _held = held;
                after(if copy == 1 { 60_000 } else { 4 }, Ok(copy)).await
            }
        };
        assert_eq!(hedge(&latencies, &budget, copy).await, Ok(2));
        assert!(hedge(&latencies, &budget, copy).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(latencies.seen().samples[..2], [(ms(13), true), (ms(0), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers_and_the_future_is_send() {
        let (latencies, budget) = measured();
        let panicking = async |copy| if copy == 1 { after(60_000, Ok(())).await } else { panic!("second") };
        let call = hedge(&latencies, &budget, panicking);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        let call = async move { hedge(&latencies, &budget, |copy| after(copy as u64 * 90, Ok(copy))).await };
        assert_eq!(tokio::spawn(call).await.unwrap(), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_window() {
        let latencies = Latencies::new(0.5, NonZeroUsize::MAX).unwrap();
        (0..20_000).for_each(|_| latencies.record(ms(1), false));
        assert_eq!(latencies.delay(), Some(ms(1)));
        assert_eq!(latencies.seen().samples.len(), LARGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_without_budget_the_first_copy_runs_on() {
        let (latencies, budget) = measured();
        let copies = Cell::new(0);
        while budget.withdraw().map(Extra::start).is_some() {}
        let copy = |_| {
            copies.set(copies.get() + 1);
            after(100, Ok(()))
        };
        hedge(&latencies, &budget, copy).await.unwrap();
        assert_eq!(copies.get(), 1);
    }

    #[test]
    fn clock_the_estimate_counts_what_was_cut_off_as_longer() {
        let cut = |millis| (ms(millis), true);
        let ended = |millis| (ms(millis), false);
        // 6 of 8 last beyond 1 ms; of those one of three ended at 3 ms, one at 4: 50 % and then 25 % are slower.
        let samples = vec![ended(1), ended(1), ended(3), cut(2), cut(2), cut(2), ended(4), ended(5)];
        assert_eq!(estimate(samples.clone(), 0.6), Some(ms(4)));
        let forgotten: Vec<_> = samples.into_iter().filter(|(_, cut)| !cut).collect();
        assert_eq!(estimate(forgotten, 0.6), Some(ms(3)));
        assert_eq!(estimate(vec![cut(1), cut(7)], 0.5), Some(ms(7)));
    }
}
