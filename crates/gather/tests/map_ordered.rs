//! `map_ordered` and its windowed form are dropped at every suspension point, and any input comes out in order.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use gather::{InOrder, map_ordered, map_ordered_window};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

async fn all<T>(mut results: InOrder<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(result) = results.next().await {
        all.push(result);
    }
    all
}

/// Work that needs a permit which a bystander wants too. Whatever happens, the permits come back.
fn scene(parts: &support::sweep::Parts, window: Option<NonZeroUsize>) -> Scene<Vec<u64>> {
    let permits = Arc::new(Semaphore::new(2));
    let (after, other) = (permits.clone(), permits.clone());
    let parts = parts.clone();
    let call = async move {
        let work = |item: u64| {
            let permits = &permits;
            let work = async move {
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(if item == 0 { 7 } else { item % 3 })).await;
                item
            };
            parts.child("work", work)
        };
        match window {
            None => map_ordered(0..6, THREE, work).await,
            Some(window) => map_ordered_window(0..6, THREE, window, work, all).await,
        }
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
        assert_eq!(after.available_permits(), 2);
        if let Ended::Returned(results) = ended {
            assert_eq!(results, [0, 1, 2, 3, 4, 5]);
        }
    })
}

#[test]
fn cancellation_of_the_list_at_every_point() {
    sweep(|parts| scene(parts, None));
}

#[test]
fn cancellation_of_the_window_at_every_point() {
    sweep(|parts| scene(parts, NonZeroUsize::new(4)));
}

/// `InOrder::next` is dropped at every point; whoever asks next gets the same result.
#[test]
fn cancellation_of_next_loses_no_result() {
    sweep(|_| {
        let results = std::rc::Rc::new(tokio::sync::Mutex::new(None));
        let (subject, rest) = (results.clone(), results.clone());
        let taken = std::rc::Rc::new(Cell::new(0));
        let (counted, total) = (taken.clone(), taken.clone());
        let (ready, go) = oneshot::channel();
        let producing = async move {
            let work = async |item: u64| {
                sleep(Duration::from_millis(10 - item)).await;
                item
            };
            let consume = async |in_order: InOrder<u64>| {
                *results.lock().await = Some(in_order);
                ready.send(()).expect("the next line waits for it");
                sleep(Duration::from_millis(100)).await;
                let mut results = rest.lock().await;
                while let Some(item) = results.as_mut().expect("put there above").next().await {
                    assert_eq!(item, taken.get());
                    taken.set(taken.get() + 1);
                }
            };
            map_ordered_window(0..4, TWO, THREE, work, consume).await;
        };
        Scene::new(async move {
            sleep(Duration::from_millis(1)).await;
            let mut results = subject.lock().await;
            if let Some(item) = results.as_mut().expect("the bystander started first").next().await {
                assert_eq!(item, counted.get());
                counted.set(counted.get() + 1);
            }
        })
        .alongside(producing)
        .alongside(async move { go.await.expect("the producer sends first") })
        .check(move |_| assert_eq!(total.get(), 4))
    });
}

/// Wake-ups come from other threads while lanes and consumer are polled: none may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_wakes_from_other_threads() {
    for _ in 0..50 {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..500).map(|_| oneshot::channel::<usize>()).unzip();
        let sending = tokio::spawn(async move {
            for (i, sender) in senders.into_iter().enumerate() {
                sender.send(i).unwrap();
                if i % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let (limit, window) = (NonZeroUsize::new(40).unwrap(), NonZeroUsize::new(60).unwrap());
        let work = async |number: oneshot::Receiver<usize>| number.await.unwrap();
        let results = tokio::spawn(map_ordered_window(receivers, limit, window, work, all)).await.unwrap();
        assert!(results.into_iter().eq(0..500));
        sending.await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any items, limit and window: input order, never more than the limit in work, never more than the window ahead.
    #[test]
    fn order_and_memory_hold_for_any_input(
        millis in prop::collection::vec(0..9_u64, 0..60),
        limit in 1..80_usize,
        window in 1..80_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (running, peak, pulled, taken) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
        let work = async |millis| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            sleep(Duration::from_millis(millis)).await;
            running.set(running.get() - 1);
            millis
        };
        let (limit, window) = (NonZeroUsize::new(limit).unwrap(), NonZeroUsize::new(window).unwrap());
        let list = runtime.block_on(map_ordered(millis.clone(), limit, work));
        prop_assert_eq!(&list, &millis);
        let ahead = Cell::new(0);
        let items = millis.iter().copied().inspect(|_| {
            pulled.set(pulled.get() + 1);
            ahead.set(ahead.get().max(pulled.get() - taken.get()));
        });
        let consume = async |mut results: InOrder<u64>| {
            let mut all = Vec::new();
            while let Some(result) = results.next().await {
                taken.set(taken.get() + 1);
                all.push(result);
                sleep(Duration::from_millis(2)).await;
            }
            all
        };
        let results = runtime.block_on(map_ordered_window(items, limit, window, work, consume));
        prop_assert_eq!(results, millis);
        prop_assert!(peak.get() <= limit.get());
        // An item counts as taken a moment before this test can count it.
        prop_assert!(ahead.get() <= window.get() + 1, "{} ahead", ahead.get());
    }
}
