//! `retry` is dropped at every suspension point; its attempts fail and panic; no wait and no total is above its limit.

use std::cell::Cell;
use std::future::pending;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use timeouts::{GaveUp, Reason, Retry, RetryBudget, Verdict, retry};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The first attempt fails, the second hangs and is cut off, the third succeeds; each holds the only permit.
fn scene(parts: &Parts, deadline: Duration) -> Scene<Result<usize, GaveUp<&'static str>>> {
    fastrand::seed(7);
    let (budget, permits) = (Arc::new(RetryBudget::new(0, TWO)), Arc::new(Semaphore::new(1)));
    let (left, after, other) = (budget.clone(), permits.clone(), permits.clone());
    let (parts, seen) = (parts.clone(), parts.clone());
    let begun = Rc::new(Cell::new(0_usize));
    let attempts = begun.clone();
    let call = async move {
        let policy =
            Retry { deadline, per_attempt: ms(5), base: ms(2), budget: Some(&budget), ..Retry::default() };
        let attempt = |number| {
            let permits = permits.clone();
            attempts.set(attempts.get() + 1);
            let attempt = async move {
                let _permit = permits.acquire().await;
                sleep(ms(1)).await;
                match number {
                    1 => Err("first"),
                    2 => pending().await,
                    _ => Ok(number),
                }
            };
            parts.fallible("attempt", attempt, || "injected")
        };
        retry(&policy, |_| Verdict::After(ms(3)), attempt).await
    };
    Scene::new(call).alongside(async move { drop(other.acquire().await) }).check(move |ended| {
        assert_eq!(after.available_permits(), 1);
        assert_eq!(
            left.available(),
            2 - begun.get().saturating_sub(1),
            "what began is paid for, and no more"
        );
        if let (Ended::Returned(result), None) = (ended, seen.fault()) {
            assert_eq!(result.is_ok(), deadline == Duration::MAX);
        }
    })
}

#[test]
fn cancellation_at_every_point_without_a_deadline() {
    sweep(|parts| scene(parts, Duration::MAX));
}

#[test]
fn cancellation_at_every_point_before_a_deadline() {
    sweep(|parts| scene(parts, ms(9)));
}

#[test]
fn errors_that_are_permanent_end_it_wherever_they_come() {
    sweep(|parts| {
        let (parts, seen) = (parts.clone(), parts.clone());
        let call = async move {
            let attempt = |_| {
                let attempt = async {
                    sleep(ms(2)).await;
                    Ok(())
                };
                parts.fallible("attempt", attempt, || "injected")
            };
            retry(&Retry::default(), |_| Verdict::Permanent, attempt).await
        };
        Scene::new(call).check(move |ended| {
            if let (Ended::Returned(result), Some(Fault::Fail)) = (ended, seen.fault()) {
                assert_eq!(result.map_err(|gave_up| gave_up.reason), Err(Reason::Permanent));
            }
        })
    });
}

/// An attempt that uses up the task's budget at every poll cannot hold back its own end.
#[tokio::test]
async fn clock_cuts_off_an_attempt_that_is_always_busy() {
    let policy = Retry { per_attempt: ms(10), attempts: TWO, base: ms(0), ..Retry::default() };
    let busy = |_| async {
        let mut turns = 0_u64;
        while turns < u64::MAX {
            tokio::task::consume_budget().await;
            turns += 1;
        }
        Err::<(), _>("busy")
    };
    let gave_up = retry(&policy, |_| Verdict::Transient, busy).await.unwrap_err();
    assert_eq!((gave_up.reason, gave_up.failures[1].error), (Reason::Attempts, None));
}

#[tokio::test(start_paused = true)]
async fn clock_takes_the_longest_and_the_shortest_durations() {
    let longest = Retry {
        deadline: Duration::MAX,
        per_attempt: Duration::MAX,
        base: Duration::MAX,
        cap: Duration::MAX,
        attempts: NonZeroUsize::MAX,
        budget: None,
    };
    let failing = async |_| Err::<(), _>("no");
    let gave_up = retry(&longest, |_| Verdict::After(Duration::MAX), failing).await.unwrap_err();
    assert_eq!(gave_up.reason, Reason::Deadline(Duration::MAX));
    let none = Retry { deadline: ms(0), per_attempt: ms(0), base: ms(0), cap: ms(0), ..longest };
    let gave_up = retry(&none, |_| Verdict::Transient, failing).await.unwrap_err();
    assert_eq!((gave_up.reason, gave_up.failures.len()), (Reason::Deadline(ms(0)), 1));
    assert_eq!(retry(&none, |_: &&str| Verdict::Transient, async |_| Ok(1)).await, Ok(1));
}

/// The longest wait is `base` before the second attempt, and twice as much before the third.
#[tokio::test(start_paused = true)]
async fn clock_waits_grow_from_the_base() {
    let policy = Retry { base: ms(8), attempts: TWO.saturating_add(1), ..Retry::default() };
    let mut longest = [Duration::ZERO; 2];
    for _ in 0..300 {
        let failed = retry(&policy, |_: &&str| Verdict::Transient, async |_| Err::<(), _>("busy")).await;
        let failures = failed.unwrap_err().failures;
        for (longest, pair) in longest.iter_mut().zip(failures.windows(2)) {
            *longest = (*longest).max(pair[1].started - pair[0].ended);
        }
    }
    // Exactly these: of 300 random waits some lie within the last millisecond, which the timer rounds up.
    assert_eq!(longest, [ms(8), ms(16)]);
}

/// A timer goes off at a whole millisecond: a wait of 9.5 ms ends at the deadline of 10.
#[tokio::test(start_paused = true)]
async fn clock_begins_no_attempt_at_the_deadline() {
    let policy = Retry { deadline: ms(10), base: Duration::ZERO, ..Retry::default() };
    let asked = |_: &&str| Verdict::After(Duration::from_micros(9_500));
    let gave_up = retry(&policy, asked, async |_| Err::<(), _>("busy")).await.unwrap_err();
    assert_eq!((gave_up.reason, gave_up.failures.len()), (Reason::Deadline(ms(10)), 1));
}

#[tokio::test(start_paused = true)]
async fn memory_is_one_error_for_each_attempt() {
    let attempts = NonZeroUsize::new(100_000).unwrap();
    let many = Retry { attempts, deadline: Duration::MAX, cap: ms(0), ..Retry::default() };
    let gave_up = retry(&many, |_| Verdict::Transient, async |_| Err::<(), _>("no")).await.unwrap_err();
    assert_eq!((gave_up.failures.len(), gave_up.failures.last().unwrap().attempt), (100_000, 100_000));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any limits, any attempts: no wait is above its cap, no attempt above its own, and the deadline holds.
    #[test]
    fn clock_keeps_every_limit(
        (deadline, per_attempt, base, cap) in (0..3_000_u64, 1..400_u64, 0..300_u64, 0..500_u64),
        took in prop::collection::vec(0..600_u64, 1..20),
        asked in 0..200_u64,
        seed: u64,
    ) {
        fastrand::seed(seed);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let [deadline, per_attempt, base, cap, asked] = [deadline, per_attempt, base, cap, asked].map(ms);
        let attempts = NonZeroUsize::new(took.len()).unwrap();
        let policy = Retry { deadline, attempts, per_attempt, base, cap, budget: None };
        let gave_up = runtime.block_on(async {
            let start = Instant::now();
            let attempt = async |number: usize| {
                sleep(ms(took[number - 1])).await;
                Err::<(), _>("no")
            };
            let gave_up = retry(&policy, |_| Verdict::After(asked), attempt).await.unwrap_err();
            // The timer's resolution is a millisecond, to which it rounds up.
            assert!(start.elapsed() <= deadline + ms(1));
            gave_up
        });
        for (number, failed) in (1..).zip(&gave_up.failures) {
            prop_assert_eq!(failed.attempt, number);
            prop_assert!(failed.ended - failed.started <= per_attempt + ms(1));
        }
        for pair in gave_up.failures.windows(2) {
            let wait = pair[1].started - pair[0].ended;
            let asked = if pair[0].error.is_some() { asked } else { ms(0) };
            prop_assert!(wait >= asked);
            prop_assert!(wait <= cap + asked + ms(1));
        }
    }
}
