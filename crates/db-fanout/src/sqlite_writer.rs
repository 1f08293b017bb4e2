//! Write single rows to SQLite from many callers: one writer commits groups and tells each caller.
//!
//! Use it where one process makes many small writes and each caller must know that its own is stored. Readers take a pool of their
//! own on the same file, in WAL mode. For rows that are all at hand take `bulk_insert`; for several statements, `transaction`.
//!
//! | | |
//! |---|---|
//! | Order | rows are written in the order in which they were handed over |
//! | Errors | a row that the database refuses fails its own caller only; a commit that fails, fails all its callers, who share the error |
//! | Cancellation | a caller that gives up before its row's turn: it is not written; later: it is. Dropping the writing future rolls back what it has not committed, and its callers get [`WriteError::Stopped`] |
//! | Panics | a panic of `statement` is the writing future's; callers get [`WriteError::Stopped`] |
//! | Memory | O(`waiting` + `at_once`) rows |
//! | Backpressure | callers wait in line when `waiting` rows wait |
//! | Clock | none of its own: nobody waits for a group to fill |
//!
//! While a group is committed, the next one gathers: groups grow with the load, and a lone caller waits for nobody. As nobody else in
//! the process writes, nobody meets SQLITE_BUSY.
//!
//! ```
//! use sqlx::{QueryBuilder, SqlitePool, query};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = SqlitePool::connect("sqlite::memory:").await?;
//!     query("CREATE TABLE users (name TEXT UNIQUE)").execute(&pool).await?;
//!     let insert = |names: &[&str]| { let mut insert = QueryBuilder::new("INSERT INTO users "); insert.push_values(names, |mut row, name| { row.push_bind(name.to_string()); }); insert };
//!     let (writer, writing) = db_fanout::sqlite_writer(pool, 1000.try_into()?, 100.try_into()?, insert);
//!     let work = async move { tokio::join!(writer.write("Ada"), writer.write("Grace"), writer.write("Ada")) };
//!     let ((ada, grace, again), ()) = tokio::join!(work, writing);
//!     Ok(assert!(ada.is_ok() && grace.is_ok() && again.is_err()))
//! }
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::bulk_insert::insert_together;
use super::transaction::Failed;

/// Why a row is not stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The database refused it.
    #[error("the row was refused")]
    Rejected(#[source] sqlx::Error),
    /// The group that it was in was not committed. Its callers share the source, which may say that it is unknown.
    #[error("the group was not committed")]
    Group(#[source] Arc<Failed<Infallible>>),
    /// The writing future was dropped, or it panicked. If the row's turn had come, it may be stored.
    #[error("nobody writes any more")]
    Stopped,
}

/// Takes rows. The writing future ends when all clones are dropped and all rows are written.
pub struct Writer<I> {
    /// The writing future has the other end.
    rows: mpsc::Sender<Row<I>>,
}

/// A row, and its caller, who drops the other end when it gives up.
type Row<I> = (I, oneshot::Sender<Result<(), WriteError>>);

impl<I> Clone for Writer<I> {
    fn clone(&self) -> Self {
        Writer { rows: self.rows.clone() }
    }
}

impl<I> Writer<I> {
    /// Returns when `row` is committed.
    pub async fn write(&self, row: I) -> Result<(), WriteError> {
        let (caller, answer) = oneshot::channel();
        self.rows.send((row, caller)).await.map_err(|_| WriteError::Stopped)?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }
}

/// A writer, and the future that writes, which is to be spawned or joined: await its end before the program ends.
///
/// At most `waiting` rows wait, and at most `at_once` are written by one statement, which `statement` makes of them: see
/// [`bulk_insert`](super::bulk_insert::bulk_insert). The future takes one connection at a time from `pool`.
pub fn sqlite_writer<I>(
    pool: SqlitePool,
    waiting: NonZeroUsize,
    at_once: NonZeroUsize,
    statement: impl Fn(&[I]) -> QueryBuilder<Sqlite>,
) -> (Writer<I>, impl Future<Output = ()>) {
    let (rows, incoming) = mpsc::channel(waiting.get().min(Semaphore::MAX_PERMITS));
    (Writer { rows }, write_all(pool, incoming, at_once, statement))
}

async fn write_all<I>(
    pool: SqlitePool,
    mut incoming: mpsc::Receiver<Row<I>>,
    at_once: NonZeroUsize,
    statement: impl Fn(&[I]) -> QueryBuilder<Sqlite>,
) {
    let mut group = Vec::new();
    while incoming.recv_many(&mut group, at_once.get()).await > 0 {
        let wanted = group.drain(..).filter(|(_, caller)| !caller.is_closed());
        let (rows, callers): (Vec<I>, Vec<_>) = wanted.unzip();
        if rows.is_empty() {
            continue;
        }
        let result = insert_together(&pool, "BEGIN IMMEDIATE", &rows, at_once, &statement).await;
        match result {
            Ok(rejected) => {
                let mut rejected = rejected.into_iter().peekable();
                for (row, caller) in callers.into_iter().enumerate() {
                    let own = rejected.next_if(|it| it.row == row);
                    // It may have given up.
                    let _ = caller.send(own.map_or(Ok(()), |it| Err(WriteError::Rejected(it.source))));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for caller in callers {
                    let _ = caller.send(Err(WriteError::Group(error.clone())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use futures::FutureExt;
    use futures::future::join_all;
    use sqlx::sqlite::SqlitePoolOptions;
    use sqlx::{query, query_scalar};
    use tokio::join;

    use super::*;

    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    async fn database() -> SqlitePool {
        // In memory, it lives as long as its only connection.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect("sqlite::memory:").await.unwrap();
        query("CREATE TABLE t (n INTEGER UNIQUE)").execute(&pool).await.unwrap();
        pool
    }

    fn insert(rows: &[i64]) -> QueryBuilder<Sqlite> {
        let mut insert = QueryBuilder::new("INSERT INTO t ");
        insert.push_values(rows, |mut row, n| _ = row.push_bind(*n));
        insert
    }

    async fn all(pool: &SqlitePool) -> Vec<i64> {
        query_scalar("SELECT n FROM t ORDER BY rowid").fetch_all(pool).await.unwrap()
    }

    #[tokio::test]
    async fn order_is_that_of_the_callers_and_groups_are_written_together() {
        let pool = database().await;
        let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let statement = move |rows: &[i64]| (seen.lock().unwrap().push(rows.len()), insert(rows)).1;
        let (writer, writing) = sqlite_writer(pool.clone(), TEN, TEN, statement);
        let writing = tokio::spawn(writing);
        let results = join_all((0..35).map(|n| writer.write(n))).await;
        assert!(results.iter().all(Result::is_ok));
        drop(writer);
        writing.await.unwrap();
        assert!(all(&pool).await.into_iter().eq(0..35));
        let sizes = sizes.lock().unwrap();
        assert!(sizes.iter().all(|size| *size <= 10) && sizes.len() < 20, "{sizes:?}");
    }

    #[tokio::test]
    async fn errors_are_those_of_one_caller_or_of_one_group() {
        let pool = database().await;
        let (writer, writing) = sqlite_writer(pool.clone(), TEN, TEN, insert);
        let calls = async {
            let results = join!(writer.write(1), writer.write(2), writer.write(1), writer.write(3));
            assert!(matches!(results, (Ok(()), Ok(()), Err(WriteError::Rejected(_)), Ok(()))));
            query("ALTER TABLE t RENAME TO gone").execute(&pool).await.unwrap();
            let results = join!(writer.write(4), writer.write(5));
            let (Err(WriteError::Group(one)), Err(WriteError::Group(other))) = results else {
                panic!("{results:?}")
            };
            assert!(Arc::ptr_eq(&one, &other));
            query("ALTER TABLE gone RENAME TO t").execute(&pool).await.unwrap();
            writer.write(6).await.unwrap();
            drop(writer);
        };
        join!(calls, writing);
        assert_eq!(all(&pool).await, [1, 2, 3, 6]);
    }

    #[tokio::test]
    async fn cancellation_before_the_turn_takes_the_row_out() {
        let pool = database().await;
        let (writer, writing) = sqlite_writer(pool.clone(), TEN, TEN, insert);
        assert!(writer.write(1).now_or_never().is_none());
        join!(async { (writer.write(2).await.unwrap(), drop(writer)).0 }, writing);
        assert_eq!(all(&pool).await, [2]);

        let (writer, writing) = sqlite_writer(pool.clone(), TEN, TEN, insert);
        let call = writer.write(3);
        let (result, ()) = join!(call, async { drop(writing) });
        assert!(matches!(result, Err(WriteError::Stopped)));
        assert!(matches!(writer.write(4).await, Err(WriteError::Stopped)));
    }

    #[tokio::test]
    async fn panics_are_the_writing_futures() {
        let pool = database().await;
        // Not `panic!`: the message would be printed though the panic is expected.
        let broken = |_: &[i64]| -> QueryBuilder<Sqlite> { resume_unwind(Box::new("broken")) };
        let (writer, writing) = sqlite_writer(pool.clone(), TEN, TEN, broken);
        let writing = tokio::spawn(writing);
        assert!(matches!(writer.write(1).await, Err(WriteError::Stopped)));
        assert!(writing.await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn backpressure_callers_wait_in_line() {
        let pool = database().await;
        let (writer, writing) = sqlite_writer(pool.clone(), TEN, NonZeroUsize::MAX, insert);
        let held = Arc::new(());
        let mut calls: Vec<_> = (0..50)
            .map(|n| {
                let (writer, held) = (writer.clone(), held.clone());
                async move { (writer.write(n).await, held).0 }.boxed()
            })
            .collect();
        assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
        assert_eq!(writer.rows.capacity(), 0);
        drop(writer);
        let (results, ()) = join!(join_all(calls), writing);
        assert!(results.iter().all(Result::is_ok));
        let (largest, _) = sqlite_writer(pool, NonZeroUsize::MAX, TEN, insert);
        assert_eq!(largest.rows.max_capacity(), Semaphore::MAX_PERMITS);
    }
}
