//! The mistake: a list is read by one query, and then each of its rows asks for one more.
//!
//! Symptom: a page with 40 orders takes 41 queries, one after the other; the time grows with the list, and no query is slow.
//! Cause: a function that finds one user is called in a loop.
//! Fix: one query for all keys: `rows_by_key`; or `RowLoader`, where the keys are not known in one place.
//!
//! The picture varies with the machine's load: the database is a real SQLite.
//!
//! ```console
//! cargo run --example trap_n_plus_one
//! ```

use std::collections::HashMap;
use std::time::Duration;

use clap::Parser;
use db_fanout::rows_by_key;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqlitePool, query, query_as, query_scalar};
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::time::{Instant, sleep};

/// The time to a database on another machine.
const ROUND_TRIP: Duration = Duration::from_millis(1);

const USERS: [&str; 2] = ["SELECT id, name FROM users WHERE id IN (", ")"];

/// Forty orders of twenty users.
pub async fn shop() -> sqlx::Result<SqlitePool> {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    for sql in [
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL)",
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 39)
         INSERT INTO orders SELECT i, i % 20 FROM n",
        "INSERT INTO users SELECT DISTINCT user_id, 'User ' || user_id FROM orders",
    ] {
        query(sql).execute(&pool).await?;
    }
    Ok(pool)
}

async fn orders(pool: &SqlitePool) -> sqlx::Result<Vec<(i64, i64)>> {
    sleep(ROUND_TRIP).await;
    query_as("SELECT id, user_id FROM orders ORDER BY id").fetch_all(pool).await
}

// ANCHOR: wrong
/// Who ordered, by order; and how many queries that took.
pub async fn wrong(pool: &SqlitePool) -> sqlx::Result<(Vec<String>, usize)> {
    let (mut names, mut queries) = (Vec::new(), 1);
    for (order, user) in orders(pool).lane("orders").await? {
        names.push(find_user(pool, user).try_lane(format!("user of order {order}")).await?);
        queries += 1;
    }
    Ok((names, queries))
}

async fn find_user(pool: &SqlitePool, id: i64) -> sqlx::Result<String> {
    sleep(ROUND_TRIP).await;
    query_scalar("SELECT name FROM users WHERE id = ?").bind(id).fetch_one(pool).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same by two queries, however long the list is.
pub async fn right(pool: &SqlitePool) -> sqlx::Result<(Vec<String>, usize)> {
    let orders = orders(pool).lane("orders").await?;
    let mut users: Vec<i64> = orders.iter().map(|(_, user)| *user).collect();
    users.sort_unstable();
    users.dedup();
    let found = find_users(pool, users).try_lane("users").await?;
    let name = |(_, user)| found.get(&user).and_then(|names| names.first()).cloned();
    let names = orders.into_iter().map(|order| name(order).ok_or(sqlx::Error::RowNotFound));
    Ok((names.collect::<sqlx::Result<_>>()?, 2))
}

async fn find_users(pool: &SqlitePool, ids: Vec<i64>) -> sqlx::Result<HashMap<i64, Vec<String>>> {
    sleep(ROUND_TRIP).await;
    rows_by_key(pool.clone(), USERS, ids).await
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    let pool = shop().await?;
    let start = Instant::now();
    let (wrong, left) = record("a query for each order", wrong(&pool)).await;
    let (names, queries) = wrong?;
    println!("wrong: {} names by {queries} queries in {} ms", names.len(), start.elapsed().as_millis());
    let start = Instant::now();
    let (right, picture) = record("a query for all", right(&pool)).await;
    let (names, queries) = right?;
    println!("right: {} names by {queries} queries in {} ms", names.len(), start.elapsed().as_millis());
    Ok(args.show(&left.beside(picture))?)
}
