//! Give each item to every subscriber, and let each choose what happens when it is too slow.
//!
//! Use it for events, prices and progress with several consumers, some of which may be slow: each has a queue of its own, a
//! [`lossy_channel`]. Where all may lose the same, `tokio::sync::broadcast` is enough; for the latest value alone, `watch`.
//!
//! | | |
//! |---|---|
//! | Order | every subscriber sees what was published since it subscribed, in the order of publishing, with gaps only where its policy makes them |
//! | Errors | what a subscriber lost is counted and told in its place, before the next item (`Event::Lost`); one that was cut off is told so (`Event::Disconnected`) after what it had queued |
//! | Cancellation | dropping [`publish`](FanOut::publish) before it returns publishes to nobody; dropping the future of `next` loses nothing; a subscriber can be dropped at any time |
//! | Panics | a panic while an item is cloned is the publisher's panic; subscribers that came before in the order of subscribing have the item, the others never see it |
//! | Memory | O(sum of the capacities): every subscriber's queue grows with its use up to its capacity |
//! | Backpressure | only a subscriber from [`subscribe_blocking`](FanOut::subscribe_blocking) holds publishing up, and only while its queue is full: for one item at most the longest time that any of them has; then it is disconnected |
//! | Clock | `tokio::time`, for blocking subscribers alone |
//!
//! The end comes when the [`FanOut`] is dropped: subscribers first see what is queued, then `None`. Whoever only
//! subscribes should hold a `Weak<FanOut>`, not an `Arc`.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use futures::StreamExt;
//! use streams::{Event::{Item, Lost}, FanOut, WhenFull};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (fan_out, two) = (FanOut::new(), NonZeroUsize::new(2).unwrap());
//!     let slow = fan_out.subscribe(two, WhenFull::DropOldest);
//!     for number in 1..=4 { fan_out.publish(number).await; }
//!     drop(fan_out);
//!     assert_eq!(slow.collect::<Vec<_>>().await, [Lost(2), Item(3), Item(4)]);
//! }
//! ```

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::lossy_channel::{Receiver, Sender, WhenFull, lossy_channel};

/// Longer than any program runs, and still an instant that exists.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Publishes items to subscribers. Dropping it ends their streams.
pub struct FanOut<T> {
    /// Whoever publishes holds the lock, so that all see the same order; publishers take turns, first come, first served.
    members: tokio::sync::Mutex<Vec<Member<T>>>,
    /// Those who subscribed since the last item.
    joining: Mutex<Vec<Member<T>>>,
}

struct Member<T> {
    /// The subscriber has the other end. When it drops that, this is removed at the next item.
    sender: Sender<T>,
    /// How long publishing waits for room.
    patience: Duration,
}

impl<T> Default for FanOut<T> {
    fn default() -> Self {
        FanOut { members: tokio::sync::Mutex::default(), joining: Mutex::default() }
    }
}

impl<T> FanOut<T> {
    /// Without subscribers; what is published then is dropped.
    pub fn new() -> Self {
        FanOut::default()
    }

    /// Subscribes to what is published from now on, with a queue of at most `capacity` items, which grows with its use.
    pub fn subscribe(&self, capacity: NonZeroUsize, when_full: WhenFull) -> Receiver<T> {
        self.join(capacity, when_full, Duration::ZERO)
    }

    /// As [`subscribe`](Self::subscribe), but when the queue is full publishing waits for room, for at most `patience`. After
    /// that the subscriber is disconnected, so that it delays no further item. With a patience of zero that is at once.
    pub fn subscribe_blocking(&self, capacity: NonZeroUsize, patience: Duration) -> Receiver<T> {
        self.join(capacity, WhenFull::Disconnect, patience.min(FOR_EVER))
    }

    fn join(&self, capacity: NonZeroUsize, when_full: WhenFull, patience: Duration) -> Receiver<T> {
        let (sender, receiver) = lossy_channel(capacity, when_full);
        // Nothing that could panic runs under this lock.
        let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        if joining.len() == joining.capacity() {
            // While nothing is published, those who left would pile up.
            joining.retain(|member| !member.sender.is_closed());
            let live = joining.len();
            joining.reserve(live + 1);
        }
        joining.push(Member { sender, patience });
        receiver
    }

    /// Gives a clone of `item` to every subscriber, and returns how many are still connected.
    ///
    /// It waits for its turn after other publishers and, as long as they allow, for blocking subscribers. While it waits,
    /// nobody has the item yet.
    ///
    /// # Panics
    ///
    /// If `T::clone` panics, and if it has to wait for a subscriber outside a Tokio runtime with a timer.
    pub async fn publish(&self, item: T) -> usize
    where
        T: Clone,
    {
        let mut members = self.members.lock().await;
        let blocking = members.iter_mut().filter(|member| !member.patience.is_zero());
        let full: Vec<_> = blocking.filter(|member| !member.sender.has_room()).collect();
        if !full.is_empty() {
            let start = Instant::now();
            for member in full {
                let deadline = start + member.patience;
                if Instant::now() < deadline {
                    // One whose time is up is still full: it is disconnected when the item is sent.
                    let _ = timeout_at(deadline, member.sender.room()).await;
                }
            }
        }
        members.append(&mut self.joining.lock().unwrap_or_else(PoisonError::into_inner));
        members.retain_mut(|member| member.sender.send(item.clone()));
        members.len()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use futures::{FutureExt, StreamExt};
    use tokio::time::sleep;

    use super::super::lossy_channel::Event::{Disconnected, Item, Lost};
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    async fn publish(fan_out: &FanOut<u32>, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            fan_out.publish(number).await;
        }
    }

    #[tokio::test]
    async fn order_is_that_of_publishing_from_the_subscription_on() {
        let fan_out = FanOut::new();
        let early = fan_out.subscribe(TEN, WhenFull::Disconnect);
        publish(&fan_out, 1..=2).await;
        let late = fan_out.subscribe_blocking(TEN, ms(5));
        publish(&fan_out, 3..=4).await;
        drop(fan_out);
        assert_eq!(early.collect::<Vec<_>>().await, [1, 2, 3, 4].map(Item));
        assert_eq!(late.collect::<Vec<_>>().await, [3, 4].map(Item));
    }

    #[tokio::test]
    async fn errors_losses_are_told_in_their_place() {
        let fan_out = FanOut::new();
        let mut oldest = fan_out.subscribe(TWO, WhenFull::DropOldest);
        let mut newest = fan_out.subscribe(TWO, WhenFull::DropNewest);
        let mut latest = fan_out.subscribe(NonZeroUsize::MIN, WhenFull::DropOldest);
        let cut_off = fan_out.subscribe(TWO, WhenFull::Disconnect);
        publish(&fan_out, 1..=5).await;
        assert_eq!((oldest.next().await, newest.next().await), (Some(Lost(3)), Some(Item(1))));
        assert_eq!((latest.next().await, latest.next().await), (Some(Lost(4)), Some(Item(5))));
        publish(&fan_out, 6..=6).await;
        drop(fan_out);
        assert_eq!(oldest.collect::<Vec<_>>().await, [Lost(1), Item(5), Item(6)]);
        assert_eq!(newest.collect::<Vec<_>>().await, [Item(2), Lost(3), Item(6)]);
        assert_eq!(latest.collect::<Vec<_>>().await, [Item(6)]);
        assert_eq!(cut_off.collect::<Vec<_>>().await, [Item(1), Item(2), Lost(1), Disconnected]);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_comes_from_block_alone_and_clock_limits_it() {
        let (fan_out, start) = (FanOut::new(), Instant::now());
        let _stuck = [WhenFull::DropOldest, WhenFull::DropNewest].map(|it| fan_out.subscribe(TWO, it));
        publish(&fan_out, 1..=1_000).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut slow = fan_out.subscribe_blocking(NonZeroUsize::MIN, ms(60));
        let stuck = fan_out.subscribe_blocking(NonZeroUsize::MIN, ms(20));
        publish(&fan_out, 1..=1).await;
        let read = async {
            sleep(ms(50)).await;
            (slow.next().await, slow.next().await)
        };
        let (connected, read) = tokio::join!(fan_out.publish(2), read);
        assert_eq!((connected, read), (3, (Some(Item(1)), Some(Item(2)))));
        assert_eq!(start.elapsed(), ms(50));
        assert_eq!(stuck.collect::<Vec<_>>().await, [Item(1), Lost(1), Disconnected]);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_limits_the_delay_of_one_item() {
        let (fan_out, start) = (FanOut::new(), Instant::now());
        let stuck = [30, 10, 20].map(|t| fan_out.subscribe_blocking(NonZeroUsize::MIN, ms(t)));
        assert_eq!((fan_out.publish(1).await, fan_out.publish(2).await), (3, 0));
        assert_eq!(start.elapsed(), ms(30));
        let patient = fan_out.subscribe_blocking(NonZeroUsize::MIN, Duration::MAX);
        let impatient = fan_out.subscribe_blocking(NonZeroUsize::MIN, Duration::ZERO);
        assert_eq!((fan_out.publish(3).await, fan_out.publish(4).now_or_never()), (2, None));
        drop(patient);
        assert_eq!(fan_out.publish(4).await, 0);
        assert_eq!((start.elapsed(), stuck.len()), (ms(30), 3));
        assert_eq!(impatient.collect::<Vec<_>>().await, [Item(3), Lost(1), Disconnected]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_publishes_to_nobody() {
        let fan_out = FanOut::new();
        let mut slow = fan_out.subscribe_blocking(NonZeroUsize::MIN, ms(60));
        let mut fast = fan_out.subscribe(TEN, WhenFull::DropOldest);
        fan_out.publish(1).await;
        assert_eq!(fan_out.publish(2).now_or_never(), None);
        assert_eq!((fast.next().await, fast.next().now_or_never()), (Some(Item(1)), None));
        assert_eq!(slow.next().await, Some(Item(1)));
        assert_eq!(fan_out.publish(3).now_or_never(), Some(2));
        assert_eq!((slow.next().await, fast.next().await), (Some(Item(3)), Some(Item(3))));
        drop(slow);
        assert_eq!(fan_out.publish(4).await, 1);
    }

    #[derive(Debug)]
    struct Fragile(bool);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(!self.0, "cannot be cloned");
            Fragile(false)
        }
    }

    #[tokio::test]
    async fn panics_of_clone_are_the_publishers() {
        let fan_out = FanOut::new();
        let mut subscriber = fan_out.subscribe(TEN, WhenFull::DropOldest);
        let publish = AssertUnwindSafe(|| fan_out.publish(Fragile(true)).now_or_never());
        assert!(catch_unwind(publish).is_err());
        assert_eq!(fan_out.publish(Fragile(false)).await, 1);
        assert!(matches!(subscriber.next().await, Some(Item(Fragile(false)))));
    }

    #[tokio::test]
    async fn memory_is_that_of_the_queues() {
        let (fan_out, held) = (FanOut::new(), Arc::new(()));
        let one = fan_out.subscribe(TWO, WhenFull::DropOldest);
        let _other = fan_out.subscribe(NonZeroUsize::MAX, WhenFull::DropOldest);
        for _ in 0..5 {
            fan_out.publish(held.clone()).await;
        }
        assert_eq!(Arc::strong_count(&held), 1 + 2 + 5);
        drop(one);
        assert_eq!(Arc::strong_count(&held), 1 + 5);
        for _ in 0..1_000 {
            drop(fan_out.subscribe(TEN, WhenFull::DropOldest));
        }
        assert!(fan_out.joining.lock().unwrap().len() <= 4, "those who left do not pile up");
    }
}
