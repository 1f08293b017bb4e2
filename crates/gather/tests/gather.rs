//! `gather` is dropped at every suspension point, its children break at every poll, and its polls are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gather::gather;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep;

/// Children that wait for a permit which a bystander wants too, for a timer, and for nothing.
#[test]
fn cancellation_returns_permits_at_every_point() {
    sweep(|parts| {
        let limit = Arc::new(Semaphore::new(2));
        let (after, other) = (limit.clone(), limit.clone());
        let children: Vec<_> = (0..4)
            .map(|i| {
                let limit = limit.clone();
                let work = async move {
                    let permit = limit.acquire().await;
                    sleep(Duration::from_millis(i)).await;
                    drop(permit);
                    i
                };
                parts.child(format!("child {i}"), work)
            })
            .collect();
        Scene::new(gather(children)).alongside(async move { drop(other.acquire_many(2).await) }).check(
            move |ended| {
                assert_eq!(after.available_permits(), 2);
                if let Ended::Returned(outputs) = ended {
                    assert_eq!(outputs, [0, 1, 2, 3]);
                }
            },
        )
    });
}

/// Beyond 30 futures the other engine is at work.
#[test]
fn cancellation_of_many_returns_permits_at_every_point() {
    sweep(|parts| {
        let limit = Arc::new(Semaphore::new(20));
        let (after, other) = (limit.clone(), limit.clone());
        let children: Vec<_> = (0..40)
            .map(|i| {
                let limit = limit.clone();
                let work = async move {
                    let _permit = limit.acquire().await;
                    sleep(Duration::from_millis(i / 20)).await;
                };
                // Each child has the same polls to break at, so that one of them stands for the others.
                parts.child(if i == 17 { "child 17" } else { "others" }, work)
            })
            .collect();
        Scene::new(gather(children))
            .alongside(async move { drop(other.acquire_many(20).await) })
            .check(move |_| assert_eq!(after.available_permits(), 20))
    });
}

/// An item that a channel has handed to a child is the child's; one that waits in the channel stays there.
#[test]
fn cancellation_loses_no_item() {
    sweep(|_| {
        let (sender, receiver) = mpsc::channel(1);
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let taken = Arc::new(AtomicUsize::new(0));
        let children: Vec<_> = (0..3)
            .map(|_| {
                let (receiver, taken) = (receiver.clone(), taken.clone());
                async move {
                    if receiver.lock().await.recv().await.is_some() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
            .collect();
        Scene::new(gather(children))
            .alongside(async move {
                for item in 0..3 {
                    // Refused once the receiver is gone, which is no loss: the sender still has the item.
                    let _ = sender.try_send(item);
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .check(move |_| {
                let mut receiver = receiver.try_lock().expect("no child holds the lock");
                let mut left = 0;
                while receiver.try_recv().is_ok() {
                    left += 1;
                }
                // One place in the channel: what was sent is taken, or the one item still waits.
                assert!(left <= 1 && taken.load(Ordering::Relaxed) + left >= 1);
            })
    });
}

/// Counts its polls.
async fn counted<F: Future>(polls: Arc<AtomicUsize>, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(context)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn order_costs_at_most_three_polls_a_future() {
    // All timers fire together, so the budget of 128 operations runs out over and over again.
    let n = 20_000;
    let polls = Arc::new(AtomicUsize::new(0));
    let timers = (0..n).map(|_| counted(polls.clone(), sleep(Duration::from_millis(5))));
    tokio::spawn(gather(timers.collect::<Vec<_>>())).await.unwrap();
    assert!(polls.load(Ordering::Relaxed) <= 3 * n, "{} polls", polls.load(Ordering::Relaxed));
}

#[tokio::test]
async fn memory_is_one_result_for_each_future() {
    let outputs = gather((0..1000).map(async |i| i)).await;
    assert_eq!(outputs.len(), 1000);
    // The list is made in the place of the one that collected them, which has a flag beside each.
    assert!(outputs.capacity() <= 2000);
}

#[tokio::test]
async fn backpressure_is_none_but_neighbours_get_their_turn() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = turns.clone();
    let neighbour = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    tokio::spawn(gather((0..100_000).map(async |i| i))).await.unwrap();
    neighbour.abort();
    assert!(turns.load(Ordering::Relaxed) >= 100_000 / 1024, "{turns:?} turns");
}

/// Wake-ups come from other threads while the futures are being polled: none may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_wakes_from_other_threads() {
    for _ in 0..50 {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..500).map(|_| oneshot::channel()).unzip();
        let sending = tokio::spawn(async move {
            for (i, sender) in senders.into_iter().enumerate().rev() {
                sender.send(i).unwrap();
                if i % 64 == 0 {
                    yield_now().await;
                }
            }
        });
        let outputs = tokio::spawn(gather(receivers)).await.unwrap();
        sending.await.unwrap();
        assert!(outputs.into_iter().map(Result::unwrap).eq(0..500));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any number of futures, each pending any number of times: the outputs are the inputs.
    #[test]
    fn order_is_kept_for_any_input(pending in prop::collection::vec(0..4_usize, 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outputs = runtime.block_on(gather(pending.iter().map(async |times| {
            for _ in 0..*times {
                yield_now().await;
            }
            *times
        })));
        prop_assert_eq!(outputs, pending);
    }
}
