//! `timeout`, `timeout_or_detach` and `Limit::run` are dropped at every suspension point, and a limit is moved meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use timeouts::{Limit, timeout, timeout_or_detach};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits for a permit and for so long.
async fn work(permits: Rc<Semaphore>, milliseconds: u64) -> Result<u64, &'static str> {
    let _permit = permits.acquire().await;
    sleep(ms(milliseconds)).await;
    Ok(milliseconds)
}

/// A permit, and a bystander who wants it.
fn permits() -> (Rc<Semaphore>, impl Future<Output = ()>) {
    let permits = Rc::new(Semaphore::new(1));
    let other = permits.clone();
    (permits, async move { drop(other.acquire().await) })
}

fn scene(parts: &Parts, milliseconds: u64) -> Scene<Result<u64, &'static str>> {
    let (permits, other) = permits();
    let (after, parts, seen) = (permits.clone(), parts.clone(), parts.clone());
    let call = async move {
        let work = parts.fallible("work", work(permits, milliseconds), || "injected");
        timeout("work", ms(5), work).await.unwrap_or(Err("timed out"))
    };
    Scene::new(call).alongside(other).check(move |ended| {
        assert_eq!(after.available_permits(), 1);
        match (ended, seen.fault()) {
            (Ended::Returned(result), Some(Fault::Fail)) => assert_eq!(result, Err("injected")),
            (Ended::Returned(result), None) if milliseconds < 5 => assert_eq!(result, Ok(milliseconds)),
            (Ended::Returned(result), None) => assert_eq!(result, Err("timed out")),
            _ => {}
        }
    })
}

#[test]
fn cancellation_of_work_in_time() {
    sweep(|parts| scene(parts, 3));
}

#[test]
fn cancellation_of_work_that_takes_too_long() {
    sweep(|parts| scene(parts, 30));
}

#[test]
fn cancellation_of_a_moving_limit() {
    sweep(|parts| {
        let (permits, other) = permits();
        let (after, parts, seen) = (permits.clone(), parts.clone(), parts.clone());
        let limit = Rc::new(Limit::new("work", ms(5)));
        let moved = limit.clone();
        let mover = async move {
            for limit in [20, 8, 40] {
                sleep(ms(2)).await;
                moved.set(ms(limit));
            }
        };
        let call = async move {
            let work = parts.fallible("work", work(permits, 60), || "injected");
            limit.run(work).await.map_err(|late| (late.output.is_some(), late.timed_out.took))
        };
        Scene::new(call).alongside(other).alongside(mover).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            if let (Ended::Returned(result), None) = (ended, seen.fault()) {
                assert_eq!(result, Err((false, ms(40))));
            }
        })
    });
}

/// Only the limit hands over. What was handed over ends under its owner.
#[test]
fn cancellation_of_work_that_is_handed_over() {
    sweep(|_| {
        let (permits, other) = permits();
        let after = permits.clone();
        let kept = Rc::new(Cell::new(0));
        let keeper = kept.clone();
        let call = async move {
            let keep = |work| {
                keeper.set(keeper.get() + 1);
                drop(spawn_local(work));
            };
            timeout_or_detach("work", ms(5), work(permits, 30), keep).await.is_err()
        };
        Scene::new(call).outlived().alongside(other).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            assert_eq!(kept.get(), usize::from(matches!(ended, Ended::Returned(true))));
        })
    });
}

/// The limit is moved from another thread while the work is polled: no move may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_moves_from_other_threads_are_seen() {
    for _ in 0..300 {
        let limit = Arc::new(Limit::new("work", Duration::MAX));
        let running = limit.clone();
        let call = tokio::spawn(async move { running.run(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        limit.set(ms(3_600_000));
        limit.set(Duration::ZERO);
        assert_eq!(call.await.unwrap().unwrap_err().timed_out.limit, Duration::ZERO);
    }
}

// ANCHOR: property
proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the pauses of the work: it is cut off exactly at its limit, or ends exactly when it would alone.
    #[test]
    fn clock_is_exact_to_the_millisecond(pauses in prop::collection::vec(1..20_u64, 0..20), limit in 1..200_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let sum = pauses.iter().sum::<u64>();
        let (done, took) = runtime.block_on(async {
            let start = Instant::now();
            let work = async {
                for pause in pauses {
                    sleep(ms(pause)).await;
                }
            };
            (timeout("work", ms(limit), work).await.is_ok(), start.elapsed())
        });
        prop_assert_eq!((done, took), (sum <= limit, ms(sum.min(limit))));
    }
}
// ANCHOR_END: property
