//! Take the request's context along into spawned tasks: a task-local value and the tracing span.
//!
//! Use it for what every layer wants to know and no function should have to pass on: a request id, a tenant, a trace. What
//! a function needs for its work belongs into its arguments.
//!
//! | | |
//! |---|---|
//! | Order | the context is that of the call to [`in_context`]: what is set later, outside or inside, does not reach the other side |
//! | Errors | a local that is not set stays unset: nothing panics, and `try_get` tells |
//! | Cancellation | dropping the future drops what it holds inside its context, so that a cleanup sees it too |
//! | Panics | pass through; the context around is put back first |
//! | Memory | O(1): a clone of the value and of the span for each future |
//! | Backpressure | none needed |
//! | Clock | none of its own |
//!
//! A task-local ends where `tokio::spawn` begins. [`in_context`] copies it when it is called, as asyncio copies its
//! `contextvars` when a task is made. A value that is dear to clone goes into an `Arc`.
//!
//! ```
//! tokio::task_local! { static REQUEST: u32; }
//!
//! #[tokio::main]
//! async fn main() {
//!     let handle = async || {
//!         let task = async || REQUEST.try_get().ok();
//!         (tokio::spawn(task()).await.unwrap(), tokio::spawn(tasks::in_context(&REQUEST, task())).await.unwrap())
//!     };
//!     assert_eq!(REQUEST.scope(7, handle()).await, (None, Some(7)));
//! }
//! ```

use std::future::Future;

use futures::future::Either;
use tokio::task::LocalKey;
use tracing::{Instrument, Span};

/// Wraps `future` so that it runs with the value that `key` has here and now, and in the current span, wherever it is polled.
///
/// Call it outside of what is spawned: `tokio::spawn(in_context(&KEY, work()))`. For several keys nest the calls.
///
/// # Panics
///
/// If `T::clone` does.
pub fn in_context<T, F>(key: &'static LocalKey<T>, future: F) -> impl Future<Output = F::Output>
where
    T: Clone + 'static,
    F: Future,
{
    let future = match key.try_get() {
        Ok(value) => Either::Left(key.scope(value, future)),
        Err(_) => Either::Right(future),
    };
    future.instrument(Span::current())
}

/// As [`in_context`], for a closure: `tokio::task::spawn_blocking(blocking_in_context(&KEY, work))`.
///
/// # Panics
///
/// If `T::clone` does.
pub fn blocking_in_context<T, R>(key: &'static LocalKey<T>, work: impl FnOnce() -> R) -> impl FnOnce() -> R
where
    T: Clone + 'static,
{
    let (value, span) = (key.try_get(), Span::current());
    move || {
        span.in_scope(|| match value {
            Ok(value) => key.sync_scope(value, work),
            Err(_) => work(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;

    use futures::FutureExt;
    use tokio::task::{spawn_blocking, yield_now};

    use super::*;

    tokio::task_local! {
        static REQUEST: u32;
    }

    fn request() -> Option<u32> {
        REQUEST.try_get().ok()
    }

    #[tokio::test]
    async fn order_of_nested_contexts_is_that_of_their_tasks() {
        let inner = async {
            let before = request();
            let task = tokio::spawn(in_context(&REQUEST, async { request() }));
            (before, REQUEST.scope(9, async { request() }).await, request(), task.await.unwrap())
        };
        let outer = async {
            let task = in_context(&REQUEST, inner);
            // What is set afterwards does not reach the task.
            REQUEST.scope(8, async { tokio::spawn(task).await.unwrap() }).await
        };
        assert_eq!(REQUEST.scope(7, outer).await, (Some(7), Some(9), Some(7), Some(7)));
    }

    #[tokio::test]
    async fn errors_what_is_not_set_stays_unset() {
        assert_eq!(tokio::spawn(in_context(&REQUEST, async { request() })).await.unwrap(), None);
        assert_eq!(spawn_blocking(blocking_in_context(&REQUEST, request)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn memory_is_one_value_for_a_future_or_a_closure() {
        let seen = REQUEST.scope(7, async {
            let task = tokio::spawn(in_context(&REQUEST, async {
                yield_now().await;
                request()
            }));
            let blocking = spawn_blocking(blocking_in_context(&REQUEST, request));
            (task.await.unwrap(), blocking.await.unwrap())
        });
        assert_eq!(seen.await, (Some(7), Some(7)));
        let bare = size_of_val(&std::future::pending::<()>());
        assert!(size_of_val(&in_context(&REQUEST, std::future::pending::<()>())) < bare + 128);
    }

    /// Notes the request that is current when it is dropped.
    struct Cleanup(Rc<Cell<Option<u32>>>);

    impl Drop for Cleanup {
        fn drop(&mut self) {
            self.0.set(request());
        }
    }

    #[tokio::test]
    async fn cancellation_drops_inside_the_context() {
        for polled in [false, true] {
            let seen = Rc::new(Cell::new(None));
            let cleanup = Cleanup(seen.clone());
            let work = async move {
                let _cleanup = cleanup;
                std::future::pending::<()>().await;
            };
            let mut task = Box::pin(REQUEST.sync_scope(7, || in_context(&REQUEST, work)));
            if polled {
                assert!(futures::poll!(&mut task).is_pending());
            }
            drop(task);
            assert_eq!((seen.get(), request()), (Some(7), None));
        }
    }

    #[tokio::test]
    async fn panics_put_the_context_back() {
        let breaks = async { std::panic::resume_unwind(Box::new("broken")) };
        let task = REQUEST.sync_scope(7, || in_context(&REQUEST, breaks));
        let around = REQUEST.scope(8, async {
            let _: Result<(), _> = AssertUnwindSafe(task).catch_unwind().await;
            request()
        });
        assert_eq!(around.await, Some(8));
        assert_eq!(request(), None);
    }
}
