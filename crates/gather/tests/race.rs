//! `race` and `quorum` are dropped at every suspension point; competitors fail and panic, and none outlives the call.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use gather::{Lost, Won, quorum};
use proptest::prelude::*;
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

fn scene(parts: &Parts, needed: usize) -> Scene<Result<Vec<Won<u64>>, Lost<&'static str>>> {
    let permits = Arc::new(Semaphore::new(2));
    let (after, other) = (permits.clone(), permits.clone());
    let child = |i| {
        let permits = permits.clone();
        let work = async move {
            let _permit = permits.acquire().await;
            sleep(Duration::from_millis(5 - i)).await;
            if i == 1 { Err("one") } else { Ok(i) }
        };
        parts.fallible(format!("child {i}"), work, || "injected")
    };
    let children: Vec<_> = (0..4).map(child).collect();
    let call = quorum(children, NonZeroUsize::new(needed).expect("not zero"));
    let parts = parts.clone();
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
        assert_eq!(after.available_permits(), 2);
        let Ended::Returned(result) = ended else { return };
        match result {
            Ok(won) => {
                assert_eq!(won.len(), needed);
                assert!(won.iter().all(|won| won.index as u64 == won.output && won.index != 1));
            }
            Err(Lost::TooManyFailures { succeeded, failures, .. }) => {
                assert!(parts.fault().is_some(), "only one fails by itself");
                assert!(succeeded < needed && failures.len() > 4 - needed);
            }
            Err(lost) => panic!("{lost}"),
        }
    })
}

#[test]
fn cancellation_of_a_race_at_every_point() {
    sweep(|parts| scene(parts, 1));
}

#[test]
fn cancellation_of_a_quorum_at_every_point() {
    sweep(|parts| scene(parts, 3));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// It succeeds exactly if enough futures do, with the earliest, and otherwise as soon as that is certain.
    #[test]
    fn order_and_errors_for_any_competitors(
        ends in prop::collection::vec(any::<bool>(), 1..20),
        needed in 1..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let futures = ends.clone().into_iter().enumerate().map(|(i, good)| async move {
            sleep(Duration::from_millis(1 + i as u64)).await;
            if good { Ok(i) } else { Err(i) }
        });
        let needed = NonZeroUsize::new(needed).unwrap();
        let result = runtime.block_on(async { tokio::spawn(quorum(futures, needed)).await.unwrap() });
        let good: Vec<usize> = (0..ends.len()).filter(|i| ends[*i]).collect();
        match result {
            Ok(won) => prop_assert!(won.iter().map(|won| won.output).eq(good[..needed.get()].iter().copied())),
            Err(Lost::TooFewFutures { .. }) => prop_assert!(needed.get() > ends.len()),
            Err(Lost::TooManyFailures { failures, .. }) => {
                prop_assert!(good.len() < needed.get());
                prop_assert_eq!(failures.len(), ends.len() - needed.get() + 1);
            }
        }
    }
}
