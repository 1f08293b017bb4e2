//! `background` is dropped, aborted and made to panic at every point: the task never outlives its handle.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tasks::background;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// A task that uses a permit while another waits for it.
fn scene(
    parts: &Parts,
    wait: impl AsyncFn(tasks::Background<u32>) -> Option<u32> + 'static,
) -> Scene<Option<u32>> {
    let permits = Arc::new(Semaphore::new(1));
    let (after, other) = (permits.clone(), permits.clone());
    let (parts, seen) = (parts.clone(), parts.clone());
    let call = async move {
        let work = async move {
            let _permit = permits.acquire().await;
            sleep(Duration::from_millis(2)).await;
            7
        };
        let task = background("work", parts.child("work", work));
        wait(task).await
    };
    Scene::new(call).returns_panics().alongside(async move { drop(other.acquire().await) }).check(
        move |ended| {
            assert_eq!(after.available_permits(), 1);
            if let Ended::Returned(result) = ended {
                assert_eq!(result, (seen.fault() != Some(Fault::Panic)).then_some(7));
            }
        },
    )
}

#[test]
fn cancellation_of_the_handle_at_every_point() {
    let report = sweep(|parts| scene(parts, async |task| task.await.ok()));
    assert!(report.points >= 4);
}

#[test]
fn cancellation_of_many_short_waits_keeps_the_result() {
    sweep(|parts| {
        scene(parts, async |mut task| {
            loop {
                if let Ok(result) = timeout(Duration::from_millis(1), &mut task).await {
                    break result.ok();
                }
            }
        })
    });
}

/// An abort is waited for: the permit is back when the wait is over.
#[test]
fn cancellation_by_abort_is_over_when_it_was_awaited() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(1));
        let (after, parts) = (permits.clone(), parts.clone());
        let call = async move {
            let inner = permits.clone();
            let work = async move {
                let _permit = inner.acquire().await;
                std::future::pending::<()>().await;
            };
            let task = background("work", parts.child("work", work));
            sleep(Duration::from_millis(1)).await;
            task.abort();
            let error = task.await.unwrap_err();
            assert_eq!((error.name.as_ref(), permits.available_permits()), ("work", 1));
        };
        Scene::new(call).returns_panics().check(move |_| assert_eq!(after.available_permits(), 1))
    });
}

/// A detached task runs on when the caller is dropped, and its owner hears of its end exactly once.
#[test]
fn errors_of_a_detached_task_reach_its_owner() {
    sweep(|parts| {
        let (owner, heard, detached) =
            (TaskTracker::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (hear, count, wait, parts) = (heard.clone(), detached.clone(), owner.clone(), parts.clone());
        let call = async move {
            let work = async { sleep(Duration::from_millis(2)).await };
            let task = background("work", parts.child("work", work));
            sleep(Duration::from_millis(1)).await;
            count.fetch_add(1, Ordering::Relaxed);
            task.detach(&owner, move |_| _ = hear.fetch_add(1, Ordering::Relaxed));
            owner.close();
            owner.wait().await;
        };
        Scene::new(call).outlived().returns_panics().check(move |_| {
            assert_eq!(heard.load(Ordering::Relaxed), detached.load(Ordering::Relaxed));
            assert!(wait.is_empty());
        })
    });
}

/// Handles are dropped and awaited from other threads while their tasks end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_and_results_on_two_threads() {
    let alive = Arc::new(Semaphore::new(1000));
    let limit = NonZeroUsize::new(1000).unwrap();
    let mut sum = 0;
    for i in 0..limit.get() {
        let permit = alive.clone().acquire_owned().await.unwrap();
        let task = background("work", async move {
            tokio::task::yield_now().await;
            drop(permit);
            i
        });
        if i % 2 == 0 {
            sum += tokio::spawn(task).await.unwrap().unwrap();
        }
    }
    assert_eq!(sum, (0..1000).step_by(2).sum::<usize>());
    // Each of the others gives its permit back too, done or aborted.
    let all = timeout(Duration::from_secs(60), alive.acquire_many(1000)).await;
    assert!(all.is_ok());
}
