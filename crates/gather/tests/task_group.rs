//! A task group is dropped and stopped at every suspension point; its tasks fail, panic and are aborted.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gather::{Rules, Scope, Stopping, TaskGroup};
use proptest::prelude::*;
use support::sweep::{Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Counts tasks in work, which must never be more than the limit.
struct Working<'a>(&'a AtomicUsize);

impl<'a> Working<'a> {
    fn begin(working: &'a AtomicUsize, limit: usize) -> Self {
        let before = working.fetch_add(1, Ordering::Relaxed);
        assert!(before < limit, "{} tasks work at a time", before + 1);
        Working(working)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn scene(parts: &Parts, limit: usize) -> Scene<()> {
    let rules = Rules {
        limit: NonZeroUsize::new(limit).expect("not zero"),
        grace: Duration::from_millis(3),
        ..Rules::default()
    };
    let permits = Arc::new(Semaphore::new(1));
    let (after, other) = (permits.clone(), permits.clone());
    let working = Arc::new(AtomicUsize::new(0));
    let still = working.clone();
    let group = TaskGroup::new(rules);
    let stop = group.stop_token();
    let parts = parts.clone();
    let call = async move {
        for name in ["a", "b"] {
            let (permits, working, parts) = (permits.clone(), working.clone(), parts.clone());
            let parent = move |mut scope: Scope<&'static str>| {
                let (inner, child_working) = (permits.clone(), working.clone());
                let task = async move {
                    let at_work = Working::begin(&working, limit);
                    let permit = permits.acquire().await;
                    sleep(Duration::from_millis(1)).await;
                    drop((permit, at_work));
                    let child = move |scope: Scope<&'static str>| async move {
                        let _at_work = Working::begin(&child_working, limit);
                        tokio::select! {
                            permit = inner.acquire() => drop(permit),
                            () = scope.stopping() => {}
                        }
                        sleep(Duration::from_millis(1)).await;
                        Ok(())
                    };
                    match scope.spawn("child", child).await {
                        Ok(()) | Err(Stopping) => Ok(()),
                    }
                };
                parts.fallible(name, task, || "injected")
            };
            // A group that is stopping takes no more; what it has is waited for below.
            if group.spawn(name, parent).await.is_err() {
                break;
            }
        }
        let _ = group.wait().await;
    };
    Scene::new(call)
        .alongside(async move { drop(other.acquire().await) })
        .stop(move || stop.cancel())
        .check(move |_| assert_eq!((after.available_permits(), still.load(Ordering::Relaxed)), (1, 0)))
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_one() {
    sweep(|parts| scene(parts, 1));
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_three() {
    sweep(|parts| scene(parts, 3));
}

/// A task that ignores the request to stop is aborted after the grace, however late the request comes.
#[test]
fn cancellation_ends_a_stubborn_task() {
    sweep(|_| {
        let group = TaskGroup::<()>::new(Rules { grace: Duration::from_millis(5), ..Rules::default() });
        let stop = group.stop_token();
        let (ask, fallback) = (stop.clone(), CancellationToken::clone(&stop));
        let call = async move {
            for _ in 0..2 {
                let _ = group.spawn("stubborn", |_| async { std::future::pending().await }).await;
            }
            let _ = group.wait().await;
        };
        let later = async move {
            sleep(Duration::from_millis(50)).await;
            fallback.cancel();
        };
        Scene::new(call).alongside(later).stop(move || ask.cancel())
    });
}

/// Task number `n` of a tree: it starts tasks 2n + 1 and 2n + 2, if there are such.
fn tree(mut scope: Scope<()>, n: usize, size: usize, limit: usize, seen: Arc<[AtomicUsize; 2]>) -> BoxedTask {
    Box::pin(async move {
        seen[1].fetch_add(1, Ordering::Relaxed);
        for child in [2 * n + 1, 2 * n + 2].into_iter().filter(|child| *child < size) {
            {
                let _at_work = Working::begin(&seen[0], limit);
                sleep(Duration::from_millis((child % 3) as u64)).await;
            }
            let seen = seen.clone();
            let start = move |scope| tree(scope, child, size, limit, seen);
            scope.spawn(format!("task {child}"), start).await.map_err(|_| ())?;
        }
        Ok(())
    })
}

type BoxedTask = std::pin::Pin<Box<dyn Future<Output = Result<(), ()>> + Send>>;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A tree of any size under any limit comes to its end, and never more than the limit work.
    #[test]
    fn backpressure_never_deadlocks(size in 1..60_usize, limit in 1..8_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let counters = seen.clone();
        let ended = runtime.block_on(async move {
            let limits = Rules { limit: NonZeroUsize::new(limit).unwrap(), ..Rules::default() };
            let group = TaskGroup::new(limits);
            group.spawn("root", move |scope| tree(scope, 0, size, limit, counters)).await.unwrap();
            tokio::time::timeout(Duration::from_secs(60), group.wait()).await
        });
        prop_assert_eq!(ended, Ok(Ok(())));
        prop_assert_eq!(seen[1].load(Ordering::Relaxed), size);
    }
}
