//! The mistake: a function acquires a connection while its caller holds one of the same pool.
//!
//! Symptom: all is well until as many requests come at once as the pool has connections; then nothing moves until a timeout.
//! Cause: each holds one connection and waits for a second, which only the others could give back.
//! Fix: hand the connection on to the function; or let go of the first before acquiring the second.
//!
//! The picture varies with the machine's load: the database is a real SQLite.
//!
//! ```console
//! cargo run --example trap_nested_acquire
//! ```

use std::time::Duration;

use clap::Parser;
use futures::future::join_all;
use sqlx::sqlite::{SqliteConnection, SqlitePoolOptions};
use sqlx::{SqlitePool, query_scalar};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::Barrier;

/// Two connections, and a tenth of a second to get one. Unless it is set, sqlx waits for 30.
pub fn pool() -> sqlx::Result<SqlitePool> {
    let options = SqlitePoolOptions::new().max_connections(2).acquire_timeout(Duration::from_millis(100));
    options.connect_lazy("sqlite::memory:")
}

// ANCHOR: wrong
/// The name of a user, and how many letters it has.
async fn wrong_page(pool: &SqlitePool, all_hold_one: &Barrier) -> sqlx::Result<i64> {
    let mut connection = waiting("permit", pool.acquire()).await?;
    let name: String = query_scalar("SELECT 'Ada'").fetch_one(&mut *connection).await?;
    all_hold_one.wait().await;
    // The first connection is still held here.
    wrong_letters(pool, &name).await
}

async fn wrong_letters(pool: &SqlitePool, name: &str) -> sqlx::Result<i64> {
    let mut connection = waiting("permit", pool.acquire()).await?;
    query_scalar("SELECT length(?)").bind(name).fetch_one(&mut *connection).await
}
// ANCHOR_END: wrong

// ANCHOR: right
async fn right_page(pool: &SqlitePool, all_hold_one: &Barrier) -> sqlx::Result<i64> {
    let mut connection = waiting("permit", pool.acquire()).await?;
    let name: String = query_scalar("SELECT 'Ada'").fetch_one(&mut *connection).await?;
    all_hold_one.wait().await;
    right_letters(&mut connection, &name).await
}

async fn right_letters(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<i64> {
    query_scalar("SELECT length(?)").bind(name).fetch_one(connection).await
}
// ANCHOR_END: right

/// Two requests at once.
pub async fn wrong() -> sqlx::Result<[sqlx::Result<i64>; 2]> {
    let (pool, all_hold_one) = (pool()?, Barrier::new(2));
    let page = |user| wrong_page(&pool, &all_hold_one).try_lane(format!("page {user}"));
    Ok(tokio::join!(page(1), page(2)).into())
}

/// The same two requests.
pub async fn right() -> sqlx::Result<[sqlx::Result<i64>; 2]> {
    let (pool, all_hold_one) = (pool()?, Barrier::new(2));
    let page = |user| right_page(&pool, &all_hold_one).try_lane(format!("page {user}"));
    Ok(tokio::join!(page(1), page(2)).into())
}

/// As many requests as there is time for, one after the other: nobody notices anything.
pub async fn wrong_but_alone() -> sqlx::Result<Vec<sqlx::Result<i64>>> {
    let (pool, alone) = (pool()?, Barrier::new(1));
    let mut pages = Vec::new();
    for _ in 0..3 {
        pages.extend(join_all([wrong_page(&pool, &alone)]).await);
    }
    Ok(pages)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    let answered = |pages: &[sqlx::Result<i64>]| pages.iter().filter(|page| page.is_ok()).count();
    println!("wrong, one at a time: {} of 3 answered", answered(&wrong_but_alone().await?));
    let (pages, left) = record("a connection each, and another", wrong()).await;
    let pages = pages?;
    println!("wrong, two at once: {} of 2 answered", answered(&pages));
    if let Some(Err(error)) = pages.iter().find(|page| page.is_err()) {
        println!("  {error}");
    }
    let (pages, right) = record("a connection each", right()).await;
    println!("right, two at once: {} of 2 answered", answered(&pages?));
    Ok(args.show(&left.beside(right))?)
}
