//! Let at most so many run at a time, and hold a place for as long as the resource lives.
//!
//! Use it when callers that know nothing of each other share a limit: requests to one server, open files, connections.
//! When you have all the work as a list, `map_ordered` limits it without a semaphore, and cheaper.
//!
//! | | |
//! |---|---|
//! | Order | permits are given first come, first served |
//! | Errors | an error of the work is the caller's, and gives the permit back; the limit has no error of its own |
//! | Cancellation | dropping the call drops the work and then gives the permit back; a caller that still waits leaves the queue and loses nobody's turn |
//! | Panics | a panic of the work is the caller's panic; the permit is given back |
//! | Memory | O(callers that wait), each inside its own future |
//! | Backpressure | callers wait, as many as there are; nobody is refused |
//! | Clock | none of its own |
//!
//! The work is a closure, called when there is a permit: a timeout or a task that starts when the work is made does not start
//! while it waits. [`Held`] keeps permit and resource together, and drops the resource first.
//!
//! ```
//! use semaphores::ConcurrencyLimit;
//!
//! #[tokio::main]
//! async fn main() {
//!     let limit = ConcurrencyLimit::new(2.try_into().unwrap());
//!     assert_eq!(limit.run(async || 1 + 1).await, 2);
//!     let open = limit.hold(async || "7".parse::<u8>()).await.unwrap();
//!     assert_eq!((*open, limit.free()), (7, 1));
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many at a time. Clones share the limit.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    permits: Arc<Semaphore>,
}

/// A resource and the permit that it lives under. Dropping it drops the resource and then gives the permit back.
///
/// It is used as the resource itself, through `Deref`. Its own functions are called as `Held::map(held, ..)`.
#[derive(Debug)]
pub struct Held<T> {
    // Fields are dropped in this order: the permit is free when the resource is gone.
    resource: T,
    permit: OwnedSemaphorePermit,
}

impl ConcurrencyLimit {
    /// Lets at most `limit` run at a time. More than [`Semaphore::MAX_PERMITS`] counts as that many.
    pub fn new(limit: NonZeroUsize) -> Self {
        ConcurrencyLimit { permits: Arc::new(Semaphore::new(limit.get().min(Semaphore::MAX_PERMITS))) }
    }

    /// Waits for a permit, then calls `work` and holds the permit until its future has ended and is dropped.
    ///
    /// Work that runs under the same limit a second time may wait for itself for ever.
    pub async fn run<F: Future>(&self, work: impl FnOnce() -> F) -> F::Output {
        // Always a permit: nobody closes the semaphore.
        let _permit = self.permits.acquire().await;
        work().await
    }

    /// Waits for a permit, then calls `open` and keeps the permit with the resource that it returns.
    ///
    /// # Errors
    ///
    /// The error of `open`. The permit is free again.
    pub async fn hold<T, E, F>(&self, open: impl FnOnce() -> F) -> Result<Held<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("nobody closes the semaphore, which is private");
        let resource = open().await?;
        Ok(Held { resource, permit })
    }

    /// How many permits nobody holds at this moment.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

impl<T> Held<T> {
    /// Makes another resource of this one under the same permit, such as the stream of a response's body.
    pub fn map<U>(held: Self, change: impl FnOnce(T) -> U) -> Held<U> {
        let Held { resource, permit } = held;
        Held { resource: change(resource), permit }
    }

    /// Gives the permit back, and the resource to the caller: from here on the limit does not count it.
    pub fn release(held: Self) -> T {
        held.resource
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.resource
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.resource
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::future::{FutureExt, join_all};
    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// Notes how many permits are free when it is dropped.
    struct Resource(ConcurrencyLimit, Rc<Cell<Option<usize>>>);

    impl Drop for Resource {
        fn drop(&mut self) {
            self.1.set(Some(self.0.free()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_first_come_first_served() {
        let start = Instant::now();
        let (limit, begun, running) = (ConcurrencyLimit::new(TWO), RefCell::new(Vec::new()), Cell::new(0));
        let call = |number| {
            let (begun, running) = (&begun, &running);
            let work = move || async move {
                begun.borrow_mut().push(number);
                running.set(running.get() + 1);
                assert!(running.get() <= 2);
                sleep(Duration::from_millis(10)).await;
                running.set(running.get() - 1);
            };
            limit.run(work)
        };
        join_all((0..6).map(call)).await;
        assert_eq!(*begun.borrow(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(start.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test]
    async fn errors_give_the_permit_back() {
        let limit = ConcurrencyLimit::new(TWO);
        let held = limit.hold(async || Err::<(), _>("refused")).await;
        assert_eq!((held.unwrap_err(), limit.free()), ("refused", 2));
    }

    #[tokio::test]
    async fn cancellation_drops_the_resource_before_its_permit_is_free() {
        let (limit, free) = (ConcurrencyLimit::new(TWO), Rc::new(Cell::new(None)));
        let resource = || Resource(limit.clone(), free.clone());
        let wait = || {
            let resource = resource();
            async move {
                let _resource = resource;
                std::future::pending::<Result<(), ()>>().await
            }
        };
        assert!(limit.run(wait).now_or_never().is_none());
        assert_eq!((free.take(), limit.free()), (Some(1), 2));
        assert!(limit.hold(wait).now_or_never().is_none());
        assert_eq!((free.take(), limit.free()), (Some(1), 2));
        let held = limit.hold(async || Ok::<_, ()>(resource())).await.unwrap();
        assert_eq!((free.take(), limit.free()), (None, 1));
        drop(Held::map(held, |resource| [resource]));
        assert_eq!((free.take(), limit.free()), (Some(1), 2));
        let held = limit.hold(async || Ok::<_, ()>(resource())).await.unwrap();
        drop(Held::release(held));
        assert_eq!(free.take(), Some(2));
    }

    #[tokio::test]
    async fn panics_give_the_permit_back() {
        let limit = ConcurrencyLimit::new(TWO);
        let panic = || std::panic::resume_unwind(Box::new("broken"));
        let work = limit.run(async || panic());
        assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
        let closure = limit.run(|| -> std::future::Ready<()> { panic() });
        assert!(AssertUnwindSafe(closure).catch_unwind().await.is_err());
        let held = limit.hold(async || Ok::<_, ()>(())).await.unwrap();
        let map = std::panic::catch_unwind(AssertUnwindSafe(|| Held::map(held, |()| panic())));
        assert!(map.is_err());
        assert_eq!(limit.free(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_a_timeout_made_by_the_work_starts_with_the_work() {
        let limit = ConcurrencyLimit::new(NonZeroUsize::MIN);
        let work = || {
            tokio::time::timeout(Duration::from_millis(15), async { sleep(Duration::from_millis(10)).await })
        };
        let call = |_| limit.run(work);
        assert!(join_all((0..4).map(call)).await.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_the_largest_limit_and_calls_that_are_spawned() {
        let limit = ConcurrencyLimit::new(NonZeroUsize::MAX);
        let calls = (0..100).map(|number| {
            let limit = limit.clone();
            tokio::spawn(async move { limit.hold(async || Ok::<_, ()>(number)).await.map(Held::release) })
        });
        assert!(join_all(calls).await.into_iter().map(Result::unwrap).eq((0..100).map(Ok)));
        assert_eq!(limit.free(), Semaphore::MAX_PERMITS);
    }
}
