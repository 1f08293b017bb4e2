//! Finish a section even if its caller is dropped, with an owner that waits for it at shutdown.
//!
//! Use it when half of the work is worse than none: write and rename, debit and credit. When a resource must be given back
//! use [`bracket`](super::bracket()).
//!
//! | | |
//! |---|---|
//! | Order | the section runs on the caller's task; when the caller is dropped it goes on, from where it was, as a task of the owner |
//! | Errors | are the caller's; when it is gone they are in the owner's [`OwnerReport`], the first 100 of them, the others counted |
//! | Cancellation | a shield that was never polled starts nothing; one that was polled is brought to its end. A wait for `finish` can be dropped and begun again. A runtime that ends first drops the section: [`Failure::Lost`] |
//! | Panics | are the caller's; when it is gone they are in the report |
//! | Memory | one allocation for each section, a task for each one taken over, and at most 100 failures until somebody asks |
//! | Backpressure | none: nothing that was begun is refused |
//! | Clock | none of its own: put `timeout` around `finish` |
//!
//! ```
//! use context_managers::{Owner, shield};
//! use tokio::{runtime::Handle, task::yield_now};
//!
//! #[tokio::main]
//! async fn main() {
//!     let owner = Owner::new(Handle::current());
//!     let section = shield(&owner, async { Ok::<_, &str>(yield_now().await) });
//!     tokio::select! { biased; _ = section => {} () = async {} => println!("the caller is gone") }
//!     assert_eq!(owner.finish().await.finished, 1);
//! }
//! ```

use std::any::Any;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures::FutureExt;
use futures::future::{BoxFuture, CatchUnwind};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// An error whose type no longer matters.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Brings to its end what its caller dropped. Clones are the same owner; dropping them stops nothing.
#[derive(Clone, Debug)]
pub struct Owner {
    runtime: Handle,
    running: TaskTracker,
    report: Arc<Mutex<OwnerReport>>,
}

/// What an owner saw that nobody else did, since the last report.
#[derive(Debug, Default)]
#[must_use = "its failures were reported to nobody else"]
pub struct OwnerReport {
    /// Sections that were taken over and ended well.
    pub finished: usize,
    /// What went wrong, in the order in which it did; at most the first 100.
    pub failures: Vec<Failure>,
    /// Failures beyond those.
    pub more_failures: usize,
}

/// How something ended that should have ended well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It returned this error.
    #[error(transparent)]
    Error(AnyError),
    /// It panicked with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The runtime ended first: what was left of it was dropped.
    #[error("lost: the runtime ended before it did")]
    Lost,
}

/// Runs `section`; if this future is dropped on the way, `owner` takes it over.
///
/// While nobody polls this future, the section stands still, and so does whoever waits for it: [`Owner::take_over`] makes it
/// a task from the start. Once it is one, the caller's task-local values are not there any more.
pub async fn shield<F, T, E>(owner: &Owner, section: F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: 'static,
    E: Into<AnyError> + 'static,
{
    let mut begun = Begun { section: Some(section.boxed()), owner };
    let poll = |context: &mut Context<'_>| {
        // Taken out, so that a section that panics now is not taken over.
        let mut section = begun.section.take().expect("this is not polled after its end or a panic");
        let poll = section.as_mut().poll(context);
        if poll.is_pending() {
            begun.section = Some(section);
        }
        poll
    };
    poll_fn(poll).await
}

impl Failure {
    pub(super) fn of(panic: Box<dyn Any + Send>) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Failure::Panicked(text.unwrap_or("without a message").to_owned())
    }
}

impl Owner {
    /// An owner that runs on `runtime` what it takes over, wherever it does: `Handle::current()` is the usual one.
    pub fn new(runtime: Handle) -> Self {
        Owner { runtime, running: TaskTracker::new(), report: Arc::default() }
    }

    /// Runs `section` to its end as a task. It works from any thread, and in `Drop`.
    pub fn take_over<F, T, E>(&self, section: F)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<AnyError>,
    {
        let entry = Entry { report: self.report.clone(), ended: Err(Failure::Lost) };
        let task = async move {
            let section = async { section.await.map(drop).map_err(|error| Failure::Error(error.into())) };
            entry.end(caught(section).await.unwrap_or_else(|panic| Err(Failure::of(panic))));
        };
        self.running.spawn_on(task, &self.runtime);
    }

    /// How many sections it has taken over that have not ended yet.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Waits until it has nothing left to finish, and reports. Call it when the callers are gone, before the runtime ends.
    ///
    /// Not from within a section that was taken over: it would wait for itself.
    pub async fn finish(&self) -> OwnerReport {
        self.running.close();
        self.running.wait().await;
        self.report()
    }

    /// What happened since the last report. It does not wait, and works when the runtime has ended, too.
    pub fn report(&self) -> OwnerReport {
        mem::take(&mut *self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a failure that nobody else hears of.
    pub(super) fn keep(&self, failure: Failure) {
        drop(Entry { report: self.report.clone(), ended: Err(failure) });
    }
}

/// Runs `future` and returns its panic as a value.
pub(super) fn caught<F: Future>(future: F) -> CatchUnwind<AssertUnwindSafe<F>> {
    AssertUnwindSafe(future).catch_unwind()
}

/// A section that has begun. Dropped before its end, it goes to the owner.
struct Begun<'a, T: 'static, E: Into<AnyError> + 'static> {
    section: Option<BoxFuture<'static, Result<T, E>>>,
    owner: &'a Owner,
}

impl<T, E: Into<AnyError>> Drop for Begun<'_, T, E> {
    fn drop(&mut self) {
        if let Some(section) = self.section.take() {
            self.owner.take_over(section);
        }
    }
}

/// Enters how a section ended into the report, also when the runtime drops it.
struct Entry {
    report: Arc<Mutex<OwnerReport>>,
    ended: Result<(), Failure>,
}

impl Entry {
    fn end(mut self, ended: Result<(), Failure>) {
        self.ended = ended;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        const KEPT: usize = 100;
        let ended = mem::replace(&mut self.ended, Ok(()));
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Ok(()) => report.finished += 1,
            Err(failure) if report.failures.len() < KEPT => report.failures.push(failure),
            // It is dropped after the lock, because an error's own drop may come back here.
            Err(_) => report.more_failures += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Gives up a shield around `section` after its first poll.
    fn give_up<T: 'static>(
        owner: &Owner,
        section: impl Future<Output = Result<T, &'static str>> + Send + 'static,
    ) {
        assert!(shield(owner, section).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn order_the_section_goes_on_from_where_it_was() {
        let (owner, start) = (Owner::new(Handle::current()), Instant::now());
        let (sender, steps) = std::sync::mpsc::channel();
        let section = async move {
            for step in 0..3 {
                sleep(10 * MS).await;
                sender.send(step)?;
            }
            Ok::<_, std::sync::mpsc::SendError<i32>>(())
        };
        assert!(timeout(15 * MS, shield(&owner, section)).await.is_err());
        assert_eq!((owner.running(), steps.try_iter().count()), (1, 1));
        assert_eq!(owner.finish().await.finished, 1);
        assert_eq!(steps.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!((owner.running(), start.elapsed()), (0, 30 * MS));
    }

    #[tokio::test]
    async fn errors_are_the_callers_or_in_the_report() {
        let owner = Owner::new(Handle::current());
        let section = || yield_now().map(|()| Err::<(), _>("disk full"));
        assert_eq!(
            tokio::spawn({
                let owner = owner.clone();
                async move { shield(&owner, section()).await }
            })
            .await
            .unwrap(),
            Err("disk full")
        );
        assert!(owner.finish().await.failures.is_empty());
        give_up(&owner, section());
        let report = owner.finish().await;
        assert_eq!((report.finished, report.failures[0].to_string().as_str()), (0, "disk full"));
        assert!(owner.report().failures.is_empty());
    }

    #[tokio::test]
    async fn cancellation_before_the_first_poll_starts_nothing() {
        let owner = Owner::new(Handle::current());
        drop(shield(&owner, async { Err::<(), _>("it ran") }));
        let report = owner.finish().await;
        assert_eq!((report.finished, report.failures.len()), (0, 0));
    }

    #[test]
    fn cancellation_by_the_end_of_the_runtime_is_in_the_report() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let owner = Owner::new(runtime.handle().clone());
        give_up(&owner, std::future::pending::<Result<(), _>>());
        assert_eq!(owner.running(), 1);
        drop(runtime);
        give_up(&owner, std::future::pending::<Result<(), _>>());
        let report = owner.report();
        assert!(matches!(report.failures[..], [Failure::Lost, Failure::Lost]), "{report:?}");
        assert_eq!(owner.running(), 0);
    }

    #[tokio::test]
    async fn panics_are_the_callers_or_in_the_report() {
        let owner = Owner::new(Handle::current());
        let section = || async { yield_now().map(|()| -> Result<(), &str> { panic!("broken") }).await };
        assert!(AssertUnwindSafe(shield(&owner, section())).catch_unwind().await.is_err());
        assert!(owner.finish().await.failures.is_empty());
        give_up(&owner, section());
        assert_eq!(owner.finish().await.failures[0].to_string(), "panicked: broken");
    }

    #[tokio::test]
    async fn memory_is_that_of_a_hundred_failures() {
        let owner = Owner::new(Handle::current());
        for number in 0..250 {
            owner.take_over(async move { Err::<(), _>(number.to_string()) });
        }
        let report = owner.finish().await;
        assert_eq!((report.failures.len(), report.more_failures), (100, 150));
        assert_eq!(report.failures[99].to_string(), "99");
    }
}
