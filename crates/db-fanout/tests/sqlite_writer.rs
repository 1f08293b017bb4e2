//! `sqlite_writer` over real SQLite files: callers and the writing future are dropped at every suspension point.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

mod still;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use db_fanout::{WriteError, sqlite_writer};
use futures::future::join_all;
use proptest::prelude::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{QueryBuilder, Sqlite, query, query_scalar};
use still::Still;
use support::sweep::{Ended, Scene, sweep};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

fn database(connections: u32) -> (TempDir, SqlitePool) {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new().filename(folder.path().join("t.db")).create_if_missing(true);
    let options = SqlitePoolOptions::new().max_connections(connections).idle_timeout(None).max_lifetime(None);
    (folder, options.connect_lazy_with(file.journal_mode(SqliteJournalMode::Wal)))
}

async fn table(pool: &SqlitePool) {
    query("CREATE TABLE t (n INTEGER UNIQUE)").execute(pool).await.unwrap();
}

fn insert(rows: &[i64]) -> QueryBuilder<Sqlite> {
    let mut insert = QueryBuilder::new("INSERT INTO t ");
    insert.push_values(rows, |mut row, n| _ = row.push_bind(*n));
    insert
}

async fn stored(pool: &SqlitePool) -> Vec<i64> {
    query_scalar("SELECT n FROM t ORDER BY n").fetch_all(pool).await.unwrap()
}

/// One caller of five is dropped: the others are not affected, and what was acknowledged is stored.
#[test]
fn cancellation_of_a_caller_at_every_point() {
    let report = sweep(|_| {
        let (folder, pool) = database(1);
        let (writer, writing) = sqlite_writer(pool.clone(), TWO, TWO, insert);
        let own = writer.clone();
        let (begin, may_begin) = oneshot::channel::<()>();
        let has_own = Rc::new(Cell::new(false));
        let seen = has_own.clone();
        let call = async move {
            let _ = may_begin.await;
            own.write(1).await
        };
        let others = async move {
            let still = Still::new();
            table(&pool).await;
            let writing = spawn_local(writing);
            let first = join_all([2, 3].map(|n| writer.write(n)));
            let _ = begin.send(());
            assert!(first.await.iter().all(Result::is_ok));
            assert!(join_all([4, 5].map(|n| writer.write(n))).await.iter().all(Result::is_ok));
            // With the last of them and the subject's own, the writing ends.
            drop(writer);
            writing.await.unwrap();
            let rows = stored(&pool).await;
            seen.set(rows == [1, 2, 3, 4, 5]);
            assert!(seen.get() || rows == [2, 3, 4, 5], "{rows:?}");
            pool.close().await;
            drop((still, folder));
        };
        // The writing is a task of the bystander's.
        Scene::new(call).outlived().alongside(others).check(move |ended| match ended {
            Ended::Returned(result) => assert!(result.is_ok() && has_own.get()),
            Ended::Panicked(message) => panic!("{message}"),
            Ended::Dropped => {}
        })
    });
    // How often it is suspended depends on how fast SQLite's thread is.
    assert!(report.points > 0, "{report:?}");
}

/// The writing future is dropped: whoever was told that it is stored finds it, and nobody waits for ever.
#[test]
fn cancellation_of_the_writing_at_every_point() {
    let report = sweep(|_| {
        let (folder, pool) = database(1);
        let (writer, writing) = sqlite_writer(pool.clone(), TWO, TWO, insert);
        let (begin, may_begin) = oneshot::channel::<()>();
        let call = async move {
            let _ = may_begin.await;
            writing.await;
        };
        let callers = async move {
            let still = Still::new();
            table(&pool).await;
            let _ = begin.send(());
            let results = join_all((0..5).map(|n| writer.write(n))).await;
            let mut connection = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            let rows: Vec<i64> = query_scalar("SELECT n FROM t").fetch_all(&mut *connection).await.unwrap();
            for (n, result) in results.iter().enumerate() {
                match result {
                    Ok(()) => assert!(rows.contains(&(n as i64))),
                    Err(error) => assert!(matches!(error, WriteError::Stopped), "{error:?}"),
                }
            }
            connection.rollback().await.unwrap();
            drop(writer);
            pool.close().await;
            drop((still, folder));
        };
        Scene::new(call).outlived().alongside(callers).check(|ended| match ended {
            Ended::Panicked(message) => panic!("{message}"),
            Ended::Returned(()) | Ended::Dropped => {}
        })
    });
    // How often it is suspended depends on how fast SQLite's thread is.
    assert!(report.points > 0, "{report:?}");
}

/// Readers read all the time, callers write from several tasks: nobody is told that the database is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_nobody_meets_a_lock_under_load() {
    let (_folder, pool) = database(4);
    table(&pool).await;
    let (writer, writing) =
        sqlite_writer(pool.clone(), NonZeroUsize::new(64).unwrap(), TWO.saturating_mul(TWO), insert);
    let writing = tokio::spawn(writing);
    let over = Arc::new(AtomicBool::new(false));
    let readers = [0, 1].map(|_| {
        let (pool, over) = (pool.clone(), over.clone());
        tokio::spawn(async move {
            let mut last = 0;
            while !over.load(Relaxed) {
                let now: i64 = query_scalar("SELECT count(*) FROM t").fetch_one(&pool).await.unwrap();
                assert!(now >= last);
                last = now;
            }
        })
    });
    let callers = (0..32).map(|caller| {
        let writer = writer.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                writer.write(caller * 20 + n).await.unwrap();
            }
        })
    });
    join_all(callers).await.into_iter().for_each(|ended| ended.unwrap());
    over.store(true, Relaxed);
    join_all(readers).await.into_iter().for_each(|ended| ended.unwrap());
    drop(writer);
    writing.await.unwrap();
    assert!(stored(&pool).await.into_iter().eq(0..640));
}

#[tokio::test]
async fn memory_a_hundred_thousand_callers() {
    let (_folder, pool) = database(1);
    table(&pool).await;
    let (writer, writing) = sqlite_writer(
        pool.clone(),
        NonZeroUsize::new(100).unwrap(),
        NonZeroUsize::new(10_000).unwrap(),
        insert,
    );
    let writing = tokio::spawn(writing);
    let results = join_all((0..100_000).map(|n| writer.write(n))).await;
    assert!(results.iter().all(Result::is_ok));
    drop(writer);
    writing.await.unwrap();
    assert_eq!(stored(&pool).await.len(), 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any rows, any sizes: each caller is told what one insert after the other would have told it.
    #[test]
    fn order_and_errors_are_those_of_single_inserts(
        rows in prop::collection::vec(0..20_i64, 0..40), waiting in 1..9_usize, at_once in 1..50_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (told, left) = runtime.block_on(async {
            let (_folder, pool) = database(1);
            table(&pool).await;
            let [waiting, at_once] = [waiting, at_once].map(|size| NonZeroUsize::new(size).unwrap());
            let (writer, writing) = sqlite_writer(pool.clone(), waiting, at_once, insert);
            let calls = async {
                let results = join_all(rows.iter().map(|n| writer.write(*n))).await;
                drop(writer);
                results.iter().map(Result::is_ok).collect::<Vec<_>>()
            };
            let (told, ()) = tokio::join!(calls, writing);
            (told, stored(&pool).await)
        });
        let mut expected = Vec::new();
        for (n, told) in rows.into_iter().zip(told) {
            prop_assert_eq!(told, !expected.contains(&n));
            if told { expected.push(n) }
        }
        expected.sort_unstable();
        prop_assert_eq!(left, expected);
    }
}
