//! `try_gather` is dropped at every suspension point, its children break at every poll, and its first error is the first.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use gather::{Failed, try_gather};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// Children that wait for a permit which a bystander wants too, and for a timer.
#[test]
fn cancellation_returns_permits_at_every_point() {
    sweep(|parts| {
        let limit = Arc::new(Semaphore::new(2));
        let (after, other, parts_after) = (limit.clone(), limit.clone(), parts.clone());
        let children: Vec<_> = (0..4)
            .map(|i| {
                let limit = limit.clone();
                let work = async move {
                    let _permit = limit.acquire().await;
                    sleep(Duration::from_millis(i)).await;
                    Ok(i)
                };
                parts.fallible(format!("child {i}"), work, move || i)
            })
            .collect();
        Scene::new(try_gather(children)).alongside(async move { drop(other.acquire_many(2).await) }).check(
            move |ended| {
                assert_eq!(after.available_permits(), 2);
                match ended {
                    Ended::Returned(Ok(outputs)) => assert_eq!(outputs, [0, 1, 2, 3]),
                    Ended::Returned(Err(Failed::Error { index, error })) => {
                        assert_eq!((parts_after.fault(), index as u64), (Some(Fault::Fail), error));
                    }
                    Ended::Returned(Err(aborted)) => panic!("{aborted}"),
                    Ended::Dropped | Ended::Panicked(_) => {}
                }
            },
        )
    });
}

/// The second child fails, so that the others are stopped: every point of that is a point to drop the call or to panic.
#[test]
fn cancellation_of_the_rest_can_be_cancelled() {
    sweep(|parts| {
        let child = |i: usize| {
            let work = async move {
                sleep(Duration::from_millis(if i == 1 { 10 } else { 5 })).await;
                if i == 1 { Err::<(), _>("one") } else { std::future::pending().await }
            };
            parts.fallible(format!("child {i}"), work, || "injected")
        };
        let parts = parts.clone();
        Scene::new(try_gather((0..3).map(child).collect::<Vec<_>>())).check(move |ended| {
            if let Ended::Returned(result) = ended {
                let expected = if parts.fault().is_some() { "injected" } else { "one" };
                assert!(
                    matches!(result, Err(Failed::Error { error, .. }) if error == expected),
                    "{result:?}"
                );
            }
        })
    });
}

/// A task that a failing sibling stops panics on its way out: neither this panic nor the sweep's may vanish.
#[test]
fn panics_of_stopped_tasks_reach_the_caller_at_every_point() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            resume_unwind(Box::new("on the way out"));
        }
    }
    sweep(|parts| {
        let failing = parts.fallible("failing", sleep(Duration::from_millis(5)).map(Ok), || "failed");
        let stopped = async {
            // Made only in the task, so that a call that was never polled has nothing that panics.
            let guard = PanicsWhenDropped;
            sleep(Duration::from_millis(20)).await;
            std::mem::forget(guard);
            Ok(())
        };
        let call = AssertUnwindSafe(try_gather([failing.boxed(), stopped.boxed()])).catch_unwind();
        let parts = parts.clone();
        Scene::new(call).returns_panics().check(move |ended| {
            if let Ended::Returned(result) = ended {
                let panic = result.map_err(|panic| *panic.downcast::<&str>().unwrap());
                let expected = match parts.fault() {
                    Some(Fault::Panic) => Err("panic injected by the sweep"),
                    Some(_) => Err("on the way out"),
                    None => Ok(Ok(vec![(), ()])),
                };
                assert_eq!(panic, expected);
            }
        })
    });
}

/// More tasks end in one turn than tokio's cooperative budget lets a task look at.
#[tokio::test]
async fn errors_are_in_order_of_time_beyond_the_budget() {
    for first in [0, 1, 120, 126, 127, 128, 129, 255, 256, 500] {
        let futures = (0..1000).map(move |i| async move { if i < first { Ok(i) } else { Err(i) } });
        let result = tokio::spawn(try_gather(futures)).await.unwrap();
        assert_eq!(result, Err(Failed::Error { index: first, error: first }));
    }
}

/// All tasks have ended before the call looks at them: it gives way between.
#[tokio::test]
async fn order_leaves_neighbours_their_turn() {
    let n = 50_000;
    let mut call = Box::pin(try_gather((0..n).map(async |i| Ok::<_, ()>(i))));
    let counted = tokio::spawn(async move {
        let mut polls = 0;
        let count = poll_fn(|context| {
            polls += 1;
            call.as_mut().poll(context)
        });
        count.await.unwrap();
        polls
    });
    let polls = counted.await.unwrap();
    assert!((n / 128..n / 32).contains(&polls), "{polls} polls");
}

/// On two threads: when the call returns, nothing that a task held exists, however it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_is_complete_on_return_with_two_threads() {
    for round in 0..500_u64 {
        let held = Arc::new(());
        let futures = (0..20_u64).map(|i| {
            let held = held.clone();
            async move {
                let _held = held;
                for _ in 0..(i * 7 + round) % 11 {
                    yield_now().await;
                }
                if i == round % 20 { Err(i) } else { Ok(i) }
            }
        });
        let result = tokio::spawn(try_gather(futures.collect::<Vec<_>>())).await.unwrap();
        assert_eq!(result, Err(Failed::Error { index: round as usize % 20, error: round % 20 }));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Output,
    Error,
    Panic,
}

fn ends() -> impl Strategy<Value = Vec<(u64, End)>> {
    let end = prop_oneof![10 => Just(End::Output), 1 => Just(End::Error), 1 => Just(End::Panic)];
    prop::collection::vec((0..50_u64, end), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever ends when and how: the earliest error or panic decides, at its own time.
    #[test]
    fn errors_and_panics_are_decided_by_time(ends in ends()) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (result, took) = runtime.block_on(async {
            let futures = ends.clone().into_iter().enumerate().map(|(i, (millis, end))| async move {
                sleep(Duration::from_millis(millis)).await;
                match end {
                    End::Output => Ok(i),
                    End::Error => Err(i),
                    End::Panic => resume_unwind(Box::new(i)),
                }
            });
            let start = Instant::now();
            (tokio::spawn(try_gather(futures.collect::<Vec<_>>())).await, start.elapsed())
        });
        let bad = |(_, end): &&(u64, End)| !matches!(end, End::Output);
        let decided = ends.iter().filter(bad).map(|(millis, _)| *millis).min();
        let last = ends.iter().map(|(millis, _)| *millis).max().unwrap_or(0);
        prop_assert_eq!(took, Duration::from_millis(decided.unwrap_or(last)));
        match result {
            Ok(Ok(outputs)) => {
                prop_assert_eq!(decided, None);
                prop_assert!(outputs.into_iter().eq(0..ends.len()));
            }
            Ok(Err(failed)) => {
                let Failed::Error { index, error } = failed else { panic!("{failed}") };
                prop_assert_eq!(index, error);
                prop_assert!(matches!(ends[index], (millis, End::Error) if Some(millis) == decided));
            }
            Err(panic) => {
                let index = *panic.into_panic().downcast::<usize>().unwrap();
                prop_assert!(matches!(ends[index], (millis, End::Panic) if Some(millis) == decided));
            }
        }
    }
}
