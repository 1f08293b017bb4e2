//! Insert many rows in few statements, and leave out only the rows that the database refuses.
//!
//! Use it for imports: rows that come from a file or an iterator and are all wanted. For single rows from many callers take
//! `sqlite_writer`; for rows that must all be there or none, `transaction`.
//!
//! | | |
//! |---|---|
//! | Order | rows are inserted in the order in which they come; each statement's rows are committed before the next ones are pulled |
//! | Errors | a row that the database refuses is in [`Report::rejected`], and the others of its statement are inserted without it; anything else stops the call: [`Stopped`] says how far it came |
//! | Cancellation | what `progress` was told of is committed; the rows of the statement that runs are not, unless its COMMIT was sent |
//! | Panics | a panic of the iterator, the statement or `progress` is the caller's |
//! | Memory | O(`at_once`): the rows of one statement; and an error for each rejected row |
//! | Backpressure | rows are pulled when the ones before are committed |
//! | Clock | none of its own; `transaction` waits after a conflict |
//!
//! A statement that fails for one of its rows is undone and tried again in halves, until the row is alone: about 2 log₂ n statements
//! for one bad row among n. SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535: `at_once` times the columns must not be
//! more, or a statement binds one array for each column (`UNNEST`, PostgreSQL).
//!
//! ```
//! use db_fanout::bulk_insert;
//! use sqlx::{QueryBuilder, SqlitePool, query};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = SqlitePool::connect("sqlite::memory:").await?;
//!     query("CREATE TABLE squares (n INTEGER PRIMARY KEY, square INTEGER)").execute(&pool).await?;
//!     let insert = |rows: &[i64]| { let mut insert = QueryBuilder::new("INSERT INTO squares "); insert.push_values(rows, |mut row, n| { row.push_bind(*n).push_bind(n * n); }); insert };
//!     let report = bulk_insert(&pool, "BEGIN IMMEDIATE", [1, 2, 3, 2, 4], 1000.try_into()?, insert, |_| ()).await?;
//!     Ok(assert_eq!((report.inserted, report.rejected[0].row), (4, 3)))
//! }
//! ```

use std::convert::Infallible;
use std::num::NonZeroUsize;

use sqlx::database::HasStatementCache;
use sqlx::{Connection, Database, Executor, IntoArguments, Pool, QueryBuilder};

use super::transaction::{ATTEMPTS, Failed, Open, transaction};

/// What became of the rows so far. All that were inserted are committed.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were inserted.
    pub inserted: usize,
    /// The others, in their order.
    pub rejected: Vec<Rejected>,
}

/// A row that the database refused.
#[derive(Debug, thiserror::Error)]
#[error("row {row} was refused")]
pub struct Rejected {
    /// Its position, from 0.
    pub row: usize,
    /// Why.
    pub source: sqlx::Error,
}

/// The call ended early.
#[derive(Debug, thiserror::Error)]
#[error("stopped after {} rows", report.inserted + report.rejected.len())]
pub struct Stopped {
    /// What was done before. The rows after that are not inserted, unless the source says that it is unknown.
    pub report: Report,
    /// Why.
    pub source: Failed<Infallible>,
}

/// Inserts `rows`, `at_once` in each statement and transaction; `progress` sees the report after each commit.
///
/// `begin` is the statement that begins a transaction: see [`transaction`]. `statement` makes the one that inserts these rows; it
/// may also change or delete them, as long as that can be undone and done in halves.
pub async fn bulk_insert<DB, I>(
    pool: &Pool<DB>,
    begin: &'static str,
    rows: impl IntoIterator<Item = I>,
    at_once: NonZeroUsize,
    statement: impl Fn(&[I]) -> QueryBuilder<DB>,
    mut progress: impl FnMut(&Report),
) -> Result<Report, Stopped>
where
    DB: Database + HasStatementCache,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let mut rows = rows.into_iter().fuse();
    let mut report = Report::default();
    loop {
        let chunk: Vec<I> = rows.by_ref().take(at_once.get()).collect();
        if chunk.is_empty() {
            return Ok(report);
        }
        let done = report.inserted + report.rejected.len();
        match insert_together(pool, begin, &chunk, at_once, &statement).await {
            Ok(rejected) => {
                report.inserted += chunk.len() - rejected.len();
                let rejected = rejected.into_iter();
                report.rejected.extend(rejected.map(|it| Rejected { row: done + it.row, ..it }));
            }
            Err(source) => return Err(Stopped { report, source }),
        }
        progress(&report);
    }
}

/// Inserts `rows` in one transaction without those that the database refuses, and returns these.
/// The statement for `at_once` rows is kept prepared: others differ from call to call.
pub async fn insert_together<DB, I>(
    pool: &Pool<DB>,
    begin: &'static str,
    rows: &[I],
    at_once: NonZeroUsize,
    statement: &impl Fn(&[I]) -> QueryBuilder<DB>,
) -> Result<Vec<Rejected>, Failed<Infallible>>
where
    DB: Database + HasStatementCache,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    transaction(pool, begin, ATTEMPTS, |open| halves(open, rows, at_once, statement)).await
}

async fn halves<DB, I>(
    mut open: Open<DB>,
    rows: &[I],
    at_once: NonZeroUsize,
    statement: &impl Fn(&[I]) -> QueryBuilder<DB>,
) -> Result<Vec<Rejected>, Failed<Infallible>>
where
    DB: Database + HasStatementCache,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    let mut rejected = Vec::new();
    // What is still to be inserted, the next part last.
    let mut parts = Vec::new();
    parts.push(0..rows.len());
    while let Some(part) = parts.pop() {
        let mut insert = statement(&rows[part.clone()]);
        let insert = insert.build().persistent(part.len() == at_once.get());
        let mut savepoint = open.begin().await?;
        match insert.execute(&mut *savepoint).await {
            Ok(_) => savepoint.commit().await?,
            Err(error) if !is_of_a_row(&error) => return Err(Failed::Database(error)),
            Err(source) => {
                savepoint.rollback().await?;
                if part.len() == 1 {
                    rejected.push(Rejected { row: part.start, source });
                } else {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
            }
        }
    }
    Ok(rejected)
}

/// Whether the error is about what a row holds, and not about the statement or the database.
fn is_of_a_row(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // Data exceptions and violated constraints.
        Some(state) if state.len() == 5 => state.starts_with("22") || state.starts_with("23"),
        // SQLITE_TOOBIG, SQLITE_CONSTRAINT and SQLITE_MISMATCH; what kind of it is in the upper bits.
        Some(number) => matches!(number.parse::<u32>().map(|number| number & 0xff), Ok(18..=20)),
        None => matches!(error, sqlx::Error::Encode(_)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, resume_unwind};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::FutureExt;
    use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
    use sqlx::{query, query_scalar};
    use tokio::sync::oneshot;

    use super::*;

    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    async fn database() -> SqlitePool {
        // In memory, it lives as long as its only connection.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect("sqlite::memory:").await.unwrap();
        query("CREATE TABLE t (n INTEGER PRIMARY KEY CHECK (n <> 13))").execute(&pool).await.unwrap();
        pool
    }

    fn insert(rows: &[i64]) -> QueryBuilder<Sqlite> {
        let mut insert = QueryBuilder::new("INSERT INTO t ");
        insert.push_values(rows, |mut row, n| _ = row.push_bind(*n));
        insert
    }

    async fn all(pool: &SqlitePool) -> Vec<i64> {
        query_scalar("SELECT n FROM t ORDER BY n").fetch_all(pool).await.unwrap()
    }

    #[tokio::test]
    async fn order_is_that_of_the_rows_and_the_future_is_send() {
        let pool = database().await;
        let seen = Mutex::new(Vec::new());
        let call = async move {
            let progress = |report: &Report| seen.lock().unwrap().push(report.inserted);
            let report = bulk_insert(&pool, "BEGIN IMMEDIATE", 0..35, TEN, insert, progress).await.unwrap();
            assert!(all(&pool).await.into_iter().eq((0..35).filter(|n| *n != 13)));
            assert_eq!((report.inserted, report.rejected[0].row), (34, 13));
            seen.into_inner().unwrap()
        };
        assert_eq!(tokio::spawn(call).await.unwrap(), [10, 19, 29, 34]);
    }

    #[tokio::test]
    async fn errors_of_rows_are_theirs_and_others_stop_the_call() {
        let pool = database().await;
        let rows = [13, 1, 2, 1, 3, 13, 13, 4, 5, 2, 6, 13];
        let report = bulk_insert(&pool, "BEGIN", rows, TEN, insert, |_| ()).await.unwrap();
        let rejected: Vec<_> = report.rejected.iter().map(|it| it.row).collect();
        assert_eq!((report.inserted, rejected), (6, vec![0, 3, 5, 6, 9, 11]));
        assert_eq!(report.rejected[1].to_string(), "row 3 was refused");

        let many = NonZeroUsize::new(40_000).unwrap();
        let stopped = bulk_insert(&pool, "BEGIN", 100..50_000, many, insert, |_| ()).await.unwrap_err();
        assert_eq!(stopped.to_string(), "stopped after 0 rows");
        query("DROP TABLE t").execute(&pool).await.unwrap();
        let stopped = bulk_insert(&pool, "BEGIN", 0..30, TEN, insert, |_| ()).await.unwrap_err();
        assert!(matches!(stopped.source, Failed::Database(_)));
    }

    #[tokio::test]
    async fn cancellation_keeps_what_was_told_and_nothing_of_the_rest_of_a_statement() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("t.db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(file).await.unwrap();
        query("CREATE TABLE t (n INTEGER)").execute(&pool).await.unwrap();
        let told = AtomicUsize::new(0);
        let (enough, is_enough) = oneshot::channel();
        let enough = Mutex::new(Some(enough));
        let progress = |report: &Report| {
            told.store(report.inserted, Relaxed);
            if report.inserted == 30 {
                enough.lock().unwrap().take().unwrap().send(()).unwrap();
            }
        };
        // The rows never end: only the drop ends the call.
        let call = bulk_insert(&pool, "BEGIN IMMEDIATE", 100.., TEN, insert, progress);
        tokio::select! { biased; _ = is_enough => {}, _ = call => unreachable!() }
        let stored = all(&pool).await.len();
        // Its COMMIT may have been sent.
        assert!(stored == told.load(Relaxed) || stored == told.load(Relaxed) + 10, "{stored} {told:?}");
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let pool = database().await;
        // Not `panic!`: the message would be printed though the panic is expected.
        let broken = |_: &[i64]| -> QueryBuilder<Sqlite> { resume_unwind(Box::new("broken")) };
        let call = bulk_insert(&pool, "BEGIN", 0..30, TEN, broken, |_| ());
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test]
    async fn backpressure_rows_are_pulled_when_the_last_ones_are_committed() {
        let pool = database().await;
        let (pulled, committed) = (Cell::new(0), Cell::new(0));
        let rows = (100..135).inspect(|_| {
            pulled.set(pulled.get() + 1);
            assert!(pulled.get() <= committed.get() + 10);
        });
        let progress = |report: &Report| committed.set(report.inserted);
        bulk_insert(&pool, "BEGIN", rows, TEN, insert, progress).await.unwrap();
        assert_eq!(committed.get(), 35);
        let none = bulk_insert(&pool, "BEGIN", [], NonZeroUsize::MAX, insert, |_| ()).await.unwrap();
        assert_eq!(none.inserted, 0);
    }
}
