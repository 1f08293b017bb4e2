//! A channel whose sender never waits: what does not fit is lost, counted, and told to the receiver.
//!
//! Use it between something that must not be slowed down and a consumer that may lag: sensors, metrics, live prices. When no
//! item may be lost use `tokio::sync::mpsc`; when only the latest value matters, `tokio::sync::watch`.
//!
//! | | |
//! |---|---|
//! | Order | first in, first out, with gaps where items were lost |
//! | Errors | losses are counted and told in their place, before the next item ([`Event::Lost`]); a receiver that was cut off is told so ([`Event::Disconnected`]) after what it had queued |
//! | Cancellation | dropping the future of `next` or of [`room`](Sender::room) loses nothing; dropping the receiver drops what is queued; dropping the sender lets it drain, then it sees `None` |
//! | Panics | none of its own |
//! | Memory | O(capacity): the queue grows with its use |
//! | Backpressure | none, which is its purpose; a sender that wants it waits for [`room`](Sender::room) before it sends |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use futures::StreamExt;
//! use streams::{Event::{Item, Lost}, WhenFull, lossy_channel};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (mut sender, receiver) = lossy_channel(NonZeroUsize::new(2).unwrap(), WhenFull::DropOldest);
//!     (1..=4).for_each(|number| _ = sender.send(number));
//!     assert_eq!(receiver.take(3).collect::<Vec<_>>().await, [Lost(2), Item(3), Item(4)]);
//! }
//! ```

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::{replace, take};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::Stream;
use tokio::task::coop::poll_proceed;

/// What happens to an item for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest item in the queue makes room. With a capacity of one, the receiver sees the latest item only.
    DropOldest,
    /// The item is dropped, and the queue stays as it is.
    DropNewest,
    /// The item is dropped, and the receiver is disconnected.
    Disconnect,
}

/// What a receiver sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// An item.
    Item(T),
    /// So many items between the one before and the next were lost. The count may come in several parts.
    Lost(u64),
    /// The queue was full, and the policy was to disconnect. It is the last event.
    Disconnected,
}

/// The sending end. Dropping it ends the channel.
pub struct Sender<T>(Arc<Mutex<State<T>>>);

/// The receiving end: a stream of [`Event`]s. Dropping it drops what is queued.
#[must_use = "a channel that nobody reads loses items"]
pub struct Receiver<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    capacity: usize,
    when_full: WhenFull,
    /// Items, each with the number of those sent before it. A gap in the numbers is a loss.
    queue: VecDeque<(u64, T)>,
    sent: u64,
    /// How many items were handed out or told as lost.
    seen: u64,
    /// Nothing more is sent.
    ended: bool,
    /// It was disconnected, and the receiver does not know it yet.
    cut_off: bool,
    /// The receiver waits for an item, or the sender for room. Never both: a queue is not empty and full.
    waiting: Option<Waker>,
}

/// A channel with a queue of at most `capacity` items, which grows with its use.
pub fn lossy_channel<T>(capacity: NonZeroUsize, when_full: WhenFull) -> (Sender<T>, Receiver<T>) {
    let (capacity, queue, waiting) = (capacity.get(), VecDeque::new(), None);
    let state = State { capacity, when_full, queue, sent: 0, seen: 0, ended: false, cut_off: false, waiting };
    let state = Arc::new(Mutex::new(state));
    (Sender(state.clone()), Receiver(state))
}

impl<T> Sender<T> {
    /// Queues `item` or does what the policy says, and returns whether the receiver is still connected.
    pub fn send(&mut self, item: T) -> bool {
        let mut state = lock(&self.0);
        if state.ended {
            return false;
        }
        let full = state.queue.len() >= state.capacity;
        let number = state.sent;
        state.sent += 1;
        // Dropped after the lock, because a drop may run anything.
        let _unwanted = if full && state.when_full != WhenFull::DropOldest {
            state.cut_off = state.when_full == WhenFull::Disconnect;
            state.ended = state.cut_off;
            Some((number, item))
        } else {
            let oldest = if full { state.queue.pop_front() } else { None };
            state.queue.push_back((number, item));
            oldest
        };
        let connected = !state.ended;
        release(state);
        connected
    }

    /// Waits until there is room, or no receiver. What is sent next is then not lost for want of room.
    pub async fn room(&mut self) {
        poll_fn(|context| {
            let state = lock(&self.0);
            let ready = state.ended || state.queue.len() < state.capacity;
            if ready { Poll::Ready(()) } else { wait(state, context) }
        })
        .await
    }

    /// Whether an item would be queued without losing another.
    pub fn has_room(&self) -> bool {
        let state = lock(&self.0);
        state.queue.len() < state.capacity
    }

    /// Whether nobody will see what is sent: the receiver was dropped or disconnected.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).ended
    }
}

impl<T> Stream for Receiver<T> {
    type Item = Event<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event<T>>> {
        // A sender that is always faster must not keep this task from giving way.
        let budget = ready!(poll_proceed(context));
        let mut state = lock(&self.0);
        let next = state.queue.front().map_or(state.sent, |(number, _)| *number);
        let event = if next > state.seen {
            Some(Event::Lost(next - replace(&mut state.seen, next)))
        } else if let Some((_, item)) = state.queue.pop_front() {
            state.seen += 1;
            Some(Event::Item(item))
        } else if take(&mut state.cut_off) {
            Some(Event::Disconnected)
        } else if state.ended {
            None
        } else {
            return wait(state, context);
        };
        release(state);
        budget.made_progress();
        Poll::Ready(event)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        release(state);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        let _queue = take(&mut state.queue);
        release(state);
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // Nothing that could panic runs under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<T, R>(mut state: MutexGuard<'_, State<T>>, context: &mut Context<'_>) -> Poll<R> {
    let former = state.waiting.replace(context.waker().clone());
    // In this order: a waker's drop may run anything too.
    drop((state, former));
    Poll::Pending
}

fn release<T>(mut state: MutexGuard<'_, State<T>>) {
    let waiting = state.waiting.take();
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::Event::{Disconnected, Item, Lost};
    use super::WhenFull::{Disconnect, DropNewest, DropOldest};
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn send(sender: &mut Sender<u32>, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            sender.send(number);
        }
    }

    #[tokio::test]
    async fn order_is_first_in_first_out() {
        let (mut sender, mut receiver) = lossy_channel(TWO, Disconnect);
        for round in 0..1_000 {
            send(&mut sender, round..=round + 1);
            assert_eq!(
                (receiver.next().await, receiver.next().await),
                (Some(Item(round)), Some(Item(round + 1)))
            );
        }
        assert_eq!(receiver.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn errors_losses_are_told_in_their_place() {
        let (mut sender, mut receiver) = lossy_channel(TWO, DropOldest);
        send(&mut sender, 1..=5);
        assert_eq!(receiver.next().await, Some(Lost(3)));
        send(&mut sender, 6..=6);
        drop(sender);
        assert_eq!(receiver.collect::<Vec<_>>().await, [Lost(1), Item(5), Item(6)]);

        let (mut sender, mut receiver) = lossy_channel(TWO, DropNewest);
        send(&mut sender, 1..=5);
        assert_eq!(receiver.next().await, Some(Item(1)));
        send(&mut sender, 6..=7);
        assert_eq!((receiver.next().await, receiver.next().await), (Some(Item(2)), Some(Lost(3))));
        assert_eq!((receiver.next().await, receiver.next().await), (Some(Item(6)), Some(Lost(1))));
        assert_eq!(receiver.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn errors_of_the_disconnected_come_after_the_queue() {
        let (mut sender, mut receiver) = lossy_channel(TWO, Disconnect);
        assert!(sender.send(1) && sender.send(2) && !sender.send(3) && !sender.send(4));
        assert!(sender.is_closed());
        let events: Vec<_> = receiver.by_ref().collect().await;
        assert_eq!(events, [Item(1), Item(2), Lost(1), Disconnected]);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn cancellation_of_either_side_loses_nothing() {
        let (mut sender, mut receiver) = lossy_channel(NonZeroUsize::MIN, DropNewest);
        assert_eq!(receiver.next().now_or_never(), None);
        assert_eq!(sender.room().now_or_never(), Some(()));
        send(&mut sender, 1..=1);
        assert_eq!(sender.room().now_or_never(), None);
        assert_eq!(receiver.next().await, Some(Item(1)));
        let (room, ()) = tokio::join!(sender.room().map(|()| true), async { drop(receiver) });
        assert!(room && sender.is_closed() && !sender.send(2));
    }

    #[tokio::test]
    async fn memory_is_the_queue() {
        let held = Arc::new(());
        let (mut sender, mut receiver) = lossy_channel(TWO, DropOldest);
        (0..9).for_each(|_| _ = sender.send(held.clone()));
        assert_eq!(Arc::strong_count(&held), 3);
        assert_eq!((receiver.next().await, receiver.next().await.is_some()), (Some(Lost(7)), true));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(receiver);
        sender.send(held.clone());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
