//! `weighted_limit`: callers are dropped at every suspension point, and the whole budget is there afterwards.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;
use semaphores::WeightedLimit;
use support::sweep::{Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

fn limit(budget: usize) -> WeightedLimit {
    WeightedLimit::new(NonZeroUsize::new(budget).expect("not zero"))
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| {
        let limit = limit(10);
        let (subject, before, large, small, after) =
            (limit.clone(), limit.clone(), limit.clone(), limit.clone(), limit);
        let call = async move {
            for _ in 0..2 {
                let mut share = subject.acquire(7).await.expect("within the budget");
                sleep(Duration::from_millis(2)).await;
                share.give_back(4);
                sleep(Duration::from_millis(2)).await;
            }
        };
        let first = async move {
            let _share = before.acquire(6).await;
            sleep(Duration::from_millis(3)).await;
        };
        let needs_all = async move {
            sleep(Duration::from_millis(1)).await;
            let _share = large.acquire(10).await;
            sleep(Duration::from_millis(1)).await;
        };
        let last = async move {
            sleep(Duration::from_millis(2)).await;
            drop(small.acquire(1).await);
        };
        Scene::new(call)
            .alongside(first)
            .alongside(needs_all)
            .alongside(last)
            .check(move |_| assert_eq!(after.free(), 10))
    });
}

/// Budgets above 4 GiB are given out in units of several: nothing of them is lost in the rounding.
#[test]
fn cancellation_with_a_budget_in_units() {
    sweep(|_| {
        let limit = limit(10_000_000_000);
        let (whole, subject, other, after) = (limit.free(), limit.clone(), limit.clone(), limit);
        let call = async move {
            let mut share = subject.acquire(9_999_999_999).await.expect("within the budget");
            for _ in 0..3 {
                sleep(Duration::from_millis(1)).await;
                share.give_back(3_333_333_333);
            }
        };
        let other = async move {
            let _share = other.acquire(5_000_000_001).await;
            sleep(Duration::from_millis(1)).await;
        };
        Scene::new(call).alongside(other).check(move |_| assert_eq!(after.free(), whole))
    });
}

#[derive(Clone, Debug)]
struct Request {
    weight: usize,
    starts: u64,
    takes: u64,
    patience: u64,
    gives_back: usize,
}

fn request() -> impl Strategy<Value = Request> {
    (0..15_usize, 0..5_u64, 0..9_u64, 0..60_u64, 0..15_usize).prop_map(
        |(weight, starts, takes, patience, gives_back)| Request {
            weight,
            starts,
            takes,
            patience,
            gives_back,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for, however long it is held, whoever gives up: never above the budget, nobody is forgotten, and
    /// those that wait without end are served in the order in which they came.
    #[test]
    fn order_and_budget_hold(requests in prop::collection::vec(request(), 0..40), budget in 1..12_usize) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (limit, used, came, served) = (limit(budget), Cell::new(0), RefCell::new(vec![]), RefCell::new(vec![]));
        let call = async |(number, request): (usize, Request)| {
            sleep(Duration::from_millis(request.starts)).await;
            let patient = request.patience > 40;
            let patience = Duration::from_millis(if patient { 1_000_000 } else { request.patience });
            if patient && request.weight > 0 && request.weight <= budget {
                came.borrow_mut().push(number);
            }
            let share = timeout(patience, limit.acquire(request.weight)).await;
            let Ok(Ok(mut share)) = share else {
                return assert!(request.weight > budget || !patient);
            };
            if patient && request.weight > 0 {
                served.borrow_mut().push((number, Instant::now()));
            }
            used.set(used.get() + request.weight);
            assert!(used.get() <= budget);
            sleep(Duration::from_millis(request.takes)).await;
            share.give_back(request.gives_back);
            used.set(used.get() - request.weight + share.weight());
            assert!(used.get() + limit.free() <= budget);
            sleep(Duration::from_millis(request.takes)).await;
            used.set(used.get() - share.weight());
        };
        runtime.block_on(join_all(requests.into_iter().enumerate().map(call)));
        prop_assert_eq!((used.get(), limit.free()), (0, budget));
        let served: BTreeMap<_, _> = served.into_inner().into_iter().collect();
        // What is served at the same moment is polled in any order.
        let times: Vec<_> = came.borrow().iter().map(|number| served[number]).collect();
        prop_assert!(times.is_sorted(), "{:?} came in this order", came);
    }
}

/// The pitfall on the page: tokio's semaphore takes a request that can never be met.
#[tokio::test(start_paused = true)]
async fn pitfall_more_than_there_is() {
    let bare = Semaphore::new(8);
    assert!(timeout(Duration::from_secs(3600), bare.acquire_many(10)).await.is_err());
    let error = limit(8).acquire(10).await.unwrap_err();
    assert_eq!((error.weight, error.budget), (10, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_on_two_threads() {
    let (limit, used) = (limit(10), Arc::new(AtomicUsize::new(0)));
    for _ in 0..100 {
        let tasks: Vec<_> = (0..100_usize)
            .map(|number| {
                let (limit, used) = (limit.clone(), used.clone());
                tokio::spawn(async move {
                    let weight = 1 + number % 10;
                    let _share = limit.acquire(weight).await.expect("within the budget");
                    assert!(used.fetch_add(weight, Ordering::Relaxed) + weight <= 10);
                    std::hint::black_box(number);
                    used.fetch_sub(weight, Ordering::Relaxed);
                })
            })
            .collect();
        yield_now().await;
        tasks.iter().step_by(3).for_each(JoinHandle::abort);
        for (number, task) in tasks.into_iter().enumerate() {
            assert!(task.await.is_ok() || number % 3 == 0);
        }
        assert_eq!(limit.free(), 10);
    }
}
