//! `user_page`: requests are dropped at every suspension point of a fan-out over a real SQLite, and no place is lost.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

mod still;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use db_fanout::{AcquireError, FanOut, Lease};
use futures::future::{join_all, try_join_all};
use futures::{FutureExt, poll};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Sqlite, SqlitePool, query_scalar};
use still::Still;
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::yield_now;

const LONG: Duration = Duration::from_secs(3_600 * 24);

fn pool(connections: u32) -> SqlitePool {
    let options = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(LONG);
    options.idle_timeout(None).max_lifetime(None).connect_lazy("sqlite::memory:").unwrap()
}

/// Three queries over two places. Whoever comes afterwards has both places, and another one the reserve.
#[test]
fn cancellation_at_every_point_loses_no_place() {
    sweep(|parts| {
        let (parts, seen) = (parts.clone(), parts.clone());
        let pool = pool(3);
        let fan_out = Arc::new(FanOut::new(pool.clone(), 1, LONG).unwrap());
        let other = fan_out.clone();
        let (here, gone) = oneshot::channel::<()>();
        let call = async move {
            let _here = (here, Still::new());
            let answer = |number: i64| {
                let (fan_out, parts) = (&fan_out, &parts);
                async move {
                    let mut lease = fan_out.acquire().await.map_err(|_| "busy")?;
                    let query = query_scalar::<_, i64>("SELECT ? + 1").bind(number).fetch_one(&mut *lease);
                    parts
                        .fallible("query", query.map(|answer| answer.map_err(|_| "wrong")), || "failed")
                        .await
                }
            };
            tokio::try_join!(answer(1), answer(2), answer(3))
        };
        let afterwards = async move {
            let _still = Still::new();
            // Its sender is dropped with the subject.
            assert!(gone.await.is_err());
            let mut both = tokio::try_join!(other.acquire(), other.acquire()).unwrap();
            assert_eq!(query_scalar("SELECT 7").fetch_one(&mut *both.0).await.ok(), Some(7));
            assert_eq!(query_scalar("SELECT 8").fetch_one(&mut *both.1).await.ok(), Some(8));
            drop(both);
            // Waits for every connection: after that no task is alive.
            pool.close().await;
        };
        // sqlx gives a connection back in a task of its own, and how often a query is polled depends on SQLite's thread.
        Scene::new(call).outlived().random().alongside(afterwards).check(move |ended| {
            match (ended, seen.fault()) {
                (Ended::Returned(answer), Some(Fault::Fail)) => assert_eq!(answer, Err("failed")),
                (Ended::Returned(answer), None) => assert_eq!(answer, Ok((2, 3, 4))),
                _ => {}
            }
        })
    });
}

/// The only place is taken, and whoever waits for it gives up: at any point, also when it was woken already.
#[test]
fn cancellation_of_a_caller_that_waits_loses_no_turn() {
    sweep(|_| {
        let pool = pool(2);
        let fan_out = Arc::new(FanOut::new(pool.clone(), 1, LONG).unwrap());
        let (first, next) = (fan_out.clone(), fan_out.clone());
        let (taken, is_taken) = oneshot::channel();
        let (waits, is_waiting) = oneshot::channel();
        let (here, gone) = oneshot::channel::<()>();
        let first = async move {
            let _still = Still::new();
            let lease = first.acquire().await.unwrap();
            let _ = taken.send(());
            // Its sender is dropped with the subject at the latest.
            let _ = is_waiting.await;
            yield_now().await;
            drop(lease);
        };
        let call = async move {
            let _here = (here, Still::new());
            is_taken.await.unwrap();
            let _ = waits.send(());
            fan_out.acquire().await.unwrap();
        };
        let next = async move {
            let _still = Still::new();
            for _ in 0..3 {
                drop(next.acquire().await.unwrap());
            }
            assert!(gone.await.is_err());
            pool.close().await;
        };
        Scene::new(call).outlived().random().alongside(first).alongside(next)
    });
}

/// Callers on several threads that give up at any poll: never more connections are out than there are places.
#[test]
fn cancellation_on_several_threads_keeps_the_limit() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (out, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let leave = {
        let (out, peak) = (out.clone(), peak.clone());
        move || _ = peak.fetch_max(out.fetch_add(1, SeqCst) + 1, SeqCst)
    };
    let again = leave.clone();
    let back = out.clone();
    // A connection counts as out from the moment that the pool hands it out until it begins to take it back.
    let options = SqlitePoolOptions::new()
        .max_connections(5)
        .after_connect(move |_, _| {
            leave();
            async { Ok(()) }.boxed()
        })
        .before_acquire(move |_, _| {
            again();
            async { Ok(true) }.boxed()
        })
        .after_release(move |_, _| {
            back.fetch_sub(1, SeqCst);
            async { Ok(true) }.boxed()
        });
    runtime.block_on(async {
        let pool = options.connect_lazy("sqlite::memory:").unwrap();
        let fan_out = Arc::new(FanOut::new(pool.clone(), 2, LONG).unwrap());
        let callers = (0..16).map(|caller| {
            let fan_out = fan_out.clone();
            tokio::spawn(async move {
                for round in 0..60 {
                    let call = async {
                        let mut lease = fan_out.acquire().await.unwrap();
                        let seven = query_scalar("SELECT 7").fetch_one(&mut *lease).await;
                        assert_eq!(seven.ok(), Some(7));
                    };
                    give_up(call, (caller * 7 + round) % 12).await;
                }
            })
        });
        try_join_all(callers).await.unwrap();
        let all = join_all((0..3).map(|_| fan_out.acquire())).await;
        assert!(all.iter().all(Result::is_ok));
        // The reserve is there besides.
        let reserve = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert!(fan_out.acquire().now_or_never().is_none());
        drop(reserve);
    });
    // The two of the reserve were taken at the end.
    assert_eq!(peak.load(SeqCst), 5);
}

/// Polls `call` so often, and drops it then unless it has ended.
async fn give_up(call: impl Future<Output = ()>, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll!(call.as_mut()).is_ready() {
            return;
        }
        yield_now().await;
    }
}

/// The lease of a runtime that is gone is dropped on a thread that has none.
#[test]
fn cancellation_outside_of_the_runtime_does_not_panic() {
    for connections in [0, 1] {
        for alive in [true, false] {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let (lease, fan_out): (Lease<Sqlite>, _) = runtime.block_on(async {
                let options = SqlitePoolOptions::new().max_connections(2).min_connections(connections);
                let fan_out = FanOut::new(options.connect_lazy("sqlite::memory:").unwrap(), 1, LONG).unwrap();
                (fan_out.acquire().await.unwrap(), fan_out)
            });
            let runtime = alive.then_some(runtime);
            thread::spawn(move || drop(lease)).join().unwrap();
            match runtime {
                Some(runtime) => drop(runtime.block_on(fan_out.acquire()).unwrap()),
                None => assert_eq!(fan_out.free(), 1),
            }
        }
    }
}

/// Without time to wait, there is a connection at once or none; and the call can be spawned.
#[tokio::test]
async fn errors_come_at_once_without_time_to_wait() {
    let fan_out = Arc::new(FanOut::new(pool(2), 1, Duration::ZERO).unwrap());
    let own = fan_out.clone();
    match tokio::spawn(async move { own.acquire().await }).await.unwrap() {
        Ok(_lease) => assert_eq!(fan_out.free(), 0),
        Err(AcquireError::Busy { waited, limit }) => {
            assert_eq!((waited, limit, fan_out.free()), (Duration::ZERO, 1, 1));
        }
        Err(other) => panic!("{other}"),
    }
}
