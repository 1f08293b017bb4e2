//! Run alternatives in parallel, return the first success or the first k, and stop the losers.
//!
//! Use it when several sources can give the same answer: mirrors, replicas, resolvers. The load is n-fold: to start the
//! second one only when the first is slow use `hedge`. When nobody may fail use [`try_gather`](super::try_gather()).
//!
//! | | |
//! |---|---|
//! | Order | all start in input order; successes come back in the order in which they ended, each with its index |
//! | Errors | a failure matters when too few are left to succeed: then all failures so far, in input order; an empty input, or k above n, is an error at once |
//! | Cancellation | when it is decided the other tasks are aborted, and their end is awaited: nothing of them runs after the call; dropping the call aborts all tasks, and each ends at its next await without being waited for |
//! | Panics | a panic is no failure: the other tasks are aborted and their end is awaited, then it is resumed in the caller, also if it came after the decision |
//! | Memory | O(n): a task for each future, and its output or error |
//! | Backpressure | none: all n start at once |
//! | Clock | none of its own |
//!
//! A loser that never awaits cannot be aborted: the call returns when it has ended.
//!
//! ```
//! use gather::{Won, race};
//!
//! #[tokio::main]
//! async fn main() {
//!     let mirrors = ["not a number", "42"].map(async |text| text.parse::<u8>());
//!     assert_eq!(race(mirrors).await, Ok(Won { index: 1, output: 42 }));
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow::{Break, Continue};

use super::try_gather::{Failed, join_until};

/// A success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Won<T> {
    /// The future's place in the input, from 0.
    pub index: usize,
    /// What it returned.
    pub output: T,
}

/// Why there are not as many successes as were needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost<E> {
    /// There are not as many futures. None was started.
    #[error("{needed} successes are needed, and there are only {given} futures")]
    TooFewFutures {
        /// How many successes were asked for.
        needed: usize,
        /// How many futures there are.
        given: usize,
    },
    /// So many failed that the others are too few. Those still running were stopped.
    #[error("{} of {given} futures failed, so {needed} successes are out of reach", failures.len())]
    TooManyFailures {
        /// How many successes were asked for.
        needed: usize,
        /// How many futures there are.
        given: usize,
        /// How many had succeeded by then.
        succeeded: usize,
        /// What had failed by then, in input order.
        failures: Vec<Failed<E>>,
    },
}

/// Runs each of `futures` as a task and returns the first success: a [`quorum`] of one.
///
/// # Panics
///
/// If one of the futures panics, and if called outside a Tokio runtime.
pub async fn race<F, T, E>(futures: impl IntoIterator<Item = F>) -> Result<Won<T>, Lost<E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut won = quorum(futures, NonZeroUsize::MIN).await?;
    Ok(won.remove(0))
}

/// Runs each of `futures` as a task and returns the first `needed` successes, in the order in which they ended.
///
/// # Panics
///
/// If one of the futures panics, and if called outside a Tokio runtime.
pub async fn quorum<F, T, E>(
    futures: impl IntoIterator<Item = F>,
    needed: NonZeroUsize,
) -> Result<Vec<Won<T>>, Lost<E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let futures: Vec<F> = futures.into_iter().collect();
    let (needed, given) = (needed.get(), futures.len());
    if needed > given {
        return Err(Lost::TooFewFutures { needed, given });
    }
    let (mut won, mut failures) = (Vec::with_capacity(needed), Vec::new());
    let decided = join_until(futures, |index, result| {
        match result {
            Ok(output) => won.push(Won { index, output }),
            Err(failed) => failures.push((index, failed)),
        }
        if won.len() == needed || given - failures.len() < needed { Break(()) } else { Continue(()) }
    });
    decided.await;
    if won.len() == needed {
        return Ok(won);
    }
    failures.sort_by_key(|(index, _)| *index);
    let failures = failures.into_iter().map(|(_, failed)| failed).collect();
    Err(Lost::TooManyFailures { needed, given, succeeded: won.len(), failures })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::runtime::Handle;
    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    async fn after(millis: u64, result: Result<char, &'static str>) -> Result<char, &'static str> {
        sleep(Duration::from_millis(millis)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_the_order_of_success() {
        let start = Instant::now();
        let futures =
            || [after(60_000, Ok('a')), after(20, Ok('b')), after(5, Err("no")), after(10, Ok('d'))];
        assert_eq!(race(futures()).await, Ok(Won { index: 3, output: 'd' }));
        assert_eq!(start.elapsed(), Duration::from_millis(10));
        let won = [Won { index: 3, output: 'd' }, Won { index: 1, output: 'b' }];
        assert_eq!(quorum(futures(), TWO).await, Ok(won.into()));
        assert_eq!(start.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_all_in_input_order() {
        let failures = vec![Failed::Error { index: 0, error: "a" }, Failed::Error { index: 1, error: "b" }];
        let lost = Lost::TooManyFailures { needed: 1, given: 2, succeeded: 0, failures };
        assert_eq!(race([after(2, Err("a")), after(1, Err("b"))]).await, Err(lost));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_as_soon_as_the_quorum_is_out_of_reach() {
        let start = Instant::now();
        let futures = [after(60_000, Ok('a')), after(1, Ok('b')), after(3, Err("c")), after(2, Err("d"))];
        let failures = vec![Failed::Error { index: 2, error: "c" }, Failed::Error { index: 3, error: "d" }];
        let lost = Lost::TooManyFailures { needed: 3, given: 4, succeeded: 1, failures };
        assert_eq!(lost.to_string(), "2 of 4 futures failed, so 3 successes are out of reach");
        assert_eq!(quorum(futures, TWO.saturating_add(1)).await, Err(lost));
        assert_eq!(start.elapsed(), Duration::from_millis(3));
    }

    #[tokio::test]
    async fn errors_at_once_when_there_are_too_few() {
        let call = race(std::iter::empty::<std::future::Pending<Result<(), ()>>>());
        assert_eq!(call.now_or_never(), Some(Err(Lost::TooFewFutures { needed: 1, given: 0 })));
        let call = quorum([after(1, Ok('a'))], TWO);
        assert_eq!(call.now_or_never(), Some(Err(Lost::TooFewFutures { needed: 2, given: 1 })));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_losers_is_awaited() {
        let held = Arc::new(());
        let futures = (0..100).map(|i| {
            let held = held.clone();
            async move {
                let _held = held;
                after(if i == 50 { 1 } else { 60_000 }, Ok('x')).await
            }
        });
        assert_eq!(race(futures).await.map(|won| won.index), Ok(50));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_no_failures() {
        let panicking = async { sleep(Duration::from_millis(1)).map(|()| panic!("not a loser")).await };
        let call = tokio::spawn(race([after(2, Ok('a')).boxed(), panicking.boxed()]));
        assert_eq!(call.await.unwrap_err().into_panic().downcast_ref(), Some(&"not a loser"));
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_task_for_each_future() {
        let mut call = Box::pin(race((0..100).map(|_| after(10, Ok('a')))));
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 100);
        assert_eq!(call.await.map(|won| won.index), Ok(0));
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}
