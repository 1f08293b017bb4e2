//! `snapshot`: writers and waits are dropped at every suspension point, and nobody loses a turn or a change.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use locks::Snapshot;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::sleep;

#[test]
fn cancellation_of_a_writer_at_every_point() {
    sweep(|_| {
        let value = Rc::new(Snapshot::new(0));
        let (subject, before, behind, after) = (value.clone(), value.clone(), value.clone(), value);
        let add = |value: Rc<Snapshot<i32>>, late| async move {
            sleep(Duration::from_millis(late)).await;
            let writer = value.write().await;
            let next = *writer + 1;
            sleep(Duration::from_millis(3)).await;
            writer.publish(next);
        };
        Scene::new(add(subject, 1)).alongside(add(before, 0)).alongside(add(behind, 2)).check(move |ended| {
            let published = if matches!(ended, Ended::Returned(())) { 3 } else { 2 };
            assert_eq!(*after.get(), published);
            assert!(after.write().now_or_never().is_some(), "a turn was lost");
        })
    });
}

#[test]
fn cancellation_of_a_wait_at_every_point() {
    sweep(|_| {
        let value = Rc::new(Snapshot::new(0));
        let (subject, other, writing, after) = (value.clone(), value.clone(), value.clone(), value);
        let follow = |value: Rc<Snapshot<i32>>| async move {
            let mut seen = value.get();
            while *seen < 3 {
                seen = value.changed(&seen).await;
            }
        };
        Scene::new(follow(subject))
            .alongside(follow(other))
            .alongside(async move {
                for next in 1..=3 {
                    sleep(Duration::from_millis(1)).await;
                    writing.write().await.publish(next);
                }
            })
            .check(move |_| assert_eq!(*after.get(), 3))
    });
}

/// Both halves of a version belong together, whoever reads it and whenever. Followers see the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_readers_see_whole_versions_that_never_go_back() {
    const LAST: u64 = 2000;
    let (value, done) = (Arc::new(Snapshot::new((0_u64, 0_u64))), Arc::new(AtomicBool::new(false)));
    let reader = |value: Arc<Snapshot<(u64, u64)>>, done: Arc<AtomicBool>| async move {
        let mut last = 0;
        while !done.load(Ordering::Relaxed) {
            let version = value.get();
            assert_eq!(version.0 * 3, version.1);
            assert!(version.0 >= last);
            last = version.0;
            yield_now().await;
        }
    };
    let follower = |value: Arc<Snapshot<(u64, u64)>>| async move {
        let mut seen = value.get();
        while seen.0 < LAST {
            let next = value.changed(&seen).await;
            assert!(next.0 > seen.0);
            seen = next;
        }
    };
    let writer = |value: Arc<Snapshot<(u64, u64)>>| async move {
        for _ in 0..LAST / 4 {
            let writer = value.write().await;
            let next = writer.0 + 1;
            yield_now().await;
            writer.publish((next, next * 3));
        }
    };
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(reader(value.clone(), done.clone()))).collect();
    let mut others: Vec<_> = (0..4).map(|_| tokio::spawn(follower(value.clone()))).collect();
    others.extend((0..4).map(|_| tokio::spawn(writer(value.clone()))));
    for task in others {
        task.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for task in readers {
        task.await.unwrap();
    }
    assert_eq!(*value.get(), (LAST, LAST * 3));
}

/// A loop that always finds a change gives other tasks their turn.
#[tokio::test]
async fn backpressure_a_loop_of_changes_yields() {
    let value = Snapshot::new(0);
    let old = value.get();
    value.write().await.publish(1);
    let endless = tokio::spawn(async move {
        loop {
            value.changed(&old).await;
        }
    });
    yield_now().await;
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn memory_of_a_hundred_thousand_who_wait() {
    let value = Arc::new(Snapshot::new(0));
    let wait = |value: Arc<Snapshot<i32>>| async move { *value.changed(&value.get()).await };
    let tasks: Vec<_> = (0..100_000).map(|_| tokio::spawn(wait(value.clone()))).collect();
    // The clock goes on when all wait.
    sleep(Duration::from_millis(1)).await;
    value.write().await.publish(1);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
    assert_eq!(Arc::strong_count(&value), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is published, held and dropped: a version lives exactly as long as somebody holds it or it is the newest.
    #[test]
    fn memory_of_versions_is_that_of_their_holders(steps in prop::collection::vec((0..3_u8, any::<usize>()), 0..60)) {
        let value = Snapshot::new(Arc::new(()));
        let mut versions = vec![Arc::downgrade(&value.get())];
        let mut held: Vec<(usize, Arc<Arc<()>>)> = Vec::new();
        for (step, which) in steps {
            match step {
                0 => held.push((versions.len() - 1, value.get())),
                1 if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                _ => {
                    let writer = value.write().now_or_never().expect("nobody has the turn");
                    versions.push(Arc::downgrade(&writer.publish(Arc::new(()))));
                }
            }
            for (number, version) in versions.iter().enumerate() {
                let alive = number == versions.len() - 1 || held.iter().any(|(of, _)| *of == number);
                prop_assert_eq!(version.upgrade().is_some(), alive);
            }
        }
    }
}
