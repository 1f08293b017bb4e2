//! Send each message to every client without ever waiting for one of them.
//!
//! Use it for chats, prices, dashboards: whoever reads too slowly loses messages, or its connection, and nobody else notices.
//! What a client's queue holds is written to its socket by `frame_writer`. For items other than messages see `fan_out`.
//!
//! | | |
//! |---|---|
//! | Order | every client sees what was published since it subscribed, in one order for all, with gaps where messages were dropped |
//! | Errors | what was dropped is counted and told in its place, before the next message ([`Delivery::Lost`]); a client that was cut off is told so ([`Delivery::Disconnected`]) after what it had queued |
//! | Cancellation | dropping the future of `next` loses nothing; dropping a [`Subscription`] frees its queue and ends it; dropping the [`Hub`] or [`close`](Hub::close) ends the others after what they have queued |
//! | Panics | none of its own |
//! | Memory | for each client its limit in messages and in bytes; a payload is stored once, however many queues hold it |
//! | Backpressure | none, which is its purpose: publishing takes its turn after other publishers and waits for no client |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use futures::StreamExt;
//! use websocket_broadcast::{Delivery::{Lost, Message}, Hub, QueueLimit};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (hub, two) = (Hub::default(), NonZeroUsize::new(2).unwrap());
//!     let slow = hub.subscribe(QueueLimit { messages: two, bytes: NonZeroUsize::MAX, disconnect: false });
//!     ["a", "b", "c"].map(|text| hub.publish(text));
//!     assert_eq!(slow.take(3).collect::<Vec<_>>().await, [Lost(1), Message("b".into()), Message("c".into())]);
//! }
//! ```

use std::collections::VecDeque;
use std::mem::{replace, take};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::Stream;
use tokio::task::coop::poll_proceed;
use tokio_tungstenite::tungstenite::Message;

/// How much a client may have queued, and what happens when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// The most messages. With one, and without `disconnect`, the client sees the latest alone.
    pub messages: NonZeroUsize,
    /// The most bytes of payload. A message that is larger never reaches the client.
    pub bytes: NonZeroUsize,
    /// Whether a client that has no room is disconnected. If not, its oldest messages make room.
    pub disconnect: bool,
}

/// What a client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A message. All clients share its payload.
    Message(Message),
    /// So many messages between the one before and the next were dropped. The count may come in several parts.
    Lost(u64),
    /// There was no room, and the client was to be disconnected then. It is the last delivery.
    Disconnected,
}

/// Publishes messages to clients. Dropping it closes it.
#[derive(Default)]
pub struct Hub(Mutex<(Vec<Arc<Mutex<Queue>>>, /* closed */ bool)>);

/// A client's end: a stream of deliveries. Dropping it unsubscribes, and drops what is queued.
#[must_use = "a client that is not read loses messages"]
pub struct Subscription(Arc<Mutex<Queue>>);

struct Queue {
    limit: QueueLimit,
    /// Messages, each with the number of those published before it. A gap in the numbers is a loss.
    messages: VecDeque<(u64, Message)>,
    bytes: usize,
    published: u64,
    /// How many messages were handed out or told as lost.
    seen: u64,
    /// Nothing more is queued. Inside is what the client does not know yet.
    ended: Option<Option<Delivery>>,
    waiting: Option<Waker>,
}

impl Hub {
    /// Subscribes to what is published from now on. The queue grows with its use, up to `limit`.
    pub fn subscribe(&self, limit: QueueLimit) -> Subscription {
        let (queues, closed) = &mut *lock(&self.0);
        let (messages, ended, waiting) = (VecDeque::new(), closed.then_some(None), None);
        let queue = Queue { limit, messages, bytes: 0, published: 0, seen: 0, ended, waiting };
        let queue = Arc::new(Mutex::new(queue));
        if queues.len() == queues.capacity() {
            // While nothing is published, those who left would pile up.
            queues.retain(|queue| lock(queue).ended.is_none());
            queues.reserve(queues.len() + 1);
        }
        queues.push(queue.clone());
        Subscription(queue)
    }

    /// Queues `message` for every client or does what the client's limit says. Returns how many are still connected.
    pub fn publish(&self, message: impl Into<Message>) -> usize {
        let message = message.into();
        // Woken and dropped when no lock is held, because either may run anything.
        let (mut dropped, mut woken) = (Vec::new(), Vec::new());
        let mut hub = lock(&self.0);
        hub.0.retain(|queue| lock(queue).push(&message, &mut dropped, &mut woken));
        let connected = hub.0.len();
        drop(hub);
        woken.into_iter().for_each(Waker::wake);
        connected
    }

    /// Ends all subscriptions, each after what it has queued, and those to come at once.
    pub fn close(&self) {
        let (queues, _) = replace(&mut *lock(&self.0), (Vec::new(), true));
        let woken: Vec<_> = queues.iter().filter_map(|queue| lock(queue).end()).collect();
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Queue {
    /// Returns whether the client is still connected.
    fn push(&mut self, message: &Message, dropped: &mut Vec<Message>, woken: &mut Vec<Waker>) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let (QueueLimit { messages, bytes, disconnect }, size) = (self.limit, message.len());
        let fits = |it: &Self| it.messages.len() < messages.get() && size <= bytes.get() - it.bytes;
        // What would not fit into an empty queue makes no other message go.
        while !disconnect && size <= bytes.get() && !fits(self) {
            dropped.extend(self.pop());
        }
        if fits(self) {
            self.bytes += size;
            self.messages.push_back((self.published, message.clone()));
        } else if disconnect {
            self.ended = Some(Some(Delivery::Disconnected));
        }
        self.published += 1;
        woken.extend(self.waiting.take());
        self.ended.is_none()
    }

    fn pop(&mut self) -> Option<Message> {
        let (_, message) = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    fn end(&mut self) -> Option<Waker> {
        self.ended.get_or_insert(None);
        self.waiting.take()
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        // A hub that is always faster must not keep this task from giving way.
        let budget = ready!(poll_proceed(context));
        let mut queue = lock(&self.0);
        let next = queue.messages.front().map_or(queue.published, |(number, _)| *number);
        let delivery = if next > queue.seen {
            Some(Delivery::Lost(next - replace(&mut queue.seen, next)))
        } else if let Some(message) = queue.pop() {
            queue.seen += 1;
            Some(Delivery::Message(message))
        } else if let Some(untold) = &mut queue.ended {
            untold.take()
        } else {
            let former = queue.waiting.replace(context.waker().clone());
            // In this order: a waker's drop may run anything too.
            drop((queue, former));
            return Poll::Pending;
        };
        budget.made_progress();
        Poll::Ready(delivery)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        let _left = (take(&mut queue.messages), queue.end());
        drop(queue);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic runs under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::Delivery::{Disconnected, Lost};
    use super::*;

    const DROP_OLDEST: bool = false;
    const DISCONNECT: bool = true;

    fn limit(messages: usize, bytes: usize, disconnect: bool) -> QueueLimit {
        let [messages, bytes] = [messages, bytes].map(|limit| NonZeroUsize::new(limit).unwrap());
        QueueLimit { messages, bytes, disconnect }
    }

    fn text(text: &str) -> Delivery {
        Delivery::Message(text.into())
    }

    #[tokio::test]
    async fn order_is_that_of_publishing_from_the_subscription_on() {
        let hub = Hub::default();
        let early = hub.subscribe(limit(9, 99, DISCONNECT));
        assert_eq!(hub.publish("a"), 1);
        let late = hub.subscribe(limit(9, 99, DROP_OLDEST));
        assert_eq!((hub.publish("b"), hub.publish("c")), (2, 2));
        drop(hub);
        assert_eq!(early.collect::<Vec<_>>().await, ["a", "b", "c"].map(text));
        assert_eq!(late.collect::<Vec<_>>().await, ["b", "c"].map(text));
    }

    #[tokio::test]
    async fn errors_losses_are_told_in_their_place() {
        let hub = Hub::default();
        let mut oldest = hub.subscribe(limit(2, 99, DROP_OLDEST));
        let latest = hub.subscribe(limit(1, 99, DROP_OLDEST));
        let cut_off = hub.subscribe(limit(2, 99, DISCONNECT));
        assert_eq!(["a", "b", "c", "d"].map(|text| hub.publish(text)), [3, 3, 2, 2]);
        assert_eq!((oldest.next().await, oldest.next().await), (Some(Lost(2)), Some(text("c"))));
        assert_eq!(["e", "f"].map(|text| hub.publish(text)), [2, 2]);
        drop(hub);
        assert_eq!(oldest.collect::<Vec<_>>().await, [Lost(1), text("e"), text("f")]);
        assert_eq!(latest.collect::<Vec<_>>().await, [Lost(5), text("f")]);
        assert_eq!(cut_off.collect::<Vec<_>>().await, [text("a"), text("b"), Lost(1), Disconnected]);
    }

    #[tokio::test]
    async fn cancellation_frees_the_queue_and_ends_the_others_late() {
        let hub = Hub::default();
        let (mut stays, leaves) =
            (hub.subscribe(limit(9, 99, DROP_OLDEST)), hub.subscribe(limit(9, 99, DROP_OLDEST)));
        assert_eq!((stays.next().now_or_never(), hub.publish("a")), (None, 2));
        drop(leaves);
        assert_eq!(hub.publish("b"), 1);
        hub.close();
        assert_eq!((hub.publish("c"), hub.subscribe(limit(1, 1, DISCONNECT)).next().await), (0, None));
        assert_eq!(stays.collect::<Vec<_>>().await, ["a", "b"].map(text));
    }

    #[tokio::test]
    async fn memory_is_bounded_in_bytes() {
        let hub = Hub::default();
        let oldest = hub.subscribe(limit(99, 5, DROP_OLDEST));
        let cut_off = hub.subscribe(limit(99, 5, DISCONNECT));
        assert_eq!(
            ["aa", "bb", "c", "dddd", "too large", ""].map(|text| hub.publish(text)),
            [2, 2, 2, 1, 1, 1]
        );
        drop(hub);
        assert_eq!(oldest.collect::<Vec<_>>().await, [Lost(2), text("c"), text("dddd"), Lost(1), text("")]);
        assert_eq!(
            cut_off.collect::<Vec<_>>().await,
            [text("aa"), text("bb"), text("c"), Lost(1), Disconnected]
        );
    }

    #[tokio::test]
    async fn memory_of_a_payload_is_shared_by_all() {
        let hub = Hub::default();
        let clients = [(); 3].map(|()| hub.subscribe(limit(9, 99, DROP_OLDEST)));
        let payload = "payload".to_string();
        let address = payload.as_ptr();
        assert_eq!(hub.publish(payload), 3);
        for mut client in clients {
            let Some(Delivery::Message(message)) = client.next().await else { panic!("it was published") };
            assert_eq!(message.to_text().unwrap().as_ptr(), address);
        }
        for _ in 0..1_000 {
            drop(hub.subscribe(limit(9, 99, DROP_OLDEST)));
        }
        assert!(lock(&hub.0).0.len() <= 8, "those who left do not pile up");
    }

    #[tokio::test]
    async fn backpressure_does_not_come_from_a_client_that_never_reads() {
        let hub = Arc::new(Hub::default());
        let _never = [DROP_OLDEST, DISCONNECT].map(|it| hub.subscribe(limit(2, 99, it)));
        let mut reads = hub.subscribe(limit(2, 99, DISCONNECT));
        for number in 0..1_000_u32 {
            hub.publish(number.to_string());
            assert_eq!(reads.next().await, Some(text(&number.to_string())));
        }
        let (reading, publishing) = (tokio::spawn(async move { reads.next().await }), hub.clone());
        tokio::task::yield_now().await;
        assert_eq!(tokio::spawn(async move { publishing.publish("last") }).await.unwrap(), 2);
        assert_eq!(reading.await.unwrap(), Some(text("last")));
    }
}
