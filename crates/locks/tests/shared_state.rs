//! `update` is dropped at every suspension point: the value is the old one or the new one, and the lock is free.

use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use locks::{Shared, Unusable, update};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;

/// Moves 3 from one account to the other, in two steps between which it waits.
fn scene(parts: &Parts) -> Scene<Result<(), &'static str>> {
    let ledger = Rc::new(Mutex::new((10, 0)));
    let (before, behind, after) = (ledger.clone(), ledger.clone(), ledger.clone());
    let (parts, seen) = (parts.clone(), parts.clone());
    let call = async move {
        let change = |(mut from, mut to): (i32, i32)| {
            let change = async move {
                from -= 3;
                sleep(Duration::from_millis(2)).await;
                yield_now().await;
                to += 3;
                Ok((from, to))
            };
            parts.fallible("change", change, || "injected")
        };
        update(&ledger, change).await
    };
    Scene::new(call)
        .alongside(async move {
            let _held = before.lock().await;
            sleep(Duration::from_millis(3)).await;
        })
        .alongside(async move {
            sleep(Duration::from_millis(1)).await;
            let _turn = behind.lock().await;
        })
        .check(move |ended| {
            let now = *after.try_lock().expect("nobody holds it");
            match (ended, seen.fault()) {
                (Ended::Returned(Ok(())), _) => assert_eq!(now, (7, 3)),
                (Ended::Returned(Err(error)), Some(Fault::Fail)) => {
                    assert_eq!((error, now), ("injected", (10, 0)));
                }
                (_, _) => assert_eq!(now, (10, 0)),
            }
        })
}

#[test]
fn cancellation_at_every_point() {
    sweep(scene);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_many_tasks_on_two_threads_loses_nothing() {
    let (shared, awaited) = (Arc::new(Shared::new(0_u64)), Arc::new(Mutex::new(0_u64)));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (shared, awaited) = (shared.clone(), awaited.clone());
            tokio::spawn(async move {
                for _ in 0..100 {
                    shared.with(|count| *count += 1).unwrap();
                    let add = |count| async move {
                        yield_now().await;
                        Ok::<_, ()>(count + 1)
                    };
                    update(&awaited, add).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((shared.with(|count| *count), *awaited.lock().await), (Ok(10_000), 10_000));
}

/// A thread that waits for the lock while another one panics inside it is refused, and does not panic.
#[test]
fn panics_are_told_to_those_who_wait() {
    let (value, inside) = (Shared::new(()), Barrier::new(2));
    std::thread::scope(|scope| {
        let panicking = scope.spawn(|| {
            value.with(|()| {
                inside.wait();
                std::panic::resume_unwind(Box::new("halfway"))
            })
        });
        inside.wait();
        // It waits for the lock, or finds it poisoned.
        assert_eq!(value.with(|()| ()), Err(Unusable::Poisoned));
        assert!(panicking.join().is_err());
    });
    assert_eq!(value.replace(()), Ok(()));
    assert_eq!(value.with(|()| ()), Ok(()));
}

/// A value whose drop asks for itself, and a `with` in a drop while a panic unwinds.
#[test]
fn errors_in_a_drop_do_not_hang() {
    struct Asks(&'static Shared<Option<Asks>>, &'static Shared<Vec<Result<(), Unusable>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let asked = self.0.with(|_| ());
            self.1.with(|log| log.push(asked)).unwrap();
        }
    }
    static VALUE: Shared<Option<Asks>> = Shared::new(None);
    static LOG: Shared<Vec<Result<(), Unusable>>> = Shared::new(Vec::new());
    VALUE.replace(Some(Asks(&VALUE, &LOG))).map(drop).unwrap();
    // Dropped by the caller, outside the lock.
    drop(VALUE.replace(Some(Asks(&VALUE, &LOG))));
    // Dropped by the closure, inside it.
    VALUE.with(|value| *value = None).unwrap();
    // Dropped while a panic unwinds, which poisons nothing: it began before the closure.
    let unwinding = std::panic::catch_unwind(|| {
        let _asks = Asks(&VALUE, &LOG);
        std::panic::resume_unwind(Box::new("unwinds"))
    });
    assert!(unwinding.is_err());
    assert_eq!(LOG.with(std::mem::take), Ok(vec![Ok(()), Err(Unusable::Reentered), Ok(())]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever moves between accounts, of which some fail or are given up: the sum stays.
    #[test]
    fn cancellation_of_any_moves_keeps_the_sum(
        moves in prop::collection::vec((0..4_usize, 0..4_usize, 0..9_i64, 0..4_u64, 0..6_u64), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let sum = runtime.block_on(async {
            let accounts = Arc::new(Mutex::new(vec![10_i64; 4]));
            let mut tasks = Vec::new();
            for (from, to, amount, takes, patience) in moves {
                let accounts = accounts.clone();
                let change = move |mut accounts: Vec<i64>| async move {
                    accounts[from] -= amount;
                    sleep(Duration::from_millis(takes)).await;
                    if accounts[from] < 0 { return Err("not so much") }
                    accounts[to] += amount;
                    Ok(accounts)
                };
                let moving = async move { update(&accounts, change).await };
                tasks.push(tokio::spawn(tokio::time::timeout(Duration::from_millis(patience), moving)));
            }
            for task in tasks {
                let _ = task.await.unwrap();
            }
            accounts.lock().await.iter().sum::<i64>()
        });
        prop_assert_eq!(sum, 40);
    }
}
