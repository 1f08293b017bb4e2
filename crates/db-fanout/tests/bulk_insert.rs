//! `bulk_insert` over real SQLite files, dropped at every suspension point; and over a real PostgreSQL, with UNNEST.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

mod still;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use db_fanout::{Report, bulk_insert};
use proptest::prelude::*;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{QueryBuilder, Sqlite, query, query_scalar};
use still::Still;
use support::sweep::{Ended, Scene, sweep};
use tempfile::TempDir;
use tokio::sync::oneshot;

const BEGIN: &str = "BEGIN IMMEDIATE";
const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

fn database() -> (TempDir, SqlitePool) {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new().filename(folder.path().join("t.db")).create_if_missing(true);
    let options = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    (folder, options.connect_lazy_with(file))
}

async fn table(pool: &SqlitePool) {
    query("CREATE TABLE t (n INTEGER UNIQUE CHECK (n >= 0))").execute(pool).await.unwrap();
}

fn insert(rows: &[i64]) -> QueryBuilder<Sqlite> {
    let mut insert = QueryBuilder::new("INSERT INTO t ");
    insert.push_values(rows, |mut row, n| _ = row.push_bind(*n));
    insert
}

async fn stored(pool: &SqlitePool) -> Vec<i64> {
    query_scalar("SELECT n FROM t ORDER BY rowid").fetch_all(pool).await.unwrap()
}

#[test]
fn cancellation_at_every_point_leaves_whole_statements() {
    let report = sweep(|_| {
        let (folder, pool) = database();
        let (over, is_over) = oneshot::channel::<()>();
        let (begin, may_begin) = oneshot::channel::<()>();
        let told = Rc::new(Cell::new(0));
        let left = Rc::new(Cell::new(usize::MAX));
        let (own, telling, told_too, counted) = (pool.clone(), told.clone(), told.clone(), left.clone());
        let call = async move {
            // Dropped with the call, however that ends.
            let _over = over;
            let _ = may_begin.await;
            let progress = |report: &Report| telling.set(report.inserted);
            let rows = [1, 2, -1, 3, 4, 5];
            bulk_insert(&own, BEGIN, rows, THREE, insert, progress).await.unwrap().inserted
        };
        let other = async move {
            let still = Still::new();
            table(&pool).await;
            let _ = begin.send(());
            let _ = is_over.await;
            // The only connection is free, and is not in a transaction.
            let mut next = pool.begin_with(BEGIN).await.unwrap();
            let rows: Vec<i64> =
                query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut *next).await.unwrap();
            assert_eq!(rows, [1, 2, 3, 4, 5][..rows.len()]);
            assert!(matches!(rows.len(), 0 | 2 | 5) && rows.len() >= told_too.get(), "{rows:?}");
            counted.set(rows.len());
            next.rollback().await.unwrap();
            pool.close().await;
            drop((still, folder));
        };
        // The pool takes its connection back, or closes it, in a task of its own.
        Scene::new(call).outlived().alongside(other).check(move |ended| match ended {
            Ended::Returned(inserted) => assert_eq!((inserted, told.get(), left.get()), (5, 5, 5)),
            Ended::Panicked(message) => panic!("{message}"),
            Ended::Dropped => assert!(left.get() <= 5),
        })
    });
    // How often it is suspended depends on how fast SQLite's thread is.
    assert!(report.points > 0, "{report:?}");
}

#[tokio::test]
async fn memory_a_hundred_thousand_rows_of_an_iterator() {
    let (_folder, pool) = database();
    table(&pool).await;
    let at_once = NonZeroUsize::new(10_000).unwrap();
    let pulled = Cell::new(0);
    let rows = (0..100_000).inspect(|_| pulled.set(pulled.get() + 1));
    let progress = |report: &Report| assert_eq!(pulled.get(), report.inserted);
    let report = bulk_insert(&pool, BEGIN, rows, at_once, insert, progress).await.unwrap();
    assert_eq!((report.inserted, report.rejected.len()), (100_000, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any rows, any size of a statement: stored is what one insert after the other would have stored.
    #[test]
    fn order_and_errors_are_those_of_single_inserts(rows in prop::collection::vec(-3..20_i64, 0..40), at_once in 1..50_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (report, left) = runtime.block_on(async {
            let (_folder, pool) = database();
            table(&pool).await;
            let at_once = NonZeroUsize::new(at_once).unwrap();
            let report = bulk_insert(&pool, BEGIN, rows.clone(), at_once, insert, |_| ()).await.unwrap();
            (report, stored(&pool).await)
        });
        let (mut expected, mut rejected) = (Vec::new(), Vec::new());
        for (row, n) in rows.into_iter().enumerate() {
            if n < 0 || expected.contains(&n) { rejected.push(row) } else { expected.push(n) }
        }
        prop_assert_eq!(report.inserted, expected.len());
        prop_assert_eq!(left, expected);
        prop_assert_eq!(report.rejected.iter().map(|it| it.row).collect::<Vec<_>>(), rejected);
    }
}

/// Against a real server.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn errors_on_postgresql_with_one_array_for_each_column() {
    use sqlx::Postgres;
    use sqlx::postgres::PgPool;

    let Some(server) = support::services::Service::Postgres.of_tests() else { return };
    let pool = PgPool::connect(server.url()).await.unwrap();
    let create = "DROP TABLE IF EXISTS bulk; CREATE TABLE bulk (n BIGINT UNIQUE, name VARCHAR(6))";
    sqlx::raw_sql(create).execute(&pool).await.unwrap();
    let unnest = |rows: &[(i64, String)]| {
        let mut insert = QueryBuilder::<Postgres>::new("INSERT INTO bulk SELECT * FROM UNNEST(");
        let (n, name): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
        insert.push_bind(n).push("::bigint[], ").push_bind(name).push("::text[])");
        insert
    };
    let rows = (0..100_000).map(|n| (if n == 70_001 { 70_000 } else { n }, format!("{}", n + 900_500)));
    let at_once = NonZeroUsize::new(40_000).unwrap();
    let report = bulk_insert(&pool, "BEGIN", rows, at_once, unnest, |_| ()).await.unwrap();
    // Longer than six characters from 99,500 on.
    assert_eq!(report.rejected[0].row, 70_001);
    assert_eq!(report.rejected.len(), 1 + 500);
    let stored: i64 = query_scalar("SELECT count(*) FROM bulk").fetch_one(&pool).await.unwrap();
    assert_eq!(stored as usize, report.inserted);
}
