//! The mistake: a transaction that reads first and writes later, begun by a plain `BEGIN`.
//!
//! Symptom: `database is locked`, at once, although the connection is to wait for five seconds.
//! Cause: what it has read is no longer the newest state. No waiting changes that, so SQLite does not wait: SQLITE_BUSY_SNAPSHOT.
//! Fix: `BEGIN IMMEDIATE` for whoever writes, and a new transaction after a conflict: `transaction`.
//!
//! The picture varies with the machine's load: the database is a real file.
//!
//! ```console
//! cargo run --example trap_sqlite_busy
//! ```

use std::time::Duration;

use clap::Parser;
use db_fanout::{ATTEMPTS, Failed, Open, transaction};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, query, query_scalar, raw_sql};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tempfile::TempDir;
use tokio::join;
use tokio::sync::{Barrier, Notify};

// ANCHOR: wrong
/// Two counters read and then write, as sqlx's `begin` lets them. How many counted, and the code that the other one got.
pub async fn wrong(pool: &SqlitePool) -> sqlx::Result<(i64, String)> {
    let (both_have_read, first_is_done) = (Barrier::new(2), Notify::new());
    let count = async |number| {
        let mut transaction = pool.begin().await?;
        let n: i64 = query_scalar("SELECT n FROM counter").fetch_one(&mut *transaction).await?;
        waiting("queue", both_have_read.wait()).await;
        if number == 2 {
            waiting("queue", first_is_done.notified()).await;
        }
        query("UPDATE counter SET n = ?").bind(n + 1).execute(&mut *transaction).await?;
        transaction.commit().await?;
        first_is_done.notify_one();
        Ok(())
    };
    let (one, other) = join!(count(1).try_lane("counter 1"), count(2).try_lane("counter 2"));
    Ok((counted(pool).await?, code(one.and(other))))
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same with the right to write from the start. The second one waits for the first, for up to five seconds.
pub async fn right(pool: &SqlitePool) -> sqlx::Result<(i64, String)> {
    let count = async || {
        let work = async |mut open: Open<Sqlite>| {
            let n: i64 = query_scalar("SELECT n FROM counter").fetch_one(&mut *open).await?;
            query("UPDATE counter SET n = ?").bind(n + 1).execute(&mut *open).await?;
            Ok::<_, Failed<sqlx::Error>>(())
        };
        transaction(pool, "BEGIN IMMEDIATE", ATTEMPTS, work).await
    };
    let (one, other) = join!(count().try_lane("counter 1"), count().try_lane("counter 2"));
    let failed = one.and(other).map_err(|error| sqlx::Error::Protocol(error.to_string()));
    Ok((counted(pool).await?, code(failed)))
}
// ANCHOR_END: right

async fn counted(pool: &SqlitePool) -> sqlx::Result<i64> {
    query_scalar("SELECT n FROM counter").fetch_one(pool).await
}

fn code(result: sqlx::Result<()>) -> String {
    match result {
        Ok(()) => "none".to_string(),
        Err(error) => error
            .as_database_error()
            .and_then(|error| error.code())
            .map_or_else(|| error.to_string(), |code| code.into_owned()),
    }
}

/// A file with a counter at zero, and two connections to it. Who meets a lock waits for up to five seconds.
pub async fn database() -> sqlx::Result<(TempDir, SqlitePool)> {
    let folder = tempfile::tempdir()?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("counter.db")).create_if_missing(true);
    let file = file.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().min_connections(2).max_connections(2).connect_with(file).await?;
    raw_sql("CREATE TABLE counter (n INTEGER NOT NULL); INSERT INTO counter VALUES (0)")
        .execute(&pool)
        .await?;
    Ok((folder, pool))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    println!("two counters, each to add one; who meets a lock waits for up to 5 s");
    let (_folder, pool) = database().await?;
    let (result, left) = record("BEGIN", wrong(&pool)).await;
    let (counted, code) = result?;
    println!("BEGIN:           {counted} counted, error {code}");
    let (_folder, pool) = database().await?;
    let (result, right) = record("BEGIN IMMEDIATE", right(&pool)).await;
    let (counted, code) = result?;
    println!("BEGIN IMMEDIATE: {counted} counted, error {code}");
    args.show(&left.beside(right))?;
    Ok(())
}
