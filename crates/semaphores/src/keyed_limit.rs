//! Let at most so many run for each key and so many in all, without one key holding up the others.
//!
//! Use it when one key must not take everything: requests per host, jobs per customer, queries per shard. Without keys use
//! `concurrency_limit`.
//!
//! | | |
//! |---|---|
//! | Order | for each key first come, first served; then over all keys in the order in which they had their key's permit, so that a busy key is ahead of another at most `per_key` times |
//! | Errors | none |
//! | Cancellation | a caller that gives up leaves both queues, and the last one takes its key along |
//! | Panics | none of its own; a permit that is dropped by a panic goes back |
//! | Memory | O(keys in use + callers that wait): a key that nobody uses or waits for is forgotten at once, and its place in the table is used again |
//! | Backpressure | callers wait, as many as there are; who waits for its key occupies nothing of the overall limit |
//! | Clock | none of its own |
//!
//! Two semaphores in this order make it so: the key's first, then the one for all. In the other order a thousand callers of
//! one slow key would fill the overall limit with waiting.
//!
//! ```
//! use semaphores::KeyedLimit;
//!
//! #[tokio::main]
//! async fn main() {
//!     let limit = KeyedLimit::new(1.try_into().unwrap(), 10.try_into().unwrap());
//!     let a = limit.acquire("a.example").await;
//!     let b = limit.acquire("b.example").await; // another key: no need to wait for a's permit
//!     drop(a);
//!     assert_eq!((b.key(), limit.keys_in_use()), (&"b.example", 1));
//! }
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many for each key, and so many in all. Clones share the limits.
#[derive(Debug)]
pub struct KeyedLimit<K: Eq + Hash + Clone> {
    shared: Arc<Shared<K>>,
}

/// The right to run for a key. Dropping it lets the next one run.
#[derive(Debug)]
pub struct KeyPermit<K: Eq + Hash + Clone> {
    // Fields are dropped in this order: the key may be forgotten only when its permit is back.
    _of_all: OwnedSemaphorePermit,
    _of_key: OwnedSemaphorePermit,
    user: User<K>,
}

#[derive(Debug)]
struct Shared<K> {
    per_key: usize,
    of_all: Arc<Semaphore>,
    keys: Mutex<HashMap<K, Key>>,
}

#[derive(Debug)]
struct Key {
    permits: Arc<Semaphore>,
    /// Callers that wait for a permit of this key or have one.
    users: usize,
}

/// Counts as a user of its key for as long as it lives.
#[derive(Debug)]
struct User<K: Eq + Hash + Clone> {
    shared: Arc<Shared<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> KeyedLimit<K> {
    /// Lets at most `per_key` run for each key and at most `overall` in all.
    pub fn new(per_key: NonZeroUsize, overall: NonZeroUsize) -> Self {
        let per_key = per_key.get().min(Semaphore::MAX_PERMITS);
        let of_all = Arc::new(Semaphore::new(overall.get().min(Semaphore::MAX_PERMITS)));
        KeyedLimit { shared: Arc::new(Shared { per_key, of_all, keys: Mutex::default() }) }
    }

    /// Waits until `key` may run. Whoever holds a permit and waits for another may wait for itself for ever.
    pub async fn acquire(&self, key: K) -> KeyPermit<K> {
        let (user, permits) = User::new(&self.shared, key);
        let _of_key = permits.acquire_owned().await.expect("nobody closes the semaphore, which is private");
        let of_all = self.shared.of_all.clone().acquire_owned().await;
        let _of_all = of_all.expect("nobody closes the semaphore, which is private");
        KeyPermit { _of_all, _of_key, user }
    }

    /// For how many keys somebody runs or waits.
    pub fn keys_in_use(&self) -> usize {
        lock(&self.shared.keys).len()
    }
}

impl<K: Eq + Hash + Clone> Clone for KeyedLimit<K> {
    fn clone(&self) -> Self {
        KeyedLimit { shared: self.shared.clone() }
    }
}

impl<K: Eq + Hash + Clone> KeyPermit<K> {
    /// What it is for.
    pub fn key(&self) -> &K {
        &self.user.key
    }
}

impl<K: Eq + Hash + Clone> User<K> {
    fn new(shared: &Arc<Shared<K>>, key: K) -> (Self, Arc<Semaphore>) {
        let user = User { shared: shared.clone(), key };
        let new = || Key { permits: Arc::new(Semaphore::new(shared.per_key)), users: 0 };
        let mut keys = lock(&shared.keys);
        let entry = keys.entry(user.key.clone()).or_insert_with(new);
        entry.users += 1;
        let permits = entry.permits.clone();
        drop(keys);
        (user, permits)
    }
}

impl<K: Eq + Hash + Clone> Drop for User<K> {
    fn drop(&mut self) {
        let mut keys = lock(&self.shared.keys);
        if let Some(entry) = keys.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                let forgotten = keys.remove_entry(&self.key);
                // A key's own drop runs without the lock.
                drop(keys);
                drop(forgotten);
            }
        }
    }
}

fn lock<T>(keys: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned only if a key's Hash, Eq or Clone panicked, and that leaves the map whole.
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use futures::future::{FutureExt, join_all};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn limit(per_key: usize, overall: usize) -> KeyedLimit<char> {
        let number = |number| NonZeroUsize::new(number).expect("tests use limits above zero");
        KeyedLimit::new(number(per_key), number(overall))
    }

    /// Who began when, if each runs 10 ms.
    async fn begun(limit: KeyedLimit<char>, keys: &str) -> Vec<(char, u128)> {
        let (start, begun) = (Instant::now(), RefCell::new(Vec::new()));
        let call = async |key| {
            let permit = limit.acquire(key).await;
            begun.borrow_mut().push((*permit.key(), start.elapsed().as_millis()));
            sleep(Duration::from_millis(10)).await;
        };
        join_all(keys.chars().map(call)).await;
        assert_eq!(limit.keys_in_use(), 0);
        begun.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_fair_between_keys() {
        let seen = begun(limit(1, 1), "aaaaab").await;
        let keys: String = seen.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, "abaaaa", "the second key does not wait for five of the first");
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_a_waiting_key_occupies_no_overall_slot() {
        let seen = begun(limit(1, 2), "aaaaabc").await;
        let expected = [('a', 0), ('b', 0), ('c', 10), ('a', 10), ('a', 20), ('a', 30), ('a', 40)];
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_keeps_both_limits() {
        let seen = begun(limit(2, 3), &"abc".repeat(20)).await;
        for ms in (0..200).step_by(10) {
            let now: String = seen.iter().filter(|(_, at)| *at == ms).map(|(key, _)| key).collect();
            assert_eq!(now.len(), 3, "at {ms} ms {now}");
            assert!("abc".chars().all(|key| now.matches(key).count() <= 2), "at {ms} ms {now}");
        }
    }

    #[tokio::test]
    async fn cancellation_forgets_the_key() {
        let limit = limit(1, 2);
        let held = limit.acquire('a').await;
        assert!(limit.acquire('a').now_or_never().is_none());
        assert_eq!(limit.keys_in_use(), 1);
        let other = limit.acquire('b').await;
        assert!(limit.acquire('c').now_or_never().is_none());
        assert_eq!(limit.keys_in_use(), 2);
        drop((held, other));
        assert_eq!(limit.keys_in_use(), 0);
        assert!(limit.acquire('c').now_or_never().is_some());
    }

    #[tokio::test]
    async fn panics_give_the_permit_back() {
        let limit = limit(1, 1);
        let inner = limit.clone();
        let task = tokio::spawn(async move {
            let _permit = inner.acquire('a').await;
            std::panic::resume_unwind(Box::new("broken"));
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(limit.acquire('a').now_or_never().is_some());
    }

    #[tokio::test]
    async fn memory_is_that_of_the_keys_in_use() {
        let limit = KeyedLimit::new(NonZeroUsize::MAX, NonZeroUsize::MAX);
        let mut permits = Vec::new();
        for key in 0..100_000 {
            permits.push(limit.acquire(key).await);
        }
        assert_eq!(limit.keys_in_use(), 100_000);
        drop(permits);
        assert_eq!(limit.keys_in_use(), 0);
    }
}
