//! Let equal calls that overlap share one piece of work, which goes on until nobody waits for it.
//!
//! Use it in front of something costly that many ask for at the same moment: a cold cache, a token that has run out. It keeps
//! no answers: put the cache before it. To make one call of many different keys, use `batch_loader`.
//!
//! | | |
//! |---|---|
//! | Order | a call that comes while the work for its key runs shares it; one that comes after its end starts anew |
//! | Errors | the work's own errors are part of its output, which all get a clone of, and are not kept either; [`NoAnswer`] says that the work never ended |
//! | Cancellation | any caller may leave, the first one too, and the work goes on for the others; when the last one has left it ends at its next await, unless a new caller has come by then |
//! | Panics | the work's panic is an error for all who wait for it, with its message |
//! | Memory | O(keys in flight + callers): a task, a key and one output for each key in flight |
//! | Backpressure | none: callers wait, and as many works run as there are different keys |
//! | Clock | none of its own |
//!
//! The work is a task, so that it depends on no caller. It counts the receivers of its result, and asks under the lock of
//! the map whether it is deserted: who joins at that moment is counted, or starts anew.
//!
//! ```
//! use locks::SingleFlight;
//!
//! #[tokio::main]
//! async fn main() {
//!     let lengths = SingleFlight::new();
//!     let length = |name: &'static str| lengths.run(name, async move { name.len() });
//!     let both = tokio::join!(length("anna"), length("anna")); // computed once
//!     assert_eq!(both, (Ok(4), Ok(4)));
//! }
//! ```

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::watch;

/// The work in flight for each key. Clones share it.
#[derive(Debug)]
pub struct SingleFlight<K, T> {
    flights: Flights<K, T>,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The work panicked with this message.
    #[error("the shared work panicked: {0}")]
    Panicked(String),
    /// The runtime of the caller that started the work was shut down.
    #[error("the shared work was stopped: its runtime was shut down")]
    Stopped,
}

/// The task of each key holds another sender, the callers hold the receivers.
type Flights<K, T> = Arc<Mutex<HashMap<K, watch::Sender<Landed<T>>>>>;

/// The result, once there is one.
type Landed<T> = Option<Result<T, NoAnswer>>;

impl<K, T> SingleFlight<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Nothing is in flight yet.
    pub fn new() -> Self {
        SingleFlight { flights: Arc::default() }
    }

    /// Returns the output of `work`, or of the work that is in flight for `key`; then `work` is dropped without being polled.
    ///
    /// Work that runs its own key, itself or through others, waits for itself for ever.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime, and if cloning the output panics.
    pub async fn run(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> Result<T, NoAnswer> {
        let mut result = self.join(key, work);
        let landed = result.wait_for(Option::is_some).await;
        landed.ok().and_then(|landed| landed.clone()).unwrap_or(Err(NoAnswer::Stopped))
    }

    /// For how many keys work runs.
    pub fn in_flight(&self) -> usize {
        lock(&self.flights).len()
    }

    fn join(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> watch::Receiver<Landed<T>> {
        // Nothing of a key runs under the lock but its Hash and Eq.
        let own = key.clone();
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&key) {
            return flight.subscribe();
        }
        let (sender, result) = watch::channel(None);
        flights.insert(own, sender.clone());
        // A runtime that is shutting down drops the task right here, and its drop takes the lock.
        drop(flights);
        let flight = Flight { flights: self.flights.clone(), key: Some(key), sender };
        tokio::spawn(fly(flight, work));
        result
    }
}

impl<K, T> Clone for SingleFlight<K, T> {
    fn clone(&self) -> Self {
        SingleFlight { flights: self.flights.clone() }
    }
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        SingleFlight { flights: Arc::default() }
    }
}

async fn fly<K: Eq + Hash, T>(mut flight: Flight<K, T>, work: impl Future<Output = T>) {
    #[allow(
        clippy::redundant_async_block,
        reason = "it drops the work where a panic of its drop is caught too"
    )]
    let mut work = pin!(AssertUnwindSafe(async { work.await }).catch_unwind());
    loop {
        tokio::select! {
            biased;
            () = flight.sender.closed() => if flight.is_deserted() { return },
            result = &mut work => match result {
                Ok(output) => return flight.land(Ok(output)),
                Err(panic) => return flight.land(Err(NoAnswer::Panicked(message(&*panic)))),
            },
        }
    }
}

/// An entry of the map, which is there for as long as it has a key.
struct Flight<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: Option<K>,
    sender: watch::Sender<Landed<T>>,
}

impl<K: Eq + Hash, T> Flight<K, T> {
    /// Whether nobody waits any more. Then nobody can join either.
    fn is_deserted(&mut self) -> bool {
        let mut flights = lock(&self.flights);
        let deserted = self.sender.receiver_count() == 0;
        let key = if deserted { self.key.take() } else { None };
        let entry = key.and_then(|key| flights.remove_entry(&key));
        // A key's own drop runs without the lock.
        drop(flights);
        drop(entry);
        deserted
    }

    /// Gives the result to all who wait. A call that comes later starts anew.
    fn land(mut self, result: Result<T, NoAnswer>) {
        self.leave();
        self.sender.send_replace(Some(result));
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            let entry = lock(&self.flights).remove_entry(&key);
            drop(entry);
        }
    }
}

impl<K: Eq + Hash, T> Drop for Flight<K, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}

fn lock<T>(flights: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned only if a key's Hash or Eq panicked, and that leaves the map whole.
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use futures::poll;
    use tokio::runtime::Handle;
    use tokio::task::yield_now;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Counts how often it began.
    async fn work(begun: Arc<AtomicUsize>) -> Result<usize, &'static str> {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(10)).await;
        if number == 0 { Err("the first fails") } else { Ok(number) }
    }

    #[tokio::test(start_paused = true)]
    async fn order_overlapping_calls_share_and_errors_are_not_kept() {
        let (flights, begun, start) = (SingleFlight::new(), Arc::default(), Instant::now());
        let calls = |n| join_all((0..n).map(|_| flights.run("key", work(Arc::clone(&begun)))));
        assert_eq!(calls(100).await, vec![Ok(Err("the first fails")); 100]);
        assert_eq!(calls(100).await, vec![Ok(Ok(1)); 100]);
        let other = flights.run("another key", work(begun.clone()));
        assert_eq!(tokio::join!(calls(1), other), (vec![Ok(Ok(2))], Ok(Ok(3))));
        assert_eq!((start.elapsed(), flights.in_flight()), (Duration::from_millis(30), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_reach_all_and_are_not_kept() {
        let (flights, begun) = (SingleFlight::default(), Arc::<AtomicUsize>::default());
        let call = || flights.run(1, work(begun.clone()));
        assert_eq!(tokio::join!(call(), call()), (Ok(Err("the first fails")), Ok(Err("the first fails"))));
        assert_eq!(call().await, Ok(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_first_caller_leaves_the_work_to_the_others() {
        let (flights, begun, start) = (SingleFlight::new(), Arc::<AtomicUsize>::default(), Instant::now());
        let call = || flights.run(1, work(begun.clone()));
        let (mut first, mut second) = (Box::pin(call()), Box::pin(call()));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert_eq!((second.await, start.elapsed()), (Ok(Err("the first fails")), Duration::from_millis(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_last_caller_ends_the_work_unless_another_comes() {
        let (flights, begun, held) = (SingleFlight::new(), Arc::<AtomicUsize>::default(), Arc::new(()));
        let call = || {
            let (work, held) = (work(begun.clone()), held.clone());
            flights.run(1, async move { (work.await, drop(held)) })
        };
        for _ in 0..2 {
            assert!(poll!(Box::pin(call())).is_pending());
        }
        yield_now().await;
        yield_now().await;
        assert_eq!((Arc::strong_count(&held), flights.in_flight()), (1, 0));
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
        let mut deserted = Box::pin(call());
        assert!(poll!(&mut deserted).is_pending());
        yield_now().await;
        drop(deserted);
        // It has not noticed yet, and need not.
        assert_eq!(call().await, Ok((Err("the first fails"), ())));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_an_error_for_all() {
        let flights = SingleFlight::<_, ()>::new();
        let call =
            || flights.run(1, async { sleep(Duration::from_millis(1)).map(|()| panic!("no {}", 7)).await });
        let panicked = NoAnswer::Panicked("no 7".into());
        assert_eq!(panicked.to_string(), "the shared work panicked: no 7");
        assert_eq!(tokio::join!(call(), call()), (Err(panicked.clone()), Err(panicked)));
        assert_eq!(flights.run(1, async {}).await, Ok(()));
        let spoilt = Spoilt;
        let done = std::future::poll_fn(move |_| {
            let _held = &spoilt;
            std::task::Poll::Ready(())
        });
        assert_eq!(flights.run(1, done).await, Err(NoAnswer::Panicked("in its drop".into())));
    }

    struct Spoilt;

    impl Drop for Spoilt {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("in its drop"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_keys_in_flight() {
        let flights = SingleFlight::new();
        for key in 0..10_000 {
            assert_eq!(flights.run(key, async move { key }).await, Ok(key));
            assert_eq!(flights.in_flight(), 0);
        }
        let tasks = join_all((0..1000).map(|caller| {
            let flights = flights.clone();
            tokio::spawn(async move { flights.run(0, async move { caller }).await })
        }));
        assert!(tasks.await.into_iter().all(|answer| matches!(answer, Ok(Ok(0)))));
    }
}
