//! Run a request's queries side by side over one pool, and keep some of its connections for others.
//!
//! Use it where one request asks several questions of a database, many requests come at once, and other work (a write, a health
//! check) shares the pool. When one query answers the request, as a join does, ask only that one.
//!
//! | | |
//! |---|---|
//! | Order | places are given first come, first served; so are the pool's connections, unless `fair(false)` was set |
//! | Errors | [`AcquireError::Busy`] when there was no connection in time; an error of the pool as it is; errors of a query are the caller's |
//! | Cancellation | dropping the call leaves the queue; dropping a lease, also in the middle of a query, keeps its place until its connection is back in the pool or closed |
//! | Panics | a panic of a query is the caller's panic; the lease is dropped, and the connection goes back |
//! | Memory | O(callers that wait), each inside its own future |
//! | Backpressure | at most the pool's connections less the reserve are in use; other callers wait, for so long at most |
//! | Clock | `tokio::time` for the wait; queries are not timed |
//!
//! A query that was given up is still at work on its connection: SQLite stops at the next row, PostgreSQL sends the rest of the
//! answer. sqlx waits for that in a task of its own. A place that was free before would let requests that time out take the whole
//! pool, so it is kept until then.
//!
//! ```
//! use std::time::Duration;
//! use db_fanout::FanOut;
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(3).connect("sqlite::memory:").await?;
//!     let fan_out = FanOut::new(pool, 1, Duration::from_secs(2))?;
//!     let (mut one, mut other) = tokio::try_join!(fan_out.acquire(), fan_out.acquire())?;
//!     let sum = sqlx::query_scalar("SELECT 1 + ?").bind(2).fetch_one(&mut *one);
//!     let length = sqlx::query_scalar("SELECT length(?)").bind("Ada").fetch_one(&mut *other);
//!     assert_eq!(tokio::try_join!(sum, length)?, (3, 3));
//!     Ok(())
//! }
//! ```

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A pool, the places for queries in it, and how long a query waits for one. Shared by reference or in an `Arc`.
#[derive(Debug)]
pub struct FanOut<DB: Database> {
    pool: Pool<DB>,
    places: Arc<Semaphore>,
    limit: u32,
    wait: Duration,
}

/// A connection and the place that it takes. It is used as the connection itself: `fetch_one(&mut *lease)`.
///
/// Dropping it gives the connection back in a task of the runtime in which it was acquired, and then the place.
#[derive(Debug)]
pub struct Lease<DB: Database> {
    /// `None` only while it is dropped.
    held: Option<(PoolConnection<DB>, OwnedSemaphorePermit)>,
    runtime: Handle,
}

/// The reserve leaves no connection for queries.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reserve of {reserve} leaves nothing of a pool of {connections} connections")]
pub struct NoPlace {
    /// The most connections that the pool opens.
    pub connections: u32,
    /// How many of them were to be kept for others.
    pub reserve: u32,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// None was free for so long.
    #[error("no connection within {waited:?}: at most {limit} queries run at a time")]
    Busy {
        /// The time that was given when the fan-out was made.
        waited: Duration,
        /// How many places there are.
        limit: u32,
    },
    /// The pool is closed, could not connect, or has given up before.
    #[error("the pool has no connection")]
    Pool(#[from] sqlx::Error),
}

impl<DB: Database> FanOut<DB> {
    /// Lets as many queries run at a time as `pool` has connections at most, less `reserve`.
    ///
    /// `wait` is how long one waits for its connection. Choose it shorter than the time that a request has: what is left is for
    /// the query. It includes the time to connect. The pool's own `acquire_timeout` holds besides.
    ///
    /// # Errors
    ///
    /// When nothing is left.
    pub fn new(pool: Pool<DB>, reserve: u32, wait: Duration) -> Result<Self, NoPlace> {
        let connections = pool.options().get_max_connections();
        let limit = connections.checked_sub(reserve).filter(|limit| *limit > 0);
        let limit = limit.ok_or(NoPlace { connections, reserve })?;
        let places = Semaphore::new((limit as usize).min(Semaphore::MAX_PERMITS));
        Ok(FanOut { pool, places: Arc::new(places), limit, wait })
    }

    /// Waits for a place, and then for a connection.
    ///
    /// Whoever waits for a second lease while holding one takes part in the deadlock of its callers, until the first of them is
    /// [`AcquireError::Busy`]: acquire one for each query, and drop it when the answer is there.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn acquire(&self) -> Result<Lease<DB>, AcquireError> {
        let acquire = async {
            let place = self.places.clone().acquire_owned().await;
            let place = place.expect("nobody closes the semaphore, which is private");
            let connection = self.pool.acquire().await?;
            Ok(Lease { held: Some((connection, place)), runtime: Handle::current() })
        };
        let busy = AcquireError::Busy { waited: self.wait, limit: self.limit };
        timeout(self.wait, acquire).await.unwrap_or(Err(busy))
    }

    /// How many places nobody has at this moment.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.held.as_ref().expect("only the drop takes it").0
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.held.as_mut().expect("only the drop takes it").0
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        // sqlx looks for the current runtime, and a lease may be dropped on any thread.
        let _current = self.runtime.enter();
        if let Some((mut connection, place)) = self.held.take() {
            // What sqlx does when a connection is dropped. It is public and left out of its documentation; nothing else tells when
            // the connection is back.
            let back = connection.return_to_pool();
            self.runtime.spawn(async move {
                back.await;
                drop(place);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::Mutex;

    use futures::FutureExt;
    use futures::future::join_all;
    use sqlx::query_scalar;
    use sqlx::sqlite::{Sqlite, SqlitePoolOptions};
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Three connections at most; each is a database of its own.
    fn pool() -> Pool<Sqlite> {
        SqlitePoolOptions::new().max_connections(3).connect_lazy("sqlite::memory:").unwrap()
    }

    fn fan_out(reserve: u32, wait: Duration) -> FanOut<Sqlite> {
        FanOut::new(pool(), reserve, wait).unwrap()
    }

    #[tokio::test]
    async fn order_is_first_come_first_served() {
        let fan_out = fan_out(2, LONG);
        let (first, order) = (fan_out.acquire().await.unwrap(), Mutex::new(Vec::new()));
        let late = (0..10).map(|number| {
            let (fan_out, order) = (&fan_out, &order);
            async move {
                let _lease = fan_out.acquire().await.unwrap();
                order.lock().unwrap().push(number);
            }
        });
        let free = async {
            yield_now().await;
            drop(first);
        };
        tokio::join!(join_all(late), free);
        assert!(order.into_inner().unwrap().into_iter().eq(0..10));
    }

    #[tokio::test]
    async fn errors_say_which_limit_and_how_long() {
        assert_eq!(FanOut::new(pool(), 3, LONG).unwrap_err(), NoPlace { connections: 3, reserve: 3 });
        let never = FanOut::new(pool(), u32::MAX, LONG).unwrap_err();
        assert_eq!(never.to_string(), "a reserve of 4294967295 leaves nothing of a pool of 3 connections");
        let fan_out = fan_out(2, Duration::MAX);
        let lease = fan_out.acquire().await.unwrap();
        let waits = fan_out.acquire();
        let close = async {
            yield_now().await;
            let closing = fan_out.pool.close();
            drop(lease);
            closing.await;
        };
        let (waits, ()) = tokio::join!(waits, close);
        assert!(matches!(waits, Err(AcquireError::Pool(sqlx::Error::PoolClosed))));
        assert_eq!(fan_out.free(), 1);
    }

    #[tokio::test]
    async fn cancellation_keeps_the_place_until_the_connection_is_back() {
        let gate = Arc::new(Semaphore::new(0));
        let (own, options) = (gate.clone(), SqlitePoolOptions::new().max_connections(2));
        let options = options.after_release(move |_, _| {
            let gate = own.clone();
            async move { Ok(gate.acquire().await.is_ok()) }.boxed()
        });
        let pool = options.connect_lazy("sqlite::memory:").unwrap();
        let fan_out = FanOut::new(pool.clone(), 1, LONG).unwrap();
        let mut lease = fan_out.acquire().await.unwrap();
        let query = query_scalar::<_, i64>("SELECT 1").fetch_one(&mut *lease);
        // Polled once. SQLite may be that fast.
        drop(query.now_or_never());
        drop(lease);
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(fan_out.free() == 0 && fan_out.acquire().now_or_never().is_none());
        gate.add_permits(1);
        let _again = fan_out.acquire().await.unwrap();
        assert_eq!(pool.size(), 1);
    }

    #[tokio::test]
    async fn panics_give_the_connection_back() {
        let fan_out = Arc::new(fan_out(2, LONG));
        let own = fan_out.clone();
        let task = tokio::spawn(async move {
            let _lease = own.acquire().await.unwrap();
            // Not `panic!`: the message would be printed though the panic is expected.
            resume_unwind(Box::new("broken"))
        });
        assert!(task.await.unwrap_err().is_panic());
        let mut lease = fan_out.acquire().await.unwrap();
        assert_eq!(query_scalar("SELECT 7").fetch_one(&mut *lease).await.ok(), Some(7));
        assert_eq!(fan_out.pool.size(), 1);
    }

    #[tokio::test]
    async fn memory_of_callers_that_gave_up_is_free() {
        let fan_out = fan_out(2, LONG);
        let lease = fan_out.acquire().await.unwrap();
        let mut waiting: Vec<_> = (0..10_000).map(|_| Box::pin(fan_out.acquire())).collect();
        assert!(waiting.iter_mut().all(|wait| wait.now_or_never().is_none()));
        waiting.truncate(1);
        drop(lease);
        drop(waiting.pop().unwrap().await.unwrap());
        drop(fan_out.acquire().await.unwrap());
        assert_eq!(Arc::strong_count(&fan_out.places), 2);
    }

    #[tokio::test]
    async fn backpressure_leaves_the_reserve_to_others() {
        let fan_out = fan_out(1, LONG);
        let _leases = (fan_out.acquire().await.unwrap(), fan_out.acquire().await.unwrap());
        assert_eq!(fan_out.free(), 0);
        assert!(fan_out.acquire().now_or_never().is_none());
        let mut other = fan_out.pool.acquire().await.unwrap();
        assert_eq!(query_scalar("SELECT 7").fetch_one(&mut *other).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn clock_is_that_of_tokio() {
        let fan_out = fan_out(2, LONG);
        let _lease = fan_out.acquire().await.unwrap();
        tokio::time::pause();
        let start = Instant::now();
        let busy = fan_out.acquire().await.unwrap_err();
        assert!(matches!(busy, AcquireError::Busy { waited: LONG, limit: 1 }));
        // Timers have a resolution of a millisecond.
        assert_eq!(start.elapsed().as_secs(), 3_600);
    }
}
