//! `row_stream`: streams are dropped at every suspension point, and their connection is there for the next one.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

mod still;

use std::thread;
use std::time::Duration;

use db_fanout::{Unread, row_stream};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqlitePool, query, query_scalar};
use still::Still;
use support::sweep::{Ended, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

const LONG: Duration = Duration::from_secs(3_600 * 24);
const TO: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n";

fn pool(connections: u32) -> SqlitePool {
    let options = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(LONG);
    options.idle_timeout(None).max_lifetime(None).connect_lazy("sqlite::memory:").unwrap()
}

#[test]
fn cancellation_at_every_point_frees_the_only_connection() {
    for unread in [Unread::Skip, Unread::Close] {
        sweep(|_| {
            let pool = pool(1);
            let (other, (here, gone)) = (pool.clone(), oneshot::channel::<()>());
            let call = async move {
                let _here = (here, Still::new());
                let connection = pool.acquire().await.unwrap();
                // More than the driver reads ahead.
                let rows = row_stream::<_, (i64,)>(connection, query(TO).bind(120), unread);
                rows.try_fold(0, async |sum, (row,)| Ok(sum + row)).await
            };
            let afterwards = async move {
                let _still = Still::new();
                // Its sender is dropped with the subject.
                assert!(gone.await.is_err());
                assert_eq!(query_scalar("SELECT 7").fetch_one(&other).await.ok(), Some(7));
                other.close().await;
            };
            // sqlx gives a connection back in a task of its own, and how often it is polled depends on SQLite's thread.
            Scene::new(call).outlived().random().alongside(afterwards).check(|ended| {
                if let Ended::Returned(sum) = ended {
                    assert_eq!(sum.unwrap(), 120 * 121 / 2);
                }
            })
        });
    }
}

/// A stream that was polled goes where no runtime is, before and after its own is gone.
#[test]
fn cancellation_outside_of_the_runtime_does_not_panic() {
    for unread in [Unread::Skip, Unread::Close] {
        for alive in [true, false] {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let (rows, pool) = runtime.block_on(async {
                let pool = pool(1);
                let connection = pool.acquire().await.unwrap();
                let mut rows = row_stream::<_, (i64,)>(connection, query(TO).bind(1_000_000), unread).boxed();
                assert_eq!(rows.try_next().await.unwrap(), Some((1,)));
                (rows, pool)
            });
            let runtime = alive.then_some(runtime);
            thread::spawn(move || drop(rows)).join().unwrap();
            if let Some(runtime) = runtime {
                assert_eq!(runtime.block_on(query_scalar("SELECT 7").fetch_one(&pool)).ok(), Some(7));
            }
        }
    }
}

/// A hundred thousand rows for several consumers on several threads, some of which stop early.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancellation_on_several_threads_loses_no_connection() {
    let pool = pool(2);
    let consumers = (0..16_i64).map(|consumer| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let unread = if consumer % 2 == 0 { Unread::Skip } else { Unread::Close };
            let rows = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(TO).bind(6_250), unread);
            let most = if consumer % 4 < 2 { usize::MAX } else { 700 };
            assert_eq!(rows.take(most).count().await, most.min(6_250));
        })
    });
    for consumer in consumers.collect::<Vec<_>>() {
        consumer.await.unwrap();
    }
    let both = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    drop(both);
}

/// A consumer for which every row is there already gives way to others.
#[tokio::test]
async fn order_of_others_is_not_held_up() {
    let pool = pool(1);
    let endless =
        row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(TO).bind(i64::MAX), Unread::Skip);
    let (done, is_done) = oneshot::channel();
    let other = tokio::spawn(async move { done.send(()).unwrap() });
    // Ends when the other task had its turn.
    assert!(endless.take_until(is_done).count().await < 1_000_000);
    other.await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    /// Any length, dropped anywhere: the rows are the first ones, and the next query has the connection.
    #[test]
    fn order_holds_for_any_length(rows in 0..300_i64, taken in 0..310_usize, close in any::<bool>()) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pool = pool(1);
            let unread = if close { Unread::Close } else { Unread::Skip };
            // The recursive query always has a first row.
            let stream = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(TO).bind(rows), unread);
            let seen: Vec<(i64,)> = stream.take(taken).try_collect().await.unwrap();
            let expected = taken.min(rows.max(1) as usize) as i64;
            assert!(seen.into_iter().eq((1..=expected).map(|row| (row,))));
            assert_eq!(query_scalar("SELECT 7").fetch_one(&pool).await.ok(), Some(7));
        });
    }
}

/// With a real PostgreSQL.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn cancellation_over_postgresql_keeps_or_closes_the_connection() {
    use sqlx::postgres::PgPoolOptions;
    let Some(server) = support::services::Service::Postgres.of_tests() else { return };
    let pool = PgPoolOptions::new().max_connections(1).connect(server.url()).await.unwrap();
    let process = "SELECT pg_backend_pid()";
    for (unread, same) in [(Unread::Skip, true), (Unread::Close, false)] {
        let before: i32 = query_scalar(process).fetch_one(&pool).await.unwrap();
        let many = query("SELECT generate_series(1, 20000)");
        let mut rows = row_stream::<_, (i32,)>(pool.acquire().await.unwrap(), many, unread).boxed();
        assert_eq!(rows.try_next().await.unwrap(), Some((1,)));
        drop(rows);
        let after: i32 = query_scalar(process).fetch_one(&pool).await.unwrap();
        assert_eq!(before == after, same, "{unread:?}");
    }
}
