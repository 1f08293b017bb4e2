//! Await many futures together and get all their results in input order.
//!
//! Use it when every future may start at once and you want every result. The futures run on the caller's task: they may
//! borrow, and they need not be `Send`. For a few futures of different types use [`tokio::join!`]; to stop at the first
//! failure, `try_gather`; to start only so many at a time, `map_ordered`.
//!
//! | | |
//! |---|---|
//! | Order | all futures start in input order; results come back in input order |
//! | Errors | results are passed on as they are: a `Result` is a value like any other |
//! | Cancellation | dropping the call drops every future with it; nothing is spawned |
//! | Panics | a future's panic is the caller's panic; the other futures are dropped first |
//! | Memory | O(n): one result for each future, and two allocations for each that is not ready at its first poll |
//! | Backpressure | none: all n start at once |
//! | Clock | none of its own |
//!
//! Up to 30 futures this is [`join_all`], which nothing beats there. Beyond that `join_all` polls every waiting future
//! again each time tokio's cooperative budget (128 operations) runs out, which takes time in the square of n. This
//! function stops polling when the budget is spent: each future is polled twice to start with and then only when it was
//! woken, and the other tasks of the runtime get their turn.
//!
//! ```
//! use gather::gather;
//!
//! #[tokio::main]
//! async fn main() {
//!     let words = ["one".to_string(), "three".to_string()];
//!     let lengths = gather(words.iter().map(async |word| word.len())).await;
//!     assert_eq!(lengths, [3, 5]);
//! }
//! ```

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use futures::future::{OptionFuture, join_all};
use futures::stream::FuturesUnordered;
use tokio::task::coop::{has_budget_remaining, poll_proceed};

/// Up to here `join_all` polls an array in place, without an allocation for each future.
const FEW: usize = 30;

/// So many first polls count as one operation of the budget: a task that starts many futures gives way now and then.
const STARTS_PER_OPERATION: usize = 8;

/// Runs all `futures` concurrently on the caller's task and returns their outputs in input order.
///
/// An empty input returns an empty list. Dropping the returned future drops all futures that have not ended.
///
/// # Panics
///
/// If one of the futures panics.
pub async fn gather<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures = futures.into_iter();
    if futures.size_hint().1.is_some_and(|most| most <= FEW) {
        return join_all(futures).await;
    }
    let mut outputs = Vec::with_capacity(futures.size_hint().0);
    let mut waiting = FuturesUnordered::new();
    // Each future is polled here first. One that is ready at once leaves the place to the next and costs no allocation.
    let mut place = Box::pin(OptionFuture::default());
    poll_fn(|context| {
        for future in futures.by_ref() {
            place.set(Some(future).into());
            if let Poll::Ready(output) = place.as_mut().poll(context) {
                outputs.push(output);
            } else {
                let index = outputs.len();
                outputs.push(None);
                let mut future = mem::replace(&mut place, Box::pin(OptionFuture::default()));
                // `extend` and not `push`: that takes `&self`, and the call would be `Send` for `Sync` futures only.
                waiting.extend([poll_fn(move |context| {
                    poll_within_budget(future.as_mut(), context).map(|output| (index, output))
                })]);
            }
            if outputs.len() % STARTS_PER_OPERATION == 0 || !has_budget_remaining() {
                ready!(poll_proceed(context)).made_progress();
            }
        }
        Poll::Ready(())
    })
    .await;
    while let Some((index, output)) = waiting.next().await {
        outputs[index] = output;
    }
    outputs.into_iter().map(|output| output.expect("`waiting` is empty, so every future has ended")).collect()
}

/// Polls `future` if this turn has budget left. If not it wakes itself, upon which `FuturesUnordered` ends the turn too.
fn poll_within_budget<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
    if !has_budget_remaining() {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    let output = future.poll(context);
    // A future that knows nothing of the budget is charged for its poll, or many of them would never give way.
    if has_budget_remaining() {
        let _ = poll_proceed(context).map(|budget| budget.made_progress());
    }
    output
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    const SIZES: [u64; 5] = [0, 1, 30, 31, 1000];

    #[tokio::test(start_paused = true)]
    async fn order_is_input_order_whatever_ends_first() {
        for n in SIZES {
            let slow_first = (0..n).map(async |i| {
                sleep(Duration::from_millis(n - i)).await;
                i
            });
            assert_eq!(gather(slow_first).await, (0..n).collect::<Vec<_>>());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_is_none_all_run_at_once() {
        let start = Instant::now();
        gather((0..1000).map(|_| sleep(Duration::from_millis(10)))).await;
        assert_eq!(start.elapsed(), Duration::from_millis(10));
    }

    #[tokio::test]
    async fn order_holds_in_a_spawned_task_of_futures_that_are_not_sync() {
        let futures: Vec<_> = (0..40).map(|i| async move { i }.boxed()).collect();
        assert!(tokio::spawn(gather(futures)).await.unwrap().into_iter().eq(0..40));
    }

    #[tokio::test]
    async fn errors_are_values() {
        let results = gather((0..40).map(async |i| if i == 7 { Err("seven") } else { Ok(i) })).await;
        assert_eq!((results[6], results[7], results[39]), (Ok(6), Err("seven"), Ok(39)));
    }

    #[tokio::test]
    async fn cancellation_drops_every_future_at_once() {
        let held = Rc::new(());
        let forever = async |_| {
            let _held = held.clone();
            std::future::pending::<()>().await;
        };
        for n in SIZES {
            assert!(gather((0..n).map(forever)).now_or_never().is_none() || n == 0);
            assert_eq!(Rc::strong_count(&held), 1);
        }
    }

    #[tokio::test]
    async fn panics_reach_the_caller_after_the_others_are_dropped() {
        let held = Rc::new(());
        let futures = (0..40).map(async |i| {
            let _held = held.clone();
            tokio::task::yield_now().await;
            assert_ne!(i, 20, "number 20 panics");
        });
        assert!(AssertUnwindSafe(gather(futures)).catch_unwind().await.is_err());
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
