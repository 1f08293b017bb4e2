//! Hand items from many producers to many consumers, and know when each item is done.
//!
//! Use it when items may neither be lost nor pile up. For jobs that lead to further jobs use `worker_pool`.
//!
//! | | |
//! |---|---|
//! | Order | first in, first out; an item handed back goes to the front; callers wait in line on either side |
//! | Errors | a closed queue gives the item back in [`Closed`] |
//! | Cancellation | a dropped `take` took nothing; a dropped [`Lease`] or [`Batch`] hands its items back; a dropped `reserve` holds no room; a dropped `put_all` leaves the caller what it did not put; a dropped `put` drops its item unless it was put |
//! | Panics | a lease dropped by a panic hands its item back; [`Lease::handed_back`] counts how often that happened |
//! | Memory | at most `capacity` items that wait, and one more for each lease handed back to a full queue |
//! | Backpressure | producers wait while `capacity` items and slots are in the queue; items in work do not count |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use producer_consumer::WorkQueue;
//!
//! #[tokio::main]
//! async fn main() {
//!     let queue = WorkQueue::new(NonZeroUsize::MIN);
//!     let produce = async { for item in 1..=3 { queue.put(item).await.unwrap(); } queue.close(); };
//!     let consume = async { let mut sum = 0; while let Some(lease) = queue.take().await { sum += lease.done(); } sum };
//!     assert_eq!(tokio::join!(produce, consume).1, 6);
//! }
//! ```

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// A bounded queue, shared by reference or in an `Arc`. Only [`close`](Self::close) and [`stop`](Self::stop) end it.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    /// A permit for each free place. Producers wait here.
    room: Semaphore,
    /// A permit for each item that waits. Consumers wait here.
    ready: Semaphore,
    settled: Notify,
}

/// The queue was closed; here is what was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work queue is closed")]
pub struct Closed<T>(pub T);

/// Room for one item. Dropping it leaves the room to the next producer.
#[must_use = "the room is given up at once"]
pub struct Slot<'a, T>(&'a WorkQueue<T>, SemaphorePermit<'a>);

/// An item in work. Dropping it before [`done`](Self::done) hands the item back, to the front of the queue.
#[must_use = "the item is handed back at once"]
pub struct Lease<'a, T>(&'a WorkQueue<T>, Option<Entry<T>>);

/// Items in work. Dropping it before [`done`](Self::done) hands them back in their order, to the front of the queue.
#[must_use = "the items are handed back at once"]
pub struct Batch<'a, T>(&'a WorkQueue<T>, Vec<Entry<T>>);

/// An item, and how often it was handed back.
struct Entry<T>(T, usize);

struct State<T> {
    queue: VecDeque<Entry<T>>,
    leased: usize,
    /// How many items wait without a place, because they were handed back to a full queue.
    over: usize,
    closed: bool,
    /// Consumers get nothing more.
    ended: bool,
}

impl<T> WorkQueue<T> {
    /// An empty queue, in which `capacity` items may wait (at most [`Semaphore::MAX_PERMITS`]).
    pub fn new(capacity: NonZeroUsize) -> Self {
        let state = State { queue: VecDeque::new(), leased: 0, over: 0, closed: false, ended: false };
        let room = Semaphore::new(capacity.get().min(Semaphore::MAX_PERMITS));
        WorkQueue { state: Mutex::new(state), room, ready: Semaphore::new(0), settled: Notify::new() }
    }

    /// Puts an item when there is room. To keep the item when the wait is given up, use [`reserve`](Self::reserve).
    pub async fn put(&self, item: T) -> Result<(), Closed<T>> {
        match self.reserve().await {
            Ok(slot) => slot.put(item),
            Err(Closed(())) => Err(Closed(item)),
        }
    }

    /// Waits for room and holds it.
    pub async fn reserve(&self) -> Result<Slot<'_, T>, Closed<()>> {
        self.room.acquire().await.map(|permit| Slot(self, permit)).map_err(|_| Closed(()))
    }

    /// Puts all `items`, as many at once as there is room for. Those that were put are gone from `items`.
    pub async fn put_all(&self, items: &mut VecDeque<T>) -> Result<(), Closed<()>> {
        while !items.is_empty() {
            let Slot(_, first) = self.reserve().await?;
            let mut state = self.lock();
            if state.closed {
                return Err(Closed(()));
            }
            first.forget();
            let count = 1 + self.room.forget_permits(items.len() - 1);
            state.queue.extend(items.drain(..count).map(|item| Entry(item, 0)));
            drop(state);
            self.ready.add_permits(count);
        }
        Ok(())
    }

    /// Takes the first item when there is one. `None` is the end: the queue was stopped, or it was closed and every item is
    /// done. Until then an item may come back, so a caller that holds a lease must not wait for the end.
    pub async fn take(&self) -> Option<Lease<'_, T>> {
        self.ready.acquire().await.ok()?.forget();
        self.lease(1, VecDeque::pop_front).map(|entry| Lease(self, entry))
    }

    /// Takes the first items, at least one and at most `max`. Otherwise as [`take`](Self::take).
    pub async fn take_many(&self, max: NonZeroUsize) -> Option<Batch<'_, T>> {
        self.ready.acquire().await.ok()?.forget();
        let count = 1 + self.ready.forget_permits(max.get() - 1);
        self.lease(count, |queue| queue.drain(..count).collect()).map(|entries| Batch(self, entries))
    }

    /// Lets nothing more in. Consumers get what there is, and then the end.
    pub fn close(&self) {
        self.change(0, |state| state.closed = true);
        self.room.close();
    }

    /// Ends the queue for both sides at once, waits until nothing is in work, and returns what is not done. If the wait is
    /// given up, the next call returns it.
    pub async fn stop(&self) -> Vec<T> {
        self.room.close();
        loop {
            let settled = self.settled.notified();
            let rest = self.change(0, |state| {
                (state.closed, state.ended) = (true, true);
                (state.leased == 0).then(|| mem::take(&mut state.queue))
            });
            match rest {
                Some(rest) => return rest.into_iter().map(|Entry(item, _)| item).collect(),
                None => settled.await,
            }
        }
    }

    /// Returns at the first moment at which no item waits and none is in work; on a stopped queue, when none is in work.
    pub async fn join(&self) {
        let settled = self.settled.notified();
        let is_settled = self.lock().is_settled();
        if !is_settled {
            settled.await;
        }
    }

    fn lease<C>(&self, count: usize, take: impl FnOnce(&mut VecDeque<Entry<T>>) -> C) -> Option<C> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let without_place = count.min(state.over);
        state.over -= without_place;
        state.leased += count;
        let taken = take(&mut state.queue);
        drop(state);
        self.room.add_permits(count - without_place);
        Some(taken)
    }

    /// Ends `leases` leases and puts `back` to the front.
    fn settle(&self, leases: usize, back: impl DoubleEndedIterator<Item = Entry<T>> + ExactSizeIterator) {
        let count = back.len();
        self.change(count, |state| {
            state.leased -= leases;
            state.over += count - self.room.forget_permits(count);
            back.rev().for_each(|Entry(item, times)| state.queue.push_front(Entry(item, times + 1)));
        });
    }

    /// Changes the state, and then tells whom it concerns: no waker runs under the lock.
    fn change<R>(&self, ready: usize, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        state.ended |= state.closed && state.queue.is_empty() && state.leased == 0;
        let (ended, settled) = (state.ended, state.is_settled());
        drop(state);
        self.ready.add_permits(ready);
        if ended {
            self.ready.close();
        }
        if settled {
            self.settled.notify_waiters();
        }
        result
    }

    /// No foreign code runs under this lock, so a panic cannot leave a change half done.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn is_settled(&self) -> bool {
        self.leased == 0 && (self.queue.is_empty() || self.ended)
    }
}

impl<T> Slot<'_, T> {
    /// Puts the item, without waiting.
    pub fn put(self, item: T) -> Result<(), Closed<T>> {
        let Slot(queue, permit) = self;
        let mut state = queue.lock();
        if state.closed {
            return Err(Closed(item));
        }
        state.queue.push_back(Entry(item, 0));
        drop(state);
        permit.forget();
        queue.ready.add_permits(1);
        Ok(())
    }
}

impl<T> Lease<'_, T> {
    /// How often the item was handed back before.
    pub fn handed_back(&self) -> usize {
        self.1.as_ref().map_or(0, |Entry(_, times)| *times)
    }

    /// Says that the item is done, and returns it.
    pub fn done(mut self) -> T {
        let Entry(item, _) = self.1.take().expect("only this takes it, and the lease with it");
        self.0.settle(1, None.into_iter());
        item
    }
}

impl<T> Deref for Lease<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.1.as_ref().expect("it is there until `done`").0
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        if self.1.is_some() {
            self.0.settle(1, self.1.take().into_iter());
        }
    }
}

impl<T> Batch<'_, T> {
    /// The items, each with how often it was handed back before.
    pub fn iter(&self) -> impl Iterator<Item = (&T, usize)> {
        self.1.iter().map(|Entry(item, times)| (item, *times))
    }

    /// Says that all items are done, and returns them.
    pub fn done(mut self) -> impl Iterator<Item = T> {
        let entries = mem::take(&mut self.1);
        self.0.settle(entries.len(), None.into_iter());
        entries.into_iter().map(|Entry(item, _)| item)
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        if !self.1.is_empty() {
            let entries = mem::take(&mut self.1);
            self.0.settle(entries.len(), entries.into_iter());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, resume_unwind};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[tokio::test(start_paused = true)]
    async fn order_is_first_in_first_out_and_what_comes_back_goes_first() {
        let queue = WorkQueue::new(THREE);
        queue.put_all(&mut (1..=3).collect()).await.unwrap();
        drop(queue.take_many(NonZeroUsize::MAX).await.unwrap());
        queue.put_all(&mut VecDeque::new()).await.unwrap();
        assert_eq!(queue.take().await.unwrap().done(), 1);
        let lease = queue.take().await.unwrap();
        assert_eq!((*lease, lease.handed_back()), (2, 1));
        assert_eq!(queue.take().await.unwrap().done(), 3);
        drop(lease);
        assert_eq!(queue.take().await.unwrap().handed_back(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_give_the_item_back() {
        let queue = WorkQueue::new(ONE);
        let slot = queue.reserve().await.unwrap();
        let waiting = queue.put("waits");
        let close = async { queue.close() };
        assert_eq!(tokio::join!(waiting, close).0, Err(Closed("waits")));
        assert_eq!(slot.put("slot"), Err(Closed("slot")));
        let mut items = VecDeque::from(["late"]);
        assert_eq!((queue.put_all(&mut items).await, items.len()), (Err(Closed(())), 1));
        assert!(queue.take().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_work_hands_the_item_back() {
        let queue = WorkQueue::new(ONE);
        queue.put("item").await.unwrap();
        queue.close();
        let work = async {
            let _lease = queue.take().await.unwrap();
            sleep(Duration::from_secs(9)).await;
        };
        // The second consumer waits for the end, which is not there as long as the item may come back.
        let (cancelled, other) = tokio::join!(timeout(Duration::from_secs(1), work), queue.take());
        assert!(cancelled.is_err());
        assert_eq!(other.unwrap().done(), "item");
        assert!(queue.take().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_stop_returns_what_is_not_done() {
        let queue = WorkQueue::new(THREE);
        queue.put_all(&mut (1..=3).collect()).await.unwrap();
        let lease = queue.take().await.unwrap();
        assert!(timeout(Duration::from_secs(1), queue.stop()).await.is_err());
        assert!(queue.take().await.is_none());
        let hand_back = async { drop(lease) };
        assert_eq!(tokio::join!(queue.stop(), queue.join(), hand_back).0, [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_hand_the_item_back_and_join_waits_for_it() {
        let queue = WorkQueue::new(ONE);
        queue.put(7).await.unwrap();
        let lease = queue.take().await.unwrap();
        let broken = std::panic::catch_unwind(AssertUnwindSafe(move || {
            let _lease = lease;
            resume_unwind(Box::new("broken"));
        }));
        assert!(broken.is_err());
        assert!(timeout(Duration::from_secs(1), queue.join()).await.is_err());
        assert_eq!(queue.take().await.unwrap().done(), 7);
        queue.join().await;
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_are_that_of_the_capacity() {
        let queue = WorkQueue::new(ONE);
        queue.put(0).await.unwrap();
        for next in 1..100 {
            let lease = queue.take().await.unwrap();
            // The place of the item in work is free, and is filled. When the item comes back there is one too many.
            let _ = timeout(Duration::from_secs(1), queue.put(next)).await;
            drop(lease);
            assert_eq!(queue.lock().queue.len(), 2, "round {next}");
            assert!(timeout(Duration::from_secs(1), queue.put(next)).await.is_err());
            queue.take().await.unwrap().done();
        }
        let unbounded = WorkQueue::new(NonZeroUsize::MAX);
        tokio::spawn(async move { unbounded.put(1).await }).await.unwrap().unwrap();
    }
}
