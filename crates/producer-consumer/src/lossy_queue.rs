//! Send without ever waiting: what a full queue loses is counted, and the receiver is told.
//!
//! Use it where a late item is worth less than a stalled sender: prices, positions, video frames, metrics. When nothing may be
//! lost use `work_queue`; when only the newest item of all counts, use [`tokio::sync::watch`].
//!
//! | | |
//! |---|---|
//! | Order | first in, first out; with keys, an item stands where the first one of its key stood |
//! | Errors | a sender gets its item back in [`ReceiverGone`]; nothing else fails, and a full queue is no error |
//! | Cancellation | a dropped `recv` took nothing; dropping the receiver drops what is queued; what is queued survives its sender |
//! | Panics | a panic of `key`, or of a key's methods, is the sender's panic; its item is gone, and the queue goes on |
//! | Memory | at most `capacity` items, and a key for each |
//! | Backpressure | none, on purpose: the sender gets back the item that lost its place |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use producer_consumer::{Overflow, lossy_queue};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (sender, mut receiver) = lossy_queue(NonZeroUsize::new(2).unwrap(), Overflow::DropOldest);
//!     for frame in 1..=5 { sender.send(frame).unwrap(); }
//!     let first = receiver.recv().await.unwrap();
//!     assert_eq!((first.item, first.lost), (4, 3));
//! }
//! ```

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;

/// What is lost when an item is sent to a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The item at the front: the receiver is late, and sees the present.
    DropOldest,
    /// The item that was to be sent: the receiver sees what came first, without gaps.
    DropNewest,
}

/// The receiver is gone; here is what was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the queue is gone")]
pub struct ReceiverGone<T>(pub T);

/// An item, and what was lost before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<T> {
    /// The item.
    pub item: T,
    /// How many items were lost between this one and the one received before it, and older ones of the same key.
    pub lost: u64,
}

/// The sending end. Clones send to the same queue; when the last one is dropped the receiver gets what is queued, and then the end.
pub struct LossySender<T, K = ()> {
    state: Arc<Mutex<State<T, K>>>,
    key: Option<fn(&T) -> K>,
    /// Has a message when an item came into the empty queue. The receiver has the other end.
    filled: mpsc::Sender<()>,
}

/// The receiving end, of which there is one. Dropping it drops what is queued, and senders get an error.
pub struct LossyReceiver<T, K = ()> {
    state: Arc<Mutex<State<T, K>>>,
    filled: mpsc::Receiver<()>,
}

/// Both ends of a queue.
pub type Ends<T, K = ()> = (LossySender<T, K>, LossyReceiver<T, K>);

struct State<T, K> {
    capacity: usize,
    overflow: Overflow,
    queue: VecDeque<(Option<K>, Received<T>)>,
    /// Where the item of a key is, counted from the first item that was ever queued.
    places: HashMap<K, u64>,
    /// How many items have left the queue at its front.
    left: u64,
    /// What was lost after the last item in the queue, and in all.
    lost_after: u64,
    lost: u64,
}

/// A queue of at most `capacity` items. One that is sent when it is full is lost, or the oldest is, as `overflow` says.
pub fn lossy_queue<T>(capacity: NonZeroUsize, overflow: Overflow) -> Ends<T> {
    make(capacity, overflow, None)
}

/// As [`lossy_queue`], with at most one item of each key: an item takes the place of the queued one of its key, which is lost.
/// `overflow` is for items of a further key when `capacity` keys are queued.
pub fn latest_queue<T, K>(capacity: NonZeroUsize, overflow: Overflow, key: fn(&T) -> K) -> Ends<T, K> {
    make(capacity, overflow, Some(key))
}

fn make<T, K>(capacity: NonZeroUsize, overflow: Overflow, key: Option<fn(&T) -> K>) -> Ends<T, K> {
    let (capacity, queue, places) = (capacity.get(), VecDeque::new(), HashMap::new());
    let state = State { capacity, overflow, queue, places, left: 0, lost_after: 0, lost: 0 };
    let (state, (filled, receiver)) = (Arc::new(Mutex::new(state)), mpsc::channel(1));
    (LossySender { state: state.clone(), key, filled }, LossyReceiver { state, filled: receiver })
}

impl<T, K: Hash + Eq + Clone> LossySender<T, K> {
    /// Queues `item` and returns at once, with the item that was lost for it: an older one of its key, the oldest, or `item` itself.
    ///
    /// # Panics
    ///
    /// If `key`, or a method of the key, does.
    pub fn send(&self, item: T) -> Result<Option<T>, ReceiverGone<T>> {
        let key = self.key.map(|key| key(&item));
        // Made before the lock, and dropped after it: under it keys are hashed and compared, and nothing else of the caller's runs.
        let (copy, mut oldest) = (key.clone(), None);
        let mut state = lock(&self.state);
        if self.filled.is_closed() {
            return Err(ReceiverGone(item));
        }
        if let Some(place) = key.as_ref().and_then(|key| state.places.get(key)) {
            let at = (place - state.left) as usize;
            state.lost += 1;
            state.queue[at].1.lost += 1;
            return Ok(Some(mem::replace(&mut state.queue[at].1.item, item)));
        }
        let (was_empty, full) = (state.queue.is_empty(), state.queue.len() >= state.capacity);
        if full && state.overflow == Overflow::DropNewest {
            state.lost += 1;
            state.lost_after += 1;
            return Ok(Some(item));
        }
        if full {
            oldest = state.pop();
            let (state, lost) = (&mut *state, 1 + oldest.as_ref().map_or(0, |(oldest, _)| oldest.lost));
            state.lost += 1;
            *state.queue.front_mut().map_or(&mut state.lost_after, |(_, next)| &mut next.lost) += lost;
        }
        let place = state.left + state.queue.len() as u64;
        state.places.extend(copy.map(|key| (key, place)));
        let lost = mem::take(&mut state.lost_after);
        state.queue.push_back((key, Received { item, lost }));
        drop(state);
        if was_empty {
            let _ = self.filled.try_send(()); // when there is a message already, one is enough
        }
        Ok(oldest.map(|(oldest, _)| oldest.item))
    }
}

impl<T, K: Hash + Eq> LossyReceiver<T, K> {
    /// Receives the item at the front, when there is one. `None` when all senders are gone and everything was received.
    pub async fn recv(&mut self) -> Option<Received<T>> {
        // A receiver that always finds something would otherwise never give way to other tasks.
        consume_budget().await;
        loop {
            let popped = lock(&self.state).pop();
            if let Some((received, _)) = popped {
                return Some(received);
            }
            self.filled.recv().await?;
        }
    }

    /// How many items were lost so far, those after the last one received included.
    pub fn lost(&self) -> u64 {
        lock(&self.state).lost
    }
}

/// What a key's methods panic with comes before anything was changed, or leaves the state whole.
fn lock<T, K>(state: &Mutex<State<T, K>>) -> MutexGuard<'_, State<T, K>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, K: Hash + Eq> State<T, K> {
    /// The front item, and its keys, which the caller drops without the lock.
    fn pop(&mut self) -> Option<(Received<T>, [Option<K>; 2])> {
        let place = self.queue.front()?.0.as_ref().and_then(|key| self.places.remove_entry(key));
        self.left += 1;
        self.queue.pop_front().map(|(key, received)| (received, [key, place.map(|(copy, _)| copy)]))
    }
}

impl<T, K> Clone for LossySender<T, K> {
    fn clone(&self) -> Self {
        LossySender { state: self.state.clone(), key: self.key, filled: self.filled.clone() }
    }
}

impl<T, K> Drop for LossyReceiver<T, K> {
    fn drop(&mut self) {
        self.filled.close();
        let mut state = lock(&self.state);
        let _rest = (mem::take(&mut state.queue), mem::take(&mut state.places));
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    async fn rest<T, K: Hash + Eq>(mut receiver: LossyReceiver<T, K>) -> Vec<(T, u64)> {
        let mut all = Vec::new();
        while let Some(Received { item, lost }) = receiver.recv().await {
            all.push((item, lost));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_sending_and_each_gap_is_counted() {
        let (sender, receiver) = lossy_queue(TWO, Overflow::DropOldest);
        let returned: Vec<_> = (1..=5).map(|item| sender.send(item).unwrap()).collect();
        assert_eq!(returned, [None, None, Some(1), Some(2), Some(3)]);
        drop(sender);
        assert_eq!(rest(receiver).await, [(4, 3), (5, 0)]);

        let (sender, mut receiver) = lossy_queue(TWO, Overflow::DropNewest);
        let returned: Vec<_> = (1..=5).map(|item| sender.send(item).unwrap()).collect();
        assert_eq!(returned, [None, None, Some(3), Some(4), Some(5)]);
        assert_eq!(receiver.recv().await, Some(Received { item: 1, lost: 0 }));
        sender.send(6).unwrap();
        assert_eq!((sender.send(7), receiver.lost()), (Ok(Some(7)), 4));
        drop(sender);
        assert_eq!(rest(receiver).await, [(2, 0), (6, 3)]);

        let (sender, receiver) = lossy_queue(ONE, Overflow::DropOldest);
        (1..=4).for_each(|item| _ = sender.clone().send(item).unwrap());
        drop(sender);
        assert_eq!(rest(receiver).await, [(4, 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_keys_is_that_of_their_first_item() {
        let (sender, mut receiver) = latest_queue(TWO, Overflow::DropOldest, |(key, _): &(char, u32)| *key);
        let returned = [('a', 1), ('b', 2), ('a', 3), ('a', 4)].map(|item| sender.send(item).unwrap());
        assert_eq!(returned, [None, None, Some(('a', 1)), Some(('a', 3))]);
        assert_eq!(receiver.recv().await, Some(Received { item: ('a', 4), lost: 2 }));
        // Received, so that its next item comes after the others; a third key drops the oldest.
        assert_eq!(sender.send(('a', 5)), Ok(None));
        assert_eq!(sender.send(('b', 6)), Ok(Some(('b', 2))));
        assert_eq!(sender.send(('c', 7)), Ok(Some(('b', 6))));
        assert_eq!(receiver.lost(), 4);
        drop(sender);
        assert_eq!(rest(receiver).await, [(('a', 5), 2), (('c', 7), 0)]);

        let (sender, receiver) = latest_queue(ONE, Overflow::DropNewest, |(key, _): &(char, u32)| *key);
        let returned = [('a', 1), ('b', 2), ('a', 3)].map(|item| sender.send(item).unwrap());
        assert_eq!(returned, [None, Some(('b', 2)), Some(('a', 1))]);
        assert_eq!((receiver.lost(), drop(sender)), (2, ()));
        assert_eq!(rest(receiver).await, [(('a', 3), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_come_only_from_a_receiver_that_is_gone() {
        let (sender, receiver) = lossy_queue(ONE, Overflow::DropNewest);
        let shared = Arc::new(());
        sender.send(shared.clone()).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&shared), 1, "what was queued is dropped");
        assert_eq!(sender.send(shared.clone()), Err(ReceiverGone(shared)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_recv_loses_nothing() {
        let (sender, mut receiver) = lossy_queue(ONE, Overflow::DropOldest);
        for item in 0..3 {
            assert!(timeout(Duration::from_millis(1), receiver.recv()).await.is_err());
            sender.send(item).unwrap();
            assert_eq!(receiver.recv().await, Some(Received { item, lost: 0 }));
        }
        let other = sender.clone();
        let end = async move { drop((sender, other)) };
        assert_eq!(tokio::join!(receiver.recv(), end).0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_key_leave_the_queue_as_it_was() {
        // Not `panic!`: the message would be printed though the panic is expected.
        let key = |item: &u32| if *item == 9 { resume_unwind(Box::new("no key")) } else { *item };
        let (sender, receiver) = latest_queue(TWO, Overflow::DropOldest, key);
        sender.send(1).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| sender.send(9))).is_err());
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(rest(receiver).await, [(1, 0), (2, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_keys_are_bounded_by_the_capacity() {
        let (sender, mut receiver) = latest_queue(TWO, Overflow::DropOldest, |item: &u32| *item);
        for item in 0..1_000 {
            sender.send(item / 2).unwrap();
            let state = lock(&receiver.state);
            assert!(state.queue.len() <= 2 && state.places.len() == state.queue.len());
        }
        while timeout(Duration::ZERO, receiver.recv()).await.is_ok() {}
        assert!(lock(&receiver.state).places.is_empty());
    }
}
