//! Call async code from sync code, with a runtime that goes on between the calls.
//!
//! Use it to give a sync program, or the sync half of a library, what exists only as async code. Within a call path stay with
//! one of the two: a program that is async already awaits.
//!
//! | | |
//! |---|---|
//! | Order | calls from several threads run at the same time; what they spawn runs on between the calls |
//! | Errors | [`InsideRuntime`] where blocking would stop a runtime; the future is then dropped without a poll |
//! | Cancellation | a call ends when its future does: put a timeout into it; dropping the facade aborts its tasks, and waits for nothing; [`close`](SyncFacade::close) waits until they are gone |
//! | Panics | the future's panic is the caller's; a spawned task's is in its `JoinHandle` |
//! | Memory | one runtime with one worker thread, and the tasks |
//! | Backpressure | none: a call runs at once, on the thread of its caller |
//! | Clock | none of its own: the runtime's, in real time |
//!
//! A call blocks its thread, so it belongs where that is allowed: plain threads, `spawn_blocking`, `block_in_place`, an
//! `Offload`. In these it works though a runtime is around. The facade may be dropped anywhere. Inside
//! [`unconstrained`](tokio::task::unconstrained) a task cannot be told from such a place, and Tokio itself panics.
//!
//! ```
//! use blocking::{InsideRuntime, SyncFacade};
//!
//! fn main() -> std::io::Result<()> {
//!     let facade = SyncFacade::new()?;
//!     let name = String::from("Tokio");
//!     let greeting = facade.call(async { format!("hello {name}") });
//!     assert_eq!(greeting.as_deref(), Ok("hello Tokio"));
//!     let nested = facade.call(async { facade.call(async { 1 }) });
//!     assert_eq!(nested, Ok(Err(InsideRuntime)));
//!     Ok(())
//! }
//! ```

use std::future::Future;
use std::io;
use std::task::{Context, Waker};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::coop::poll_proceed;

/// A runtime for sync callers. Share it by reference or in an `Arc`.
///
/// Dropping it never blocks and never panics: its tasks are aborted at their next await, and blocking work that runs on is left
/// to itself.
#[derive(Debug)]
pub struct SyncFacade {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

/// A blocking call was made where tasks run: it would stop all of them, and might wait for one of them. Await the async code
/// there, or make the call from `spawn_blocking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a blocking call inside a runtime's task: await the async function instead, or call from spawn_blocking"
)]
pub struct InsideRuntime;

impl SyncFacade {
    /// Starts a runtime with one worker thread. It fails when the system grants no thread or no event queue.
    pub fn new() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("facade").enable_all().build()?;
        Ok(SyncFacade { runtime: Some(runtime) })
    }

    /// Runs `future` on this thread until it is ready. It may borrow, and need not be `Send`.
    pub fn call<F: Future>(&self, future: F) -> Result<F::Output, InsideRuntime> {
        if is_inside_task() {
            return Err(InsideRuntime);
        }
        Ok(self.runtime.as_ref().expect("there until the drop").block_on(future))
    }

    /// Aborts the tasks, and waits until they and all blocking work are gone. Inside a task it is the same as a drop.
    pub fn close(mut self) -> Result<(), InsideRuntime> {
        if is_inside_task() {
            return Err(InsideRuntime);
        }
        drop(self.runtime.take());
        Ok(())
    }
}

impl Drop for SyncFacade {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A plain drop waits for blocking work, and panics inside a task.
            runtime.shutdown_background();
        }
    }
}

/// Whether Tokio polls a task, or the future of a `block_on`, on this thread now.
///
/// Where there is no handle there is no task. The reverse is not true: there is one in `spawn_blocking` too, where blocking is
/// right. But what is polled has a budget of operations, at most 255, and what may block has none. A unit that was taken
/// comes back when its guard is dropped.
fn is_inside_task() -> bool {
    fn ends_within(units: u8, context: &mut Context<'_>) -> bool {
        let unit = poll_proceed(context);
        unit.is_pending() || units > 0 && ends_within(units - 1, context)
    }
    Handle::try_current().is_ok() && ends_within(u8::MAX, &mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::rc::Rc;
    use std::sync::{Arc, Barrier};
    use std::thread;

    use tokio::sync::{mpsc, oneshot};
    use tokio::task::{block_in_place, spawn_blocking};

    use super::*;

    fn facade() -> SyncFacade {
        SyncFacade::new().unwrap()
    }

    #[test]
    fn order_calls_run_at_the_same_time_and_tasks_between_them() {
        let facade = facade();
        let both = Barrier::new(2);
        let call = || facade.call(async { both.wait().is_leader() }).unwrap();
        let (one, other) = thread::scope(|scope| {
            let other = scope.spawn(call);
            (call(), other.join().unwrap())
        });
        assert!(one ^ other);
        let (sender, mut receiver) = mpsc::channel(1);
        facade.call(async { drop(tokio::spawn(async move { sender.send(7).await })) }).unwrap();
        assert_eq!(receiver.blocking_recv(), Some(7));
    }

    #[tokio::test]
    async fn errors_inside_a_task_and_none_where_blocking_is_right() {
        let facade = Arc::new(facade());
        assert_eq!(facade.call(async { 7 }), Err(InsideRuntime));
        // The budget is as it was: 128 operations of a channel do not wait.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (0..100).for_each(|number| sender.send(number).unwrap());
        for number in 0..100 {
            assert_eq!(facade.call(async { 7 }), Err(InsideRuntime));
            assert!(std::pin::pin!(receiver.recv()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
            assert!(number < 100);
        }
        let inner = facade.clone();
        assert_eq!(spawn_blocking(move || inner.call(async { 7 })).await.unwrap(), Ok(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn errors_in_a_spawned_task_and_none_in_block_in_place() {
        let facade = Arc::new(facade());
        let task = async move {
            assert_eq!(facade.call(async { 7 }), Err(InsideRuntime));
            assert_eq!(block_in_place(|| facade.call(async { 7 })), Ok(7));
        };
        tokio::spawn(task).await.unwrap();
    }

    #[test]
    fn cancellation_close_waits_for_the_tasks() {
        let (facade, held) = (facade(), Arc::new(()));
        let guard = held.clone();
        let task = async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        };
        facade.call(async { drop(tokio::spawn(task)) }).unwrap();
        assert_eq!(facade.close(), Ok(()));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn cancellation_a_drop_inside_a_task_aborts_and_waits_for_nothing() {
        let facade = facade();
        let (alive, dropped) = oneshot::channel::<()>();
        let task = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let facade = spawn_blocking(move || facade.call(async { drop(tokio::spawn(task)) }).map(|()| facade));
        drop(facade.await.unwrap().unwrap());
        assert!(dropped.await.is_err());
        assert_eq!(self::facade().close(), Err(InsideRuntime));
    }

    #[test]
    fn panics_are_the_callers() {
        let facade = facade();
        let call = || facade.call(async { resume_unwind(Box::new("refused")) });
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"refused"));
    }

    #[test]
    fn memory_is_one_worker_and_the_future_may_borrow() {
        let facade = facade();
        let here = Rc::new(7);
        assert_eq!(facade.call(async { *here }), Ok(7));
        let workers = facade.call(async { Handle::current().metrics().num_workers() });
        assert_eq!(workers, Ok(1));
    }
}
