//! Start a named task that ends with its handle, and wait for its result as often as you like.
//!
//! Use it when work must go on beside its caller and belongs to someone: a refresh loop, a connection's writer. For several
//! tasks that end together use `task_group` of the gather family.
//!
//! | | |
//! |---|---|
//! | Order | the task starts at once, whether or not anybody waits for it |
//! | Errors | the task's own errors are part of its output; a task without an output gives [`NoResult`], with its name |
//! | Cancellation | dropping the handle aborts the task, which ends at its next await and is not waited for; a wait on `&mut handle` can be dropped and begun again, and the result is not lost |
//! | Panics | a panic is the result, with the task's name; a detached task's goes to the function given to [`detach`](Background::detach) |
//! | Memory | one task, and its output until it is taken; detaching adds a second task |
//! | Backpressure | none: limit the number of tasks where they are started |
//! | Clock | none of its own |
//!
//! To stop a task and be sure that nothing of it runs any more: `handle.abort()`, then await the handle. A task that never
//! awaits cannot be aborted.
//!
//! ```
//! use tasks::background;
//!
//! #[tokio::main]
//! async fn main() {
//!     let mut sum = background("sum", async { (1..=4).sum::<u32>() });
//!     assert_eq!((&mut sum).await.unwrap(), 10);
//!
//!     let forever = background("forever", std::future::pending::<()>());
//!     forever.abort();
//!     assert_eq!(forever.await.unwrap_err().name, "forever");
//! }
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinError;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A task and its name. Awaiting it gives what the task returned; dropping it aborts the task.
///
/// Await `&mut handle` where the wait may be dropped, as in `select!` and `timeout`: a handle given away by value is
/// dropped with the wait.
///
/// # Panics
///
/// If it is awaited again after it gave the result, as other futures are.
#[derive(Debug)]
#[must_use = "dropping the handle aborts the task: keep it, await it, or detach it"]
pub struct Background<T> {
    name: Cow<'static, str>,
    task: AbortOnDropHandle<T>,
}

/// The task panicked, was aborted, or its runtime was shut down.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` has no result: {cause}")]
pub struct NoResult {
    /// The task's name.
    pub name: Cow<'static, str>,
    /// What happened. [`try_into_panic`](JoinError::try_into_panic) tells a panic from an abort, and gives its payload to
    /// [`resume_unwind`](std::panic::resume_unwind).
    pub cause: JoinError,
}

/// Starts `future` as a task under `name`.
///
/// # Panics
///
/// If called outside a Tokio runtime.
pub fn background<F>(name: impl Into<Cow<'static, str>>, future: F) -> Background<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Background { name: name.into(), task: AbortOnDropHandle::new(tokio::spawn(future)) }
}

impl<T> Background<T> {
    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the runtime to end the task at its next await. Await the handle to know that it has.
    ///
    /// A task that ends by itself before that still gives its result.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has ended, well or not: then awaiting the handle does not wait.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets the task run on without a handle: `owner` can wait for its end, and `ended` is called with the result, on a task
    /// of its own, before `owner` counts it as ended. `ended` should not panic: nobody would hear of it.
    ///
    /// If the runtime is shut down first, `ended` is dropped without being called.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime.
    pub fn detach(self, owner: &TaskTracker, ended: impl FnOnce(Result<T, NoResult>) + Send + 'static)
    where
        T: Send + 'static,
    {
        drop(owner.spawn(async move { ended(self.await) }));
    }
}

impl<T> Future for Background<T> {
    type Output = Result<T, NoResult>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = Pin::new(&mut self.task).poll(context);
        joined.map_err(|cause| NoResult { name: self.name.clone(), cause })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tokio::task::yield_now;
    use tokio::time::{sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn order_it_runs_without_being_awaited() {
        let task = background("runs", async { 7 });
        assert!(!task.is_finished());
        yield_now().await;
        assert!(task.is_finished());
        assert_eq!(task.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn errors_name_the_task() {
        let task = background(format!("refresh {}", 3), std::future::pending::<()>());
        assert_eq!(task.name(), "refresh 3");
        task.abort();
        let error = task.await.unwrap_err();
        assert!(error.cause.is_cancelled());
        assert!(error.to_string().starts_with("`refresh 3` has no result: task "), "{error}");
        let _: Box<dyn std::error::Error + Send + Sync> = error.into();
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_a_wait_keeps_the_result() {
        let mut task = background("slow", async { sleep(10 * MS).await });
        assert!(timeout(MS, &mut task).await.is_err());
        sleep(20 * MS).await;
        assert!(timeout(MS, &mut task).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_drop_ends_the_task() {
        let held = Arc::new(());
        let guard = held.clone();
        let task = background("forever", async move {
            let _guard = guard;
            std::future::pending::<()>().await
        });
        yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2);
        drop(task);
        yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_result_also_of_a_detached_task() {
        let fail = || background("bad", async { resume_unwind(Box::new("boom")) });
        let panic: NoResult = fail().await.unwrap_err();
        assert_eq!(panic.cause.into_panic().downcast_ref(), Some(&"boom"));

        let (owner, heard) = (TaskTracker::new(), Arc::new(Mutex::new(String::new())));
        let hear = heard.clone();
        fail().detach(&owner, move |result| *hear.lock().unwrap() = result.unwrap_err().to_string());
        owner.close();
        owner.wait().await;
        assert!(heard.lock().unwrap().contains("panicked with message \"boom\""));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_task_until_it_is_detached() {
        let task = background("slow", async { sleep(MS).await });
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
        let owner = TaskTracker::new();
        task.detach(&owner, |result| assert!(result.is_ok()));
        assert_eq!((Handle::current().metrics().num_alive_tasks(), owner.len()), (2, 1));
        owner.close();
        owner.wait().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}
