//! Run many futures and get one outcome for each, in input order, whatever happens to the others.
//!
//! Use it when some may fail and the rest still counts: health checks, notifications, a crawl. When one failure makes the
//! others useless use `try_gather`. The futures run on the caller's task and may borrow.
//!
//! | | |
//! |---|---|
//! | Order | one [`Outcome`] for each future, in input order |
//! | Errors | an error is that future's outcome and touches no other; after `max_failures` failures [`settle_within`] starts no further future, lets the running ones end, and the rest are [`Cancelled`](Failure::Cancelled) |
//! | Cancellation | dropping the call drops every future with it; nothing is spawned |
//! | Panics | a panic is that future's outcome, with its payload |
//! | Memory | O(n) outcomes |
//! | Backpressure | none in [`settle`], all start at once; [`settle_within`] runs at most `limit` |
//! | Clock | none of its own |
//!
//! A future that panicked is dropped and never looked at again. What it shared with others may be half changed: that is
//! what a poisoned `std::sync::Mutex` tells.
//!
//! ```
//! use gather::settle;
//!
//! #[tokio::main]
//! async fn main() {
//!     let outcomes = settle(["1", "x", "3"].map(async |text| text.parse::<u8>())).await;
//!     let (values, failures) = gather::split(outcomes);
//!     assert_eq!(values, [(0, 1), (2, 3)]);
//!     assert_eq!(failures[0].0, 1);
//! }
//! ```

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use super::gather::gather;
use super::map_ordered::map_ordered;

/// How one future ended.
#[derive(Debug)]
pub enum Outcome<T, E> {
    /// It returned this value.
    Value(T),
    /// It failed.
    Failure(Failure<E>),
}

/// Why there is no value.
#[derive(Debug)]
pub enum Failure<E> {
    /// The future returned this error.
    Error(E),
    /// The future panicked. The payload can be resumed with [`std::panic::resume_unwind`].
    Panic(Box<dyn Any + Send>),
    /// The future was never started, because too many had failed.
    Cancelled,
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Error(error) => error.fmt(f),
            Failure::Panic(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "panicked: {}", text.unwrap_or("no message"))
            }
            Failure::Cancelled => f.write_str("never started: too many others had failed"),
        }
    }
}

/// Runs all `futures` at once and returns their outcomes in input order.
pub async fn settle<F, T, E>(futures: impl IntoIterator<Item = F>) -> Vec<Outcome<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    gather(futures.into_iter().map(outcome)).await
}

/// Runs `futures`, at most `limit` at a time, and returns their outcomes in input order. When `max_failures` have failed,
/// no further one is started.
pub async fn settle_within<F, T, E>(
    futures: impl IntoIterator<Item = F>,
    limit: NonZeroUsize,
    max_failures: NonZeroUsize,
) -> Vec<Outcome<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let failures = AtomicUsize::new(0);
    let failures = &failures;
    let work = |future| async move {
        if failures.load(Ordering::Relaxed) >= max_failures.get() {
            return Outcome::Failure(Failure::Cancelled);
        }
        let outcome = outcome(future).await;
        failures.fetch_add(usize::from(matches!(outcome, Outcome::Failure(_))), Ordering::Relaxed);
        outcome
    };
    map_ordered(futures, limit, work).await
}

/// Values and failures, each with its place in the input.
pub type Split<T, E> = (Vec<(usize, T)>, Vec<(usize, Failure<E>)>);

/// Splits outcomes into values and failures, each with its place in the input.
pub fn split<T, E>(outcomes: impl IntoIterator<Item = Outcome<T, E>>) -> Split<T, E> {
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Value(value) => values.push((index, value)),
            Outcome::Failure(failure) => failures.push((index, failure)),
        }
    }
    (values, failures)
}

async fn outcome<F, T, E>(future: F) -> Outcome<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    // Sound for this function: the future is dropped after a panic and nobody looks at it again.
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(Ok(value)) => Outcome::Value(value),
        Ok(Err(error)) => Outcome::Failure(Failure::Error(error)),
        Err(panic) => Outcome::Failure(Failure::Panic(panic)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    async fn check(i: u64) -> Result<u64, String> {
        sleep(Duration::from_millis(10 - i)).await;
        match i {
            3 => Err("three refuses".into()),
            // Not `panic!`: the message would be printed though the panic is expected.
            5 => std::panic::resume_unwind(Box::new("five breaks")),
            _ => Ok(i),
        }
    }

    fn shown(outcomes: Vec<Outcome<u64, String>>) -> Vec<String> {
        let show = |outcome| match outcome {
            Outcome::Value(value) => format!("{value}"),
            Outcome::Failure(failure) => failure.to_string(),
        };
        outcomes.into_iter().map(show).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn order_errors_and_panics_are_outcomes_in_input_order() {
        let expected = ["0", "1", "2", "three refuses", "4", "panicked: five breaks", "6"];
        assert_eq!(shown(settle((0..7).map(check)).await), expected);
        assert_eq!(shown(settle_within((0..7).map(check), TWO, THREE).await), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_beyond_the_threshold_stop_the_submission() {
        let started = Cell::new(0);
        let failing = async |i: u64| {
            started.set(started.get() + 1);
            sleep(Duration::from_millis(i)).await;
            if i.is_multiple_of(2) { Err("even") } else { Ok(i) }
        };
        let outcomes = settle_within((0..100).map(failing), TWO, THREE).await;
        let (values, failures) = split(outcomes);
        // 0, 2 and 4 failed; 5 was running then and ended well.
        assert_eq!((started.get(), values.len(), failures.len()), (6, 3, 97));
        assert!(matches!(failures[2], (4, Failure::Error("even"))));
        assert!(matches!(failures[3], (6, Failure::Cancelled)));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_leave_the_others_alone() {
        let (values, failures) = split(settle((4..7).map(check)).await);
        assert_eq!(values, [(0, 4), (2, 6)]);
        assert_eq!(failures[0].1.to_string(), "panicked: five breaks");
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_is_the_limit() {
        let start = Instant::now();
        let ten = async |_| {
            sleep(Duration::from_millis(10)).await;
            Ok::<_, ()>(())
        };
        settle((0..10).map(ten)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(10));
        settle_within((0..10).map(ten), TWO, THREE).await;
        assert_eq!(start.elapsed(), Duration::from_millis(60));
    }

    #[tokio::test]
    async fn cancellation_drops_every_future_at_once() {
        let held = Rc::new(());
        let forever = async |_| {
            let _held = held.clone();
            std::future::pending::<Result<(), ()>>().await
        };
        assert!(settle((0..40).map(forever)).now_or_never().is_none());
        assert!(settle_within((0..40).map(forever), TWO, THREE).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn memory_is_one_outcome_for_each_future() {
        assert_eq!(settle((0..40).map(async |i| Ok::<_, ()>(i))).await.len(), 40);
        assert!(settle(std::iter::empty::<std::future::Ready<Result<(), ()>>>()).await.is_empty());
    }
}
