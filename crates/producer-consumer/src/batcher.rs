//! Collect single items into batches: so many, so many bytes, or so long after the first one.
//!
//! Use it where one large write is cheaper than many small ones: bulk inserts, log shippers, metrics. When callers wait for an
//! answer each, use `batch_loader`. When all items are there already, `chunks` of a slice is enough.
//!
//! | | |
//! |---|---|
//! | Order | items keep the order of the channel, within a batch and across batches |
//! | Errors | none of its own; a batch belongs to the consumer, who may try it again |
//! | Cancellation | dropping [`next`](Batcher::next) loses nothing: the items stay in the batcher, and their delay runs on; dropping the batcher drops them |
//! | Panics | a panic of `size` is the caller's panic, and loses no item |
//! | Memory | O(items): the batch and what was received with it are together at most `items` items, and never more than the channel held |
//! | Backpressure | while nobody calls `next` nothing is received, so a bounded channel fills and its senders wait |
//! | Clock | `tokio::time`: a batch waits at most `delay` from when its first item was received; what the item waited in the channel before does not count |
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use producer_consumer::Batcher;
//!
//! #[tokio::main]
//! async fn main() {
//!     let (sender, receiver) = tokio::sync::mpsc::channel(8);
//!     for number in 1..=3 { sender.send(number).await.unwrap(); }
//!     let mut batches = Batcher::new(receiver, NonZeroUsize::new(2).unwrap(), Duration::from_millis(5));
//!     assert_eq!(batches.next().await, Some(vec![1, 2]));
//!     assert_eq!(batches.next().await, Some(vec![3]));
//! }
//! ```

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

/// Longer than any program runs, and still an instant that exists.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Makes batches of what comes out of a channel. Dropping it drops the items that it holds, and senders see the channel closed.
pub struct Batcher<T> {
    /// The senders' end is the caller's; when all senders are gone, the last batch is handed out at once.
    receiver: mpsc::Receiver<T>,
    items: usize,
    bytes: usize,
    size: fn(&T) -> usize,
    delay: Duration,
    batch: Vec<T>,
    /// The size of `batch`.
    filled: usize,
    /// Received with the batch, and not weighed yet or too large for it: it opens the next ones.
    rest: VecDeque<T>,
    received: Instant,
    deadline: Instant,
}

impl<T> Batcher<T> {
    /// Batches of at most `items`, each handed out at the latest `delay` after its first item was received. With a delay of
    /// zero a batch is whatever is there.
    pub fn new(receiver: mpsc::Receiver<T>, items: NonZeroUsize, delay: Duration) -> Self {
        let now = Instant::now();
        Batcher {
            receiver,
            items: items.get(),
            bytes: usize::MAX,
            size: |_| 0,
            delay: delay.min(FOR_EVER),
            batch: Vec::new(),
            filled: 0,
            rest: VecDeque::new(),
            received: now,
            deadline: now,
        }
    }

    /// Also limits the bytes of a batch, or whatever `size` counts. An item that is larger than `bytes` is a batch of its own.
    pub fn max_bytes(self, bytes: NonZeroUsize, size: fn(&T) -> usize) -> Self {
        Batcher { bytes: bytes.get(), size, ..self }
    }

    /// Refuses further items: senders get an error. What was sent before still comes out of [`next`](Self::next).
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// The next batch, which is never empty. `None` when all senders are gone, or it was closed, and everything was handed out.
    ///
    /// # Panics
    ///
    /// If `size` panics.
    pub async fn next(&mut self) -> Option<Vec<T>> {
        // Batches out of the rest would otherwise come without ever giving way to other tasks.
        consume_budget().await;
        let mut full = self.fill();
        if self.batch.is_empty() {
            if self.receive().await == 0 {
                return None;
            }
            full = self.fill();
        }
        let mut timer = pin!(sleep_until(self.deadline));
        // The clock is asked too: with items ready at every turn the timer would never get its turn.
        while !full && Instant::now() < self.deadline {
            tokio::select! {
                biased;
                received = self.receive() => if received == 0 { break },
                () = &mut timer => break,
            }
            full = self.fill();
        }
        self.filled = 0;
        Some(mem::take(&mut self.batch))
    }

    /// Receives what is there and has room, and waits until there is something. Returns 0 at the end of the channel.
    async fn receive(&mut self) -> usize {
        let (room, opens) = (self.items - self.batch.len(), self.batch.is_empty());
        // Before this is called `fill` has emptied `rest`: otherwise the batch is full.
        let count = if self.bytes == usize::MAX {
            self.receiver.recv_many(&mut self.batch, room).await
        } else {
            let mut received = Vec::new();
            let count = self.receiver.recv_many(&mut received, room).await;
            self.rest = received.into();
            count
        };
        self.received = Instant::now();
        if opens {
            self.deadline = self.received + self.delay;
        }
        count
    }

    /// Moves items into the batch while they fit. Returns whether the batch is complete.
    fn fill(&mut self) -> bool {
        while let Some(next) = self.rest.front() {
            let size = (self.size)(next);
            let filled = self.filled.saturating_add(size);
            let fits = filled <= self.bytes || self.batch.is_empty();
            if !fits || self.batch.len() >= self.items {
                return true;
            }
            if self.batch.is_empty() {
                self.deadline = self.received + self.delay;
            }
            self.filled = filled;
            self.batch.extend(self.rest.pop_front());
        }
        self.batch.len() >= self.items || (self.filled >= self.bytes && !self.batch.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{advance, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    const DELAY: Duration = Duration::from_millis(50);

    fn batcher(items: NonZeroUsize, delay: Duration) -> (mpsc::Sender<usize>, Batcher<usize>) {
        let (sender, receiver) = mpsc::channel(20);
        (sender, Batcher::new(receiver, items, delay))
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_and_the_end_flushes_at_once() {
        let (sender, mut batches) = batcher(TWO, DELAY);
        let start = Instant::now();
        (0..5).for_each(|i| sender.try_send(i).unwrap());
        drop(sender);
        assert_eq!(batches.next().await, Some(vec![0, 1]));
        assert_eq!(batches.next().await, Some(vec![2, 3]));
        assert_eq!(batches.next().await, Some(vec![4]));
        assert_eq!((batches.next().await, batches.next().await), (None, None));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_runs_from_the_first_item() {
        let (sender, mut batches) = batcher(TEN, DELAY);
        let start = Instant::now();
        let sending = tokio::spawn(async move {
            for i in 0..9 {
                sleep(Duration::from_millis(20)).await;
                sender.send(i).await.unwrap();
            }
        });
        // The first at 20 ms: two more come before 70 ms. An item at every 20 ms moves no deadline.
        assert_eq!(batches.next().await, Some(vec![0, 1, 2]));
        assert_eq!(start.elapsed(), Duration::from_millis(70));
        assert_eq!(batches.next().await, Some(vec![3, 4, 5]));
        assert_eq!(start.elapsed(), Duration::from_millis(130));
        assert_eq!(batches.next().await, Some(vec![6, 7, 8]));
        assert_eq!(start.elapsed(), Duration::from_millis(180));
        sending.await.unwrap();
    }

    /// Not paused: a timer of zero would then be ready at once, which it is not in earnest.
    #[tokio::test]
    async fn clock_of_zero_and_of_for_ever() {
        let (sender, mut batches) = batcher(TEN, Duration::ZERO);
        (0..3).for_each(|i| sender.try_send(i).unwrap());
        assert_eq!(batches.next().now_or_never(), Some(Some(vec![0, 1, 2])));
        let (sender, mut batches) = batcher(NonZeroUsize::MAX, Duration::MAX);
        sender.try_send(1).unwrap();
        assert_eq!(batches.next().now_or_never(), None);
        drop(sender);
        assert_eq!(batches.next().await, Some(vec![1]));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_a_batch_is_limited_in_bytes_too() {
        let (sender, batches) = batcher(TEN, DELAY);
        let mut batches = batches.max_bytes(TEN, |size| *size);
        let start = Instant::now();
        [4, 4, 4, 6, 99, 1, usize::MAX, 1].into_iter().for_each(|size| sender.try_send(size).unwrap());
        for expected in [vec![4, 4], vec![4, 6], vec![99], vec![1], vec![usize::MAX]] {
            assert_eq!(batches.next().now_or_never(), Some(Some(expected)));
        }
        assert_eq!(batches.next().await, Some(vec![1]));
        assert_eq!(start.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_keeps_the_items_and_their_deadline() {
        let (sender, mut batches) = batcher(TEN, DELAY);
        sender.try_send(1).unwrap();
        assert_eq!(batches.next().now_or_never(), None);
        advance(Duration::from_millis(40)).await;
        sender.try_send(2).unwrap();
        let start = Instant::now();
        assert_eq!(batches.next().await, Some(vec![1, 2]));
        assert_eq!(start.elapsed(), Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_reaches_the_senders() {
        let (sender, mut batches) = batcher(TWO, DELAY);
        assert_eq!((0..30).filter(|i| sender.try_send(*i).is_ok()).count(), 20);
        batches.next().await;
        assert_eq!((0..30).filter(|i| sender.try_send(*i).is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_size_lose_no_item() {
        let (sender, batches) = batcher(TEN, DELAY);
        let mut batches = batches.max_bytes(TEN, |item| if *item == 2 { panic!("no size") } else { 1 });
        (1..3).for_each(|i| sender.try_send(i).unwrap());
        let next = std::panic::AssertUnwindSafe(batches.next()).catch_unwind().await;
        assert!(next.is_err());
        batches.size = |_| 1;
        assert_eq!(batches.next().await, Some(vec![1, 2]));
    }
}
