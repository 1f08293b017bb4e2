//! `transaction`, `sqlite_writer`, `bulk_insert`: each run on a new SQLite file, in WAL mode, with `synchronous = NORMAL`.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::time::Instant;

use benches::{Bench, Flavour, Measure, Table, stopwatch};
use db_fanout::{ATTEMPTS, Failed, Open, bulk_insert, sqlite_writer, transaction};
use futures::future::join_all;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{QueryBuilder, Sqlite, query};
use tempfile::TempDir;

pub(crate) fn tables(bench: &mut Bench) {
    transaction_tables(bench);
    sqlite_writer_tables(bench);
    bulk_insert_tables(bench);
}

const CREATE: &str = "CREATE TABLE t (n INTEGER NOT NULL, name TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO t VALUES (?, ?)";
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The time of `work`, on a new file.
fn timed<F>(connections: u32, work: impl Fn(SqlitePool) -> F + Clone + Send + Sync + 'static) -> Measure
where
    F: Future<Output = ()> + Send,
{
    stopwatch(move || {
        let work = work.clone();
        async move {
            let folder = folder();
            let file =
                SqliteConnectOptions::new().filename(folder.path().join("t.db")).create_if_missing(true);
            let file = file.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal);
            let options = SqlitePoolOptions::new().min_connections(connections).max_connections(connections);
            let pool = options.test_before_acquire(false).connect_with(file).await.expect("a new file");
            query(CREATE).execute(&pool).await.expect("a new file");
            let start = Instant::now();
            work(pool.clone()).await;
            let elapsed = start.elapsed();
            pool.close().await;
            elapsed
        }
    })
}

/// The same with rusqlite, on the task's own thread.
fn blocking(work: impl Fn(&mut rusqlite::Connection) + Clone + Send + Sync + 'static) -> Measure {
    stopwatch(move || {
        let work = work.clone();
        async move {
            let folder = folder();
            let mut database = rusqlite::Connection::open(folder.path().join("t.db")).expect("a new file");
            let set_up = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;";
            database.execute_batch(set_up).expect("a new file");
            database.execute_batch(CREATE).expect("a new file");
            let start = Instant::now();
            work(&mut database);
            start.elapsed()
        }
    })
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn name(n: i64) -> String {
    format!("name {n}")
}

fn rusqlite_insert(database: &rusqlite::Connection, n: i64) {
    let mut insert = database.prepare_cached(INSERT).expect("the table exists");
    insert.execute(rusqlite::params![n, name(n)]).expect("nobody else writes");
}

fn rusqlite_together(rows: usize) -> Measure {
    blocking(move |database| {
        let transaction = database.transaction().expect("nobody else writes");
        (0..rows as i64).for_each(|n| rusqlite_insert(&transaction, n));
        transaction.commit().expect("nobody else writes");
    })
}

/// The statement for several rows.
fn insert(rows: &[i64]) -> QueryBuilder<Sqlite> {
    let mut insert = QueryBuilder::new("INSERT INTO t ");
    insert.push_values(rows, |mut row, n| _ = row.push_bind(*n).push_bind(name(*n)));
    insert
}

fn transaction_tables(bench: &mut Bench) {
    let n = bench.size(200);
    let by_transaction = move |tasks: usize, connections| {
        timed(connections, move |pool| async move {
            let task = |_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for row in 0..(n / tasks) as i64 {
                        let work = async |mut open: Open<Sqlite>| {
                            query(INSERT).bind(row).bind(name(row)).execute(&mut *open).await?;
                            Ok::<_, Failed<Infallible>>(())
                        };
                        let call = transaction(&pool, "BEGIN IMMEDIATE", ATTEMPTS, work);
                        call.await.expect("conflicts are tried again");
                    }
                })
            };
            for ended in join_all((0..tasks).map(task)).await {
                ended.expect("no transaction fails");
            }
        })
    };
    let by_sqlx = move |tasks: usize, connections| {
        timed(connections, move |pool| async move {
            let task = |_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for row in 0..(n / tasks) as i64 {
                        let mut open = pool.begin_with("BEGIN IMMEDIATE").await.expect("it waits for 5 s");
                        let insert = query(INSERT).bind(row).bind(name(row));
                        insert.execute(&mut *open).await.expect("it has the lock");
                        open.commit().await.expect("it has the lock");
                    }
                })
            };
            for ended in join_all((0..tasks).map(task)).await {
                ended.expect("no transaction fails");
            }
        })
    };
    let rusqlite = blocking(move |database| {
        for row in 0..n as i64 {
            let transaction = database.transaction().expect("nobody else writes");
            rusqlite_insert(&transaction, row);
            transaction.commit().expect("nobody else writes");
        }
    });
    let table =
        Table::new("transaction", "one insert each".into(), "µs/transaction", Flavour::MultiThread, n);
    let table = table
        .recipe("transaction", by_transaction(1, 1))
        .peer("sqlx: begin_with, commit", by_sqlx(1, 1))
        .floor("rusqlite", rusqlite)
        .python("sqlite3 on a thread", &format!("transaction {n}"));
    bench.measure(table);
    let title = "one insert each, 4 tasks, 4 connections".into();
    let table = Table::new("transaction", title, "µs/transaction", Flavour::MultiThread, n);
    let table = table
        .recipe("transaction", by_transaction(4, 4))
        .peer("sqlx: begin_with, commit", by_sqlx(4, 4))
        .recipe("transaction, one connection", by_transaction(4, 1));
    bench.measure(table);
}

fn sqlite_writer_tables(bench: &mut Bench) {
    for callers in [1, 64, 1000] {
        let rows = bench.size(20_000).min(callers * 200) / callers * callers;
        let each = (rows / callers) as i64;
        let writer = timed(1, move |pool| async move {
            let (writer, writing) = sqlite_writer(pool, AT_ONCE, AT_ONCE, insert);
            let writing = tokio::spawn(writing);
            let caller = |_| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    for n in 0..each {
                        writer.write(n).await.expect("no row is refused");
                    }
                })
            };
            for ended in join_all((0..callers).map(caller)).await {
                ended.expect("no caller fails");
            }
            drop(writer);
            writing.await.expect("it ends with the last caller");
        });
        let autocommit = timed(1, move |pool| async move {
            let caller = |_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for n in 0..each {
                        let insert = query(INSERT).bind(n).bind(name(n));
                        insert.execute(&pool).await.expect("nobody else writes");
                    }
                })
            };
            for ended in join_all((0..callers).map(caller)).await {
                ended.expect("no caller fails");
            }
        });
        let title = format!("acknowledged inserts, {callers} callers");
        let mut table = Table::new("sqlite_writer", title, "µs/row", Flavour::MultiThread, rows)
            .recipe("sqlite_writer", writer)
            .peer("sqlx: a pool of one, each its own transaction", autocommit)
            .floor("rusqlite, all in one transaction", rusqlite_together(rows));
        if callers == 64 {
            table = table.python("sqlite3 on a thread", &format!("sqlite_writer {callers} {each}"));
        }
        bench.measure(table);
    }
}

fn bulk_insert_tables(bench: &mut Bench) {
    let rows = bench.size(50_000);
    let by_recipe = move |at_once: usize, bad: i64| {
        let at_once = NonZeroUsize::new(at_once).expect("not zero");
        timed(1, move |pool| async move {
            let rows = (0..rows as i64).map(|n| if bad > 0 && n % bad == 7 { -1 } else { n });
            let insert = |rows: &[i64]| {
                let mut insert = QueryBuilder::new("INSERT INTO t ");
                insert.push_values(rows, |mut row, n| {
                    row.push_bind((*n >= 0).then_some(*n)).push_bind(name(*n));
                });
                insert
            };
            let report = bulk_insert(&pool, "BEGIN IMMEDIATE", rows, at_once, insert, |_| ()).await;
            report.expect("bad rows are left out");
        })
    };
    let one_by_one = timed(1, move |pool| async move {
        let mut open = pool.begin().await.expect("nobody else writes");
        for n in 0..rows as i64 {
            query(INSERT).bind(n).bind(name(n)).execute(&mut *open).await.expect("nobody else writes");
        }
        open.commit().await.expect("nobody else writes");
    });
    let by_hand = timed(1, move |pool| async move {
        let all: Vec<i64> = (0..rows as i64).collect();
        let mut open = pool.begin().await.expect("nobody else writes");
        for rows in all.chunks(AT_ONCE.get()) {
            insert(rows).build().execute(&mut *open).await.expect("nobody else writes");
        }
        open.commit().await.expect("nobody else writes");
    });
    let title = format!("{rows} rows of two columns");
    let table = Table::new("bulk_insert", title, "ns/row", Flavour::MultiThread, rows)
        .recipe("bulk_insert, 100 at once", by_recipe(100, 0))
        .recipe("bulk_insert, 1,000 at once", by_recipe(1_000, 0))
        .recipe("bulk_insert, 10,000 at once", by_recipe(10_000, 0))
        .recipe("bulk_insert, 1,000 at once, one bad row in each", by_recipe(1_000, 1_000))
        .peer("sqlx: push_values by hand, one transaction", by_hand)
        .peer("sqlx: row by row, one transaction", one_by_one)
        .floor("rusqlite, row by row, one transaction", rusqlite_together(rows))
        .python("sqlite3: executemany on a thread", &format!("bulk_insert {rows}"));
    bench.measure(table);
}
