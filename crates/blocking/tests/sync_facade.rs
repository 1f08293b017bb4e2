//! `sync_facade`: used and dropped in every place where it is allowed, and in those where it is not.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use blocking::{InsideRuntime, Offload, SyncFacade};
use support::sweep::{Ended, Scene, sweep};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_blocking, unconstrained};
use tokio::time::timeout;

fn facade() -> SyncFacade {
    SyncFacade::new().expect("a thread can be had")
}

/// Async code that goes through a sync library which is async inside, the library being offloaded as it should be.
#[test]
fn cancellation_at_every_point_of_an_offloaded_call() {
    sweep(|_| {
        let (facade, offload) = (Arc::new(facade()), Offload::new(NonZeroUsize::MIN));
        let (subject, beside) = (offload.clone(), offload.clone());
        let [inner, other] = [(); 2].map(|()| facade.clone());
        let call = async move {
            assert_eq!(inner.call(async { 7 }), Err(InsideRuntime));
            subject.run(move |_| inner.call(async { tokio::spawn(async { 7 }).await })).await
        };
        let beside = async move {
            let both = beside.run(move |_| other.call(async { 8 })).await;
            assert_eq!(both, Ok(Ok(8)));
        };
        Scene::new(call).alongside(beside).check(move |ended| {
            if let Ended::Returned(number) = ended {
                assert_eq!(number.expect("run").expect("called").expect("no panic"), 7);
            }
            // The check runs inside a task of the sweep.
            drop(facade);
        })
    });
}

#[tokio::test]
async fn errors_inside_a_local_set_and_other_executors() {
    let facade = Arc::new(facade());
    let inner = facade.clone();
    LocalSet::new().run_until(async move { assert_eq!(inner.call(async {}), Err(InsideRuntime)) }).await;
    // A plain thread that has entered a runtime may block.
    let (runtime, inner) = (Handle::current(), facade.clone());
    let entered = thread::spawn(move || {
        let _entered = runtime.enter();
        inner.call(async { Handle::current().metrics().num_workers() })
    });
    assert_eq!(entered.join().unwrap(), Ok(1));
}

#[test]
fn errors_in_a_task_of_the_facade_itself() {
    let facade = Arc::new(facade());
    let inner = facade.clone();
    let nested = facade.call(async {
        let inside = tokio::spawn(async move { (inner.call(async { 7 }), inner) }).await.unwrap();
        // On a blocking thread of its own runtime the worker is free.
        let (refused, inner) = inside;
        (refused, spawn_blocking(move || inner.call(async { 7 })).await.unwrap())
    });
    assert_eq!(nested, Ok((Err(InsideRuntime), Ok(7))));
}

/// A budget that is used up is a budget.
#[tokio::test]
async fn errors_with_an_exhausted_budget() {
    let facade = facade();
    std::future::poll_fn(|context| {
        while let std::task::Poll::Ready(unit) = tokio::task::coop::poll_proceed(context) {
            unit.made_progress();
        }
        assert_eq!(facade.call(async { 7 }), Err(InsideRuntime));
        std::task::Poll::Ready(())
    })
    .await;
}

/// What the docs say of `unconstrained`: Tokio itself refuses then, with a panic.
#[test]
fn errors_of_an_unconstrained_future_are_tokios_panic() {
    let facade = facade();
    let call = || facade.call(unconstrained(async { facade.call(async { 7 }) }));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!(facade.call(async { 7 }), Ok(7));
}

/// The call does not wait for ever when the facade is used by many threads.
#[test]
fn order_many_threads_call() {
    let (facade, sum) = (facade(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..16_usize {
            let (facade, sum) = (&facade, &sum);
            scope.spawn(move || {
                for _ in 0..100 {
                    let add = async {
                        tokio::task::yield_now().await;
                        tokio::spawn(async move { number }).await.unwrap_or_default()
                    };
                    sum.fetch_add(facade.call(add).unwrap(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 100 * 120);
}

/// The last handle goes away in a task of the facade's own runtime.
#[test]
fn cancellation_a_drop_in_its_own_task() {
    let facade = Arc::new(facade());
    let (alone, is_alone) = oneshot::channel::<()>();
    let (sender, ended) = mpsc::channel::<()>();
    let inner = facade.clone();
    let task = async move {
        let _sender = sender;
        is_alone.await.unwrap();
        drop(inner);
        // It is aborted here, at the latest.
        std::future::pending::<()>().await;
    };
    facade.call(async { drop(tokio::spawn(task)) }).unwrap();
    drop(facade);
    alone.send(()).unwrap();
    assert!(ended.iter().next().is_none());
}

/// A drop waits for no blocking work; a close does.
#[test]
fn cancellation_and_blocking_work() {
    for closes in [false, true] {
        let (end, ended) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let facade = facade();
        let work = move || {
            ended.iter().for_each(|()| ());
            sender.send("done").unwrap();
        };
        facade.call(async { drop(spawn_blocking(work)) }).unwrap();
        if closes {
            let closing = thread::spawn(|| facade.close());
            drop(end);
            assert_eq!(closing.join().unwrap(), Ok(()));
            assert_eq!(receiver.try_recv(), Ok("done"));
        } else {
            drop(facade);
            assert!(receiver.try_recv().is_err());
            drop(end);
            let last = receiver.iter().next();
            // Not begun when the facade was dropped, it never runs.
            assert!(last == Some("done") || last.is_none());
        }
    }
}

#[test]
fn cancellation_by_a_timeout_inside_the_call() {
    let facade = facade();
    // A timer must be made in the runtime: hence the block.
    let outside = || facade.call(timeout(Duration::from_millis(1), std::future::pending::<()>()));
    assert!(catch_unwind(AssertUnwindSafe(outside)).is_err());
    let ended = facade.call(async { timeout(Duration::from_millis(1), std::future::pending::<()>()).await });
    assert!(ended.unwrap().is_err());
}

#[test]
fn panics_leave_the_facade_usable() {
    let facade = facade();
    for _ in 0..3 {
        let call = || facade.call(async { std::panic::resume_unwind(Box::new(7)) });
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    }
    let spawned = async {
        tokio::spawn(async { std::panic::resume_unwind(Box::new(7)) }).await.is_err_and(|e| e.is_panic())
    };
    assert_eq!(facade.call(spawned), Ok(true));
}
