//! `shield` and `Owner::finish` are dropped at every point: what was begun ends, and every failure is heard of once.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use context_managers::{Failure, Owner, OwnerReport, shield};
use futures::{FutureExt, poll};
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// A section that takes a permit, two waits and a wake-up from a bystander: once begun it ends, and counts as ended once.
#[test]
fn cancellation_of_a_section_at_every_point() {
    let report = sweep(|parts| {
        let (owner, permits) = (Owner::new(Handle::current()), Arc::new(Semaphore::new(1)));
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (waker, woken) = oneshot::channel::<()>();
        let section = {
            let (permits, begun, ended) = (permits.clone(), begun.clone(), ended.clone());
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let _permit = permits.acquire_owned().await.map_err(|_| "closed")?;
                sleep(2 * MS).await;
                let _ = woken.await;
                yield_now().await;
                ended.fetch_add(1, Ordering::Relaxed);
                Ok(7)
            }
        };
        let section = parts.fallible("section", section, || "injected");
        let (seen, other, caller) = (parts.clone(), permits.clone(), owner.clone());
        Scene::new(async move { shield(&caller, section).await })
            .outlived()
            .alongside(async move {
                sleep(5 * MS).await;
                let _ = waker.send(());
                drop(other.acquire().await);
            })
            .check(move |how| {
                let report = owner.report();
                assert_eq!((permits.available_permits(), owner.running()), (1, 0));
                let (begun, ended) = (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
                let failed = usize::from(seen.fault().is_some());
                let unheard = report.failures.len() + report.finished;
                match how {
                    Ended::Returned(Ok(_)) => assert_eq!((begun, ended, failed, unheard), (1, 1, 0, 0)),
                    Ended::Returned(Err(_)) | Ended::Panicked(_) => {
                        assert_eq!((ended, failed, unheard), (0, 1, 0));
                    }
                    Ended::Dropped => assert_eq!((ended, report.finished, unheard), (begun, begun, begun)),
                }
            })
    });
    assert!(report.points >= 9, "{report}");
}

/// A section at the owner breaks at each of its polls: the owner hears of it, whether anybody waits for the end or not.
#[test]
fn errors_and_panics_of_a_section_that_was_taken_over() {
    let report = sweep(|parts| {
        let owner = Owner::new(Handle::current());
        let section = async {
            yield_now().await;
            sleep(2 * MS).await;
            Ok(())
        };
        let section = parts.fallible("section", section, || "injected");
        let (seen, caller, heard) = (parts.clone(), owner.clone(), Rc::new(Cell::new(0)));
        let count = heard.clone();
        let tally = |report: &OwnerReport| report.finished + report.failures.len();
        Scene::new(async move {
            caller.take_over(section);
            // The report is not lost when this wait is dropped.
            let report = caller.finish().await;
            count.set(tally(&report));
            report
        })
        .outlived()
        .returns_panics()
        .check(move |how| {
            let later = owner.report();
            match how {
                Ended::Dropped => assert!(heard.get() + tally(&later) <= 1),
                Ended::Returned(report) => {
                    assert_eq!((tally(&report), tally(&later)), (1, 0));
                    match seen.fault() {
                        None => assert_eq!(report.finished, 1),
                        Some(Fault::Fail) => assert_eq!(report.failures[0].to_string(), "injected"),
                        Some(_) => assert!(matches!(report.failures[0], Failure::Panicked(_))),
                    }
                }
                Ended::Panicked(message) => panic!("{message}"),
            }
        })
    });
    assert!(report.points >= 3, "{report}");
}

/// Whoever takes part in a shutdown may give up waiting and begin again.
#[test]
fn cancellation_of_finish_at_every_point() {
    let report = sweep(|_| {
        let owner = Owner::new(Handle::current());
        let (caller, other) = (owner.clone(), owner.clone());
        for millis in [1, 3, 3] {
            owner.take_over(sleep(millis * MS).map(Ok::<_, &str>));
        }
        let (first, second) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (mine, others) = (first.clone(), second.clone());
        Scene::new(async move {
            sleep(2 * MS).await;
            mine.set(caller.finish().await.finished);
        })
        .outlived()
        .alongside(async move {
            yield_now().await;
            others.set(other.finish().await.finished);
        })
        .check(move |_| assert_eq!(first.get() + second.get() + owner.report().finished, 3))
    });
    assert!(report.points >= 3, "{report}");
}

/// The caller is dropped while it unwinds from a panic of its own: that is no panic of the section.
#[tokio::test(start_paused = true)]
async fn cancellation_by_the_callers_own_panic() {
    let owner = Owner::new(Handle::current());
    let caller = owner.clone();
    let task = tokio::spawn(async move {
        let mut section = Box::pin(shield(&caller, sleep(MS).map(Ok::<_, &str>)));
        assert!(poll!(&mut section).is_pending());
        std::panic::resume_unwind(Box::new("the caller"));
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(owner.finish().await.finished, 1);
}

/// Dropped by a thread that belongs to no runtime, while the runtime of the owner works elsewhere.
#[test]
fn cancellation_outside_a_runtime() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let owner = Owner::new(runtime.handle().clone());
    let section = Box::pin(async {
        yield_now().await;
        Ok::<_, &str>(())
    });
    assert!(shield(&owner, section).now_or_never().is_none());
    assert_eq!(runtime.block_on(owner.finish()).finished, 1);
}

/// A section that gives up sections of its own, and an owner that is asked while an error is dropped.
#[tokio::test]
async fn errors_may_use_the_owner_while_they_are_dropped() {
    #[derive(Debug, thiserror::Error)]
    #[error("asks")]
    struct Asks(Owner);
    impl Drop for Asks {
        fn drop(&mut self) {
            drop(self.0.report());
        }
    }
    let owner = Owner::new(Handle::current());
    for _ in 0..150 {
        let inner = owner.clone();
        owner.take_over(async move {
            let again = inner.clone();
            assert!(shield(&again, yield_now().map(Ok::<_, &str>)).now_or_never().is_none());
            Err::<(), _>(Asks(inner))
        });
    }
    let ended = timeout(Duration::from_secs(60), owner.finish()).await.expect("no deadlock");
    assert_eq!(owner.running(), 0);
    drop(ended);
}

/// A wake-up that came before the section was handed over is not lost.
#[tokio::test]
async fn order_of_a_wake_up_and_the_hand_over() {
    let owner = Owner::new(Handle::current());
    let (waker, woken) = oneshot::channel();
    let mut section = Box::pin(shield(&owner, woken));
    assert_eq!(poll!(&mut section), Poll::Pending);
    waker.send(()).unwrap();
    drop(section);
    assert_eq!(owner.finish().await.finished, 1);
}

/// Callers on two threads, aborted at any moment: each section that began ends, exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_on_two_threads() {
    let owner = Owner::new(Handle::current());
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for round in 0..2000 {
        let (caller, begun, ended) = (owner.clone(), begun.clone(), ended.clone());
        let task = tokio::spawn(async move {
            let section = async move {
                begun.fetch_add(1, Ordering::Relaxed);
                for _ in 0..round % 5 {
                    yield_now().await;
                }
                ended.fetch_add(1, Ordering::Relaxed);
                Ok::<_, &str>(())
            };
            shield(&caller, section).await
        });
        for _ in 0..round % 3 {
            yield_now().await;
        }
        task.abort();
        let _ = task.await;
    }
    let report = timeout(Duration::from_secs(60), owner.finish()).await.expect("no deadlock");
    assert!(report.failures.is_empty());
    assert_eq!(begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
}
