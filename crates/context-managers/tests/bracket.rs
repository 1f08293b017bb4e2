//! `bracket` is dropped at every point and broken in every phase: released once, if and only if it was acquired.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use context_managers::{Failed, Failure, Owner, bracket};
use futures::{FutureExt, poll};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// Counts what happens to resources.
#[derive(Default)]
struct Counts {
    acquired: AtomicUsize,
    released: AtomicUsize,
    alive: AtomicUsize,
}

struct Resource {
    counts: Arc<Counts>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Resource {
    fn new(counts: &Arc<Counts>, permit: Option<OwnedSemaphorePermit>) -> Self {
        counts.acquired.fetch_add(1, Ordering::Relaxed);
        counts.alive.fetch_add(1, Ordering::Relaxed);
        Resource { counts: counts.clone(), _permit: permit }
    }

    fn release(self) {
        self.counts.released.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    fn all(&self) -> [usize; 3] {
        [&self.acquired, &self.released, &self.alive].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Three phases that wait, each of them a child that panics and fails at each poll, and somebody who waits for the permit.
#[test]
fn cancellation_at_every_point_of_every_phase() {
    let report = sweep(|parts| {
        let (owner, permits) = (Owner::new(Handle::current()), Arc::new(Semaphore::new(1)));
        let counts = Arc::new(Counts::default());
        let (seen, caller, other) = (parts.clone(), owner.clone(), permits.clone());
        let (parts, calm) = (parts.clone(), counts.clone());
        let call = async move {
            let acquire = async {
                let permit = permits.acquire_owned().await.map_err(|_| "closed")?;
                sleep(2 * MS).await;
                Ok(Resource::new(&counts, Some(permit)))
            };
            let acquire = parts.fallible("acquire", acquire, || "acquire");
            let body = async |_: &mut Resource| {
                let work = async {
                    yield_now().await;
                    sleep(2 * MS).await;
                    Ok(7)
                };
                parts.fallible("body", work, || "body").await
            };
            let inner = parts.clone();
            let release = move |resource: Resource| {
                let work = async move {
                    sleep(2 * MS).await;
                    yield_now().await;
                    resource.release();
                    Ok(())
                };
                inner.fallible("release", work, || "release")
            };
            bracket(&caller, acquire, body, release).await
        };
        Scene::new(call).outlived().alongside(async move { drop(other.acquire().await) }).check(move |how| {
            let [acquired, released, alive] = calm.all();
            let report = owner.report();
            assert_eq!((alive, owner.running()), (0, 0));
            let in_release =
                matches!(how, Ended::Returned(Err(Failed::Release { .. } | Failed::Both { .. })));
            match how {
                Ended::Returned(Ok(7)) => {
                    assert_eq!((acquired, released, report.finished), (1, 1, 0));
                    assert_eq!(seen.fault(), None);
                }
                Ended::Returned(Err(Failed::Acquire(_))) => assert_eq!((acquired, released), (0, 0)),
                Ended::Returned(Err(_)) => {
                    assert_eq!((acquired, released), (1, usize::from(!in_release)));
                    assert_eq!(seen.fault(), Some(Fault::Fail));
                }
                Ended::Returned(Ok(_)) => panic!("not what the body returned"),
                // In acquire nothing was acquired; in the release it is the release that broke.
                Ended::Panicked(_) => assert!(released <= acquired),
                Ended::Dropped if seen.fault().is_none() => {
                    assert_eq!(released, acquired);
                    assert_eq!((report.finished, report.failures.len()), (acquired, 0));
                }
                // The body had failed or panicked, and the caller was dropped in the release: the owner was told.
                Ended::Dropped => {
                    assert_eq!((acquired, released), (1, 1));
                    assert_eq!((report.finished, report.failures.len()), (1, 1));
                }
            }
        })
    });
    assert!(report.points >= 12 && report.triggered_points > 10, "{report}");
}

/// The owner runs the release that was handed to it, and it breaks there at each of its polls.
#[test]
fn errors_and_panics_of_a_release_that_was_taken_over() {
    let report = sweep(|parts| {
        let (owner, counts) = (Owner::new(Handle::current()), Arc::new(Counts::default()));
        let (parts, seen, caller, after) = (parts.clone(), parts.clone(), owner.clone(), counts.clone());
        let call = async move {
            let release = move |resource: Resource| {
                let work = async move {
                    sleep(MS).await;
                    resource.release();
                    Ok::<_, &str>(())
                };
                parts.fallible("release", work, || "release")
            };
            let acquire = async { Ok(Resource::new(&counts, None)) };
            let body = async |_: &mut Resource| std::future::pending::<Result<(), _>>().await;
            assert!(timeout(MS, bracket(&caller, acquire, body, release)).await.is_err());
            let report = caller.finish().await;
            (report.finished, report.failures.first().map(ToString::to_string))
        };
        Scene::new(call).outlived().returns_panics().check(move |how| {
            let [acquired, released, alive] = after.all();
            assert_eq!(alive, 0);
            match (how, seen.fault()) {
                (Ended::Returned(report), None) => {
                    assert_eq!((acquired, released, report), (1, 1, (1, None)));
                }
                (Ended::Returned(report), Some(Fault::Fail)) => {
                    assert_eq!(report.1.as_deref(), Some("release"))
                }
                (Ended::Returned(report), _) => {
                    assert!(report.1.is_some_and(|it| it.starts_with("panicked")))
                }
                (_, None) => assert_eq!(acquired, released),
                _ => {}
            }
        })
    });
    assert!(report.points >= 4 && report.triggers >= 4, "{report}");
}

/// `release` itself panics before it has made its future: at the owner, and at the caller.
#[tokio::test]
async fn panics_of_the_call_to_release() {
    let owner = Owner::new(Handle::current());
    let release =
        |_: u32| -> std::future::Ready<Result<(), &'static str>> { resume_unwind(Box::new("no future")) };
    let wait = async |_: &mut u32| std::future::pending::<Result<(), _>>().await;
    assert!(bracket(&owner, async { Ok(1) }, wait, release).now_or_never().is_none());
    assert_eq!(owner.finish().await.failures[0].to_string(), "panicked: no future");
    let call = AssertUnwindSafe(bracket(&owner, async { Ok(1) }, async |_| Err::<(), _>("body"), release));
    assert_eq!(call.catch_unwind().await.unwrap_err().downcast_ref(), Some(&"no future"));
    assert_eq!(owner.finish().await.failures[0].to_string(), "body");
}

/// A body that panics before its first await, as a function that returns a future can.
#[tokio::test]
async fn panics_of_the_call_to_the_body() {
    fn body(_: &mut Arc<Counts>) -> std::future::Ready<Result<(), &'static str>> {
        resume_unwind(Box::new("no future"))
    }
    let (owner, counts) = (Owner::new(Handle::current()), Arc::new(Counts::default()));
    let release = async |counts: Arc<Counts>| {
        yield_now().await;
        counts.released.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let call = AssertUnwindSafe(bracket(&owner, async { Ok(counts.clone()) }, body, release));
    assert!(call.catch_unwind().await.is_err());
    assert_eq!(counts.all(), [0, 1, 0]);
    assert_eq!(owner.finish().await.finished, 0, "the caller awaited the release");
}

/// A bracket within a bracket, dropped: the inner resource is released although the outer one's release runs beside it.
#[tokio::test(start_paused = true)]
async fn order_of_nested_brackets() {
    let (owner, counts) = (Owner::new(Handle::current()), Arc::new(Counts::default()));
    let acquire = || async { Ok::<_, &str>(Resource::new(&counts, None)) };
    let release = |resource: Resource| async {
        sleep(MS).await;
        resource.release();
        Ok(())
    };
    let outer = async |_: &mut Resource| {
        let inner = async |_: &mut Resource| {
            sleep(10 * MS).await;
            Ok(7)
        };
        Ok(bracket(&owner, acquire(), inner, release).await)
    };
    assert_eq!(bracket(&owner, acquire(), outer, release).await, Ok(Ok(7)));
    assert_eq!(counts.all(), [2, 2, 0]);
    assert!(timeout(MS, bracket(&owner, acquire(), outer, release)).await.is_err());
    assert_eq!(owner.finish().await.finished, 2);
    assert_eq!(counts.all(), [4, 4, 0]);
}

/// A thread without a runtime drops the call; then nobody is left to run the release.
#[test]
fn cancellation_outside_a_runtime_and_after_it() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let (owner, counts) = (Owner::new(runtime.handle().clone()), Arc::new(Counts::default()));
    let call = || {
        let counts = counts.clone();
        let wait = async |_: &mut Resource| std::future::pending::<Result<(), &str>>().await;
        let release = async |resource: Resource| {
            resource.release();
            Ok(())
        };
        let inner = owner.clone();
        async move {
            let acquire = async { Ok(Resource::new(&counts, None)) };
            bracket(&inner, acquire, wait, release).await
        }
    };
    assert!(call().now_or_never().is_none());
    assert_eq!(runtime.block_on(owner.finish()).finished, 1);
    let mut late = Box::pin(call());
    runtime.block_on(async { assert!(poll!(&mut late).is_pending()) });
    drop(runtime);
    drop(late);
    assert!(matches!(owner.report().failures[..], [Failure::Lost]));
    assert_eq!(counts.all(), [2, 1, 0]);
}

/// Callers in their bodies when a runtime with two threads is dropped: each loss is counted, and nothing stays behind.
#[test]
fn cancellation_by_the_end_of_a_runtime_with_two_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (owner, counts) = (Owner::new(runtime.handle().clone()), Arc::new(Counts::default()));
    let begun = Arc::new(Semaphore::new(0));
    for _ in 0..100 {
        let (caller, counts, begun) = (owner.clone(), counts.clone(), begun.clone());
        runtime.spawn(async move {
            let body = async |_: &mut Resource| {
                begun.add_permits(1);
                std::future::pending::<Result<(), &str>>().await
            };
            let release = async |resource: Resource| {
                resource.release();
                Ok(())
            };
            bracket(&caller, async { Ok(Resource::new(&counts, None)) }, body, release).await
        });
    }
    assert!(runtime.block_on(begun.acquire_many(100)).is_ok());
    drop(runtime);
    let report = owner.report();
    assert!(report.failures.iter().all(|failure| matches!(failure, Failure::Lost)), "{report:?}");
    assert_eq!((report.failures.len(), owner.running(), counts.all()), (100, 0, [100, 0, 0]));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Failure,
    Panic,
}

fn phase() -> impl Strategy<Value = (usize, End)> {
    (0..4_usize, prop_oneof![3 => Just(End::Well), 1 => Just(End::Failure), 1 => Just(End::Panic)])
}

async fn run(
    (waits, end): (usize, End),
    name: &'static str,
    reached: &AtomicUsize,
) -> Result<(), &'static str> {
    for _ in 0..waits {
        yield_now().await;
    }
    match end {
        End::Well => Ok(()),
        _ => {
            reached.fetch_add(1, Ordering::Relaxed);
            if end == End::Panic { resume_unwind(Box::new(name)) } else { Err(name) }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the phases end and whenever the caller is dropped: released if acquired, and each failure is heard of once.
    #[test]
    fn errors_are_each_heard_of_once(acquire in phase(), body in phase(), release in phase(), polls in 0..16_usize) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (owner, counts) = (Owner::new(Handle::current()), Arc::new(Counts::default()));
            let failed = Arc::new(AtomicUsize::new(0));
            let inner = failed.clone();
            let mut call = Box::pin(AssertUnwindSafe(bracket(
                &owner,
                async { run(acquire, "acquire", &failed).await.map(|()| Resource::new(&counts, None)) },
                async |_: &mut Resource| run(body, "body", &failed).await,
                move |resource: Resource| async move {
                    resource.release();
                    run(release, "release", &inner).await
                },
            )).catch_unwind());
            let mut result = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(ended) = poll!(&mut call) {
                    result = Some(ended);
                    break;
                }
            }
            drop(call);
            let report = owner.finish().await;
            let heard = match result {
                None | Some(Ok(Ok(()))) => 0,
                Some(Ok(Err(Failed::Both { .. }))) => 2,
                Some(_) => 1,
            };
            prop_assert_eq!(heard + report.failures.len(), failed.load(Ordering::Relaxed));
            let [acquired, released, alive] = counts.all();
            prop_assert_eq!((released, alive), (acquired, 0));
            Ok(())
        })?;
    }
}

/// Many callers on two threads, aborted at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_on_two_threads() {
    let (owner, counts) = (Owner::new(Handle::current()), Arc::new(Counts::default()));
    for round in 0..2000 {
        let (caller, counts) = (owner.clone(), counts.clone());
        let task = tokio::spawn(async move {
            let acquire = async {
                yield_now().await;
                Ok(Resource::new(&counts, None))
            };
            let body = async |_: &mut Resource| {
                for _ in 0..round % 5 {
                    yield_now().await;
                }
                Ok(())
            };
            let release = async |resource: Resource| {
                yield_now().await;
                resource.release();
                Ok::<_, &str>(())
            };
            bracket(&caller, acquire, body, release).await
        });
        for _ in 0..round % 3 {
            yield_now().await;
        }
        task.abort();
        let _ = task.await;
    }
    let report = timeout(Duration::from_secs(60), owner.finish()).await.expect("no deadlock");
    assert!(report.failures.is_empty());
    let [acquired, released, alive] = counts.all();
    assert_eq!((released, alive), (acquired, 0));
}
