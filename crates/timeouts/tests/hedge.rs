//! `hedge` is dropped at every suspension point; its copies fail and panic; the hedged share is the one asked for.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use timeouts::{BothFailed, Latencies, RetryBudget, hedge};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Four calls of 3 ms, so that the next is hedged after 3 ms; its copies take `first` and `second` ms.
fn scene(parts: &Parts, first: u64, second: u64) -> Scene<Result<usize, BothFailed<&'static str>>> {
    let permits = Arc::new(Semaphore::new(2));
    let (after, other) = (permits.clone(), permits.clone());
    let (parts, seen) = (parts.clone(), parts.clone());
    let call = async move {
        let (latencies, budget) = (Latencies::new(0.5, FOUR).expect("a quantile"), RetryBudget::new(0, FOUR));
        for _ in 0..4 {
            let measured = async |_| {
                sleep(ms(3)).await;
                Ok::<_, ()>(())
            };
            let _ = hedge(&latencies, &budget, measured).await;
        }
        let copy = |copy| {
            let permits = permits.clone();
            let work = async move {
                let _permit = permits.acquire().await;
                sleep(ms(if copy == 1 { first } else { second })).await;
                Ok(copy)
            };
            parts.fallible(format!("copy {copy}"), work, || "injected")
        };
        hedge(&latencies, &budget, copy).await
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
        assert_eq!(after.available_permits(), 2);
        match (ended, seen.fault()) {
            (Ended::Returned(result), None) => assert_eq!(result, Ok(if first < second { 1 } else { 2 })),
            // One fails and the other wins, unless the first copy fails before there is another.
            (Ended::Returned(Err(failed)), Some(Fault::Fail)) => assert_eq!(failed.hedge, None),
            _ => {}
        }
    })
}

#[test]
fn cancellation_at_every_point_when_the_hedge_wins() {
    sweep(|parts| scene(parts, 50, 2));
}

#[test]
fn cancellation_at_every_point_when_the_first_copy_wins() {
    sweep(|parts| scene(parts, 6, 50));
}

/// The share of `calls` that are hedged at 0.95 after 2,000 calls to warm up, and the delay in the end.
fn simulate(calls: usize, at_a_time: usize, latency: fn(f64) -> f64, seed: u64) -> (f64, f64) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a timer");
    let window = NonZeroUsize::new(1000).expect("not zero");
    let latencies = &Latencies::new(0.95, window).expect("a quantile");
    let budget = &RetryBudget::new(100, window);
    let mut random = fastrand::Rng::with_seed(seed);
    let hedges = &Cell::new(0);
    let draws: Vec<_> = (0..calls + 2000).map(|_| [random.f64(), random.f64()].map(latency)).collect();
    let call = |draw: [f64; 2]| async move {
        let copy = async |copy: usize| {
            hedges.set(hedges.get() + copy - 1);
            sleep(Duration::from_secs_f64(draw[copy - 1])).await;
            Ok::<_, ()>(())
        };
        hedge(latencies, budget, copy).await.expect("copies succeed");
    };
    runtime.block_on(async {
        let mut calls = stream::iter(draws).map(call).buffer_unordered(at_a_time);
        for _ in 0..2000 {
            calls.next().await;
        }
        hedges.set(0);
        calls.for_each(async |()| ()).await;
    });
    (hedges.get() as f64 / calls as f64, latencies.delay().expect("it is warm").as_secs_f64())
}

/// One second on average.
fn exponential(uniform: f64) -> f64 {
    -(1.0 - uniform).ln()
}

/// 97 % take 100 to 200 ms, the others 3 s.
fn bimodal(uniform: f64) -> f64 {
    if uniform < 0.97 { 0.1 + uniform / 9.7 } else { 3.0 }
}

#[test]
fn clock_the_hedged_share_is_that_of_the_quantile() {
    for (seed, at_a_time) in [(1, 1), (2, 50)] {
        let (share, delay) = simulate(10_000, at_a_time, exponential, seed);
        assert!((0.044..=0.058).contains(&share), "exponential: {share}");
        // The quantile is ln 20 = 3.0 s.
        assert!((2.4..=3.7).contains(&delay), "exponential: {delay}");
        let (share, delay) = simulate(10_000, at_a_time, bimodal, seed);
        assert!((0.044..=0.058).contains(&share), "bimodal: {share}");
        assert!((0.19..=0.21).contains(&delay), "bimodal: {delay}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// When every call is slow, the budget is what bounds the hedges.
    #[test]
    fn backpressure_is_the_budget(
        (percent, burst) in (0..100_usize, 1..20_usize),
        draws in prop::collection::vec((0..50_u64, 0..50_u64, 0..3_usize), 0..200),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let latencies = Latencies::new(0.01, FOUR).unwrap();
        let budget = RetryBudget::new(percent, NonZeroUsize::new(burst).unwrap());
        let copies = Cell::new(0);
        let calls = draws.len();
        runtime.block_on(async {
            for (first, second, failing) in draws {
                let copy = async |copy: usize| {
                    copies.set(copies.get() + 1);
                    sleep(ms(if copy == 1 { first } else { second })).await;
                    if copy == failing { Err(copy) } else { Ok(copy) }
                };
                let _ = hedge(&latencies, &budget, copy).await;
            }
        });
        prop_assert!((copies.get() - calls) * 100 <= burst * 100 + calls * percent);
    }
}

/// Callers on two threads share the latencies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_shared_by_threads() {
    let shared = Arc::new((Latencies::new(0.9, FOUR).unwrap(), RetryBudget::new(10, FOUR)));
    let callers = (0..8).map(|_| {
        let shared = shared.clone();
        tokio::spawn(async move {
            for _ in 0..500 {
                let yielding = |copy| async move {
                    tokio::task::yield_now().await;
                    Ok::<_, ()>(copy)
                };
                hedge(&shared.0, &shared.1, yielding).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(shared.0.delay().is_some());
}
