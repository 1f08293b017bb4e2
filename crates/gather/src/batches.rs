//! Work on items in fixed batches, each awaited as a whole, and keep all results.
//!
//! Use it when the other side wants batches: a server that takes 100 rows at a time, a step that must end before the next
//! begins. For a mere limit use `map_ordered`, which starts the next item when one ends: here every batch waits for its
//! slowest item. With 100 items of which every 10th takes 100 ms and the others 1 ms, batches of 10 take 1 s, and
//! `map_ordered` with a limit of 10 takes 110 ms.
//!
//! | | |
//! |---|---|
//! | Order | a batch starts when the one before has ended; results come in input order |
//! | Errors | results are passed on as they are: a `Result` is a value like any other |
//! | Cancellation | dropping the call drops the running batch; results so far are dropped too |
//! | Panics | a panic of the work is the caller's panic; the rest of its batch is dropped first |
//! | Memory | O(n) results, and `size` items in work |
//! | Backpressure | no item is pulled before its batch begins |
//! | Clock | none of its own |
//!
//! ```
//! use std::num::NonZeroUsize;
//! use gather::batches;
//!
//! #[tokio::main]
//! async fn main() {
//!     let size = NonZeroUsize::new(2).unwrap();
//!     let lengths = batches(["one", "three", "two"], size, async |word| word.len(), |done| println!("{done}")).await;
//!     assert_eq!(lengths, [3, 5, 3]);
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;

use super::gather::gather;

/// Runs `work` on each of `items`, `size` at a time, and returns the results in input order.
///
/// After each batch `progress` is called with the number of items done so far. The last batch may be smaller; an empty
/// input makes no batch.
pub async fn batches<I, T, F>(
    items: impl IntoIterator<Item = I>,
    size: NonZeroUsize,
    work: impl Fn(I) -> F,
    mut progress: impl FnMut(usize),
) -> Vec<T>
where
    F: Future<Output = T>,
{
    let mut items = items.into_iter().fuse();
    let mut results = Vec::with_capacity(items.size_hint().0);
    loop {
        let batch = gather(items.by_ref().take(size.get()).map(&work)).await;
        if batch.is_empty() {
            return results;
        }
        results.extend(batch);
        progress(results.len());
    }
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

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    async fn slow(millis: u64) -> u64 {
        sleep(Duration::from_millis(millis)).await;
        millis
    }

    #[tokio::test(start_paused = true)]
    async fn order_each_batch_waits_for_its_slowest() {
        let start = Instant::now();
        let mut done = Vec::new();
        let results =
            batches([5, 30, 1, 1, 1, 1, 7], THREE, slow, |n| done.push((n, start.elapsed().as_millis())))
                .await;
        assert_eq!(results, [5, 30, 1, 1, 1, 1, 7]);
        assert_eq!(done, [(3, 30), (6, 31), (7, 38)]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_costs_what_the_introduction_says() {
        let start = Instant::now();
        let ten = NonZeroUsize::new(10).unwrap();
        batches((0..100).map(|i| if i % 10 == 0 { 100 } else { 1 }), ten, slow, |_| ()).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn errors_are_values() {
        let results = batches(0..4, THREE, async |i| if i == 1 { Err(i) } else { Ok(i) }, |_| ()).await;
        assert_eq!(results, [Ok(0), Err(1), Ok(2), Ok(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_and_memory_one_batch_is_pulled_at_a_time() {
        let pulled = Cell::new(0);
        let items = (0..100).inspect(|_| pulled.set(pulled.get() + 1));
        let mut seen = Vec::new();
        batches(items, THREE, async |i| i, |_| seen.push(pulled.get())).await;
        assert_eq!(seen[..3], [3, 6, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_holds_one_batch_in_work() {
        let (running, peak) = (Cell::new(0), Cell::new(0));
        let work = async |_| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            slow(1).await;
            running.set(running.get() - 1);
        };
        batches(0..10, THREE, work, |_| ()).await;
        assert_eq!(peak.get(), 3);
    }

    #[tokio::test]
    async fn cancellation_drops_the_batch() {
        let held = Rc::new(());
        let work = async |_| {
            let _held = held.clone();
            std::future::pending::<()>().await;
        };
        assert!(batches(0..9, THREE, work, |_| ()).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let call = batches(0..9, THREE, async |i| assert_ne!(i, 5), |_| ());
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }
}
