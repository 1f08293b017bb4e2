//! One lock for each key: equal keys take turns, others never wait, and unused keys are forgotten.
//!
//! Use it when work on one thing must not overlap: one user's orders, one file, one cache entry. To let several run for each
//! key, or to limit all together, use `keyed_limit` of the semaphores family.
//!
//! | | |
//! |---|---|
//! | Order | for each key first come, first served |
//! | Errors | none |
//! | Cancellation | a caller that gives up leaves the queue, also when it was about to get the lock; the last one takes its key along |
//! | Panics | none of its own; a guard that is dropped by a panic passes the lock on, and nothing is poisoned |
//! | Memory | O(keys in use + callers that wait): a key that nobody holds or waits for is forgotten at once, and its place in the table is used again |
//! | Backpressure | callers wait, as many as there are |
//! | Clock | none of its own |
//!
//! A map from keys to mutexes keeps every key it has ever seen. Here the entry counts its users and goes with the last one.
//!
//! ```
//! use locks::KeyedMutex;
//!
//! #[tokio::main]
//! async fn main() {
//!     let users = KeyedMutex::new();
//!     let anna = users.lock("anna").await;
//!     let ben = users.lock("ben").await; // another key: no need to wait
//!     assert!(users.try_lock("anna").is_none());
//!     drop((anna, ben));
//!     assert_eq!(users.keys_in_use(), 0);
//! }
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;

/// A lock for each key. Clones share them.
#[derive(Debug)]
pub struct KeyedMutex<K> {
    keys: Arc<Mutex<HashMap<K, Users>>>,
}

/// The lock of a key. Dropping it lets the next one have it.
#[derive(Debug)]
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct KeyGuard<K: Eq + Hash> {
    keys: Arc<Mutex<HashMap<K, Users>>>,
    key: K,
    /// Whether it has the lock, or only waits for it.
    locked: bool,
}

/// Who holds a key's lock or waits for it.
#[derive(Debug)]
struct Users {
    count: usize,
    /// Hands the lock on, and exists only once somebody has had to wait: a permit is the lock on its way.
    queue: Option<Arc<Semaphore>>,
}

impl<K: Eq + Hash + Clone> KeyedMutex<K> {
    /// No key is in use yet.
    pub fn new() -> Self {
        KeyedMutex { keys: Arc::default() }
    }

    /// Waits for the lock of `key`. Whoever holds it and asks for it again waits for itself for ever.
    pub async fn lock(&self, key: K) -> KeyGuard<K> {
        // A loop over locks that are free must not keep its thread from others.
        consume_budget().await;
        let (mut guard, queue) = self.enter(key);
        if let Some(queue) = queue {
            queue.acquire().await.expect("nobody closes the semaphore, which is private").forget();
        }
        guard.locked = true;
        guard
    }

    /// Takes the lock of `key` unless somebody holds it or waits for it.
    pub fn try_lock(&self, key: K) -> Option<KeyGuard<K>> {
        let own = key.clone();
        let mut keys = lock(&self.keys);
        if keys.contains_key(&key) {
            return None;
        }
        keys.insert(own, Users { count: 1, queue: None });
        drop(keys);
        Some(KeyGuard { keys: self.keys.clone(), key, locked: true })
    }

    /// How many keys somebody holds or waits for.
    pub fn keys_in_use(&self) -> usize {
        lock(&self.keys).len()
    }

    /// Counts the caller as a user of `key`. There is a queue if it has to wait.
    fn enter(&self, key: K) -> (KeyGuard<K>, Option<Arc<Semaphore>>) {
        // Nothing of a key runs under the lock but its Hash and Eq: not Clone, and not the drop of a clone too many.
        let own = key.clone();
        let mut keys = lock(&self.keys);
        let queue = if let Some(users) = keys.get_mut(&key) {
            users.count += 1;
            Some(users.queue.get_or_insert_with(|| Arc::new(Semaphore::new(0))).clone())
        } else {
            keys.insert(own, Users { count: 1, queue: None });
            None
        };
        drop(keys);
        (KeyGuard { keys: self.keys.clone(), key, locked: false }, queue)
    }
}

impl<K: Eq + Hash + Clone> Default for KeyedMutex<K> {
    fn default() -> Self {
        KeyedMutex::new()
    }
}

impl<K> Clone for KeyedMutex<K> {
    fn clone(&self) -> Self {
        KeyedMutex { keys: self.keys.clone() }
    }
}

impl<K: Eq + Hash> KeyGuard<K> {
    /// What it locks.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Eq + Hash> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        let mut keys = lock(&self.keys);
        let Some(users) = keys.get_mut(&self.key) else { return };
        users.count -= 1;
        if users.count == 0 {
            let forgotten = keys.remove_entry(&self.key);
            // A key's own drop runs without the lock, and so does a waker below.
            drop(keys);
            drop(forgotten);
        } else if self.locked {
            let queue = users.queue.clone();
            drop(keys);
            // Whoever is left has entered behind this guard, and so has made the queue.
            if let Some(queue) = queue {
                queue.add_permits(1);
            }
        }
    }
}

fn lock<T>(keys: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned only if a key's Hash or Eq panicked, and that leaves the map whole.
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, resume_unwind};
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Who began when, if each holds its key's lock for 10 ms.
    async fn begun(keys: &str) -> Vec<(char, u128)> {
        let (mutex, start, begun) = (KeyedMutex::new(), Instant::now(), RefCell::new(Vec::new()));
        let call = async |key| {
            let guard = mutex.lock(key).await;
            begun.borrow_mut().push((*guard.key(), start.elapsed().as_millis()));
            sleep(Duration::from_millis(10)).await;
        };
        join_all(keys.chars().map(call)).await;
        assert_eq!(mutex.keys_in_use(), 0);
        begun.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_first_come_first_served() {
        let (mutex, order) = (KeyedMutex::default(), RefCell::new(Vec::new()));
        let held = mutex.lock("a").await;
        let call = async |number| {
            let _guard = mutex.lock("a").await;
            order.borrow_mut().push(number);
        };
        tokio::join!(join_all((0..100).map(call)), async { drop(held) });
        assert_eq!(order.into_inner(), Vec::from_iter(0..100));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_one_at_a_time_for_each_key_and_no_wait_for_others() {
        assert_eq!(begun("aabac").await, [('a', 0), ('b', 0), ('c', 0), ('a', 10), ('a', 20)]);
    }

    #[tokio::test]
    async fn cancellation_leaves_the_queue_and_forgets_the_key() {
        let mutex = KeyedMutex::new();
        let held = mutex.lock('a').await;
        let (mut first, mut second) = (Box::pin(mutex.lock('a')), Box::pin(mutex.lock('a')));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(held);
        // It was handed the lock, and never took it.
        drop(first);
        drop(second.now_or_never().expect("the lock went on to the next"));
        assert_eq!(mutex.keys_in_use(), 0);
    }

    #[tokio::test]
    async fn panics_pass_the_lock_on() {
        let mutex = KeyedMutex::new();
        let call = async {
            let _guard = mutex.lock('a').await;
            resume_unwind(Box::new("in the critical section"))
        };
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        assert!(mutex.try_lock('a').is_some());
        assert_eq!(mutex.keys_in_use(), 0);
    }

    #[tokio::test]
    async fn memory_is_that_of_the_keys_in_use() {
        let mutex = KeyedMutex::new();
        for key in 0..100_000 {
            let guard = mutex.lock(key).await;
            assert!(mutex.try_lock(key).is_none());
            assert_eq!(mutex.keys_in_use(), 1);
            drop(guard);
        }
        assert_eq!((mutex.keys_in_use(), lock(&mutex.keys).capacity()), (0, 3));
    }

    #[tokio::test]
    async fn order_of_a_guard_and_a_future_on_another_thread() {
        let mutex = KeyedMutex::new();
        let (held, waits) = (mutex.lock("a").await, mutex.clone());
        let waits = tokio::spawn(async move { waits.lock("a").await.key().len() });
        drop(mutex);
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert_eq!(waits.await.unwrap(), 1);
    }
}
