//! Share what is read often and changed seldom: readers never wait, and see one whole version.
//!
//! Use it for configuration, routing tables, prices: read by every request, replaced now and then. Where reads and changes are
//! about as frequent use `shared_state`. When a task only follows the changes, a `tokio::sync::watch` channel is enough.
//!
//! | | |
//! |---|---|
//! | Order | writers take turns, first come, first served; a reader sees the newest version, and a later look never an older one |
//! | Errors | none: a version that cannot be made is one that is not published |
//! | Cancellation | a writer that is dropped has published nothing, and the next has its turn; a wait for a change that is dropped misses nothing, as the caller holds what it has seen |
//! | Panics | none: no code of the caller's runs inside |
//! | Memory | the newest version, and each older one until its last reader drops it |
//! | Backpressure | none for readers; a writer waits for the one before it |
//! | Clock | none of its own |
//!
//! Keep the `Arc` that [`get`](Snapshot::get) returns as long as one piece of work lasts: two calls may see two versions.
//! Changes that follow each other fast may be seen as one. The idea is read-copy-update; the pointer is `arc-swap`'s.
//!
//! ```
//! use locks::Snapshot;
//! #[tokio::main]
//! async fn main() {
//!     let limits = Snapshot::new(vec![10, 20]);
//!     let before = limits.get();
//!     let writer = limits.write().await;
//!     let doubled = writer.iter().map(|limit| limit * 2).collect();
//!     writer.publish(doubled);
//!     assert_eq!((&*before, &*limits.get()), (&vec![10, 20], &vec![20, 40]));
//!     assert_eq!(*limits.changed(&before).await, [20, 40]);
//! }
//! ```

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::task::coop::consume_budget;

/// A value of which readers see one version or the next: put it into an `Arc`, or borrow it.
#[derive(Debug)]
pub struct Snapshot<T> {
    newest: ArcSwap<T>,
    turn: Mutex<()>,
    published: Notify,
}

/// The right to publish the next version. It derefs to the newest one, which stays that until it publishes or is dropped.
#[derive(Debug)]
#[must_use = "nothing changes before it publishes"]
pub struct Writer<'a, T> {
    snapshot: &'a Snapshot<T>,
    newest: Arc<T>,
    turn: MutexGuard<'a, ()>,
}

impl<T> Snapshot<T> {
    /// Publishes `value` as the first version.
    pub fn new(value: T) -> Self {
        Snapshot { newest: ArcSwap::from_pointee(value), turn: Mutex::new(()), published: Notify::new() }
    }

    /// The newest version. It never waits, not for a writer either, and may be called from any thread.
    pub fn get(&self) -> Arc<T> {
        self.newest.load_full()
    }

    /// Waits until the newest version is another one than `seen`, and returns it. A version that is equal to the one before
    /// is another one too.
    pub async fn changed(&self, seen: &Arc<T>) -> Arc<T> {
        // When each call finds a change, a loop must not keep the thread from other tasks.
        consume_budget().await;
        loop {
            // Before the look: what is published after it is not missed.
            let published = self.published.notified();
            let newest = self.get();
            if !Arc::ptr_eq(&newest, seen) {
                return newest;
            }
            drop(newest);
            published.await;
        }
    }

    /// Waits for the turn to write. Nobody else publishes while the writer lives, so that no change is lost between its look
    /// and its [`publish`](Writer::publish); it may await in between. A task that asks again while it has the turn waits for
    /// itself, for ever.
    pub async fn write(&self) -> Writer<'_, T> {
        let turn = self.turn.lock().await;
        Writer { snapshot: self, newest: self.get(), turn }
    }
}

impl<T> Writer<'_, T> {
    /// Replaces the newest version for all who read from now on, wakes those who wait for a change, and ends the turn.
    pub fn publish(self, value: T) -> Arc<T> {
        let Writer { snapshot, newest: _seen, turn } = self;
        let value = Arc::new(value);
        // Lives to the end: its `Drop` may be anybody's code, for which nobody need wait.
        let _old = snapshot.newest.swap(value.clone());
        drop(turn);
        snapshot.published.notify_waiters();
        value
    }
}

impl<T> Deref for Writer<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.newest
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use futures::future::join_all;
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn order_no_change_of_a_writer_is_lost() {
        let count = Arc::new(Snapshot::new(0));
        let add = |count: Arc<Snapshot<usize>>| async move {
            let writer = count.write().await;
            let next = *writer + 1;
            tokio::task::yield_now().await;
            *writer.publish(next)
        };
        let tasks = join_all((0..100).map(|_| tokio::spawn(add(count.clone())))).await;
        assert!(tasks.into_iter().map(Result::unwrap).eq(1..=100));
        assert_eq!(*count.get(), 100);
    }

    #[tokio::test]
    async fn order_a_change_since_the_look_is_seen_at_once() {
        let value = Snapshot::new('a');
        let first = value.get();
        let mut waiting = Box::pin(value.changed(&first));
        assert!(poll!(&mut waiting).is_pending());
        value.write().await.publish('a');
        value.write().await.publish('b');
        assert_eq!(waiting.await, Arc::new('b'));
        assert_eq!(value.changed(&first).now_or_never().as_deref(), Some(&'b'));
        assert_eq!(value.changed(&value.get()).now_or_never(), None);
    }

    #[tokio::test]
    async fn cancellation_of_a_writer_publishes_nothing() {
        let value = Snapshot::new(1);
        let mut first = Box::pin(value.write());
        let mut second = Box::pin(value.write());
        assert!(poll!(&mut first).is_ready() && poll!(&mut second).is_ready());
        assert_eq!(*value.get(), 1);
        let writer = value.write().await;
        assert!(value.write().now_or_never().is_none());
        drop(writer);
        assert_eq!(*value.write().await.publish(2), 2);
    }

    #[tokio::test]
    async fn memory_of_an_old_version_is_freed_by_its_last_reader() {
        let value = Snapshot::new(vec![0; 1000]);
        let first: Weak<_> = Arc::downgrade(&value.get());
        let reader = value.get();
        value.write().await.publish(Vec::new());
        assert_eq!(reader.len(), 1000);
        drop(reader);
        assert!(first.upgrade().is_none());
    }

    #[tokio::test]
    async fn memory_of_a_version_whose_drop_panics_holds_no_turn() {
        struct Panics(bool);
        impl Drop for Panics {
            fn drop(&mut self) {
                if self.0 {
                    std::panic::resume_unwind(Box::new("in drop"));
                }
            }
        }
        let value = Arc::new(Snapshot::new(Panics(true)));
        let writer = value.clone();
        assert!(tokio::spawn(async move { writer.write().await.publish(Panics(false)) }).await.is_err());
        assert!(!value.get().0);
        assert!(value.write().now_or_never().is_some());
    }

    #[tokio::test]
    async fn backpressure_is_for_writers_only() {
        let value = Arc::new(Snapshot::new(1));
        let writer = value.write().await;
        assert!(value.write().now_or_never().is_none());
        assert_eq!((*value.get(), *writer), (1, 1));
        let (reader, seen) = (value.clone(), value.get());
        let waiting = tokio::spawn(async move { *reader.changed(&seen).await });
        tokio::task::yield_now().await;
        writer.publish(2);
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
