//! Collect cleanups as they come up, and run all of them at the end, the last one first.
//!
//! Use it when how many there are turns out on the way: a connection for each argument, a file for each page. For a single
//! resource use [`bracket`](super::bracket()).
//!
//! | | |
//! |---|---|
//! | Order | the last cleanup pushed runs first; each is awaited before the next |
//! | Errors | a failure stops nothing: all are in [`Unclean`], each with its name, in the order in which the cleanups ran |
//! | Cancellation | dropping a stack, or the call of `close`, gives what has not run to the owner, which goes on in the same order. A runtime that ends first drops it: [`Failure::Lost`] |
//! | Panics | a cleanup's panic is a failure like an error |
//! | Memory | O(cleanups) |
//! | Backpressure | none: limit what is acquired |
//! | Clock | none of its own: put `timeout` into a cleanup that may hang |
//!
//! ```
//! use context_managers::{ExitStack, Owner};
//! use tokio::runtime::Handle;
//!
//! #[tokio::main]
//! async fn main() {
//!     let owner = Owner::new(Handle::current());
//!     let mut stack = ExitStack::new(&owner);
//!     stack.push("folder", async { Err("not empty") });
//!     stack.push("file", async { Ok::<_, &str>(()) });
//!     let unclean = stack.close().await.unwrap_err();
//!     assert_eq!(unclean.to_string(), "1 cleanup failed: folder: not empty");
//! }
//! ```

use std::fmt;
use std::future::Future;
use std::mem;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::coop::consume_budget;

use super::shield::{AnyError, Failure, Owner, caught, shield};

/// Cleanups that have not run yet.
#[must_use = "dropping it gives its cleanups to the owner"]
pub struct ExitStack {
    owner: Owner,
    cleanups: Vec<(String, Cleanup)>,
}

type Cleanup = BoxFuture<'static, Result<(), AnyError>>;

/// The cleanups that failed; all others were done.
#[derive(Debug)]
pub struct Unclean {
    /// The name of each and how it ended, in the order in which they ran.
    pub failures: Vec<(String, Failure)>,
}

impl ExitStack {
    /// A stack whose cleanups `owner` takes over if nobody closes it.
    pub fn new(owner: &Owner) -> Self {
        ExitStack { owner: owner.clone(), cleanups: Vec::new() }
    }

    /// Adds a cleanup, to run before those that are there. Nothing of it runs before the stack ends.
    ///
    /// Push it right after the resource was acquired, with no await in between.
    pub fn push<F, E>(&mut self, name: impl Into<String>, cleanup: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<AnyError>,
    {
        let cleanup = async { cleanup.await.map_err(Into::into) };
        self.cleanups.push((name.into(), cleanup.boxed()));
    }

    /// Moves all cleanups to a stack of their own and leaves this one empty: all went well, and what was acquired lives on.
    pub fn pop_all(&mut self) -> ExitStack {
        ExitStack { owner: self.owner.clone(), cleanups: mem::take(&mut self.cleanups) }
    }

    /// How many cleanups there are.
    pub fn len(&self) -> usize {
        self.cleanups.len()
    }

    /// Whether there is nothing to clean up.
    pub fn is_empty(&self) -> bool {
        self.cleanups.is_empty()
    }

    /// Runs all cleanups. If this is dropped, the owner runs what is left.
    pub async fn close(mut self) -> Result<(), Unclean> {
        let cleanups = mem::take(&mut self.cleanups);
        shield(&self.owner, run(cleanups)).await
    }
}

async fn run(cleanups: Vec<(String, Cleanup)>) -> Result<(), Unclean> {
    let mut failures = Vec::new();
    for (name, cleanup) in cleanups.into_iter().rev() {
        // So that a thousand cleanups that never wait do not keep others from running.
        consume_budget().await;
        let failure = match caught(cleanup).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::of(panic),
        };
        failures.push((name, failure));
    }
    if failures.is_empty() { Ok(()) } else { Err(Unclean { failures }) }
}

impl Drop for ExitStack {
    fn drop(&mut self) {
        if !self.cleanups.is_empty() {
            self.owner.take_over(run(mem::take(&mut self.cleanups)));
        }
    }
}

impl fmt::Debug for ExitStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cleanups.iter().map(|(name, _)| name)).finish()
    }
}

impl fmt::Display for Unclean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.failures.len();
        write!(f, "{number} {} failed", if number == 1 { "cleanup" } else { "cleanups" })?;
        for (index, (name, failure)) in self.failures.iter().enumerate() {
            write!(f, "{} {name}: {failure}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Unclean {}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::runtime::{Builder, Handle};
    use tokio::time::{sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u32>>>);

    impl Log {
        /// Pushes cleanups that take 10 ms each and note their number.
        fn push(&self, stack: &mut ExitStack, numbers: std::ops::Range<u32>) {
            for number in numbers {
                let log = self.0.clone();
                stack.push(format!("cleanup {number}"), async move {
                    sleep(10 * MS).await;
                    log.lock().unwrap().push(number);
                    match number {
                        3 => Err("three"),
                        5 => panic!("five"),
                        _ => Ok(()),
                    }
                });
            }
        }

        fn take(&self) -> Vec<u32> {
            mem::take(&mut self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_the_last_one_first() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        let mut stack = ExitStack::new(&owner);
        log.push(&mut stack, 0..3);
        let mut handed_over = stack.pop_all();
        assert_eq!((stack.len(), handed_over.len(), handed_over.is_empty()), (0, 3, false));
        stack.close().await.unwrap();
        assert_eq!(log.take(), [0; 0]);
        log.push(&mut handed_over, 6..7);
        assert_eq!(format!("{handed_over:?}"), r#"["cleanup 0", "cleanup 1", "cleanup 2", "cleanup 6"]"#);
        handed_over.close().await.unwrap();
        assert_eq!(log.take(), [6, 2, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_stop_nothing() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        let mut stack = ExitStack::new(&owner);
        log.push(&mut stack, 2..7);
        let unclean = stack.close().await.unwrap_err();
        assert_eq!(log.take(), [6, 5, 4, 3, 2]);
        let text = "2 cleanups failed: cleanup 5: panicked: five; cleanup 3: three";
        assert_eq!(unclean.to_string(), text);
        assert!(owner.finish().await.failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_close_lets_the_owner_go_on() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        let mut stack = ExitStack::new(&owner);
        log.push(&mut stack, 0..4);
        assert!(timeout(15 * MS, stack.close()).await.is_err());
        assert_eq!(log.take(), [3]);
        let report = owner.finish().await;
        assert_eq!(log.take(), [2, 1, 0]);
        assert_eq!(report.failures[0].to_string(), "1 cleanup failed: cleanup 3: three");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_stack_and_the_owner_closes_it() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        for closing in [false, true] {
            let mut stack = ExitStack::new(&owner);
            log.push(&mut stack, 0..2);
            if closing {
                drop(stack.close())
            } else {
                drop(stack)
            }
            assert_eq!(owner.finish().await.finished, 1);
            assert_eq!(log.take(), [1, 0]);
        }
        drop(ExitStack::new(&owner));
        assert_eq!(owner.finish().await.finished, 0);
    }

    #[test]
    fn cancellation_by_the_end_of_the_runtime_is_in_the_report() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let owner = Owner::new(runtime.handle().clone());
        let mut stack = ExitStack::new(&owner);
        Log::default().push(&mut stack, 0..2);
        drop(runtime);
        drop(stack);
        assert!(matches!(owner.report().failures[..], [Failure::Lost]));
    }

    #[tokio::test]
    async fn panics_of_a_dropped_cleanup_stop_nothing() {
        struct Broken;
        impl Drop for Broken {
            fn drop(&mut self) {
                panic!("broken drop");
            }
        }
        impl Future for Broken {
            type Output = Result<(), &'static str>;
            fn poll(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut stack = ExitStack::new(&Owner::new(Handle::current()));
        stack.push("last", async { Err("ran") });
        stack.push("first", Broken);
        assert_eq!(stack.close().await.unwrap_err().failures.len(), 2);
    }

    #[tokio::test]
    async fn memory_of_many_cleanups_needs_no_recursion_and_the_call_is_send() {
        let owner = Owner::new(Handle::current());
        let mut stack = ExitStack::new(&owner);
        for number in 0..100_000 {
            stack.push("", async move { if number % 1000 == 0 { Err("thousand") } else { Ok(()) } });
        }
        assert_eq!(tokio::spawn(stack.close()).await.unwrap().unwrap_err().failures.len(), 100);
    }
}
