//! Acquire, use, release: the release runs exactly once, whatever happens in between.
//!
//! Use it when giving back must be awaited: a connection that says goodbye, a file that is synced. When `Drop` can do it
//! without waiting, leave it to `Drop`. For cleanups that come up one by one use [`ExitStack`](super::ExitStack).
//!
//! | | |
//! |---|---|
//! | Order | acquire, body, release; the release is awaited before the call returns |
//! | Errors | of the body and of the release are both in [`Failed`]; what the caller cannot get is in the owner's report |
//! | Cancellation | during acquire: its future is dropped, so it must not leave anything behind when it is; during the body: the body is dropped, and the owner runs the release; during the release: it goes on at the owner. A runtime that ends first drops the resource: [`Failure::Lost`] |
//! | Panics | a panic of the body is the caller's, after the release; one of the release is the caller's, and the body's failure goes to the owner |
//! | Memory | one allocation for the release, and a task when the caller is dropped |
//! | Backpressure | none: limit where the resource comes from |
//! | Clock | none of its own |
//!
//! ```
//! use context_managers::{Failed, Owner, bracket};
//! use tokio::runtime::Handle;
//!
//! #[tokio::main]
//! async fn main() {
//!     let owner = Owner::new(Handle::current());
//!     let open = async { Ok(vec!["opened"]) };
//!     let body = async |log: &mut Vec<_>| { log.push("used"); Err::<(), _>("no more paper") };
//!     let close = async |log: Vec<_>| { assert_eq!(log, ["opened", "used"]); Err("jammed") };
//!     let failed = bracket(&owner, open, body, close).await;
//!     assert_eq!(failed, Err(Failed::Both { body: "no more paper", release: "jammed" }));
//! }
//! ```

use std::any::Any;
use std::future::Future;
use std::panic::resume_unwind;

use super::shield::{AnyError, Failure, Owner, caught, shield};

/// What failed. An error that tells its causes when it is shown by `{:#}`, such as anyhow's, tells them here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed<T, E> {
    /// There is no resource, so neither the body nor the release ran.
    #[error("cannot acquire: {0:#}")]
    Acquire(E),
    /// The body failed; the release did not.
    #[error("{0:#}")]
    Body(E),
    /// The body succeeded; the release failed.
    #[error("cannot release: {error:#}")]
    Release {
        /// What the body returned.
        output: T,
        /// The release's error.
        error: E,
    },
    /// Both failed.
    #[error("{body:#}; then it could not be released: {release:#}")]
    Both {
        /// The body's error.
        body: E,
        /// The release's error.
        release: E,
    },
}

/// Acquires a resource, lends it to `body`, and gives it to `release`, whatever became of the body.
///
/// If the call is dropped in the body or later, `owner` takes the release over: await [`Owner::finish`] before the program
/// ends. What `body` borrows from the caller needs no more than to outlive the call.
pub async fn bracket<R, T, E, F>(
    owner: &Owner,
    acquire: impl Future<Output = Result<R, E>>,
    body: impl AsyncFnOnce(&mut R) -> Result<T, E>,
    release: impl FnOnce(R) -> F + Send + 'static,
) -> Result<T, Failed<T, E>>
where
    R: Send + 'static,
    E: Into<AnyError> + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let resource = acquire.await.map_err(Failed::Acquire)?;
    let mut held = Held { owner, parts: Some((resource, release)) };
    let ended = caught(async {
        let (resource, _) = held.parts.as_mut().expect("it is taken below");
        body(resource).await
    });
    let mut result = Kept { owner, result: Some(ended.await) };
    let (resource, release) = held.parts.take().expect("it is taken only here");
    let released = shield(owner, release(resource)).await;
    let result = result.result.take().expect("it is taken only here");
    match (result, released) {
        (Ok(Ok(output)), Ok(())) => Ok(output),
        (Ok(Ok(output)), Err(error)) => Err(Failed::Release { output, error }),
        (Ok(Err(error)), Ok(())) => Err(Failed::Body(error)),
        (Ok(Err(body)), Err(release)) => Err(Failed::Both { body, release }),
        (Err(panic), released) => {
            // The panic cannot carry it.
            released.unwrap_or_else(|error| owner.keep(Failure::Error(error.into())));
            resume_unwind(panic)
        }
    }
}

/// The resource and how it is released. Dropped while it is held, the owner releases it.
struct Held<'a, R, L, F, E>
where
    R: Send + 'static,
    L: FnOnce(R) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<AnyError>,
{
    owner: &'a Owner,
    parts: Option<(R, L)>,
}

impl<R, L, F, E> Drop for Held<'_, R, L, F, E>
where
    R: Send + 'static,
    L: FnOnce(R) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<AnyError>,
{
    fn drop(&mut self) {
        if let Some((resource, release)) = self.parts.take() {
            // Called there and not here, because it may panic.
            self.owner.take_over(async move { release(resource).await });
        }
    }
}

/// What became of the body. If the caller will not get it, because it is gone or the release panics, the owner does.
struct Kept<'a, T, E: Into<AnyError>> {
    owner: &'a Owner,
    result: Option<Result<Result<T, E>, Box<dyn Any + Send>>>,
}

impl<T, E: Into<AnyError>> Drop for Kept<'_, T, E> {
    fn drop(&mut self) {
        match self.result.take() {
            None | Some(Ok(Ok(_))) => {}
            Some(Ok(Err(error))) => self.owner.keep(Failure::Error(error.into())),
            Some(Err(panic)) => self.owner.keep(Failure::of(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::runtime::{Builder, Handle};
    use tokio::time::{sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What happened, in the order in which it did.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<&'static str>>>);

    impl Log {
        fn add(&self, entry: &'static str) {
            self.0.lock().unwrap().push(entry);
        }

        fn take(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.0.lock().unwrap())
        }

        /// Each phase takes 10 ms. The body and the release end as told.
        async fn bracket(
            &self,
            owner: &Owner,
            body: Result<u32, &'static str>,
            release: Result<(), &'static str>,
        ) -> Result<u32, Failed<u32, &'static str>> {
            let acquire = async {
                sleep(10 * MS).await;
                self.add("acquired");
                Ok(self.clone())
            };
            let body = async |log: &mut Log| {
                sleep(10 * MS).await;
                log.add("used");
                if body == Err("panic") { panic!("the body panics") } else { body }
            };
            let release = move |log: Log| async move {
                sleep(10 * MS).await;
                log.add("released");
                if release == Err("panic") { panic!("the release panics") } else { release }
            };
            bracket(owner, acquire, body, release).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_acquire_body_release() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        assert_eq!(log.bracket(&owner, Ok(7), Ok(())).await, Ok(7));
        assert_eq!(log.take(), ["acquired", "used", "released"]);
        assert_eq!(owner.finish().await.finished, 0, "nothing went to the owner");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_body_and_release_are_both_kept() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        assert_eq!(log.bracket(&owner, Err("body"), Ok(())).await, Err(Failed::Body("body")));
        let failed = log.bracket(&owner, Ok(7), Err("release")).await;
        assert_eq!(failed, Err(Failed::Release { output: 7, error: "release" }));
        let failed = log.bracket(&owner, Err("body"), Err("release")).await;
        assert_eq!(failed, Err(Failed::Both { body: "body", release: "release" }));
        log.take();
        let failed =
            bracket(&owner, async { Err::<Log, _>("none") }, async |_| Ok(()), async |_| Ok(())).await;
        assert_eq!((failed, log.take().len()), (Err(Failed::Acquire("none")), 0));
        assert!(owner.finish().await.failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_in_each_phase() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        for (after, until_then, at_the_end) in [
            (5, vec![], vec![]),
            (15, vec!["acquired"], vec!["released"]),
            (25, vec!["acquired", "used"], vec!["released"]),
        ] {
            assert!(timeout(after * MS, log.bracket(&owner, Err("body"), Ok(()))).await.is_err());
            assert_eq!(log.take(), until_then);
            let report = owner.finish().await;
            assert_eq!(log.take(), at_the_end);
            // A body that had failed is heard of although its caller was gone.
            assert_eq!(
                (report.finished, report.failures.len()),
                (at_the_end.len(), usize::from(after == 25))
            );
        }
    }

    #[test]
    fn cancellation_by_the_end_of_the_runtime_is_in_the_report() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (owner, log) = (Owner::new(runtime.handle().clone()), Log::default());
        let (task, inner) = (log.clone(), owner.clone());
        runtime.spawn(async move {
            bracket(
                &inner,
                async { Ok(task) },
                async |_| std::future::pending::<Result<(), _>>().await,
                async |log: Log| {
                    log.add("released");
                    Ok::<_, &str>(())
                },
            )
            .await
        });
        runtime.block_on(tokio::task::yield_now());
        drop(runtime);
        assert!(matches!(owner.report().failures[..], [Failure::Lost]));
        assert_eq!((log.take().len(), Arc::strong_count(&log.0)), (0, 1), "dropped, not released");
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_body_come_after_the_release() {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        for release in [Ok(()), Err("release"), Err("panic")] {
            let call = caught(log.bracket(&owner, Err("panic"), release));
            let panic = *call.await.unwrap_err().downcast::<&str>().unwrap();
            assert_eq!(log.take(), ["acquired", "used", "released"]);
            let unheard = owner.report().failures.pop().map(|failure| failure.to_string());
            assert_eq!(
                (panic, unheard.as_deref()),
                match release {
                    Ok(()) => ("the body panics", None),
                    Err("release") => ("the body panics", Some("release")),
                    Err(_) => ("the release panics", Some("panicked: the body panics")),
                }
            );
        }
        let call = caught(log.bracket(&owner, Err("body"), Err("panic")));
        assert_eq!(call.await.unwrap_err().downcast_ref(), Some(&"the release panics"));
        assert_eq!(owner.report().failures[0].to_string(), "body");
    }

    #[tokio::test]
    async fn memory_of_what_the_body_borrows_is_the_callers_and_the_call_is_send() {
        let call = async {
            let (owner, text) = (Owner::new(Handle::current()), String::from("borrowed"));
            let body = async |length: &mut usize| {
                tokio::task::yield_now().await;
                *length += text.len();
                Ok::<_, &str>(*length)
            };
            bracket(&owner, async { Ok(1) }, body, async |_| Ok(())).await
        };
        assert_eq!(tokio::spawn(call).await.unwrap(), Ok(9));
    }
}
