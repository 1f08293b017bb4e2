//! Let many tasks wait until something is so: set once, and all go on.
//!
//! Use it for a switch that several tasks look at: ready, paused, open. It can be cleared and set again. When the tasks wait
//! for something about a value use `condition`; when one task is to be woken, not all, a `tokio::sync::Notify`; to stop
//! tasks, `cancellation`.
//!
//! | | |
//! |---|---|
//! | Order | one [`set`](Event::set) lets go all whose [`wait`](Event::wait) was called before it, also when it is cleared before they are polled; in which order they go on is not promised |
//! | Errors | none: whoever borrows the event keeps it alive |
//! | Cancellation | a wait that is dropped leaves nothing behind, and takes nobody's wake-up with it |
//! | Panics | none: no code of the caller's runs inside |
//! | Memory | O(waiters), each inside its own future |
//! | Backpressure | none: a task that is let go runs when the scheduler has time for it |
//! | Clock | none of its own |
//!
//! Python's `asyncio.Event` is the model, and keeps the same promise to those that waited.
//!
//! ```
//! use locks::Event;
//!
//! #[tokio::main]
//! async fn main() {
//!     let ready = Event::new();
//!     let waiting = ready.wait();
//!     ready.set();
//!     ready.clear();
//!     waiting.await; // it was set since `wait` was called
//!     assert!(!ready.is_set());
//! }
//! ```

use std::future::Future;
use std::mem;

use tokio::sync::watch;

/// A switch that tasks wait for: put it into an `Arc`, or borrow it.
#[derive(Debug, Default)]
pub struct Event {
    /// Those who wait are its receivers.
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    set: bool,
    /// Tells who waits that it was set, though it may be cleared again. It cannot overflow in a lifetime.
    times_set: u64,
}

impl Event {
    /// An event that is not set.
    pub fn new() -> Self {
        Event::default()
    }

    /// Sets it and lets all go that wait. Nothing happens if it is set. O(waiters).
    pub fn set(&self) {
        self.state.send_if_modified(|state| {
            let newly = !mem::replace(&mut state.set, true);
            state.times_set += u64::from(newly);
            newly
        });
    }

    /// Makes those wait that call [`wait`](Event::wait) from now on.
    pub fn clear(&self) {
        self.state.send_if_modified(|state| {
            state.set = false;
            // Nobody waits for this: no wake-up.
            false
        });
    }

    /// Whether it is set at this moment.
    pub fn is_set(&self) -> bool {
        self.state.borrow().set
    }

    /// Waits until it is set. Once it is, at this call or later, the wait ends, also when it is cleared before
    /// the wait is polled.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut state = self.state.subscribe();
        let State { set, times_set } = *state.borrow();
        // While it is set, the last time counts too.
        let before = times_set - u64::from(set);
        async move {
            // An error means that the sender is gone, and `self` is borrowed.
            let _ = state.wait_for(|state| state.times_set > before).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn order_a_wait_ends_though_the_event_was_cleared() {
        let event = Event::new();
        let (unpolled, mut polled) = (event.wait(), Box::pin(event.wait()));
        assert!(poll!(&mut polled).is_pending());
        event.set();
        event.clear();
        assert!(unpolled.now_or_never().is_some());
        assert!(polled.now_or_never().is_some());
        assert!(event.wait().now_or_never().is_none());
    }

    #[tokio::test]
    async fn order_a_set_event_lets_go_at_once() {
        let event = Event::new();
        event.set();
        event.set();
        let waiting = event.wait();
        event.clear();
        event.clear();
        assert!(!event.is_set());
        // It was set when the call was made.
        assert!(waiting.now_or_never().is_some());
        assert!(event.wait().now_or_never().is_none());
        event.set();
        assert!(event.is_set() && event.wait().now_or_never().is_some());
    }

    #[tokio::test]
    async fn cancellation_of_some_leaves_the_others() {
        let event = Event::new();
        let mut waits: Vec<_> = (0..100).map(|_| Box::pin(event.wait())).collect();
        for wait in &mut waits {
            assert!(poll!(wait).is_pending());
        }
        event.set();
        // Half of them were woken and are dropped before they run.
        waits.truncate(50);
        event.clear();
        assert_eq!(join_all(waits).await.len(), 50);
    }

    #[tokio::test]
    async fn memory_of_a_wait_is_freed_with_it() {
        let event = Arc::new(Event::new());
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let event = event.clone();
                tokio::spawn(async move { event.wait().await })
            })
            .collect();
        while event.state.receiver_count() < 1000 {
            tokio::task::yield_now().await;
        }
        event.set();
        join_all(tasks).await;
        assert_eq!(event.state.receiver_count(), 0);
    }
}
