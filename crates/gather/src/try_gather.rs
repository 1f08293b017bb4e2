//! Run fallible futures as tasks, and at the first error stop all others before returning it.
//!
//! Use it when one failure makes the other results useless. Each future becomes a task, so they run in parallel and must
//! be `Send + 'static`. When they borrow, `futures::future::try_join_all` runs them on the caller's task: at an error it drops
//! the others at once, but it names no index. To keep every result, errors included, use `settle`.
//!
//! | | |
//! |---|---|
//! | Order | all tasks start in input order; outputs come back in input order |
//! | Errors | the first one in time, with its index; outputs and later errors are dropped |
//! | Cancellation | on an error the other tasks are aborted, and their end is awaited: nothing of them runs after the call; dropping the call aborts all tasks, and each ends at its next await without being waited for |
//! | Panics | the other tasks are aborted and their end is awaited; then the first panic is resumed in the caller, also if there was an error before it |
//! | Memory | O(n): a task and an output for each future |
//! | Backpressure | none: all n start at once |
//! | Clock | none of its own |
//!
//! "First" is the order in which the tasks ended, also when the caller looks at them much later. Two tasks that end on two
//! threads at the same moment are in the order in which the runtime noted them. A task that never awaits cannot be
//! aborted: the call returns when it has ended.
//!
//! `try_join!` over `JoinHandle`s looks alike and is a trap: it returns at the first error and leaves the other tasks running.
//!
//! ```
//! use gather::{Failed, try_gather};
//!
//! #[tokio::main]
//! async fn main() {
//!     let parsed = try_gather(["1", "2"].map(async |text| text.parse::<u8>())).await;
//!     assert_eq!(parsed, Ok(vec![1, 2]));
//!     let failed = try_gather(["1", "two"].map(async |text| text.parse::<u8>())).await;
//!     assert!(matches!(failed, Err(Failed::Error { index: 1, .. })));
//! }
//! ```

use std::future::Future;
use std::ops::ControlFlow::{self, Break, Continue};
use std::panic::resume_unwind;
use std::thread;

use tokio::task::coop::{consume_budget, unconstrained};
use tokio::task::{Id, JoinError, JoinSet};

/// Which task failed, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed<E> {
    /// The future returned an error.
    #[error("task {index} failed")]
    Error {
        /// The future's place in the input, from 0.
        index: usize,
        /// What it returned.
        #[source]
        error: E,
    },
    /// The runtime that ran the task was shut down.
    #[error("task {index} was aborted: its runtime was shut down")]
    Aborted {
        /// The future's place in the input, from 0.
        index: usize,
    },
}

/// Runs each of `futures` as a task and returns their outputs in input order, or the first error in time.
///
/// An empty input returns an empty list. When the call returns, every task has ended. Dropping it aborts them.
///
/// # Panics
///
/// If one of the futures panics, and if called outside a Tokio runtime.
pub async fn try_gather<F, T, E>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, Failed<E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let futures: Vec<F> = futures.into_iter().collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    let failed = join_until(futures, |index, result| match result {
        Ok(output) => {
            outputs[index] = Some(output);
            Continue(())
        }
        Err(failed) => Break(failed),
    });
    match failed.await {
        Some(failed) => Err(failed),
        None => Ok(outputs.into_iter().map(|output| output.expect("no task failed")).collect()),
    }
}

/// Runs each of `futures` as a task and shows each result to `decide`, in the order in which the tasks ended. When that
/// breaks, or a task panics, the others are aborted and their end is awaited.
pub(super) async fn join_until<F, T, E, B>(
    futures: Vec<F>,
    mut decide: impl FnMut(usize, Result<T, Failed<E>>) -> ControlFlow<B>,
) -> Option<B>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut tasks = JoinSet::new();
    let start = |(index, future): (usize, F)| tasks.spawn(async move { (index, future.await) }).id();
    let ids: Vec<Id> = futures.into_iter().enumerate().map(start).collect();
    let mut end: Option<thread::Result<B>> = None;
    while end.is_none() {
        let Some(joined) = next(&mut tasks).await else { break };
        end = match joined.map_err(JoinError::try_into_panic) {
            Ok((index, Ok(output))) => decide(index, Ok(output)).break_value().map(Ok),
            Ok((index, Err(error))) => {
                decide(index, Err(Failed::Error { index, error })).break_value().map(Ok)
            }
            Err(Ok(panic)) => Some(Err(panic)),
            Err(Err(aborted)) => {
                let index = ids.iter().position(|id| *id == aborted.id()).expect("the task is one of these");
                decide(index, Err(Failed::Aborted { index })).break_value().map(Ok)
            }
        };
    }
    tasks.abort_all();
    while let Some(joined) = next(&mut tasks).await {
        match joined.map_err(JoinError::try_into_panic) {
            Err(Ok(panic)) if !matches!(end, Some(Err(_))) => end = Some(Err(panic)),
            _ => {}
        }
    }
    end.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// The next task in the order in which they ended.
async fn next<T: 'static>(tasks: &mut JoinSet<T>) -> Option<Result<T, JoinError>> {
    // Out of budget, `join_next` would put the task whose turn it is behind all others. So give way here and not there.
    consume_budget().await;
    unconstrained(tasks.join_next()).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::runtime::{Builder, Handle};
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn after(millis: u64, result: Result<u64, &'static str>) -> Result<u64, &'static str> {
        sleep(Duration::from_millis(millis)).await;
        result
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_outputs_is_input_order() {
        for n in [0, 1, 100] {
            let outputs = try_gather((0..n).map(|i| after(n - i, Ok(i)))).await;
            assert_eq!(outputs, Ok((0..n).collect()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_the_first_in_time_wins_and_stops_the_rest() {
        let start = Instant::now();
        let futures =
            [after(30, Err("late")), after(20, Err("early")), after(10, Ok(1)), after(60_000, Ok(2))];
        assert_eq!(try_gather(futures).await, Err(Failed::Error { index: 1, error: "early" }));
        assert_eq!(start.elapsed(), Duration::from_millis(20));
    }

    #[tokio::test]
    async fn errors_name_a_task_whose_runtime_was_shut_down() {
        let other = Builder::new_current_thread().build().unwrap();
        let mut call = Box::pin(try_gather([std::future::pending::<Result<(), ()>>()]));
        let entered = other.enter();
        assert!(futures::poll!(&mut call).is_pending());
        drop(entered);
        other.shutdown_background();
        assert_eq!(call.await, Err(Failed::Aborted { index: 0 }));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_rest_is_awaited() {
        let held = Arc::new(());
        let futures = (0..100).map(|i| {
            let held = held.clone();
            async move {
                let _held = held;
                after(i, if i == 50 { Err("fifty") } else { Ok(i) }).await
            }
        });
        assert!(try_gather(futures).await.is_err());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_win_over_errors_and_wait_for_the_rest() {
        struct PanicsWhenDropped(Arc<()>);
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                panic!("in a destructor");
            }
        }
        let held = Arc::new(());
        let guard = PanicsWhenDropped(held.clone());
        let stopped = async move {
            let _held = &guard.0;
            after(60_000, Ok(0)).await
        };
        let call = tokio::spawn(try_gather([stopped.boxed(), after(1, Err("first")).boxed()]));
        let panic = call.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"in a destructor"));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_task_for_each_future() {
        let mut call = Box::pin(try_gather((0..100).map(|i| after(10, Ok(i)))));
        assert!(futures::poll!(&mut call).is_pending());
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 100);
        assert_eq!(call.await.map(|outputs| outputs.len()), Ok(100));
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}
