//! Run work in a transaction that commits as a whole or leaves nothing, also when its caller gives up.
//!
//! Use it for every transaction under a `select!` or a timeout, and wherever several writers meet. For one statement take the
//! pool itself; for very many small writes to SQLite take `sqlite_writer`.
//!
//! | | |
//! |---|---|
//! | Order | acquire, begin, work, commit; attempts run one after another |
//! | Errors | the work's own: rolled back, [`Failed::Refused`]; a conflict with another transaction: tried again from the beginning; a connection lost during the commit: [`Failed::Unknown`], never tried again |
//! | Cancellation | nothing is committed, unless COMMIT was sent already; the connection is closed, not given back to the pool |
//! | Panics | the work's panic is the caller's; nothing is committed, and the connection is closed |
//! | Memory | none beyond the work's: O(1) |
//! | Backpressure | callers wait for a connection, in the order and for as long as the pool says |
//! | Clock | `tokio::time`: a random wait before the second attempt, up to 5 ms, and up to twice as long before each further one, at most 500 ms; the pool's own limits |
//!
//! sqlx 0.9.0 gives a connection back as it is when a `begin()` on PostgreSQL is dropped half way. Here one that is not known to be
//! outside of a transaction never goes back. A statement that runs when the caller gives up is not stopped.
//!
//! ```
//! use db_fanout::{ATTEMPTS, Failed, transaction};
//! use sqlx::{SqlitePool, query, query_scalar};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Failed<&'static str>> {
//!     let pool = SqlitePool::connect("sqlite::memory:").await?;
//!     let id: i64 = transaction(&pool, "BEGIN IMMEDIATE", ATTEMPTS, async |mut open| {
//!         query("CREATE TABLE users (id INTEGER PRIMARY KEY)").execute(&mut *open).await?;
//!         Ok(query_scalar("INSERT INTO users DEFAULT VALUES RETURNING id").fetch_one(&mut *open).await?)
//!     }).await?;
//!     Ok(assert_eq!(id, 1))
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Executor, Pool, SqlSafeStr, raw_sql};
// sqlx's own `Transaction` borrows its connection, and a future that lends it further is not `Send`.
use sqlx_core::transaction::TransactionManager;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// How often a transaction is tried, if there is no reason for another number.
pub const ATTEMPTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

const BASE: Duration = Duration::from_millis(5);
const CAP: Duration = Duration::from_millis(500);

/// Why there is no result. Nothing was committed, except perhaps where it says so.
#[derive(Debug, thiserror::Error)]
pub enum Failed<E> {
    /// The work said no.
    #[error("rolled back: {0}")]
    Refused(E),
    /// The database, or the way to it, failed.
    #[error("the database failed, and nothing was committed")]
    Database(#[from] sqlx::Error),
    /// Every attempt met another transaction; the last error is the source.
    #[error("conflict with other transactions in each of {attempts} attempts")]
    Conflict {
        /// How many there were.
        attempts: NonZeroUsize,
        /// Of the last one.
        source: sqlx::Error,
    },
    /// The connection was lost during the commit: look whether it took place before you try again.
    #[error("the connection was lost during the commit, which may have taken place")]
    Unknown(#[source] sqlx::Error),
    /// It had ended before its work did, for instance by a nested `begin()` that was given up: what the work did then is not in it.
    #[error("the transaction had ended before its work did")]
    Ended,
}

/// The connection, within its transaction. It is used as `&mut *open`, and given back by dropping it.
pub struct Open<DB: Database> {
    connection: Option<PoolConnection<DB>>,
    /// The call has the other end. Without it the connection is closed when it is dropped, and does not go back to the pool.
    back: Option<oneshot::Sender<Open<DB>>>,
}

impl<DB: Database> Deref for Open<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.connection.as_ref().expect("it is taken when this is dropped")
    }
}

impl<DB: Database> DerefMut for Open<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("it is taken when this is dropped")
    }
}

impl<DB: Database> Drop for Open<DB> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match self.back.take() {
            Some(back) => drop(back.send(Open { connection: Some(connection), back: None })),
            None => connection.close_on_drop(),
        }
    }
}

/// Runs `work` in a transaction, and again in a new one after a conflict: what it does besides must bear that.
///
/// `begin` is the statement that begins it, such as `BEGIN IMMEDIATE` for writers on SQLite. `work` must not commit or roll back
/// by itself; it may use nested transactions (`open.begin()`). The call must be dropped within a tokio runtime.
pub async fn transaction<DB, T, E, F>(
    pool: &Pool<DB>,
    begin: &'static str,
    attempts: NonZeroUsize,
    mut work: impl FnMut(Open<DB>) -> F,
) -> Result<T, Failed<E>>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    F: Future<Output = Result<T, Failed<E>>>,
{
    let mut longest = BASE;
    for _ in 1..attempts.get() {
        match attempt(pool, begin, &mut work).await {
            Err(Failed::Database(error)) if is_conflict(&error) => {}
            result => return result,
        }
        sleep(longest.mul_f64(fastrand::f64())).await;
        longest = CAP.min(longest * 2);
    }
    attempt(pool, begin, &mut work).await.map_err(|error| match error {
        Failed::Database(source) if is_conflict(&source) => Failed::Conflict { attempts, source },
        error => error,
    })
}

async fn attempt<DB, T, E, F>(
    pool: &Pool<DB>,
    begin: &'static str,
    work: &mut impl FnMut(Open<DB>) -> F,
) -> Result<T, Failed<E>>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    F: Future<Output = Result<T, Failed<E>>>,
{
    let mut open = Open { connection: Some(pool.acquire().await?), back: None };
    DB::TransactionManager::begin(&mut open, Some(begin.into_sql_str())).await?;
    let (back, mut returned) = oneshot::channel();
    open.back = Some(back);
    let result = work(open).await;
    // The work has ended. If it has put the connection elsewhere, that is closed when it is dropped there.
    let Ok(mut open) = returned.try_recv() else { return result.and(Err(Failed::Ended)) };
    let result = match result {
        Err(error) => Err(error),
        // PostgreSQL rolls back, and calls it a success, when it is told to commit after a statement has failed: this fails then.
        // sqlx commits nothing, and calls it a success, after a nested transaction has rolled everything back.
        Ok(value) => match raw_sql("SELECT 1").execute(&mut *open).await {
            Err(error) => Err(Failed::Database(error)),
            Ok(_) if DB::TransactionManager::get_transaction_depth(&open) != 1 => Err(Failed::Ended),
            Ok(_) => match DB::TransactionManager::commit(&mut open).await {
                Ok(()) => Ok(value),
                Err(error) if is_refusal(&error) => Err(Failed::Database(error)),
                Err(error) => Err(Failed::Unknown(error)),
            },
        },
    };
    if result.is_err() {
        DB::TransactionManager::start_rollback(&mut open);
    }
    // The rollback goes before the ping. What is known to be outside of a transaction goes back to the pool.
    if (result.is_ok() || open.ping().await.is_ok()) && !open.is_in_transaction() {
        drop(open.connection.take());
    }
    result
}

/// The database's code: an SQLSTATE, which has five characters, or a number of SQLite, which has at most four.
fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Whether a new transaction may succeed where this one met another.
fn is_conflict(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| match code.as_str() {
        "40001" | "40P01" => true, // serialization_failure, deadlock_detected
        // SQLITE_BUSY and SQLITE_LOCKED; what kind of it is in the upper bits.
        code => code.len() < 5 && matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6)),
    })
}

/// Whether the database has said that it did not commit: it has answered, and not that it goes away.
fn is_refusal(error: &sqlx::Error) -> bool {
    let unknown = |code: &str| code.starts_with("08") || code.starts_with("57P") || code == "40003";
    code(error).is_some_and(|code| code.len() < 5 || !unknown(&code))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic::{AssertUnwindSafe, resume_unwind};

    use futures::FutureExt;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
    use sqlx::{query, query_scalar};
    use tempfile::TempDir;
    use tokio::time::Instant;

    use super::*;

    const NOW: NonZeroUsize = NonZeroUsize::MIN;
    const WRITE: &str = "BEGIN IMMEDIATE";

    /// A file with an empty table `t`, and one pool. Who meets a lock does not wait.
    async fn database(connections: u32) -> (TempDir, SqlitePool) {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("t.db")).create_if_missing(true);
        let options = SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false);
        let options = options.idle_timeout(None).max_lifetime(None);
        let pool = options.connect_with(file.busy_timeout(Duration::ZERO)).await.unwrap();
        raw_sql("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER)").execute(&pool).await.unwrap();
        (folder, pool)
    }

    async fn rows(pool: &SqlitePool) -> i64 {
        query_scalar("SELECT count(*) FROM t").fetch_one(pool).await.unwrap()
    }

    #[tokio::test]
    async fn order_work_then_commit_and_the_future_is_send() {
        let (_folder, pool) = database(1).await;
        let call = async move {
            let result = transaction(&pool, WRITE, NOW, async |mut open| {
                query("INSERT INTO t VALUES (1)").execute(&mut *open).await?;
                Ok::<i64, Failed<()>>(query_scalar("SELECT n FROM t").fetch_one(&mut *open).await?)
            });
            (result.await.unwrap(), rows(&pool).await)
        };
        assert_eq!(tokio::spawn(call).await.unwrap(), (1, 1));
    }

    #[tokio::test]
    async fn errors_roll_back_and_only_a_conflict_is_tried_again() {
        let (_folder, pool) = database(2).await;
        let tries = AssertUnwindSafe(std::cell::Cell::new(0));
        let refused = transaction(&pool, WRITE, NonZeroUsize::MAX, async |mut open| {
            tries.set(tries.get() + 1);
            query("INSERT INTO t VALUES (1)").execute(&mut *open).await?;
            Err::<(), _>(Failed::Refused("too much"))
        });
        assert!(matches!(refused.await, Err(Failed::Refused("too much"))));
        assert_eq!((tries.get(), rows(&pool).await), (1, 0));

        // Both read; the other one writes first. That cannot be mended by waiting: SQLITE_BUSY_SNAPSHOT.
        tries.set(0);
        let call = transaction(&pool, "BEGIN", NonZeroUsize::MAX, async |mut open| {
            let rows: i64 = query_scalar("SELECT count(*) FROM t").fetch_one(&mut *open).await?;
            if tries.replace(tries.get() + 1) < 2 {
                query("INSERT INTO t VALUES (7)").execute(&pool).await?;
            }
            query("INSERT INTO t VALUES (8)").execute(&mut *open).await?;
            Ok::<_, Failed<()>>(rows)
        });
        assert_eq!(call.await.unwrap(), 2);
        assert_eq!((tries.get(), rows(&pool).await), (3, 3));

        let lost = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(!is_refusal(&lost.into()) && !is_refusal(&sqlx::Error::WorkerCrashed));
    }

    #[tokio::test]
    async fn cancellation_leaves_nothing_and_closes_the_connection() {
        let (_folder, pool) = database(1).await;
        raw_sql("CREATE TEMP TABLE here (n)").execute(&pool).await.unwrap();
        let (written, is_written) = tokio::sync::oneshot::channel();
        let written = std::cell::Cell::new(Some(written));
        let call = transaction(&pool, WRITE, NOW, async |mut open| {
            query("INSERT INTO t VALUES (1)").execute(&mut *open).await?;
            written.take().unwrap().send(()).unwrap();
            std::future::pending::<Result<(), Failed<()>>>().await
        });
        tokio::select! { _ = call => unreachable!("it never ends"), _ = is_written => {} }
        assert_eq!(rows(&pool).await, 0);
        transaction(&pool, WRITE, NOW, async |_| Ok::<_, Failed<()>>(())).await.unwrap();
        assert!(query("SELECT n FROM here").fetch_optional(&pool).await.is_err());
    }

    #[tokio::test]
    async fn panics_are_the_callers_and_leave_nothing() {
        let (_folder, pool) = database(1).await;
        let call = transaction(&pool, WRITE, NOW, async |mut open| {
            query("INSERT INTO t VALUES (1)").execute(&mut *open).await?;
            // Not `panic!`: the message would be printed though the panic is expected.
            if open.is_in_transaction() {
                resume_unwind(Box::new("broken"))
            }
            Ok::<_, Failed<()>>(())
        });
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        assert_eq!(rows(&pool).await, 0);
    }

    #[tokio::test]
    async fn backpressure_callers_wait_for_a_connection() {
        let (_folder, pool) = database(1).await;
        let one = async || {
            let insert = async |mut open: Open<sqlx::Sqlite>| {
                query("INSERT INTO t VALUES (1)").execute(&mut *open).await?;
                Ok::<_, Failed<()>>(())
            };
            transaction(&pool, WRITE, NOW, insert).await
        };
        let all = futures::future::join_all((0..100).map(|_| one())).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(rows(&pool).await, 100);
    }

    #[tokio::test]
    async fn clock_waits_are_virtual_and_bounded() {
        let (_folder, pool) = database(40).await;
        let mut other = pool.begin_with(WRITE).await.unwrap();
        query("INSERT INTO t VALUES (1)").execute(&mut *other).await.unwrap();
        // Each attempt finds an idle connection: no limit of the pool's runs on the paused clock while a thread works.
        let all = futures::future::join_all((0..39).map(|_| pool.acquire())).await;
        for connection in all {
            connection.unwrap().return_to_pool().await;
        }
        tokio::time::pause();
        let start = Instant::now();
        let call = transaction(&pool, "BEGIN", NonZeroUsize::new(30).unwrap(), async |mut open| {
            query("INSERT INTO t VALUES (2)").execute(&mut *open).await?;
            Ok::<_, Failed<String>>(())
        });
        let error = call.await.unwrap_err();
        assert_eq!(error.to_string(), "conflict with other transactions in each of 30 attempts");
        assert!(matches!(&error, Failed::Conflict { source, .. } if code(source).as_deref() == Some("5")));
        assert!(start.elapsed() > CAP && start.elapsed() <= 29 * (CAP + Duration::from_millis(1)));
    }
}
