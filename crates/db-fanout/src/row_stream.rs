//! Read a result that is larger than memory row by row, and stop early without losing the connection.
//!
//! Use it for exports, migrations, reports: what is read once, from its first row to its last. For pages that people leaf through,
//! ask for each by its key (`WHERE id > ? ORDER BY id LIMIT ?`): no connection is held in between.
//!
//! | | |
//! |---|---|
//! | Order | that of the query |
//! | Errors | the first one is the last item: of the query, or of a row that is not a `T`; the connection is then treated as in a drop |
//! | Cancellation | dropping the future of `next` loses nothing; dropping the stream stops the query and gives the connection back or closes it, as [`Unread`] says |
//! | Panics | a panic of `from_row` is the consumer's panic; the connection is then treated as in a drop |
//! | Memory | O(1): the rows that the driver reads ahead, 50 with SQLite, about a socket's buffers with PostgreSQL |
//! | Backpressure | the database goes on only as far as that while no row is asked for |
//! | Clock | none of its own; the connection is taken for as long as the consumer takes |
//!
//! `fetch` of sqlx is such a stream already, and borrows its connection. This one owns it, so that it can be returned, spawned and
//! stored; it gives the connection back at the last row and not when it is dropped; and it says what early means. After an early
//! drop sqlx makes a connection ready for its next user. SQLite stops at the next row. PostgreSQL does not stop: sqlx reads the rest
//! of the rows and throws them away, in a task of its own, and the connection is taken until then.
//!
//! ```
//! use db_fanout::{Unread, row_stream};
//! use futures::TryStreamExt;
//! #[tokio::main]
//! async fn main() -> sqlx::Result<()> {
//!     let pool = sqlx::SqlitePool::connect("sqlite::memory:").await?;
//!     let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
//!     let mut rows = Box::pin(row_stream::<_, (i64,)>(pool.acquire().await?, sqlx::query(endless), Unread::Skip));
//!     assert_eq!((rows.try_next().await?, rows.try_next().await?), (Some((1,)), Some((2,))));
//!     Ok(())
//! }
//! ```

use async_stream::stream;
use futures::TryStreamExt;
use futures::stream::Stream;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Execute, Executor, FromRow};
use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;

/// What becomes of the connection when the stream is dropped before its last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It goes back to the pool when sqlx has done with the rest. For SQLite, and where little is left.
    Skip,
    /// It is closed, and the pool opens another one when it needs it. For PostgreSQL, where the rest may be much. Not for a SQLite
    /// in memory: the data goes with its connection.
    Close,
}

/// The rows of `query`, over a connection that it takes for itself.
///
/// Nothing happens before it is polled for the first time: until then a drop gives the connection back as it is. After the last
/// row the connection is given back at once; after an error it is treated as in a drop, at once too. The stream has no name and must be pinned before use:
/// `std::pin::pin!` or `StreamExt::boxed`.
///
/// # Panics
///
/// When it is polled for the first time outside of a tokio runtime. It may be dropped anywhere.
pub fn row_stream<DB, T>(
    connection: PoolConnection<DB>,
    query: impl Execute<'static, DB> + 'static,
    unread: Unread,
) -> impl Stream<Item = Result<T, sqlx::Error>> + Send
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    T: for<'r> FromRow<'r, DB::Row> + Send,
{
    let mut reading = Reading { connection: Some(connection), close: false, runtime: None };
    stream! {
        reading.runtime = Some(Handle::current());
        reading.close = unread == Unread::Close;
        let Some(connection) = &mut reading.connection else { return };
        let mut rows = (&mut **connection).fetch(query);
        let error = loop {
            let row = rows.try_next().await;
            match row.and_then(|row| row.map(|row| T::from_row(&row)).transpose()) {
                Ok(Some(row)) => yield Ok(row),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            // Rows that are there already would keep everything else from the thread.
            consume_budget().await;
        };
        drop(rows);
        reading.give_back(error.is_none());
        if let Some(error) = error {
            yield Err(error);
        }
    }
}

/// A connection, which is closed when this is dropped while there is something to read.
struct Reading<DB: Database> {
    /// `None` when it was given back.
    connection: Option<PoolConnection<DB>>,
    close: bool,
    /// `None` before the first poll.
    runtime: Option<Handle>,
}

impl<DB: Database> Reading<DB> {
    fn give_back(&mut self, all_read: bool) {
        // sqlx looks for the current runtime, and a stream may be dropped on any thread.
        let _current = self.runtime.as_ref().map(Handle::enter);
        if let Some(mut connection) = self.connection.take() {
            if self.close && !all_read {
                connection.close_on_drop();
            }
            drop(connection);
        }
    }
}

impl<DB: Database> Drop for Reading<DB> {
    fn drop(&mut self) {
        self.give_back(false);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, resume_unwind};
    use std::pin::pin;

    use futures::{FutureExt, StreamExt};
    use sqlx::sqlite::{Sqlite, SqlitePoolOptions, SqliteRow};
    use sqlx::{Pool, query, query_scalar};

    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    const TO_100: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n";

    /// One connection, with a table that goes when it is closed.
    async fn pool() -> Pool<Sqlite> {
        let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
        query("CREATE TABLE mark (i)").execute(&pool).await.unwrap();
        pool
    }

    /// Whether the connection is the one that it was.
    async fn is_same(pool: &Pool<Sqlite>) -> bool {
        let tables = query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(pool).await;
        tables.is_ok_and(|tables: i64| tables == 1)
    }

    #[tokio::test]
    async fn order_is_that_of_the_query() {
        for unread in [Unread::Skip, Unread::Close] {
            let pool = pool().await;
            let rows = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(TO_100), unread);
            let mut rows = pin!(rows);
            for expected in 1..=100 {
                assert_eq!(rows.try_next().await.unwrap(), Some((expected,)));
            }
            assert!(rows.try_next().await.unwrap().is_none());
            // The stream still lives, and the connection is back.
            assert!(is_same(&pool).await);
        }
    }

    #[tokio::test]
    async fn errors_are_the_last_item() {
        let pool = pool().await;
        let texts = query("SELECT column1 FROM (VALUES (1), ('two'), (3))");
        let rows = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), texts, Unread::Skip);
        let mut rows = pin!(rows);
        assert_eq!(rows.try_next().await.unwrap(), Some((1,)));
        assert!(matches!(rows.try_next().await, Err(sqlx::Error::ColumnDecode { .. })));
        // The stream still lives, and the connection is back.
        assert!(is_same(&pool).await && rows.try_next().await.unwrap().is_none());
        let rows = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query("SELECT x"), Unread::Skip);
        assert!(matches!(rows.collect::<Vec<_>>().await[..], [Err(sqlx::Error::Database(_))]));
        assert!(is_same(&pool).await);
    }

    #[tokio::test]
    async fn cancellation_gives_the_connection_back_or_closes_it() {
        for (polls, unread, same) in [
            (0, Unread::Skip, true),
            (0, Unread::Close, true),
            (1, Unread::Skip, true),
            (1, Unread::Close, false),
            (200, Unread::Skip, true),
            (200, Unread::Close, false),
        ] {
            let pool = pool().await;
            let mut rows =
                Box::pin(row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(ENDLESS), unread));
            for expected in 1..=polls {
                // Dropping the future of `next` loses nothing.
                let early = rows.try_next().now_or_never();
                let row = match early {
                    Some(row) => row,
                    None => rows.try_next().await,
                };
                assert_eq!(row.unwrap(), Some((expected,)));
            }
            drop(rows);
            assert_eq!(is_same(&pool).await, same, "{unread:?} after {polls}");
        }
    }

    /// A row that cannot be read.
    struct Broken;

    impl FromRow<'_, SqliteRow> for Broken {
        fn from_row(_: &SqliteRow) -> sqlx::Result<Self> {
            // Not `panic!`: the message would be printed though the panic is expected.
            resume_unwind(Box::new("broken"))
        }
    }

    #[tokio::test]
    async fn panics_give_the_connection_back() {
        let pool = pool().await;
        let rows = row_stream::<_, Broken>(pool.acquire().await.unwrap(), query(ENDLESS), Unread::Skip);
        assert!(AssertUnwindSafe(rows.count()).catch_unwind().await.is_err());
        assert!(is_same(&pool).await);
    }

    #[tokio::test]
    async fn memory_of_an_endless_result_is_that_of_a_few_rows() {
        let pool = pool().await;
        let rows = row_stream::<_, (i64,)>(pool.acquire().await.unwrap(), query(ENDLESS), Unread::Skip);
        assert_eq!(rows.take(20_000).count().await, 20_000);
        assert!(is_same(&pool).await);
    }

    #[tokio::test]
    async fn backpressure_stops_the_database_when_no_row_is_asked_for() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let (pool, steps) = (pool().await, Arc::new(AtomicUsize::new(0)));
        let (mut connection, own) = (pool.acquire().await.unwrap(), steps.clone());
        // Every ten steps of SQLite's virtual machine, which takes about ten for a row.
        connection
            .lock_handle()
            .await
            .unwrap()
            .set_progress_handler(10, move || own.fetch_add(1, Relaxed) < 5_000);
        let mut rows = pin!(row_stream::<_, (i64,)>(connection, query(ENDLESS), Unread::Skip));
        assert_eq!(rows.try_next().await.unwrap(), Some((1,)));
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(steps.load(Relaxed) < 1_000, "{steps:?}");
    }
}
