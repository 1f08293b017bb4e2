//! `row_loader`: authors of many feeds from a SQLite in memory.

use std::num::NonZeroUsize;
use std::sync::Arc;

use ::db_fanout::{RowLoader, rows_by_key};
use benches::{Bench, Flavour, Table, time};
use futures::future::join_all;
use producer_consumer::BatchLoader;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqlitePool, query, query_scalar};
use tokio::task::JoinSet;

const REQUESTS: usize = 64;
const AUTHORS: i64 = 1_000;
const BY_ID: [&str; 2] = ["SELECT id, name FROM authors WHERE id IN (", ")"];
const KEYS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

async fn pool() -> SqlitePool {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await;
    let pool = pool.expect("SQLite opens in memory");
    for sql in [
        "CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT)",
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
         INSERT INTO authors SELECT i, 'Author ' || i FROM n",
    ] {
        query(sql).execute(&pool).await.expect("the table is new");
    }
    pool
}

/// The authors of one request's `loads` stories; every second story is by the author of the one before.
fn keys(request: usize, loads: usize) -> impl Iterator<Item = i64> + Clone {
    (0..loads).map(move |load| (request * 31 + load / 2 * 7) as i64 % AUTHORS)
}

async fn by_loader(n: usize) {
    let pool = pool().await;
    let find = move |ids| rows_by_key::<_, i64, String>(pool.clone(), BY_ID, ids);
    let shared = Arc::new(BatchLoader::new(KEYS, NonZeroUsize::MIN, find));
    let requests = (0..REQUESTS).map(|request| {
        let shared = shared.clone();
        async move {
            let rows = RowLoader::new(&shared);
            let loaded = join_all(keys(request, n / REQUESTS).map(|key| rows.load(key))).await;
            assert!(loaded.iter().all(|row| matches!(row, Ok(Some(_)))));
        }
    });
    requests.collect::<JoinSet<()>>().join_all().await;
}

async fn query_for_each(n: usize) {
    let pool = pool().await;
    let requests = (0..REQUESTS).map(|request| {
        let pool = pool.clone();
        async move {
            for key in keys(request, n / REQUESTS) {
                let name = query_scalar("SELECT name FROM authors WHERE id = ?").bind(key).fetch_one(&pool);
                let name: String = name.await.expect("the author is there");
                assert!(!name.is_empty());
            }
        }
    });
    requests.collect::<JoinSet<()>>().join_all().await;
}

/// Each request knows its keys.
async fn list_for_each_request(n: usize) {
    let pool = pool().await;
    let requests = (0..REQUESTS).map(|request| {
        let pool = pool.clone();
        async move {
            let ids = keys(request, n / REQUESTS).step_by(2).collect();
            let found = rows_by_key::<_, i64, String>(pool, BY_ID, ids).await.expect("the table is there");
            assert!(keys(request, n / REQUESTS).all(|key| found.contains_key(&key)));
        }
    });
    requests.collect::<JoinSet<()>>().join_all().await;
}

/// The rows are there already.
async fn kept(n: usize) {
    let pool = pool().await;
    let find = move |ids| rows_by_key::<_, i64, String>(pool.clone(), BY_ID, ids);
    let shared = BatchLoader::new(KEYS, NonZeroUsize::MIN, find);
    let rows = RowLoader::new(&shared);
    for _ in 0..n {
        assert!(matches!(rows.load(1).await, Ok(Some(_))));
    }
}

pub(crate) fn tables(bench: &mut Bench) {
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let n = bench.size(6_400).next_multiple_of(2 * REQUESTS);
        let title = format!("{n} loads by 64 requests, SQLite in memory");
        let table = Table::new("row_loader", title, "µs/load", flavour, n)
            .recipe("row_loader", time(move || by_loader(n)))
            .peer("a query for each load", time(move || query_for_each(n)))
            .floor("keys known, a query for each request", time(move || list_for_each_request(n)))
            .python("a dataloader by hand", &format!("row_loader {n} 64"));
        bench.measure(table);
    }
    let n = bench.size(10_000);
    let table =
        Table::new("row_loader", "a row that is there".to_string(), "ns/load", Flavour::CurrentThread, n)
            .recipe("row_loader", time(move || kept(n)));
    bench.measure(table);
}
