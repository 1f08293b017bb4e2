//! What runs in a context is dropped at every suspension point, and sees the context everywhere, in its drop too.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::sweep::{Scene, sweep};
use tasks::{blocking_in_context, in_context};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tokio::time::sleep;
use tracing::{Instrument, Span, info_span};

tokio::task_local! {
    static REQUEST: u32;
    static TENANT: &'static str;
}

/// Counts what is dropped outside its context.
struct Cleanup(u32, Arc<AtomicUsize>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let outside = REQUEST.try_get().ok() != Some(self.0);
        self.1.fetch_add(usize::from(outside), Ordering::Relaxed);
    }
}

#[test]
fn cancellation_at_every_point() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(1));
        let (after, other) = (permits.clone(), permits.clone());
        let outside = Arc::new(AtomicUsize::new(0));
        let seen = outside.clone();
        let parts = parts.clone();
        let handler = async move {
            let mut tasks = JoinSet::new();
            for (id, name) in [(1, "a"), (2, "b")] {
                let (permits, cleanup) = (permits.clone(), Cleanup(id, outside.clone()));
                let work = async move {
                    let _cleanup = cleanup;
                    let _permit = permits.acquire().await;
                    sleep(Duration::from_millis(3)).await;
                    assert_eq!(REQUEST.try_get().ok(), Some(id));
                };
                let work = parts.child(name, work);
                let work = REQUEST.sync_scope(id, || in_context(&REQUEST, work));
                parts.abort_with(name, tasks.spawn(work));
            }
            while let Some(joined) = tasks.join_next().await {
                if let Err(error) = joined
                    && let Ok(panic) = error.try_into_panic()
                {
                    tasks.shutdown().await;
                    resume_unwind(panic);
                }
            }
            assert_eq!(REQUEST.try_get().ok(), Some(7));
        };
        Scene::new(REQUEST.scope(7, handler))
            .alongside(async move { drop(other.acquire().await) })
            .check(move |_| assert_eq!((after.available_permits(), seen.load(Ordering::Relaxed)), (1, 0)))
    });
}

/// Sixteen requests at a time on two threads: none sees the context of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_many_requests_on_two_threads() {
    let mut requests = JoinSet::new();
    for id in 0..16 {
        let request = async {
            for _ in 0..200 {
                let id = REQUEST.get();
                let task = tokio::spawn(in_context(&REQUEST, async {
                    yield_now().await;
                    let inner = tokio::spawn(in_context(&REQUEST, async { REQUEST.get() }));
                    (REQUEST.get(), inner.await.unwrap())
                }));
                assert_eq!(task.await.unwrap(), (id, id));
            }
        };
        requests.spawn(REQUEST.scope(id, request));
    }
    let done = requests.join_all().await;
    assert_eq!(done.len(), 16);
}

#[tokio::test]
async fn order_of_two_keys_nested() {
    let both = async { (REQUEST.try_get().ok(), TENANT.try_get().ok()) };
    let handler = async { tokio::spawn(in_context(&REQUEST, in_context(&TENANT, both))).await.unwrap() };
    assert_eq!(REQUEST.scope(7, TENANT.scope("a", handler)).await, (Some(7), Some("a")));
}

/// The pitfall of the page: called inside the task, it has nothing to copy.
#[tokio::test]
async fn errors_called_inside_the_task_nothing_is_copied() {
    let wrong =
        async { tokio::spawn(async { in_context(&REQUEST, async { REQUEST.try_get().ok() }).await }).await };
    assert_eq!(REQUEST.scope(7, wrong).await.unwrap(), None);
    let right = async { tokio::spawn(in_context(&REQUEST, async { REQUEST.try_get().ok() })).await };
    assert_eq!(REQUEST.scope(7, right).await.unwrap(), Some(7));
}

/// The span is that of the call in a task and on a blocking thread, at every poll, and not where nothing was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_spans_follow_too() {
    // This test alone needs it, and spans are told apart by it only.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let current = || Span::current().id();
    let request = info_span!("request");
    let handler = async {
        let task = tokio::spawn(in_context(&REQUEST, async move {
            let first = current();
            yield_now().await;
            (first, current())
        }));
        let blocking = spawn_blocking(blocking_in_context(&REQUEST, current));
        let bare = tokio::spawn(async move { current() });
        (task.await.unwrap(), blocking.await.unwrap(), bare.await.unwrap())
    };
    let expected = request.id();
    assert!(expected.is_some());
    let seen = handler.instrument(request).await;
    assert_eq!(seen, ((expected.clone(), expected.clone()), expected, None));
    assert_eq!(current(), None);
}
