//! Hand out the most urgent item first, and let none wait for ever.
//!
//! Use it when a few workers serve urgent and patient work together. Without priorities, or when an item that fails must come
//! back, use `work_queue`.
//!
//! | | |
//! |---|---|
//! | Order | an item of priority `p` is overtaken by at most `p × stride` items that came after it; within a priority, first in, first out; callers wait in line on either side |
//! | Errors | a closed queue gives the item back in [`Rejected`] |
//! | Cancellation | a dropped `recv` took nothing; a dropped `reserve` or [`Place`] leaves its place to the next sender; a dropped `send` drops its item unless it was sent |
//! | Panics | none of its own, and it calls no code of yours |
//! | Memory | at most `capacity` items |
//! | Backpressure | senders wait while `capacity` items and places are taken, an urgent one behind those that came before it |
//! | Clock | none: an item ages by what comes after it, not by time |
//!
//! The n-th item is due at `n + priority × stride`, and what is due first goes first. That is fixed when it is sent, so ageing
//! needs no timer and no second look at what waits. Together with the items before it, of which there are less than `capacity`,
//! an item is received after at most `capacity - 1 + priority × stride` others.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use producer_consumer::PriorityQueue;
//!
//! #[tokio::main]
//! async fn main() {
//!     let queue = PriorityQueue::new(NonZeroUsize::new(8).unwrap(), 2);
//!     for (priority, item) in [(1, "report"), (0, "a"), (0, "b"), (0, "c")] { queue.send(priority, item).await.unwrap(); }
//!     queue.close();
//!     let mut received = Vec::new();
//!     while let Some(item) = queue.recv().await { received.push(item); }
//!     assert_eq!(received, ["a", "b", "report", "c"]);
//! }
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// A bounded queue with priorities, shared by reference or in an `Arc`. Only [`close`](Self::close) ends it; dropping it drops the items.
pub struct PriorityQueue<T> {
    stride: u64,
    state: Mutex<State<T>>,
    /// A permit for each free place. Senders wait here.
    room: Semaphore,
    /// A permit for each item. Receivers wait here.
    ready: Semaphore,
}

/// The queue was closed; here is what was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the priority queue is closed")]
pub struct Rejected<T>(pub T);

/// A place for one item. Dropping it leaves the place to the next sender.
#[must_use = "the place is given up at once"]
pub struct Place<'a, T>(&'a PriorityQueue<T>, SemaphorePermit<'a>);

struct State<T> {
    /// By when an item is due. Of two that are due together the more urgent one goes first; no two are alike in both.
    items: BTreeMap<(u64, u8), T>,
    /// How many items were ever sent.
    sent: u64,
    closed: bool,
}

impl<T> PriorityQueue<T> {
    /// An empty queue for `capacity` items (at most [`Semaphore::MAX_PERMITS`]). `stride` is how many later items may overtake an
    /// item for each step of its priority: with 0 nothing overtakes, and with [`u32::MAX`] patient items wait about as long as
    /// there are urgent ones.
    pub fn new(capacity: NonZeroUsize, stride: u32) -> Self {
        let state = State { items: BTreeMap::new(), sent: 0, closed: false };
        let room = Semaphore::new(capacity.get().min(Semaphore::MAX_PERMITS));
        PriorityQueue { stride: stride.into(), state: Mutex::new(state), room, ready: Semaphore::new(0) }
    }

    /// Sends an item when there is a place. Priority 0 is the most urgent. To keep the item when the wait is given up, use
    /// [`reserve`](Self::reserve).
    pub async fn send(&self, priority: u8, item: T) -> Result<(), Rejected<T>> {
        match self.reserve().await {
            Ok(place) => place.send(priority, item),
            Err(Rejected(())) => Err(Rejected(item)),
        }
    }

    /// Waits for a place and holds it.
    pub async fn reserve(&self) -> Result<Place<'_, T>, Rejected<()>> {
        self.room.acquire().await.map(|permit| Place(self, permit)).map_err(|_| Rejected(()))
    }

    /// Receives what is due first, when there is something. `None` when the queue was closed and everything was received.
    pub async fn recv(&self) -> Option<T> {
        self.ready.acquire().await.ok()?.forget();
        let mut state = self.lock();
        let first = state.items.pop_first();
        let ended = state.closed && state.items.is_empty();
        drop(state);
        if ended {
            self.ready.close();
        }
        self.room.add_permits(1);
        first.map(|(_, item)| item)
    }

    /// Lets nothing more in, held places included. Receivers get what there is, and then the end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let ended = state.items.is_empty();
        drop(state);
        self.room.close();
        if ended {
            self.ready.close();
        }
    }

    /// No foreign code runs under this lock, so a panic cannot leave a change half done.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Place<'_, T> {
    /// Sends the item, without waiting. Priority 0 is the most urgent.
    pub fn send(self, priority: u8, item: T) -> Result<(), Rejected<T>> {
        let Place(queue, permit) = self;
        let mut state = queue.lock();
        if state.closed {
            return Err(Rejected(item));
        }
        let due = state.sent + u64::from(priority) * queue.stride;
        state.sent += 1;
        state.items.insert((due, priority), item);
        drop(state);
        permit.forget();
        queue.ready.add_permits(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    const MOMENT: Duration = Duration::from_millis(1);

    async fn rest<T>(queue: &PriorityQueue<T>) -> Vec<T> {
        queue.close();
        let mut all = Vec::new();
        while let Some(item) = queue.recv().await {
            all.push(item);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_by_priority_and_within_one_first_in_first_out() {
        let queue = PriorityQueue::new(TEN, 100);
        for (priority, item) in [(2, "c1"), (1, "b1"), (0, "a1"), (1, "b2"), (0, "a2"), (255, "z")] {
            queue.send(priority, item).await.unwrap();
        }
        assert_eq!(rest(&queue).await, ["a1", "a2", "b1", "b2", "c1", "z"]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_lets_an_endless_stream_of_urgent_items_overtake_so_often_and_no_more() {
        for (priority, stride, overtaken) in [(0, 7, 0), (1, 0, 0), (1, 1, 1), (1, 7, 7), (3, 7, 21)] {
            let queue = PriorityQueue::new(TEN, stride);
            queue.send(priority, None).await.unwrap();
            let mut count = 0;
            loop {
                queue.send(0, Some(count)).await.unwrap();
                match queue.recv().await.unwrap() {
                    Some(item) => assert_eq!(item, count),
                    None => break,
                }
                count += 1;
                assert!(count <= overtaken, "priority {priority}, stride {stride}");
            }
            assert_eq!(count, overtaken, "priority {priority}, stride {stride}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_give_the_item_back_and_what_was_sent_still_comes() {
        let queue = PriorityQueue::new(NonZeroUsize::new(2).unwrap(), 1);
        queue.send(0, "sent").await.unwrap();
        let place = queue.reserve().await.unwrap();
        let waits = queue.send(0, "waits");
        let close = async { queue.close() };
        assert_eq!(tokio::join!(waits, close).0, Err(Rejected("waits")));
        assert_eq!(place.send(0, "place"), Err(Rejected("place")));
        assert_eq!(queue.send(0, "late").await, Err(Rejected("late")));
        assert_eq!((queue.recv().await, queue.recv().await, queue.recv().await), (Some("sent"), None, None));
        let idle = PriorityQueue::<()>::new(ONE, 1);
        assert_eq!(tokio::join!(idle.recv(), idle.recv(), async { idle.close() }), (None, None, ()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_loses_neither_items_nor_places() {
        let queue = PriorityQueue::new(ONE, 1);
        assert!(timeout(MOMENT, queue.recv()).await.is_err());
        drop(queue.reserve().await.unwrap());
        queue.send(0, 1).await.unwrap();
        assert!(timeout(MOMENT, queue.send(0, 2)).await.is_err());
        assert_eq!(queue.recv().await, Some(1));
        queue.send(0, 3).await.unwrap();
        assert_eq!(rest(&queue).await, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_are_bounded_by_the_capacity() {
        let queue = PriorityQueue::new(TEN, u32::MAX);
        for round in 0..20_u8 {
            let mut sent = 0;
            while timeout(MOMENT, queue.send(u8::MAX - round, round)).await.is_ok() {
                sent += 1;
            }
            assert_eq!((sent, queue.lock().items.len()), (if round == 0 { 10 } else { 1 }, 10));
            queue.recv().await.unwrap();
        }
        let unbounded = PriorityQueue::new(NonZeroUsize::MAX, 1);
        tokio::spawn(async move { unbounded.send(0, 1).await }).await.unwrap().unwrap();
    }
}
