//! `Deadline::run` and `run_all` are dropped at every suspension point; any nesting keeps the earliest deadline.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use timeouts::Deadline;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn cancellation_of_nested_calls() {
    sweep(|parts| {
        let permits = Rc::new(Semaphore::new(1));
        let (other, after, parts) = (permits.clone(), permits.clone(), parts.clone());
        let call = async move {
            let request = Deadline::after("request", ms(10));
            let work = async {
                let _permit = permits.acquire().await;
                sleep(ms(30)).await;
                Ok::<_, &str>(())
            };
            let part = request.within("part", ms(4));
            let _ = part.run(parts.fallible("part", work, || "injected")).await;
            let rest = request.within("rest", ms(90)).run(sleep(ms(30))).await;
            rest.map_err(|expired| expired.owner)
        };
        let other = async move { drop(other.acquire().await) };
        Scene::new(call).alongside(other).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            if let Ended::Returned(rest) = ended {
                assert_eq!(rest, Err("request".into()));
            }
        })
    });
}

#[test]
fn cancellation_of_many_calls() {
    sweep(|parts| {
        let permits = Rc::new(Semaphore::new(2));
        let (other, after, parts) = (permits.clone(), permits.clone(), parts.clone());
        let call = async move {
            let calls = (0..5).map(|i| {
                let permits = permits.clone();
                let work = async move {
                    let _permit = permits.acquire().await;
                    sleep(ms(i * 2)).await;
                    Ok(i)
                };
                parts.fallible("call", work, || "injected")
            });
            Deadline::after("all", ms(7)).run_all(calls).await.len()
        };
        let other = async move { drop(other.acquire_many(2).await) };
        Scene::new(call).alongside(other).check(move |ended| {
            assert_eq!(after.available_permits(), 2);
            if let Ended::Returned(results) = ended {
                assert_eq!(results, 5);
            }
        })
    });
}

/// A call that computes holds up the others: what still waits is cut off late, and says so.
#[tokio::test(start_paused = true)]
async fn errors_of_many_calls_tell_how_late_they_are() {
    let computes = async {
        yield_now().await;
        let _ = advance(ms(30)).now_or_never();
    };
    let outcomes = Deadline::after("all", ms(10)).run_all([computes.boxed(), pending().boxed()]).await;
    assert_eq!(outcomes[0], Ok(()));
    assert_eq!(outcomes[1].as_ref().unwrap_err().late, ms(20));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However deep the calls and whatever their limits: the earliest deadline cuts off, on time, and is named.
    #[test]
    fn errors_name_the_earliest(limits in prop::collection::vec((1..60_u64, 0..20_u64), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (expired, took, expected, owner) = runtime.block_on(async {
            let start = Instant::now();
            let (mut deadline, mut owner, mut at) = (Deadline::after("top", ms(90)), "top".to_string(), ms(90));
            for (level, (limit, pause)) in limits.into_iter().enumerate() {
                deadline = deadline.within(level.to_string(), ms(limit));
                let own = start.elapsed() + ms(limit);
                if own < at {
                    (owner, at) = (level.to_string(), own);
                }
                sleep(ms(pause)).await;
            }
            let expected = at.max(start.elapsed());
            let expired = deadline.run(std::future::pending::<()>()).await.unwrap_err();
            (expired, start.elapsed(), expected, owner)
        });
        // A timer that is due already still takes up to a millisecond.
        prop_assert!(took == expected || took == expected + ms(1));
        prop_assert_eq!(expired.owner, owner);
    }
}
