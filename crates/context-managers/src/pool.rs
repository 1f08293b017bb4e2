//! Share a few connections: check one out in turn, put it back when it is clean, discard it otherwise.
//!
//! Use it for what is costly to make and serves one user at a time. A database's own pool knows more: take that. For a limit
//! without resources use `concurrency_limit` of the semaphores family.
//!
//! | | |
//! |---|---|
//! | Order | checkouts are served in turn; the resource that was put back last is handed out first |
//! | Errors | an error of [`create`](Manage::create) goes to the checkout that needed it, and its place to the next; a closed pool refuses all that wait |
//! | Cancellation | a resource that is dropped is discarded, and a new one is made when needed: only [`put_back`](Pooled::put_back) keeps it, so a half-done exchange is never reused. A dropped checkout gives its place back |
//! | Panics | as cancellation: nothing is reused, no place is lost |
//! | Memory | O(`size`): at most so many resources exist, in use or idle |
//! | Backpressure | `checkout` waits while all are in use: put a `timeout` around it; a task that holds one and waits for another can wait for ever |
//! | Clock | `tokio::time`: idle time and age are looked at by each checkout and by [`evict`](Pool::evict); no task runs |
//!
//! ```
//! use context_managers::{Manage, Pool, Rules};
//! struct Numbers;
//! impl Manage for Numbers {
//!     type Resource = u32;
//!     type Error = std::convert::Infallible;
//!     async fn create(&self) -> Result<u32, Self::Error> { Ok(7) }
//! }
//! #[tokio::main]
//! async fn main() {
//!     let pool = Pool::new(Numbers, Rules::default());
//!     assert_eq!(*pool.checkout().await.unwrap(), 7);
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How resources are made and looked after.
pub trait Manage: Send + Sync {
    /// What is shared. Its drop closes it.
    type Resource: Send;
    /// Why one could not be made.
    type Error;
    /// Makes one. Dropping the future must leave nothing behind.
    fn create(&self) -> impl Future<Output = Result<Self::Resource, Self::Error>> + Send;
    /// Whether an idle one still works, asked before each reuse. It should have a limit of its own if it asks a server.
    fn is_healthy(&self, _resource: &mut Self::Resource) -> impl Future<Output = bool> + Send {
        async { true }
    }
}

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How many resources there may be.
    pub size: NonZeroUsize,
    /// For how long one may stay idle before it is discarded.
    pub max_idle: Option<Duration>,
    /// How old one may be when it is checked out.
    pub max_lifetime: Option<Duration>,
}

impl Default for Rules {
    /// Ten, without limits of time.
    fn default() -> Self {
        Rules { size: NonZeroUsize::MIN.saturating_add(9), max_idle: None, max_lifetime: None }
    }
}

/// A pool. When the last reference and the last checked out resource are dropped, the idle ones are too.
pub struct Pool<M: Manage> {
    manager: M,
    rules: Rules,
    places: Semaphore,
    /// The one put back last is the last.
    idle: Mutex<Vec<Entry<M::Resource>>>,
}

struct Entry<T> {
    resource: T,
    made: Instant,
    idle_since: Instant,
}

/// A resource that is checked out. Dropping it discards the resource, and then gives the place to the next checkout.
#[must_use = "dropping it discards the resource"]
pub struct Pooled<M: Manage> {
    /// Before the place, so that the resource is gone when the next one is made.
    entry: Option<Entry<M::Resource>>,
    place: Place<M>,
}

impl<M: Manage> std::fmt::Debug for Pooled<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pooled { .. }")
    }
}

/// A permit of the semaphore.
struct Place<M: Manage>(Arc<Pool<M>>);

/// Why nothing was checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError<E> {
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
    /// None was idle, and no new one could be made.
    #[error("cannot make a resource for the pool: {0}")]
    Create(E),
}

impl<M: Manage> Pool<M> {
    /// A pool without resources: each is made when it is first needed.
    pub fn new(manager: M, rules: Rules) -> Arc<Self> {
        let places = Semaphore::new(rules.size.get().min(Semaphore::MAX_PERMITS));
        Arc::new(Pool { manager, rules, places, idle: Mutex::default() })
    }

    /// Waits for a place, and takes the healthy resource that was put back last, or makes one.
    pub async fn checkout(self: &Arc<Self>) -> Result<Pooled<M>, CheckoutError<M::Error>> {
        self.places.acquire().await.map_err(|_| CheckoutError::Closed)?.forget();
        let place = Place(self.clone());
        self.evict();
        // The lock is not held in the loop.
        let pop = || self.idle().pop();
        while let Some(mut entry) = pop() {
            if self.manager.is_healthy(&mut entry.resource).await {
                return Ok(Pooled { entry: Some(entry), place });
            }
        }
        if self.places.is_closed() {
            return Err(CheckoutError::Closed);
        }
        let resource = self.manager.create().await.map_err(CheckoutError::Create)?;
        let now = Instant::now();
        Ok(Pooled { entry: Some(Entry { resource, made: now, idle_since: now }), place })
    }

    /// Discards what has been idle for too long or is too old. Each checkout does it: call it where a pool may be left alone.
    pub fn evict(&self) {
        let Rules { max_idle, max_lifetime, .. } = self.rules;
        if max_idle.is_none() && max_lifetime.is_none() {
            return;
        }
        let now = Instant::now();
        let expired = |entry: &mut Entry<_>| {
            max_idle.is_some_and(|most| now.duration_since(entry.idle_since) >= most)
                || max_lifetime.is_some_and(|most| now.duration_since(entry.made) >= most)
        };
        let _gone: Vec<_> = self.idle().extract_if(.., expired).collect();
    }

    /// Refuses all checkouts that wait or come, and discards what is idle. What is in use is discarded when it is put back.
    pub fn close(&self) {
        self.places.close();
        let gone = std::mem::take(&mut *self.idle());
        drop(gone);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Entry<M::Resource>>> {
        self.idle.lock().expect("no code of the user runs under the lock")
    }
}

impl<M: Manage> Pooled<M> {
    /// Keeps the resource for the next checkout. Only when no exchange with the other side is half done.
    pub fn put_back(mut self) {
        let (Some(mut entry), pool) = (self.entry.take(), &self.place.0) else { return };
        if pool.rules.max_idle.is_some() {
            entry.idle_since = Instant::now();
        }
        let mut idle = pool.idle();
        // Under the lock: `close` closes first, and then takes what is idle.
        if !pool.places.is_closed() {
            idle.push(entry);
        }
    }
}

impl<M: Manage> Drop for Place<M> {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
    }
}

impl<M: Manage> Deref for Pooled<M> {
    type Target = M::Resource;
    fn deref(&self) -> &M::Resource {
        &self.entry.as_ref().expect("only `put_back` takes it").resource
    }
}

impl<M: Manage> DerefMut for Pooled<M> {
    fn deref_mut(&mut self) -> &mut M::Resource {
        &mut self.entry.as_mut().expect("only `put_back` takes it").resource
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::time::{sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Makes numbers from 0 on, in 10 ms each. 3 cannot be made, 4 panics, and 1 is never healthy.
    #[derive(Default)]
    struct Numbers(AtomicUsize);

    impl Manage for Numbers {
        type Resource = usize;
        type Error = &'static str;

        async fn create(&self) -> Result<usize, &'static str> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            sleep(10 * MS).await;
            assert_ne!(number, 4);
            if number == 3 { Err("three") } else { Ok(number) }
        }

        async fn is_healthy(&self, number: &mut usize) -> bool {
            sleep(MS).await;
            *number != 1
        }
    }

    fn pool(size: usize) -> Arc<Pool<Numbers>> {
        let size = NonZeroUsize::new(size).unwrap();
        Pool::new(Numbers::default(), Rules { size, ..Rules::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn order_in_turn_and_the_last_put_back_first() {
        let pool = pool(3);
        let (zero, _one) = (pool.checkout().await.unwrap(), pool.checkout().await.unwrap());
        let two = pool.checkout().await.unwrap();
        let [mut first, mut second] = [(); 2].map(|()| Box::pin(pool.checkout()));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        zero.put_back();
        assert!(second.as_mut().now_or_never().is_none());
        two.put_back();
        assert_eq!(*first.await.unwrap(), 2);
        assert_eq!(*second.await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_discards_what_was_in_use_and_gives_places_back() {
        let pool = pool(1);
        assert!(timeout(5 * MS, pool.checkout()).await.is_err());
        let number = pool.checkout().await.unwrap();
        assert_eq!((*number, format!("{number:?}").as_str()), (1, "Pooled { .. }"));
        assert!(timeout(MS, pool.checkout()).await.is_err());
        drop(number);
        let number = pool.checkout().await.unwrap();
        assert_eq!(*number, 2);
        number.put_back();
        assert_eq!(*pool.checkout().await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_of_create_give_the_place_back() {
        let pool = pool(1);
        for expected in 0..3 {
            assert_eq!(*pool.checkout().await.unwrap(), expected);
        }
        let error = pool.checkout().await.err();
        assert_eq!(error, Some(CheckoutError::Create("three")));
        let panicking = pool.clone();
        assert!(
            tokio::spawn(async move { panicking.checkout().await.is_ok() }).await.unwrap_err().is_panic()
        );
        assert_eq!(*pool.checkout().await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_holder_discard() {
        let pool = pool(1);
        let number = pool.checkout().await.unwrap();
        let holder = tokio::spawn(async move { std::panic::resume_unwind(Box::new(*number)) });
        assert!(holder.await.unwrap_err().is_panic());
        let number = pool.checkout().await.unwrap();
        assert_eq!(*number, 1);
        number.put_back();
        assert_eq!(*pool.checkout().await.unwrap(), 2, "the health check refused 1");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_backpressure_when_it_is_closed() {
        let pool = pool(1);
        let number = pool.checkout().await.unwrap();
        let waiting = pool.clone();
        let waiting = tokio::spawn(async move { waiting.checkout().await.err() });
        sleep(MS).await;
        assert!(!waiting.is_finished());
        pool.close();
        assert_eq!(waiting.await.unwrap(), Some(CheckoutError::Closed));
        assert_eq!(pool.checkout().await.err(), Some(CheckoutError::Closed));
        number.put_back();
        assert!(pool.idle().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_waits_while_all_are_in_use() {
        let pool = pool(2);
        let (zero, two) = (pool.checkout().await.unwrap(), pool.checkout().await.unwrap());
        assert!(timeout(3600 * 1000 * MS, pool.checkout()).await.is_err());
        zero.put_back();
        two.put_back();
        assert_eq!(pool.idle().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_idleness_and_age() {
        let rules = Rules { max_idle: Some(50 * MS), max_lifetime: Some(120 * MS), ..Rules::default() };
        let pool = Pool::new(Numbers::default(), rules);
        for (pause, expected) in [(0, 0), (40, 0), (40, 0), (40, 1)] {
            sleep(pause * MS).await;
            let number = pool.checkout().await.unwrap();
            assert_eq!(*number, expected);
            number.put_back();
        }
        pool.evict();
        assert_eq!(pool.idle().len(), 1);
        sleep(50 * MS).await;
        pool.evict();
        assert!(pool.idle().is_empty());
    }
}
