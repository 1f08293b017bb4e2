//! `adaptive_limit`: calls are dropped at every suspension point while the limit moves; the permits always add up to it.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use proptest::prelude::*;
use semaphores::{AdaptiveLimit, Rules, Verdict};
use support::sweep::{Scene, sweep};
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

fn limit(least: usize, most: usize) -> AdaptiveLimit {
    let [least, most] = [least, most].map(|bound| NonZeroUsize::new(bound).expect("not zero"));
    AdaptiveLimit::new(Rules { least, most, target: Duration::from_millis(3) })
}

/// Exactly `limit.limit()` calls get in at once.
fn assert_permits(limit: &AdaptiveLimit) {
    let mut calls: Vec<_> = (0..=limit.limit())
        .map(|_| {
            let mut begun = Box::pin(limit.run(std::future::pending::<()>, |()| Verdict::Ignore));
            assert!((&mut begun).now_or_never().is_none());
            begun
        })
        .collect();
    let begun = limit.begun();
    assert_eq!(begun, limit.limit());
    calls.clear();
}

/// How many calls run.
trait Begun {
    fn begun(&self) -> usize;
}

impl Begun for AdaptiveLimit {
    fn begun(&self) -> usize {
        // The debug text is the only window into it.
        let text = format!("{self:?}");
        let running = text.split("running: ").nth(1).and_then(|rest| rest.split(',').next());
        running.and_then(|number| number.parse().ok()).expect("the state is shown")
    }
}

#[test]
fn cancellation_at_every_point_while_the_limit_moves() {
    sweep(|parts| {
        let limit = limit(1, 4);
        let (subject, after, parts) = (limit.clone(), limit.clone(), parts.clone());
        let call = async move {
            for millis in [1, 9, 1, 1] {
                let work = || async move {
                    sleep(Duration::from_millis(millis)).await;
                    Ok(())
                };
                let work = || parts.fallible("work", work(), || "injected");
                let _: Result<(), &str> = subject.run(work, |result| result.into()).await;
            }
        };
        let other = |millis: [u64; 4]| {
            let limit = limit.clone();
            async move {
                for millis in millis {
                    limit.run(|| sleep(Duration::from_millis(millis)), |()| Verdict::Fine).await;
                }
            }
        };
        Scene::new(call)
            .alongside(other([1, 1, 1, 1]))
            .alongside(other([2, 1, 2, 9]))
            .alongside(other([1, 2, 1, 1]))
            .check(move |_| {
                assert!((1..=4).contains(&after.limit()));
                assert_permits(&after);
            })
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the calls do, in the end there are as many permits as the limit says, and it is within its bounds.
    #[test]
    fn backpressure_permits_add_up(
        calls in prop::collection::vec((0..9_u64, 0..7_u64, 0..60_u64, 0..3_u8), 0..200),
        least in 1..6_usize,
        more in 0..10_usize,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let limit = limit(least, least + more);
        let call = async |(after, takes, patience, verdict): (u64, u64, u64, u8)| {
            sleep(Duration::from_millis(after)).await;
            let verdict = [Verdict::Fine, Verdict::Overloaded, Verdict::Ignore][usize::from(verdict)];
            let work = limit.run(|| sleep(Duration::from_millis(takes)), |()| verdict);
            let _ = timeout(Duration::from_millis(patience), work).await;
            assert!((least..=least + more).contains(&limit.limit()));
        };
        runtime.block_on(join_all(calls.into_iter().map(call)));
        assert_permits(&limit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_on_two_threads() {
    let limit = limit(2, 20);
    for round in 0..100_usize {
        let tasks: Vec<_> = (0..100_usize)
            .map(|number| {
                let limit = limit.clone();
                tokio::spawn(async move {
                    let verdict = if number % 29 == round % 29 { Verdict::Overloaded } else { Verdict::Fine };
                    limit.run(yield_now, |()| verdict).await;
                })
            })
            .collect();
        yield_now().await;
        tasks.iter().step_by(3).for_each(JoinHandle::abort);
        for (number, task) in tasks.into_iter().enumerate() {
            assert!(task.await.is_ok() || number % 3 == 0);
        }
        assert_permits(&limit);
    }
}
