//! `settle` is dropped at every suspension point, and every fault of a child is exactly one outcome.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use gather::{Failure, Outcome, settle, settle_within, split};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

fn scene(parts: &Parts, limit: Option<usize>) -> Scene<Vec<Outcome<u64, &'static str>>> {
    let permits = Arc::new(Semaphore::new(2));
    let (after, other, parts) = (permits.clone(), permits.clone(), parts.clone());
    let children: Vec<_> = (0..4)
        .map(|i| {
            let permits = permits.clone();
            let child = async move {
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(i)).await;
                Ok(i)
            };
            parts.fallible(format!("child {i}"), child, || "injected")
        })
        .collect();
    let limit = limit.and_then(NonZeroUsize::new);
    let call = async move {
        match limit {
            None => settle(children).await,
            Some(limit) => settle_within(children, limit, NonZeroUsize::new(4).expect("not zero")).await,
        }
    };
    let check = move |ended: Ended<Vec<Outcome<u64, &str>>>| {
        assert_eq!(after.available_permits(), 2);
        let Ended::Returned(outcomes) = ended else { return };
        let (values, failures) = split(outcomes);
        assert!(values.iter().all(|(index, value)| *index as u64 == *value));
        match (parts.fault(), failures.as_slice()) {
            (None, []) => assert_eq!(values.len(), 4),
            (Some(Fault::Panic), [(_, Failure::Panic(_))])
            | (Some(Fault::Fail), [(_, Failure::Error("injected"))]) => {
                assert_eq!(values.len(), 3);
            }
            (fault, failures) => panic!("{fault:?} became {failures:?}"),
        }
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).returns_panics().check(check)
}

#[test]
fn cancellation_of_settle_at_every_point() {
    sweep(|parts| scene(parts, None));
}

#[test]
fn cancellation_with_a_limit_at_every_point() {
    sweep(|parts| scene(parts, Some(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One outcome for each input; those never started are exactly those after the threshold.
    #[test]
    fn errors_are_neither_lost_nor_invented(
        fails in prop::collection::vec(any::<bool>(), 0..60),
        limit in 1..20_usize,
        max_failures in 1..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let futures = fails.iter().map(async |fail| {
            sleep(Duration::from_millis(1)).await;
            if *fail { Err(()) } else { Ok(()) }
        });
        let (limit, most) = (NonZeroUsize::new(limit).unwrap(), NonZeroUsize::new(max_failures).unwrap());
        let outcomes = runtime.block_on(settle_within(futures, limit, most));
        prop_assert_eq!(outcomes.len(), fails.len());
        let started = outcomes.iter().take_while(|outcome| !matches!(outcome, Outcome::Failure(Failure::Cancelled)));
        let started = started.count();
        prop_assert!(outcomes[started..].iter().all(|outcome| matches!(outcome, Outcome::Failure(Failure::Cancelled))));
        let failed = fails[..started].iter().filter(|fail| **fail).count();
        for (outcome, fail) in outcomes[..started].iter().zip(&fails) {
            prop_assert_eq!(matches!(outcome, Outcome::Failure(Failure::Error(()))), *fail);
        }
        // Those that ran when the threshold was reached may have failed too.
        prop_assert!(failed < max_failures + limit.get());
        prop_assert!(started == fails.len() || failed >= max_failures);
    }
}
