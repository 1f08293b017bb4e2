//! `retry_budget`: whatever callers do, and from however many threads, the extra load stays within its share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use timeouts::{Extra, RetryBudget};
use tokio::time::sleep;

fn start(extra: Option<Extra<'_>>) -> usize {
    extra.map_or(0, |extra| {
        extra.start();
        1
    })
}

/// Whoever is dropped between the leave and the attempt gives the leave back, once.
#[test]
fn cancellation_at_every_point_gives_back_what_was_not_started() {
    sweep(|_| {
        let budget = Arc::new(RetryBudget::new(0, NonZeroUsize::new(3).expect("not zero")));
        let (other, after) = (budget.clone(), budget.clone());
        let call = async move {
            let extra = budget.withdraw();
            sleep(Duration::from_millis(2)).await;
            start(extra);
            sleep(Duration::from_millis(2)).await;
            drop(budget.withdraw());
        };
        let bystander = async move {
            sleep(Duration::from_millis(1)).await;
            start(other.withdraw());
        };
        Scene::new(call).alongside(bystander).check(move |ended| match ended {
            Ended::Returned(()) => assert_eq!(after.available(), 1),
            _ => assert!((1..=2).contains(&after.available())),
        })
    });
}

/// Half of the callers give back what they took: no attempt is lost, and none is won.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_holds_on_many_threads() {
    let budget = Arc::new(RetryBudget::new(10, NonZeroUsize::new(50).unwrap()));
    let started = Arc::new(AtomicUsize::new(0));
    let callers = (0..8).map(|caller| {
        let (budget, started) = (budget.clone(), started.clone());
        tokio::spawn(async move {
            for call in 0..10_000 {
                budget.deposit();
                let extra = budget.withdraw();
                if call % 64 == 0 {
                    tokio::task::yield_now().await;
                }
                if caller % 2 == 0 {
                    started.fetch_add(start(extra), Relaxed);
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    started
        .fetch_add(std::iter::repeat_with(|| start(budget.withdraw())).take_while(|&n| n > 0).sum(), Relaxed);
    let started = started.load(Relaxed);
    assert!((50..=50 + 80_000 / 10).contains(&started), "{started} extra attempts");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// From any call to any later one: at most the burst, the share of the calls in between, and what waited.
    #[test]
    fn backpressure_holds_in_every_span(
        percent in 0..300_usize,
        burst in 1..20_usize,
        steps in prop::collection::vec(0..4_u8, 0..150),
    ) {
        let budget = RetryBudget::new(percent, NonZeroUsize::new(burst).unwrap());
        let mut held = Vec::new();
        let mut history = vec![(0, 0, 0)];
        let (mut calls, mut extra) = (0, 0);
        for step in steps {
            match step {
                0 => {
                    budget.deposit();
                    calls += 1;
                }
                1 => held.extend(budget.withdraw()),
                2 => drop(held.pop()),
                _ => extra += start(budget.withdraw()),
            }
            history.push((calls, extra, held.len()));
        }
        for (from, (calls, extra, waiting)) in history.iter().enumerate() {
            for (later_calls, later_extra, _) in &history[from..] {
                let allowed = (burst + waiting) * 100 + (later_calls - calls) * percent;
                prop_assert!((later_extra - extra) * 100 <= allowed);
            }
        }
    }
}
