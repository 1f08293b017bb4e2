//! Load each row once for a request, and the rows that many requests want in few queries.
//!
//! Use it where code deep inside a request wants a row by its key, and does not know who else wants which. When all keys are known,
//! ask for them with [`rows_by_key`] and leave the loader out.
//!
//! | | |
//! |---|---|
//! | Order | keys are asked for in the order of their first callers, whichever request those are of |
//! | Errors | those of one query are shared by whoever waits for it, and not kept: the next load asks again; a key without rows is `None`, which is kept |
//! | Cancellation | dropping a load leaves its key to others of the request who wait for it, and one of them asks; a key that nobody wants any more is not asked for |
//! | Panics | a panic of the query is [`LoadError::Lost`] for its own callers; a panic of a value's `clone` is its caller's |
//! | Memory | O(keys of a request): their rows are kept until its `RowLoader` is dropped |
//! | Backpressure | callers wait: at most as many queries run at a time as the shared loader was made for |
//! | Clock | none: no caller waits for a query to fill |
//!
//! Two parts with two lifetimes. The [`BatchLoader`] lives as long as the program, and makes one query of what all requests ask for
//! meanwhile. A [`RowLoader`] lives as long as one request: a row that was read stays the same until its end, and the next request
//! reads it anew. That is how [dataloader](https://github.com/graphql/dataloader) is used.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use {db_fanout::{RowLoader, rows_by_key}, producer_consumer::BatchLoader, sqlx::SqlitePool};
//! #[tokio::main]
//! async fn main() {
//!     let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
//!     let names = ["SELECT n, name FROM (SELECT 1 AS n, 'Ada' AS name) WHERE n IN (", ")"];
//!     let find = move |ids: Vec<i64>| rows_by_key::<_, _, String>(pool.clone(), names, ids);
//!     let shared = BatchLoader::new(NonZeroUsize::new(1_000).unwrap(), NonZeroUsize::MIN, find);
//!     let request = RowLoader::new(&shared);
//!     assert_eq!((request.load(1).await.unwrap(), request.load(2).await.unwrap()), (Some(vec!["Ada".into()]), None));
//! }
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use producer_consumer::batch_loader::{BatchLoader, LoadError};
use sqlx::query_builder::QueryBuilder;
use sqlx::{Database, Encode, Executor, FromRow, IntoArguments, Pool, Type};
use tokio::sync::OnceCell;

/// The rows of one request. Dropping it forgets them.
pub struct RowLoader<'a, K, V, E> {
    /// Shared by all requests.
    loader: &'a BatchLoader<K, V, E>,
    /// Empty cells are those of loads under way, or of loads that were given up.
    rows: Mutex<HashMap<K, Cell<V, E>>>,
}

/// Whoever wants the same row waits at the same cell. One of them loads it, or the next one if that one gives up.
type Cell<V, E> = Arc<OnceCell<Result<Option<V>, Arc<LoadError<E>>>>>;

impl<'a, K, V, E> RowLoader<'a, K, V, E>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// For one request. `loader` is made once, when the program starts.
    pub fn new(loader: &'a BatchLoader<K, V, E>) -> Self {
        RowLoader { loader, rows: Mutex::new(HashMap::new()) }
    }

    /// The rows of `key`, or `None` when there are none. It is asked for once, however often and from wherever it is loaded.
    ///
    /// # Errors
    ///
    /// Those of [`BatchLoader::load`]. After one, the next load asks again.
    pub async fn load(&self, key: K) -> Result<Option<V>, Arc<LoadError<E>>> {
        let cell = self.rows().entry(key.clone()).or_default().clone();
        let rows = cell.get_or_init(|| self.loader.load(key.clone())).await.clone();
        if rows.is_err() {
            // A cell that has taken this one's place since then is somebody else's.
            let is_this = |kept: &Cell<V, E>| Arc::ptr_eq(kept, &cell);
            let mut all = self.rows();
            let gone = if all.get(&key).is_some_and(is_this) { all.remove_entry(&key) } else { None };
            // What the caller's types do when they are dropped, they do without the lock.
            drop(all);
            drop(gone);
        }
        rows
    }

    /// Asks again when `key` is loaded next: for a request that has changed the row itself.
    pub fn forget(&self, key: &K) {
        let gone = self.rows().remove_entry(key);
        drop(gone);
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<K, Cell<V, E>>> {
        // Poisoned only by a panic of a key's own methods, which leaves the map as it was or with an empty cell.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of many keys by one query: `sql` is what stands before the list of keys, and what stands behind it.
///
/// A row is its key and the value, in two columns. `["SELECT user_id, item FROM orders WHERE user_id IN (", ") ORDER BY id"]` finds
/// each user's orders, in their order. A key without rows is left out.
///
/// Keys are bound, not pasted. A list is filled up to a power of two with its last key: few different queries are prepared.
///
/// # Errors
///
/// Those of the query: also when there are more keys than parameters (SQLite 32,766, PostgreSQL 65,535).
pub async fn rows_by_key<DB, K, V>(
    pool: Pool<DB>,
    sql: [&'static str; 2],
    keys: Vec<K>,
) -> Result<HashMap<K, Vec<V>>, sqlx::Error>
where
    DB: Database,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'q> K: Encode<'q, DB> + Type<DB> + Hash + Eq + Clone + Send + Unpin,
    V: Send + Unpin,
    for<'r> (K, V): FromRow<'r, DB::Row>,
{
    let mut found: HashMap<K, Vec<V>> = HashMap::new();
    let Some(last) = keys.last().cloned() else { return Ok(found) };
    // Far below every database's limit: there a list is not filled up.
    let filled = if keys.len() <= 1_024 { keys.len().next_power_of_two() } else { keys.len() };
    let missing = filled - keys.len();

    let mut query = QueryBuilder::<DB>::new(sql[0]);
    let mut list = query.separated(", ");
    for key in keys.into_iter().chain(std::iter::repeat_n(last, missing)) {
        list.push_bind(key);
    }
    query.push(sql[1]);
    for (key, value) in query.build_query_as::<(K, V)>().fetch_all(&pool).await? {
        found.entry(key).or_default().push(value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::num::NonZeroUsize;
    use std::panic::resume_unwind;
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::join;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    type Shared = BatchLoader<u32, u32, &'static str>;
    type Log = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Doubles in 10 ms what is below 50. A 100 fails the first time, a 101 panics. The log says what was asked for.
    fn shared(keys: usize) -> (Shared, Log) {
        let log = Log::default();
        let own = log.clone();
        let work = move |keys: Vec<u32>| {
            let mut log = own.lock().unwrap();
            let first = !log.iter().flatten().any(|key| *key == 100);
            log.push(keys.clone());
            async move {
                sleep(10 * MS).await;
                match keys.iter().max() {
                    Some(100) if first => Err("refused"),
                    // Not `panic!`: the message would be printed though the panic is expected.
                    Some(101) => resume_unwind(Box::new("broken")),
                    _ => Ok(keys.into_iter().filter(|key| *key < 50).map(|key| (key, 2 * key)).collect()),
                }
            }
        };
        (BatchLoader::new(NonZeroUsize::new(keys).unwrap(), NonZeroUsize::MIN, work), log)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_first_callers_and_each_key_is_asked_for_once() {
        let (shared, log) = shared(2);
        let (one, other) = (RowLoader::new(&shared), RowLoader::new(&shared));
        let late = async { (sleep(5 * MS).await, one.load(3).await).1 };
        let rows = join!(one.load(3), other.load(1), one.load(2), other.load(3), late);
        assert!(matches!(rows, (Ok(Some(6)), Ok(Some(2)), Ok(Some(4)), Ok(Some(6)), Ok(Some(6)))));
        assert_eq!(*log.lock().unwrap(), [vec![3, 1], vec![2]]);
        assert_eq!((one.load(3).await.unwrap(), other.load(2).await.unwrap()), (Some(6), Some(4)));
        one.forget(&3);
        assert_eq!(one.load(3).await.unwrap(), Some(6));
        assert_eq!(log.lock().unwrap()[2..], [[2], [3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_shared_and_not_kept_and_missing_is_kept() {
        let (shared, log) = shared(1);
        let request = RowLoader::new(&shared);
        let refused = join_all((0..50).map(|_| request.load(100))).await;
        let first = refused[0].as_ref().unwrap_err();
        assert!(matches!(**first, LoadError::Failed("refused")));
        assert!(refused.iter().all(|it| it.as_ref().is_err_and(|error| Arc::ptr_eq(error, first))));
        assert_eq!(request.load(100).await.unwrap(), None);
        assert_eq!(request.load(100).await.unwrap(), None);
        assert_eq!(*log.lock().unwrap(), [[100], [100]]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_leaves_the_key_to_others_who_want_it() {
        let (shared, log) = shared(1);
        let (request, start) = (RowLoader::new(&shared), Instant::now());
        let blocks = request.load(0);
        let rows = join!(
            blocks,
            timeout(5 * MS, request.load(1)),
            request.load(1),
            timeout(5 * MS, request.load(2))
        );
        assert!(rows.1.is_err() && rows.3.is_err());
        assert_eq!((rows.2.unwrap(), start.elapsed()), (Some(2), 20 * MS));
        assert_eq!(*log.lock().unwrap(), [[0], [1]]);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_errors_of_their_own_callers() {
        let (shared, _) = shared(1);
        let request = RowLoader::new(&shared);
        let rows = join!(request.load(101), request.load(2));
        assert!(matches!(*rows.0.unwrap_err(), LoadError::Lost(_)));
        assert_eq!(rows.1.unwrap(), Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_free_when_the_request_ends() {
        let alive = Arc::new(());
        let own = alive.clone();
        let work = move |keys: Vec<u32>| {
            let found = keys.into_iter().map(|key| (key, own.clone())).collect();
            async move { Ok::<_, ()>(found) }
        };
        let shared = BatchLoader::new(NonZeroUsize::MAX, NonZeroUsize::MIN, work);
        let request = RowLoader::new(&shared);
        join_all((0..1_000).map(|key| request.load(key))).await;
        assert_eq!(Arc::strong_count(&alive), 1_002);
        drop(request);
        assert_eq!(Arc::strong_count(&alive), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_is_that_of_the_shared_loader() {
        let (shared, log) = shared(10);
        let requests: Vec<_> = (0..5).map(|_| RowLoader::new(&shared)).collect();
        let start = Instant::now();
        join_all(requests.iter().flat_map(|request| (0..40).map(|key| request.load(key)))).await;
        assert_eq!((log.lock().unwrap().len(), start.elapsed()), (4, 40 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_is_not_waited_for() {
        let never = |_| pending::<Result<HashMap<u32, ()>, ()>>();
        let asked = BatchLoader::new(NonZeroUsize::MAX, NonZeroUsize::MIN, never);
        let request = RowLoader::new(&asked);
        assert!(request.load(1).now_or_never().is_none());
        let (shared, _) = shared(10);
        let start = Instant::now();
        assert_eq!(RowLoader::new(&shared).load(1).await.unwrap(), Some(2));
        assert_eq!(start.elapsed(), 10 * MS);
    }
}
