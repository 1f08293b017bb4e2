//! `merge` and `next` on it are dropped at every suspension point: no item and no wake-up is lost, no source is starved.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::stream::{self, LocalBoxStream, StreamExt};
use proptest::prelude::*;
use streams::{Merge, merge};
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

/// Three sources of 4, 2 and 3 items, each at its own pace; the channels are full now and then.
fn sources(
    parts: &Parts,
) -> (Merge<usize, LocalBoxStream<'static, u64>>, Vec<impl Future<Output = ()> + use<>>) {
    let (mut merged, mut sending) = (merge([]), Vec::new());
    for (key, (items, pause)) in [(4, 1), (2, 3), (3, 0)].into_iter().enumerate() {
        let (sender, receiver) = mpsc::channel(1);
        sending.push(async move {
            for item in 0..items {
                // The subject may have dropped its sources.
                let _ = sender.send(item).await;
                sleep(Duration::from_millis(pause)).await;
            }
        });
        let parts = parts.clone();
        let items = stream::unfold(receiver, move |mut receiver| {
            parts.child(format!("source {key}"), async move { Some((receiver.recv().await?, receiver)) })
        });
        merged.push(key, items.boxed_local());
    }
    (merged, sending)
}

/// What came from each source, or would have.
fn in_order(items: &[(usize, u64)]) -> bool {
    (0..3)
        .all(|key| items.iter().filter(|(from, _)| *from == key).map(|(_, item)| *item).eq(0..[4, 2, 3][key]))
}

#[test]
fn cancellation_of_the_stream_at_every_point() {
    sweep(|parts| {
        let (merged, sending) = sources(parts);
        let scene = Scene::new(merged.collect::<Vec<_>>());
        let scene = sending.into_iter().fold(scene, |scene, sending| scene.alongside(sending));
        scene.check(|ended| {
            if let Ended::Returned(items) = ended {
                assert!(in_order(&items), "{items:?}");
            }
        })
    });
}

#[test]
fn cancellation_of_next_at_every_point() {
    sweep(|_| {
        let (merged, sending) = sources(&Parts::default());
        let (merged, taken) = (Rc::new(Mutex::new(merged)), Rc::new(RefCell::new(Vec::new())));
        let (rest, all, checked) = (merged.clone(), taken.clone(), taken.clone());
        let call = async move {
            for _ in 0..5 {
                let item = merged.lock().await.next().await;
                taken.borrow_mut().extend(item);
            }
        };
        let drain = async move {
            sleep(Duration::from_secs(60)).await;
            let rest: Vec<_> = rest.lock().await.by_ref().collect().await;
            all.borrow_mut().extend(rest);
        };
        let scene = sending.into_iter().fold(Scene::new(call), |scene, sending| scene.alongside(sending));
        scene.alongside(drain).check(move |_| assert!(in_order(&checked.borrow()), "{:?}", checked.borrow()))
    });
}

/// Channels take from tokio's budget themselves, and so does this consumer. Whatever their number, each has its turn, and
/// none is polled in vain when the budget is spent.
#[tokio::test]
async fn order_is_fair_between_channels_that_are_always_ready() {
    for sources in [2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        let taken = tokio::spawn(async move {
            let polls = Arc::new(AtomicUsize::new(0));
            let full = |_| {
                let (sender, mut receiver) = mpsc::channel(20);
                (0..20).for_each(|item| sender.try_send(item).expect("there is room for 20"));
                let polls = polls.clone();
                stream::poll_fn(move |context| {
                    polls.fetch_add(1, Relaxed);
                    receiver.poll_recv(context)
                })
            };
            let mut merged = merge((0..sources).map(full).enumerate());
            let mut taken = vec![0; sources];
            for number in 0..sources * 10 {
                if number % 4 == 0 {
                    tokio::task::coop::consume_budget().await;
                }
                let (source, item) = merged.next().await.expect("20 items each");
                assert_eq!(item, taken[source]);
                taken[source] += 1;
            }
            (taken, polls.load(Relaxed))
        });
        assert_eq!(taken.await.unwrap(), (vec![10; sources], sources * 10));
    }
}

/// A source that has an item now and then waits one round, however eager the others are.
#[tokio::test]
async fn order_does_not_starve_a_rare_source() {
    let (sender, receiver) = mpsc::channel(1);
    let mut merged = merge((0..100).map(|key| (key, stream::repeat(0).boxed())));
    merged.push(100, ReceiverStream::new(receiver).boxed());
    for _ in 0..20 {
        sender.send(7).await.unwrap();
        let mut before = 0;
        while merged.next().await.unwrap().0 != 100 {
            before += 1;
        }
        assert!(before <= 101, "{before} items came first");
    }
}

/// Senders on other threads, a consumer that drops `next` again and again: every item comes once, in its source's order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_wakes_from_other_threads() {
    for round in 0..20 {
        let (mut merged, mut sending) = (merge([]), Vec::new());
        for key in 0..50_usize {
            let (sender, receiver) = mpsc::channel(1 + round % 3);
            merged.push(key, ReceiverStream::new(receiver));
            sending.push(tokio::spawn(async move {
                for item in 0..100 {
                    sender.send(item).await.expect("the consumer takes all");
                }
            }));
        }
        let taking = tokio::spawn(async move {
            let mut taken = vec![0; 50];
            loop {
                tokio::select! {
                    biased;
                    item = merged.next() => {
                        let Some((key, item)) = item else { break taken };
                        assert_eq!(item, taken[key]);
                        taken[key] += 1;
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
        });
        assert_eq!(taking.await.unwrap(), vec![100; 50]);
        for sending in sending {
            sending.await.unwrap();
        }
    }
}

/// Sources end, are added while it runs, and are many.
#[tokio::test]
async fn memory_stays_flat_when_sources_come_and_go() {
    let mut merged = merge([]);
    for number in 0..100_000_u32 {
        merged.push(number, stream::iter([number]));
        if merged.len() >= 100 {
            assert!(merged.next().await.is_some_and(|(key, item)| key == item));
        }
        // An ended source is found when it is asked for another item.
        assert!(merged.len() <= 200, "{}", merged.len());
    }
    assert!(merged.count().await < 200);
}

/// 100,000 sources, dropped in the middle: no recursion, each dropped once.
#[tokio::test]
async fn cancellation_drops_a_hundred_thousand_sources() {
    let held = Rc::new(());
    let source = |key| {
        let held = held.clone();
        (key, stream::pending::<()>().map(move |()| held.clone()))
    };
    let mut merged = merge((0..100_000).map(source));
    assert!(futures::poll!(merged.next()).is_pending());
    drop(merged);
    assert_eq!(Rc::strong_count(&held), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Sources that are ready or not by turns, in any way: every item once, each source in its own order.
    #[test]
    fn order_of_each_source_is_kept(sources in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..20), 0..10)) {
        let source = |ready: &Vec<bool>| {
            let items = stream::iter(ready.clone().into_iter().enumerate());
            items.then(async |(item, ready)| {
                if !ready {
                    tokio::task::yield_now().await;
                }
                item
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let items: Vec<_> = runtime.block_on(merge(sources.iter().map(source).enumerate()).collect());
        for (key, source) in sources.iter().enumerate() {
            prop_assert!(items.iter().filter(|(from, _)| *from == key).map(|(_, item)| *item).eq(0..source.len()));
        }
        prop_assert_eq!(items.len(), sources.iter().map(Vec::len).sum::<usize>());
    }
}
