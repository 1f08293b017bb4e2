//! `row_loader`: loads are dropped at every suspension point and queries fail at every poll; nobody else feels it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

mod still;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use db_fanout::{RowLoader, rows_by_key};
use futures::future::join_all;
use producer_consumer::{BatchLoader, LoadError};
use proptest::prelude::*;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqlitePool, query};
use still::Still;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

type Shared = BatchLoader<u32, u32, &'static str>;
type Log = Arc<Mutex<Vec<Vec<u32>>>>;

/// Doubles keys in 3 ms, one batch of two keys at a time. Each batch is the child "query", and stands in the log.
fn shared(parts: &Parts) -> (Shared, Log) {
    let (parts, log) = (parts.clone(), Log::default());
    let own = log.clone();
    let work = move |keys: Vec<u32>| {
        own.lock().unwrap().push(keys.clone());
        let double = async move {
            sleep(3 * MS).await;
            Ok(keys.into_iter().map(|key| (key, 2 * key)).collect())
        };
        parts.fallible("query", double, || "failed")
    };
    (BatchLoader::new(TWO, NonZeroUsize::MIN, work), log)
}

fn is_double(key: u32, rows: &Result<Option<u32>, Arc<LoadError<&'static str>>>) -> bool {
    matches!(rows, Ok(Some(value)) if *value == 2 * key)
}

/// A whole request goes; another one that wants the same rows has them.
#[test]
fn cancellation_of_a_request_is_not_felt_by_another() {
    sweep(|parts| {
        let (shared, log) = shared(parts);
        let (shared, seen) = (Rc::new(shared), parts.clone());
        let own = shared.clone();
        let call = async move {
            let request = RowLoader::new(&*own);
            join_all([0, 1, 0, 2, 1, 3].map(|key| request.load(key))).await
        };
        let other = async move {
            sleep(MS).await;
            let request = RowLoader::new(&*shared);
            let rows = join_all([2, 7, 2].map(|key| request.load(key))).await;
            if rows.iter().all(Result::is_ok) {
                assert!(rows.iter().zip([2, 7, 2]).all(|(rows, key)| is_double(key, rows)));
            }
            // After an error the next load asks again. The fault happens once.
            assert!(is_double(2, &request.load(2).await) && is_double(7, &request.load(7).await));
        };
        // The shared loader's task lives as long as the loader.
        Scene::new(call).returns_panics().outlived().alongside(other).check(move |ended| {
            let Ended::Returned(rows) = ended else { return };
            let keys = [0, 1, 0, 2, 1, 3];
            let failed = || rows.iter().zip(keys).filter(|(rows, key)| !is_double(*key, rows));
            match seen.fault() {
                None => assert_eq!(failed().count(), 0),
                Some(fault) => {
                    let keys: HashSet<u32> = failed().map(|(_, key)| key).collect();
                    assert!(
                        log.lock().unwrap().iter().any(|asked| keys.iter().all(|key| asked.contains(key)))
                    );
                    for (rows, _) in failed() {
                        let error = rows.as_ref().unwrap_err();
                        match fault {
                            Fault::Fail => assert!(matches!(**error, LoadError::Failed("failed"))),
                            _ => assert!(matches!(**error, LoadError::Lost(_))),
                        }
                    }
                }
            }
        })
    });
}

/// One load of a request goes, at any time; others of the same request wait for the same row, before it and behind it.
#[tokio::test(start_paused = true)]
async fn cancellation_of_one_load_is_not_felt_by_the_others_of_its_request() {
    for gives_up in 0..12 {
        let (shared, log) = shared(&Parts::default());
        let request = RowLoader::new(&shared);
        let load = async |after: u32, key: u32| {
            sleep(after * MS).await;
            assert!(is_double(key, &request.load(key).await));
        };
        let both = async { tokio::join!(load(0, 1), load(0, 2)) };
        tokio::join!(
            load(0, 0),
            timeout(gives_up * MS, both),
            load(0, 1),
            load(1, 2),
            load(2, 2),
            load(5, 2)
        )
        .0;
        // A key whose query was under way is asked for again.
        let asked = log.lock().unwrap().concat().len();
        assert!((3..=5).contains(&asked), "{asked}, gave up after {gives_up} ms");
    }
}

/// The only connection of a pool is there again, wherever a query was dropped.
#[test]
fn cancellation_of_a_query_gives_its_connection_back() {
    const NUMBERS: [&str; 2] = [
        "WITH n (a, b) AS (VALUES (1, 'a'), (2, 'b'), (2, 'c')) SELECT a, b FROM n WHERE a IN (",
        ") ORDER BY b",
    ];
    sweep(|_| {
        let options =
            SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(90_000));
        let pool = options.idle_timeout(None).max_lifetime(None).connect_lazy("sqlite::memory:").unwrap();
        let (other, (here, gone)) = (pool.clone(), oneshot::channel::<()>());
        let call = async move {
            let _here = (here, Still::new());
            rows_by_key::<_, i64, String>(pool, NUMBERS, vec![2, 3, 1]).await
        };
        let afterwards = async move {
            let _still = Still::new();
            assert!(gone.await.is_err());
            assert_eq!(
                rows_by_key::<_, i64, String>(other.clone(), NUMBERS, vec![9]).await.unwrap(),
                HashMap::new()
            );
            other.close().await;
        };
        // How often it is polled depends on SQLite's thread.
        Scene::new(call).outlived().random().alongside(afterwards).check(|ended| {
            if let Ended::Returned(rows) = ended {
                let expected = [(1, vec!["a".to_string()]), (2, vec!["b".to_string(), "c".to_string()])];
                assert_eq!(rows.unwrap(), HashMap::from(expected));
            }
        })
    });
}

async fn stamps(rows: i64) -> SqlitePool {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    query("CREATE TABLE stamps (owner INTEGER, name TEXT)").execute(&pool).await.unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
                INSERT INTO stamps SELECT i / 3, 'stamp ' || i FROM n";
    query(fill).bind(rows).execute(&pool).await.unwrap();
    pool
}

const STAMPS: [&str; 2] = ["SELECT owner, name FROM stamps WHERE owner IN (", ") ORDER BY rowid DESC"];

#[tokio::test]
async fn order_and_number_of_rows_are_the_querys_for_any_number_of_keys() {
    let pool = stamps(60_000).await;
    for keys in [0, 1, 2, 3, 5, 1_023, 1_024, 1_025, 20_000] {
        let found = rows_by_key::<_, i64, String>(pool.clone(), STAMPS, (0..keys).collect()).await.unwrap();
        assert_eq!(found.len() as i64, keys);
        for (owner, names) in found {
            assert_eq!(names, [2, 1, 0].map(|more| format!("stamp {}", 3 * owner + more)));
        }
    }
}

#[tokio::test]
async fn errors_are_those_of_the_database() {
    let pool = stamps(3).await;
    let many = rows_by_key::<_, i64, String>(pool.clone(), STAMPS, (0..40_000).collect()).await;
    assert!(many.unwrap_err().to_string().contains("too many SQL variables"));
    let shared = BatchLoader::new(NonZeroUsize::MAX, NonZeroUsize::MIN, move |keys| {
        rows_by_key::<_, i64, String>(pool.clone(), ["SELECT a, b FROM nowhere WHERE a IN (", ")"], keys)
    });
    let error = RowLoader::new(&shared).load(1).await.unwrap_err();
    let LoadError::Failed(error) = &*error else { panic!("{error}") };
    assert!(error.to_string().contains("no such table: nowhere"), "{error}");
}

/// A text that would end the list, were it pasted.
#[tokio::test]
async fn errors_are_not_made_by_what_a_key_says() {
    let pool = stamps(3).await;
    let by_name = ["SELECT name, owner FROM stamps WHERE name IN (", ")"];
    let keys = ["stamp 1".to_string(), "') OR 1 = 1 --".to_string(), String::new()];
    let found = rows_by_key::<_, String, i64>(pool, by_name, keys.to_vec()).await.unwrap();
    assert_eq!(found, HashMap::from([("stamp 1".to_string(), vec![0])]));
}

/// Loads of a request from several threads, some of which give up: no load hangs, and what was read is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancellation_on_several_threads_loses_no_load() {
    let log = Log::default();
    let own = log.clone();
    let work = move |keys: Vec<u32>| {
        own.lock().unwrap().push(keys.clone());
        async move {
            yield_now().await;
            Ok::<_, ()>(keys.into_iter().map(|key| (key, key)).collect::<HashMap<_, _>>())
        }
    };
    let shared: &'static _ = Box::leak(Box::new(BatchLoader::new(TWO, TWO, work)));
    let request: &'static _ = Box::leak(Box::new(RowLoader::new(shared)));
    let loads = (0..2_000_u32).map(|number| {
        tokio::spawn(async move {
            let load = request.load(number % 40);
            match number % 3 {
                0 => _ = timeout(Duration::ZERO, load).await,
                _ => assert_eq!(load.await.unwrap(), Some(number % 40)),
            }
        })
    });
    for load in loads.collect::<Vec<_>>() {
        load.await.unwrap();
    }
    let before = log.lock().unwrap().len();
    for key in 0..40 {
        assert_eq!(request.load(key).await.unwrap(), Some(key));
    }
    assert_eq!(log.lock().unwrap().len(), before);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any loads at any time: each has its value, and no key was asked for twice.
    #[test]
    fn order_asks_for_each_key_once(loads in prop::collection::vec((0..20_u32, 0..30_u32), 0..60)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let asked = runtime.block_on(async {
            let (shared, log) = shared(&Parts::default());
            let request = RowLoader::new(&shared);
            let load = async |(after, key): (u32, u32)| {
                sleep(after * MS).await;
                is_double(key, &request.load(key).await)
            };
            assert!(join_all(loads.iter().map(|it| load(*it))).await.into_iter().all(|right| right));
            log.lock().unwrap().concat()
        });
        let keys: HashSet<u32> = loads.iter().map(|(_, key)| *key).collect();
        prop_assert_eq!(asked.len(), keys.len());
    }
}
