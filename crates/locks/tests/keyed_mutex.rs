//! `keyed_mutex` is dropped at every suspension point: the lock goes on, and no key stays behind.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use locks::{KeyGuard, KeyedMutex};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// A holder before the subject and a waiter behind it.
#[test]
fn cancellation_at_every_point_passes_the_lock_on() {
    let report = sweep(|parts| {
        let mutex = KeyedMutex::new();
        let (before, behind, after) = (mutex.clone(), mutex.clone(), mutex.clone());
        let had = Rc::new(Cell::new(false));
        let subject = had.clone();
        let parts = parts.clone();
        let call = async move {
            // Behind the holder, and before the other waiter.
            yield_now().await;
            let _guard = mutex.lock("a").await;
            let work = async {
                sleep(Duration::from_millis(2)).await;
                Ok::<_, &str>(())
            };
            parts.fallible("work", work, || "injected").await?;
            subject.set(true);
            Ok(())
        };
        let holder = async move {
            let _guard = before.lock("a").await;
            sleep(Duration::from_millis(5)).await;
        };
        let waiter = async move {
            sleep(Duration::from_millis(1)).await;
            let _guard = behind.lock("a").await;
            sleep(Duration::from_millis(5)).await;
        };
        Scene::new(call).alongside(holder).alongside(waiter).check(move |ended: Ended<Result<(), &str>>| {
            assert_eq!(after.keys_in_use(), 0);
            assert!(after.try_lock("a").is_some());
            if let Ended::Returned(Ok(())) = ended {
                assert!(had.get());
            }
        })
    });
    assert!(report.points >= 6);
}

/// A crowd that gives up while it queues leaves the lock to who comes behind it.
#[tokio::test(start_paused = true)]
async fn cancellation_of_a_crowd() {
    let mutex = KeyedMutex::new();
    let held = mutex.lock(1).await;
    let crowd = (0..100_000).map(|_| {
        let mutex = mutex.clone();
        tokio::spawn(async move { timeout(Duration::from_millis(1), mutex.lock(1)).await.is_err() })
    });
    assert!(join_all(crowd).await.into_iter().all(|given_up| given_up.unwrap()));
    assert_eq!(mutex.keys_in_use(), 1);
    let next = mutex.lock(1);
    drop(held);
    drop(next.await);
    assert_eq!(mutex.keys_in_use(), 0);
}

/// The guards of one key may be dropped on any thread, after the mutex itself, in any order.
#[tokio::test]
async fn cancellation_of_everything_in_odd_orders() {
    let mutex = KeyedMutex::new();
    let (a, b) = (mutex.lock('a').await, mutex.lock('b').await);
    let (first, second) = (mutex.clone(), mutex.clone());
    let mut first = Box::pin(async move { first.lock('a').await });
    let mut second = Box::pin(async move { second.lock('a').await });
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    let looker = mutex.clone();
    drop(mutex);
    std::thread::spawn(move || drop(a)).join().unwrap();
    drop(second);
    drop(b);
    assert_eq!(looker.keys_in_use(), 1);
    drop(first.now_or_never());
    assert_eq!(looker.keys_in_use(), 0);
}

/// Two keys in two orders wait for each other, in one order they do not.
#[tokio::test(start_paused = true)]
async fn order_of_two_keys_is_up_to_the_caller() {
    let mutex = KeyedMutex::new();
    let both = async |first, second| {
        let _first = mutex.lock(first).await;
        sleep(Duration::from_millis(1)).await;
        let _second = mutex.lock(second).await;
    };
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, async { tokio::join!(both("a", "b"), both("b", "a")) }).await.is_err());
    assert_eq!(mutex.keys_in_use(), 0);
    assert!(timeout(hour, async { tokio::join!(both("a", "b"), both("a", "b")) }).await.is_ok());
}

/// A guard that is given no name is gone at once, and whoever has one waits for itself.
#[tokio::test(start_paused = true)]
async fn order_of_a_guard_without_a_name() {
    let mutex = KeyedMutex::new();
    let _ = mutex.lock("a").await;
    let _guard = mutex.lock("a").await;
    assert!(timeout(Duration::from_secs(3600), mutex.lock("a")).await.is_err());
}

/// A key whose clone and drop use the mutex themselves.
#[tokio::test]
async fn panics_and_deadlocks_are_none_when_a_key_uses_the_mutex() {
    #[derive(PartialEq, Eq, Hash)]
    struct Key(u8);
    thread_local! {
        static MUTEX: RefCell<Option<KeyedMutex<Key>>> = const { RefCell::new(None) };
        static SEEN: Cell<usize> = const { Cell::new(0) };
    }
    fn look() {
        let mutex = MUTEX.with(|mutex| mutex.try_borrow().ok().and_then(|mutex| mutex.clone()));
        SEEN.set(SEEN.get() + mutex.map_or(0, |mutex| mutex.keys_in_use()));
    }
    impl Clone for Key {
        fn clone(&self) -> Self {
            look();
            Key(self.0)
        }
    }
    impl Drop for Key {
        fn drop(&mut self) {
            look();
        }
    }
    let mutex = KeyedMutex::new();
    MUTEX.set(Some(mutex.clone()));
    let held = mutex.lock(Key(1)).await;
    assert!(mutex.lock(Key(1)).now_or_never().is_none());
    assert!(mutex.try_lock(Key(1)).is_none());
    drop(held);
    assert_eq!(mutex.keys_in_use(), 0);
    assert!(SEEN.get() > 0);
    MUTEX.set(None);
}

/// One task after the other changes what its key stands for, without any lock of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_holds_on_two_threads() {
    let mutex = KeyedMutex::new();
    let inside: Arc<Vec<AtomicUsize>> = Arc::new((0..5).map(|_| AtomicUsize::new(0)).collect());
    let done = Arc::new(AtomicUsize::new(0));
    let tasks = (0..64_usize).map(|task| {
        let (mutex, inside, done) = (mutex.clone(), inside.clone(), done.clone());
        tokio::spawn(async move {
            for turn in 0..1000_usize {
                let key = (task * 7 + turn) % 5;
                let mut lock = Box::pin(mutex.lock(key));
                // Every third gives up when it has to wait, on whatever thread that happens.
                let guard = if turn % 3 == 0 {
                    tokio::select! { biased; guard = &mut lock => guard, () = yield_now() => continue }
                } else {
                    lock.await
                };
                assert_eq!(inside[key].fetch_add(1, Ordering::Relaxed), 0);
                if turn % 2 == 0 {
                    yield_now().await;
                }
                assert_eq!(inside[key].fetch_sub(1, Ordering::Relaxed), 1);
                done.fetch_add(1, Ordering::Relaxed);
                drop(guard);
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(mutex.keys_in_use(), 0);
    assert!(done.load(Ordering::Relaxed) >= 64 * 666);
}

/// A task that takes free locks in a loop lets its neighbour run.
#[tokio::test]
async fn order_is_fair_to_neighbours() {
    let mutex = KeyedMutex::new();
    let turns = Arc::new(Mutex::new(Vec::new()));
    let noted = turns.clone();
    let neighbour = tokio::spawn(async move { noted.lock().unwrap().push("neighbour") });
    for key in 0..1000 {
        drop(mutex.lock(key).await);
    }
    turns.lock().unwrap().push("loop");
    neighbour.await.unwrap();
    assert_eq!(*turns.lock().unwrap(), ["neighbour", "loop"]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(u8),
    GiveUp(usize),
    Take(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<usize>();
    prop_oneof![
        3 => (0..3_u8).prop_map(Step::Ask),
        1 => index.prop_map(Step::GiveUp),
        2 => index.prop_map(Step::Take),
        2 => index.prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked, given up, taken and released: the lock of a key is with the first in its queue.
    #[test]
    fn order_is_that_of_a_queue_for_each_key(steps in prop::collection::vec(step(), 0..60)) {
        let mutex = KeyedMutex::new();
        // For each key who holds or waits, in order.
        let mut model: [VecDeque<usize>; 3] = Default::default();
        let mut waiting: Vec<(usize, u8, BoxFuture<'_, KeyGuard<u8>>)> = Vec::new();
        let mut held: Vec<(usize, KeyGuard<u8>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Ask(key) => {
                    model[usize::from(key)].push_back(number);
                    let mut call = mutex.lock(key).boxed();
                    match (&mut call).now_or_never() {
                        Some(guard) => held.push((number, guard)),
                        None => waiting.push((number, key, call)),
                    }
                }
                Step::GiveUp(at) if !waiting.is_empty() => {
                    let (number, key, call) = waiting.swap_remove(at % waiting.len());
                    drop(call);
                    model[usize::from(key)].retain(|other| *other != number);
                }
                Step::Take(at) if !waiting.is_empty() => {
                    let at = at % waiting.len();
                    let (number, key, call) = &mut waiting[at];
                    let first = model[usize::from(*key)].front() == Some(number);
                    let taken = call.now_or_never();
                    prop_assert_eq!(taken.is_some(), first);
                    if let Some(guard) = taken {
                        held.push((*number, guard));
                        drop(waiting.swap_remove(at));
                    }
                }
                Step::Release(at) if !held.is_empty() => {
                    let (number, guard) = held.swap_remove(at % held.len());
                    prop_assert_eq!(model[usize::from(*guard.key())].pop_front(), Some(number));
                }
                _ => {}
            }
            prop_assert_eq!(mutex.keys_in_use(), model.iter().filter(|queue| !queue.is_empty()).count());
        }
    }
}
