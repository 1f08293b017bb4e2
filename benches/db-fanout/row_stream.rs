//! `row_stream`: the rows of a query over a SQLite in memory.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ::db_fanout::{Unread, row_stream};
use benches::{Bench, Flavour, Table, figure, time};
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{SqlitePool, query, query_as};

const TO: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                  SELECT i, 'sensor ' || (i % 10) FROM n";

type Reading = (i64, String);

/// The driver reads `ahead` rows.
async fn pool(ahead: usize) -> SqlitePool {
    let options: SqliteConnectOptions = "sqlite::memory:".parse().expect("it is a database's address");
    let options = options.row_buffer_size(ahead);
    SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("SQLite opens in memory")
}

async fn streamed(n: usize, ahead: usize) {
    let pool = pool(ahead).await;
    let connection = pool.acquire().await.expect("it is free");
    let mut rows = pin!(row_stream::<_, Reading>(connection, query(TO).bind(n as i64), Unread::Skip));
    let mut seen = 0;
    while let Some((_, name)) = rows.try_next().await.expect("every row is a reading") {
        seen += usize::from(!name.is_empty());
    }
    assert_eq!(seen, n);
}

async fn fetched(n: usize) {
    let pool = pool(50).await;
    let mut rows = query_as::<_, Reading>(TO).bind(n as i64).fetch(&pool);
    let mut seen = 0;
    while let Some((_, name)) = rows.try_next().await.expect("every row is a reading") {
        seen += usize::from(!name.is_empty());
    }
    assert_eq!(seen, n);
}

async fn all_at_once(n: usize) {
    let rows: Vec<Reading> =
        query_as(TO).bind(n as i64).fetch_all(&pool(50).await).await.expect("every row is a reading");
    assert_eq!(rows.iter().filter(|(_, name)| !name.is_empty()).count(), n);
}

/// Streams that are dropped after ten of a million rows, one after the other.
async fn dropped_early(n: usize, unread: Unread) {
    let pool = pool(50).await;
    for _ in 0..n {
        let connection = pool.acquire().await.expect("it is there again");
        let mut rows = pin!(row_stream::<_, Reading>(connection, query(TO).bind(1_000_000), unread));
        for _ in 0..10 {
            assert!(matches!(rows.try_next().await, Ok(Some(_))));
        }
    }
}

/// KiB by which the process grew at most while `n` rows were read; 0 where the system does not tell.
async fn grown(n: usize, all: bool) -> (f64, String) {
    let before = memory();
    let most = AtomicUsize::new(0);
    let pool = pool(50).await;
    if all {
        let rows: Vec<Reading> =
            query_as(TO).bind(n as i64).fetch_all(&pool).await.expect("every row is a reading");
        assert_eq!(rows.len(), n);
        most.fetch_max(memory(), Relaxed);
    } else {
        let connection = pool.acquire().await.expect("it is free");
        let mut rows = pin!(row_stream::<_, Reading>(connection, query(TO).bind(n as i64), Unread::Skip));
        let mut seen = 0;
        while rows.try_next().await.expect("every row is a reading").is_some() {
            seen += 1;
            if seen % 50_000 == 0 {
                most.fetch_max(memory(), Relaxed);
            }
        }
        assert_eq!(seen, n);
    }
    (most.load(Relaxed).saturating_sub(before) as f64, format!("{n} rows"))
}

fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub(crate) fn tables(bench: &mut Bench) {
    let title = |n| format!("{n} rows, SQLite in memory");
    let small = bench.size(1_000);
    let table = Table::new("row_stream", title(small), "ns/row", Flavour::CurrentThread, small)
        .recipe("row_stream", time(move || streamed(small, 50)))
        .peer("sqlx: fetch", time(move || fetched(small)))
        .peer("sqlx: fetch_all", time(move || all_at_once(small)));
    bench.measure(table);
    let n = bench.size(50_000);
    if n > small {
        for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
            let table = Table::new("row_stream", title(n), "ns/row", flavour, n)
                .recipe("row_stream", time(move || streamed(n, 50)))
                .recipe("row_stream, 1,000 rows ahead", time(move || streamed(n, 1_000)))
                .peer("sqlx: fetch", time(move || fetched(n)))
                .peer("sqlx: fetch_all", time(move || all_at_once(n)))
                .python("sqlite3 in a thread, 50 rows at a time", &format!("row_stream {n} 50"));
            let table =
                if flavour == Flavour::CurrentThread { table.grown_from(title(small)) } else { table };
            bench.measure(table);
        }
    }
    let n = bench.size(1_000_000);
    let title = format!("memory while {n} rows are read");
    let table = Table::new("row_stream", title, "KiB", Flavour::CurrentThread, 1)
        .recipe("row_stream", figure(move || grown(n, false)))
        .peer("sqlx: fetch_all", figure(move || grown(n, true)));
    bench.measure(table);

    let n = bench.size(200);
    let title = "10 of a million rows, then dropped".to_string();
    let table = Table::new("row_stream", title, "µs/stream", Flavour::CurrentThread, n)
        .recipe("Unread::Skip", time(move || dropped_early(n, Unread::Skip)))
        .recipe("Unread::Close", time(move || dropped_early(n, Unread::Close)));
    bench.measure(table);
}
