//! `user_page`: pages of three queries from a SQLite file in a temporary folder.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ::db_fanout::FanOut;
use benches::{Bench, Flavour, Table, time};
use futures::FutureExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, SqlitePool, query, query_as, query_scalar};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

const CONNECTIONS: u32 = 4;
const CALLERS: usize = 64;
const USERS: i64 = 10_000;
const WAIT: Duration = Duration::from_secs(60);
const QUERIES: [&str; 3] = [
    "SELECT name FROM users WHERE id = ?",
    "SELECT bio FROM profiles WHERE user_id = ?",
    "SELECT item FROM orders WHERE user_id = ?",
];
const PAGE: &str = "SELECT name, bio, item FROM users JOIN profiles ON profiles.user_id = users.id
                    JOIN orders ON orders.user_id = users.id WHERE users.id = ?";

/// Users with a profile and an order each, made once.
static FOLDER: OnceCell<TempDir> = OnceCell::const_new();

async fn options() -> SqliteConnectOptions {
    let folder = FOLDER.get_or_init(|| async {
        let folder = tempfile::tempdir().expect("there is room for a file");
        fill(folder.path()).await.expect("SQLite writes to a new file");
        folder
    });
    file(folder.await.path())
}

fn file(folder: &Path) -> SqliteConnectOptions {
    let file = SqliteConnectOptions::new().filename(folder.join("shop.db")).create_if_missing(true);
    file.journal_mode(SqliteJournalMode::Wal)
}

async fn fill(folder: &Path) -> sqlx::Result<()> {
    let mut connection = SqliteConnection::connect_with(&file(folder)).await?;
    for table in [
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE profiles (user_id INTEGER PRIMARY KEY, bio TEXT)",
        "CREATE TABLE orders (user_id INTEGER PRIMARY KEY, item TEXT)",
    ] {
        query(table).execute(&mut connection).await?;
    }
    for rows in [
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO users SELECT i, 'User ' || i FROM n",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO profiles SELECT i, 'Collects ' || i FROM n",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO orders SELECT i, 'stamp ' || i FROM n",
    ] {
        query(rows).bind(USERS).execute(&mut connection).await?;
    }
    connection.close().await
}

async fn pool() -> SqlitePool {
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options().await).await;
    pool.expect("the file is there")
}

/// `n` pages for 64 callers, each of which asks for one page after the other.
async fn pages<F: Future<Output = sqlx::Result<usize>> + Send + 'static>(
    n: usize,
    page: impl Fn(i64) -> F + Clone + Send + 'static,
) {
    let callers = (0..CALLERS).map(|caller| {
        let page = page.clone();
        async move {
            for number in (caller..n).step_by(CALLERS) {
                let id = 1 + (number as i64 * 7_919) % USERS;
                assert!(page(id).await.is_ok_and(|length| length > 20));
            }
        }
    });
    callers.collect::<JoinSet<()>>().join_all().await;
}

async fn fan_out(n: usize) {
    let fan_out = Arc::new(FanOut::new(pool().await, 1, WAIT).expect("three of four are left"));
    let ask = move |sql, id| {
        let fan_out = fan_out.clone();
        async move {
            let lease = fan_out.acquire().await;
            let mut lease = lease.map_err(|_| sqlx::Error::PoolTimedOut)?;
            query_scalar(sql).bind(id).fetch_one(&mut *lease).await.map(|text: String| text.len())
        }
    };
    pages(n, three(ask)).await;
}

async fn bare_pool(n: usize) {
    let pool = pool().await;
    let ask = move |sql, id| {
        let pool = pool.clone();
        async move { query_scalar(sql).bind(id).fetch_one(&pool).await.map(|text: String| text.len()) }
    };
    pages(n, three(ask)).await;
}

/// Three queries side by side.
fn three<F: Future<Output = sqlx::Result<usize>> + Send + 'static>(
    ask: impl Fn(&'static str, i64) -> F + Clone + Send + 'static,
) -> impl Fn(i64) -> futures::future::BoxFuture<'static, sqlx::Result<usize>> + Clone + Send + 'static {
    move |id| {
        let [user, profile, order] = QUERIES.map(|sql| ask(sql, id));
        async move { tokio::try_join!(user, profile, order).map(|(a, b, c)| a + b + c) }.boxed()
    }
}

/// One connection for the three queries of a page, one after the other.
async fn one_connection(n: usize) {
    let pool = pool().await;
    let page = move |id| {
        let pool = pool.clone();
        async move {
            let (mut connection, mut length) = (pool.acquire().await?, 0);
            for sql in QUERIES {
                let text: String = query_scalar(sql).bind(id).fetch_one(&mut *connection).await?;
                length += text.len();
            }
            Ok(length)
        }
    };
    pages(n, page).await;
}

async fn one_query(n: usize) {
    let pool = pool().await;
    let page = move |id| {
        let pool = pool.clone();
        async move {
            let (name, bio, item): (String, String, String) =
                query_as(PAGE).bind(id).fetch_one(&pool).await?;
            Ok(name.len() + bio.len() + item.len())
        }
    };
    pages(n, page).await;
}

/// One connection and no pool: no hand-over between callers.
async fn no_pool(n: usize) {
    let connection = SqliteConnection::connect_with(&options().await).await;
    let mut connection = connection.expect("the file is there");
    for number in 0..n {
        let id = 1 + (number as i64 * 7_919) % USERS;
        let page = query_as(PAGE).bind(id).fetch_one(&mut connection).await;
        let (name, bio, item): (String, String, String) = page.expect("the user is there");
        assert!(name.len() + bio.len() + item.len() > 20);
    }
}

/// `n` callers at once, three of four give up when they were polled once.
async fn storm(n: usize, give_up: bool) {
    let fan_out = Arc::new(FanOut::new(pool().await, 1, WAIT).expect("three of four are left"));
    let served = Arc::new(AtomicUsize::new(0));
    let callers = (0..n).map(|caller| {
        let (fan_out, served) = (fan_out.clone(), served.clone());
        async move {
            if give_up && !caller.is_multiple_of(4) {
                drop(fan_out.acquire().now_or_never());
            } else {
                let mut lease = fan_out.acquire().await.expect("there is time");
                let one: sqlx::Result<i64> = query_scalar("SELECT 1").fetch_one(&mut *lease).await;
                served.fetch_add(usize::from(one.is_ok()), Relaxed);
            }
        }
    });
    callers.collect::<JoinSet<()>>().join_all().await;
    assert!(served.load(Relaxed) >= n / 4);
}

pub(crate) fn tables(bench: &mut Bench) {
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let n = bench.size(2_000);
        let title = "2000 pages of three queries, 64 callers, 4 connections, SQLite".to_string();
        let table = Table::new("user_page", title, "µs/page", flavour, n)
            .recipe("user_page", time(move || fan_out(n)))
            .peer("the pool itself, side by side", time(move || bare_pool(n)))
            .peer("one connection, one after the other", time(move || one_connection(n)))
            .peer("one query with a join", time(move || one_query(n)))
            .floor("one connection, no pool, one query", time(move || no_pool(n)))
            .python("to_thread, four connections", &format!("user_page {n} 64 4"));
        bench.measure(table);
    }
    let n = bench.size(4_000);
    let title = "4000 callers at once, three of four give up".to_string();
    let table = Table::new("user_page", title, "µs/caller", Flavour::CurrentThread, n)
        .recipe("user_page", time(move || storm(n, true)))
        .floor("nobody gives up", time(move || storm(n, false)));
    bench.measure(table);
}
