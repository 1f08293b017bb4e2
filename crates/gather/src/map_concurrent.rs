//! Work on many items, so many at a time, and use each result as soon as it is there.
//!
//! Use it when the results are used one by one and their order does not matter. Work and consumer run on the caller's
//! task: they may borrow. When the order matters, or all you want is a list, use `map_ordered`.
//!
//! | | |
//! |---|---|
//! | Order | items start in input order; results come in the order in which they are ready |
//! | Errors | whatever the consumer returns ends the call at once: a `?` in its loop makes the first failure the last |
//! | Cancellation | dropping the call drops the running work and the results that wait; so does the consumer's end |
//! | Panics | a panic of the work or the consumer is the caller's panic; everything else is dropped first |
//! | Memory | O(limit): at most `limit` items in work and `limit` results that wait for the consumer |
//! | Backpressure | when `limit` results wait, finished work waits too, and no further item is pulled |
//! | Clock | none of its own |
//!
//! `limit` lanes share one iterator. A lane pulls an item when it has nothing else to do, so an endless or costly iterator
//! is read no further than needed. The lanes go on while the consumer awaits something else, which is the difference
//! from [`buffer_unordered`](futures::StreamExt::buffer_unordered): that is a stream, and while nobody polls it, nothing
//! in it moves.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use gather::map_concurrent;
//!
//! #[tokio::main]
//! async fn main() {
//!     let limit = NonZeroUsize::new(2).unwrap();
//!     let sum = map_concurrent(["1", "2", "x"], limit, async |text| text.parse::<u32>(), |mut results| async move {
//!         let mut sum = 0;
//!         while let Some(number) = results.recv().await { sum += number?; }
//!         Ok::<_, std::num::ParseIntError>(sum)
//!     });
//!     assert!(sum.await.is_err());
//! }
//! ```

use std::future::Future;
use std::iter::from_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::coop::consume_budget;

use super::gather::gather;

/// Runs `work` on each of `items`, at most `limit` at a time, while `consume` takes the results; returns what it returns.
///
/// `consume` is called once, with the receiving end of the results; `recv` returns `None` when all items are done. When
/// it drops the receiver, no further item is started. When it returns, work that still runs is dropped.
pub async fn map_concurrent<I, T, F, C>(
    items: impl IntoIterator<Item = I>,
    limit: NonZeroUsize,
    work: impl Fn(I) -> F,
    consume: impl FnOnce(mpsc::Receiver<T>) -> C,
) -> C::Output
where
    F: Future<Output = T>,
    C: Future,
{
    let (sender, results) = mpsc::channel(limit.get().min(Semaphore::MAX_PERMITS));
    let items = Mutex::new(items.into_iter().fuse());
    let produce = async {
        // The sender is dropped with this block: the consumer then sees the end.
        let sender = sender;
        let started = from_fn(|| next(&items)).take(limit.get());
        gather(started.map(|item| lane(item, &items, &work, &sender))).await;
    };
    let mut consume = pin!(consume(results));
    tokio::select! {
        biased;
        output = &mut consume => output,
        () = produce => consume.await,
    }
}

/// Works on one item after the other, beginning with `item`, until there is none or nobody wants the results.
async fn lane<I, T, F: Future<Output = T>>(
    item: I,
    items: &Mutex<impl Iterator<Item = I>>,
    work: &impl Fn(I) -> F,
    sender: &mpsc::Sender<T>,
) {
    let mut current = Some(item);
    while let Some(item) = current {
        consume_budget().await;
        if sender.send(work(item).await).await.is_err() {
            return;
        }
        current = next(items);
    }
}

fn next<I>(items: &Mutex<impl Iterator<Item = I>>) -> Option<I> {
    // Poisoned only if the iterator panicked, and then the caller panics too.
    items.lock().unwrap_or_else(PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    async fn all<T>(mut results: mpsc::Receiver<T>) -> Vec<T> {
        let mut all = Vec::new();
        while let Some(result) = results.recv().await {
            all.push(result);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_completion_order_with_at_most_limit_running() {
        let (running, peak) = (Cell::new(0), Cell::new(0));
        let work = async |millis| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            sleep(Duration::from_millis(millis)).await;
            running.set(running.get() - 1);
            millis
        };
        assert_eq!(map_concurrent([30, 10, 5, 50], TWO, work, all).await, [10, 5, 30, 50]);
        assert_eq!(peak.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_work_goes_on_while_the_consumer_is_busy() {
        let start = Instant::now();
        let pulled = &Cell::new(0);
        let items = (0..100).inspect(|_| pulled.set(pulled.get() + 1));
        let work = async |item| {
            sleep(Duration::from_millis(10)).await;
            item
        };
        let consume = |mut results: mpsc::Receiver<u64>| async move {
            results.recv().await;
            sleep(Duration::from_millis(500)).await;
            // Two wait in the channel and two in the lanes; the first was received.
            assert_eq!(pulled.get(), 5);
            start.elapsed()
        };
        assert_eq!(map_concurrent(items, TWO, work, consume).await, Duration::from_millis(510));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_the_first_ends_the_call() {
        let start = Instant::now();
        let work = async |millis| {
            sleep(Duration::from_millis(millis)).await;
            if millis == 20 { Err("twenty") } else { Ok(()) }
        };
        let consume = |mut results: mpsc::Receiver<Result<(), _>>| async move {
            while let Some(result) = results.recv().await {
                result?;
            }
            Ok(())
        };
        assert_eq!(map_concurrent([60_000, 20, 7], TWO, work, consume).await, Err("twenty"));
        assert_eq!(start.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_running_work() {
        let held = Rc::new(());
        let work = async |_| {
            let _held = held.clone();
            std::future::pending::<()>().await;
        };
        assert!(map_concurrent(0..9, TWO, work, all).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
        map_concurrent(0..9, TWO, work, async |results| drop(results)).await;
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let call = map_concurrent(0..9, TWO, async |item| assert_ne!(item, 5), all);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test]
    async fn memory_is_that_of_the_limit_and_the_future_is_send() {
        let largest = NonZeroUsize::MAX;
        let call = map_concurrent(0..3, largest, async |item| item, all);
        assert_eq!(tokio::spawn(call).await.unwrap(), [0, 1, 2]);
        let endless = map_concurrent(0.., TWO, async |item| item, async |mut results| results.recv().await);
        assert_eq!(endless.await, Some(0));
    }
}
