//! `cancellation`: every wait is dropped at every point, and asked to stop at every point; the first reason wins.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tasks::{Cancellation, Cancelled, Overstayed};
use tokio::sync::Semaphore;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

/// Someone else waits for the same request, and must be told when it comes after all.
#[test]
fn cancellation_of_a_wait_leaves_the_others() {
    sweep(|_| {
        let stop = Cancellation::new();
        let (child, ask, other, later) = (stop.child(), stop.clone(), stop.child(), stop.clone());
        let fallback = async move {
            sleep(20 * MS).await;
            later.cancel("late");
        };
        Scene::new(async move { child.cancelled().await })
            .alongside(async move { assert!(["stop", "late"].contains(&other.cancelled().await)) })
            .alongside(fallback)
            .stop(move || _ = ask.cancel("stop"))
            .check(|ended| {
                if let Ended::Returned(reason) = ended {
                    assert!(["stop", "late"].contains(&reason));
                }
            })
    });
}

#[test]
fn cancellation_of_run_at_every_point() {
    sweep(|parts| {
        let stop = Cancellation::new();
        let permits = Arc::new(Semaphore::new(1));
        let (ask, other, after) = (stop.clone(), permits.clone(), permits.clone());
        let parts = parts.clone();
        let call = async move {
            let work = async {
                let _permit = permits.acquire().await;
                sleep(2 * MS).await;
                7
            };
            let work = parts.child("work", work);
            stop.run(work).await
        };
        Scene::new(call)
            .alongside(async move { drop(other.acquire().await) })
            .stop(move || _ = ask.cancel("stop"))
            .check(move |ended| {
                assert_eq!(after.available_permits(), 1);
                if let Ended::Returned(result) = ended {
                    assert!(matches!(result, Ok(7) | Err(Cancelled { reason: "stop" })), "{result:?}");
                }
            })
    });
}

/// The cleanup takes 2 ms and the grace is 3 ms; or 1 ms, and then it is cut off.
#[test]
fn cancellation_of_the_cleanup_at_every_point() {
    for grace in [3 * MS, MS] {
        sweep(|parts| {
            let stop = Cancellation::new();
            let permits = Arc::new(Semaphore::new(1));
            let (ask, other, after) = (stop.clone(), permits.clone(), permits.clone());
            let parts = parts.clone();
            let call = async move {
                let work = async {
                    let _permit = permits.acquire().await;
                    let stopped = stop.run(sleep(5 * MS)).await;
                    sleep(2 * MS).await;
                    stopped
                };
                stop.run_with_grace(grace, parts.child("work", work)).await
            };
            Scene::new(call)
                .alongside(async move { drop(other.acquire().await) })
                .stop(move || _ = ask.cancel("stop"))
                .check(move |ended| {
                    assert_eq!(after.available_permits(), 1);
                    match ended {
                        Ended::Returned(Ok(_)) | Ended::Dropped | Ended::Panicked(_) => {}
                        Ended::Returned(Err(Overstayed { reason, grace: given })) => {
                            assert_eq!((reason, given), ("stop", MS), "3 ms are enough");
                        }
                    }
                })
        });
    }
}

/// Two threads cancel and look at a tree: whoever has seen a reason sees no other, and a child without a reason of its own
/// has its parent's.
#[test]
fn order_of_reasons_on_two_threads() {
    for _ in 0..2_000 {
        let root = Cancellation::new();
        let middle = root.child();
        let leaf = middle.child();
        std::thread::scope(|scope| {
            let won =
                [(&root, 1), (&middle, 2)].map(|(node, reason)| scope.spawn(move || node.cancel(reason)));
            let seen = scope
                .spawn(|| std::iter::repeat_with(|| leaf.reason()).take(50).flatten().collect::<Vec<_>>());
            let mut seen = seen.join().expect("it does not panic");
            assert!(won.into_iter().next().is_some_and(|root| root.join().expect("it does not panic")));
            seen.push(leaf.reason().expect("it is cancelled by now"));
            seen.dedup();
            assert_eq!(seen.len(), 1, "{seen:?}");
        });
        assert_eq!((root.reason(), leaf.reason()), (Some(1), middle.reason()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any tree, cancelled anywhere in any order: the same as a model that tells every descendant at once.
    #[test]
    fn order_in_any_tree(
        parents in prop::collection::vec(any::<usize>(), 1..30),
        cancels in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20),
    ) {
        let mut tree = vec![Cancellation::new()];
        let mut parent_of = vec![None];
        for (i, parent) in parents.iter().enumerate() {
            tree.push(tree[parent % (i + 1)].child());
            parent_of.push(Some(parent % (i + 1)));
        }
        let mut model = vec![None; tree.len()];
        for (reason, (index, look)) in cancels.into_iter().enumerate() {
            let node = index.index(tree.len());
            prop_assert_eq!(tree[node].cancel(reason), model[node].is_none());
            model[node].get_or_insert(reason);
            // A parent comes before its children.
            for child in 1..tree.len() {
                if let Some(parent) = parent_of[child] {
                    model[child] = model[child].or(model[parent]);
                }
            }
            if look {
                prop_assert_eq!(tree.iter().map(Cancellation::reason).collect::<Vec<_>>(), model.clone());
            }
        }
        prop_assert_eq!(tree.iter().map(|node| node.token().is_cancelled()).collect::<Vec<_>>(),
            model.iter().map(Option::is_some).collect::<Vec<_>>());
        prop_assert_eq!(tree.iter().map(Cancellation::reason).collect::<Vec<_>>(), model);
    }
}
