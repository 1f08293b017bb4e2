//! `condition`: waits are dropped at every suspension point, and nobody else loses a wake-up or a step.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use locks::{Condition, Unusable};
use proptest::prelude::*;
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::sleep;

/// Items put one by one, taken in pairs and singly. Whoever is dropped, the others get theirs.
fn scene(parts: &Parts) -> Scene<Result<i32, Unusable>> {
    let items = Rc::new(Condition::new(0));
    let (subject, single, maker, after) = (items.clone(), items.clone(), items.clone(), items);
    let parts = parts.clone();
    let call = async move {
        let take = async move {
            let first =
                subject.when(|items| *items >= 2, |items| std::mem::replace(items, *items - 2)).await?;
            subject.when(|items| *items >= 1, |items| *items -= 1).await?;
            Ok(first)
        };
        parts.child("take", take).await
    };
    Scene::new(call)
        .alongside(async move {
            for _ in 0..3 {
                single.when(|items| *items >= 1, |items| *items -= 1).await.expect("not poisoned");
                yield_now().await;
            }
        })
        .alongside(async move {
            for _ in 0..8 {
                sleep(Duration::from_millis(1)).await;
                maker.change(|items| *items += 1).expect("not poisoned");
            }
        })
        .check(move |ended| {
            let left = after.change(|items| *items).expect("not poisoned");
            match ended {
                Ended::Returned(_) => assert_eq!(left, 8 - 3 - 3),
                // Before its first step, between the two, or after the second.
                _ => assert!([5, 3].contains(&left), "{left}"),
            }
        })
}

#[test]
fn cancellation_at_every_point() {
    sweep(scene);
}

/// The action panics under the lock: all others are refused and go on, instead of waiting for ever.
#[test]
fn panics_of_an_action_are_told_to_all_who_wait() {
    sweep(|_| {
        let value = Rc::new(Condition::new(0));
        let (subject, waiting, changing, after) = (value.clone(), value.clone(), value.clone(), value);
        let call = async move { subject.when(|value| *value >= 1, |value| *value += 1).await };
        Scene::new(call)
            .alongside(async move {
                assert_eq!(waiting.when(|value| *value < 0, |_| ()).await, Err(Unusable::Poisoned));
            })
            .alongside(async move {
                sleep(Duration::from_millis(2)).await;
                changing.change(|value| *value = 1).expect("not poisoned yet");
                sleep(Duration::from_millis(2)).await;
                let halfway = changing.when(|_| true, |_| std::panic::resume_unwind(Box::new("halfway")));
                assert!(std::panic::AssertUnwindSafe(halfway).catch_unwind().await.is_err());
            })
            .check(move |_| assert_eq!(after.change(|_| ()), Err(Unusable::Poisoned)))
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_no_wake_up_is_lost_between_threads() {
    for _ in 0..50 {
        let room = Arc::new(Condition::new(0_usize));
        let put = |room: Arc<Condition<usize>>, n| async move {
            for _ in 0..50 {
                room.when(|used| used + n <= 3, |used| *used += n).await.unwrap();
            }
        };
        let take = |room: Arc<Condition<usize>>, n| async move {
            for _ in 0..50 {
                room.when(|used| *used >= n, |used| *used -= n).await.unwrap();
            }
        };
        let mut tasks = Vec::new();
        for _ in 0..3 {
            tasks.push(tokio::spawn(put(room.clone(), 1)));
            tasks.push(tokio::spawn(take(room.clone(), 1)));
        }
        for task in join_all(tasks).await {
            task.unwrap();
        }
        assert_eq!(room.change(|used| *used), Ok(0));
    }
}

/// Half of those who wait are aborted at any moment; the others get exactly what was put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_storm_loses_nothing() {
    for _ in 0..50 {
        let items = Arc::new(Condition::new(0_usize));
        let take = |items: Arc<Condition<usize>>| async move {
            items.when(|items| *items > 0, |items| *items -= 1).await
        };
        let takers: Vec<_> = (0..200).map(|_| tokio::spawn(take(items.clone()))).collect();
        yield_now().await;
        let (mut put, mut taken) = (0, 0);
        for number in (0..200).step_by(2) {
            takers[number].abort();
            items.change(|items| *items += 1).unwrap();
            put += 1;
        }
        while takers.iter().any(|taker| !taker.is_finished()) {
            // Some were taken by those who were aborted too late: put as many as are still waited for.
            put += items
                .change(|items| {
                    usize::from({
                        let empty = *items == 0;
                        *items += usize::from(empty);
                        empty
                    })
                })
                .unwrap();
            yield_now().await;
        }
        for taker in takers {
            taken += usize::from(taker.await.is_ok_and(|taken| taken.is_ok()));
        }
        assert!(taken >= 100);
        assert_eq!(items.change(|items| *items), Ok(put - taken));
    }
}

/// One change that all waited for costs each of them one look.
#[tokio::test(start_paused = true)]
async fn backpressure_a_change_for_all_is_one_look_each() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const WAITERS: usize = 100_000;
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let open = Arc::new(Condition::new(false));
    let wait = |open: Arc<Condition<bool>>| async move {
        let ready = |open: &bool| {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            *open
        };
        open.when(ready, |_| ()).await
    };
    let tasks: Vec<_> = (0..WAITERS).map(|_| tokio::spawn(wait(open.clone()))).collect();
    // The clock goes on when all wait.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(LOOKS.load(Ordering::Relaxed), WAITERS);
    open.change(|open| *open = true).unwrap();
    assert!(join_all(tasks).await.into_iter().all(|task| task.unwrap() == Ok(())));
    assert_eq!(LOOKS.load(Ordering::Relaxed), 2 * WAITERS);
}

/// A look that asks for the value which it holds is refused, and wakes nobody: two of them would wake each other for ever.
#[tokio::test(start_paused = true)]
async fn errors_in_a_look_wake_nobody() {
    let value = Arc::new(Condition::new(0));
    let look = |value: Arc<Condition<i32>>| async move {
        let mut looks = 0;
        let ready = |_: &i32| {
            looks += 1;
            assert_eq!(value.change(|value| *value += 1), Err(Unusable::Reentered));
            assert_eq!(value.replace(7), Err(Unusable::Reentered));
            looks == 2
        };
        value.when(ready, |value| *value).await
    };
    let tasks = [tokio::spawn(look(value.clone())), tokio::spawn(look(value.clone()))];
    // The clock goes on when all wait.
    sleep(Duration::from_millis(1)).await;
    value.change(|value| *value = 1).unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(1));
    }
}

/// A loop over a value that is always ready gives other tasks their turn.
#[tokio::test]
async fn backpressure_a_loop_of_steps_yields() {
    let value = Arc::new(Condition::new(0_u64));
    let endless = tokio::spawn(async move {
        loop {
            value.when(|_| true, |value| *value += 1).await.unwrap();
        }
    });
    // It would never be this task's turn again.
    yield_now().await;
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is put and taken, by whatever tasks: who can be served is served, and the sum is right.
    #[test]
    fn order_serves_all_who_can_be_served(
        puts in prop::collection::vec((0..4_u64, 1..9_u64), 1..20),
        takes in prop::collection::vec((0..4_u64, 1..5_u64), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (left, waiting) = runtime.block_on(async {
            let value = Arc::new(Condition::new(0));
            let mut takers = Vec::new();
            for &(late, amount) in &takes {
                let value = value.clone();
                takers.push(tokio::spawn(async move {
                    sleep(Duration::from_millis(late)).await;
                    value.when(|value| *value >= amount, |value| *value -= amount).await.unwrap();
                    amount
                }));
            }
            for &(late, amount) in &puts {
                sleep(Duration::from_millis(late)).await;
                value.change(|value| *value += amount).unwrap();
            }
            sleep(Duration::from_secs(1)).await;
            let (mut waiting, mut taken) = (Vec::new(), 0);
            for (taker, (_, amount)) in takers.into_iter().zip(&takes) {
                match taker.now_or_never() {
                    None => waiting.push(*amount),
                    Some(amount) => taken += amount.unwrap(),
                }
            }
            let left = value.change(|value| *value).unwrap();
            assert_eq!(left + taken, puts.iter().map(|(_, amount)| amount).sum::<u64>());
            (left, waiting)
        });
        prop_assert!(waiting.iter().all(|amount| *amount > left), "{} left, and {:?} wait", left, waiting);
    }
}
