//! Clean up with `await` what was dropped: `Drop` hands it to one task, which has a time limit for each.
//!
//! Use it when a resource is closed by awaiting and its holder may be cancelled. For a block with a start and an end: `bracket`.
//!
//! | | |
//! |---|---|
//! | Order | cleanups start in the order of the drops, at most `at_once` at a time; those that find no room wait, in turn |
//! | Errors | each fault goes to the function given to [`new`](Reaper::new), with the guard's name, and is counted |
//! | Cancellation | a cleanup belongs to the reaper's task and goes on when the guard's holder is gone; dropping `reserve` or `drain` loses nothing. When the runtime is shut down, what is not cleaned up yet, or is dropped later, is dropped without a cleanup and stays counted as pending |
//! | Panics | a cleanup's panic is a fault like the others; a panic in the function that gets the faults is not passed on |
//! | Memory | O(`capacity`): places, guards, and resources until the end of their cleanup |
//! | Backpressure | a `Drop` cannot wait, so it has its place beforehand: `reserve` waits, in turn, while all are taken |
//! | Clock | `tokio::time`: a cleanup's limit counts from its start |
//!
//! ```
//! use std::{convert::Infallible, num::NonZeroUsize, time::Duration};
//! use context_managers::{Limits, Reaper};
//! #[tokio::main]
//! async fn main() {
//!     let many = NonZeroUsize::new(100).unwrap();
//!     let limits = Limits { capacity: many, at_once: many, each: Duration::from_secs(1) };
//!     let goodbye = |peer| async move { Ok::<_, Infallible>(println!("goodbye, {peer}")) };
//!     let reaper = Reaper::new(limits, goodbye, |name, fault| eprintln!("{name}: {fault:?}"));
//!     drop(reaper.reserve().await.unwrap().guard("connection", "peer 7"));
//!     assert_eq!(reaper.drain().await.cleaned, 1);
//! }
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// What a reaper may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many places, guards and dropped resources there may be.
    pub capacity: NonZeroUsize,
    /// How many cleanups run at a time; at most a thousand do, since they share a task.
    pub at_once: NonZeroUsize,
    /// How long a cleanup may take; then it is dropped.
    pub each: Duration,
}

/// Owns the cleanups. When it and all guards are dropped, its task ends after the last cleanup.
pub struct Reaper<T> {
    places: Arc<Semaphore>,
    /// The task holds the other end. `None` once drained: then the last guard holds the last sender.
    queue: Mutex<Option<mpsc::UnboundedSender<Job<T>>>>,
    task: TaskTracker,
    counts: Arc<Mutex<Counts>>,
}

/// Room for a guard. Dropping it gives the room back.
pub struct Place<T>(OwnedSemaphorePermit, mpsc::UnboundedSender<Job<T>>, Arc<Mutex<Counts>>);

/// A resource whose drop hands it to the reaper: without waiting, on any thread, also outside a runtime.
#[must_use = "dropping it begins the cleanup"]
pub struct Reaped<T>(Option<(Cow<'static, str>, T, Place<T>)>);
type Job<T> = (Cow<'static, str>, T, OwnedSemaphorePermit);

/// Why a cleanup did not succeed.
#[derive(Debug)]
pub enum Fault<E> {
    /// It returned this error.
    Failed(E),
    /// It was dropped because it took longer than this.
    TimedOut(Duration),
    /// It panicked with this.
    Panicked(Box<dyn std::any::Any + Send>),
}

/// How many guards are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In use.
    pub alive: usize,
    /// Dropped, and the cleanup waits or runs; or was lost, if the runtime has been shut down.
    pub pending: usize,
    /// The cleanup succeeded.
    pub cleaned: usize,
    /// The cleanup returned an error.
    pub failed: usize,
    /// The cleanup took too long.
    pub timed_out: usize,
    /// The cleanup panicked.
    pub panicked: usize,
}

impl<T: Send + 'static> Reaper<T> {
    /// Starts the task, which calls `cleanup` with what was dropped and `report` with a fault. Panics outside a Tokio runtime.
    pub fn new<E: Send + 'static, F: Future<Output = Result<(), E>> + Send + 'static>(
        limits: Limits,
        cleanup: impl Fn(T) -> F + Send + Sync + 'static,
        report: impl Fn(&str, Fault<E>) + Send + Sync + 'static,
    ) -> Self {
        let (queue, mut jobs) = mpsc::unbounded_channel::<Job<T>>();
        let (counts, task) = (Arc::<Mutex<Counts>>::default(), TaskTracker::new());
        let counted = counts.clone();
        task.spawn(async move {
            let (cleanup, report, counted) = (&cleanup, &report, &counted);
            let reap = |(name, resource, permit): Job<T>| async move {
                // The call, and the drop of what took too long, are inside: either may panic.
                let work = AssertUnwindSafe(async { timeout(limits.each, cleanup(resource)).await });
                let (count, fault): (fn(&mut Counts) -> &mut usize, _) = match work.catch_unwind().await {
                    Ok(Ok(Ok(()))) => (|counts| &mut counts.cleaned, None),
                    Ok(Ok(Err(error))) => (|counts| &mut counts.failed, Some(Fault::Failed(error))),
                    Ok(Err(_)) => (|counts| &mut counts.timed_out, Some(Fault::TimedOut(limits.each))),
                    Err(panic) => (|counts| &mut counts.panicked, Some(Fault::Panicked(panic))),
                };
                let mut counts = lock(counted);
                counts.pending -= 1;
                *count(&mut counts) += 1;
                drop(counts);
                // The panic hook tells of a panic in `report`; the other resources still need their cleanup.
                let _ = catch_unwind(AssertUnwindSafe(|| fault.map(|fault| report(&name, fault))));
                drop(permit);
            };
            let jobs = stream::poll_fn(|context| jobs.poll_recv(context));
            jobs.for_each_concurrent(limits.at_once.get().min(1000), reap).await
        });
        let places = Arc::new(Semaphore::new(limits.capacity.get().min(Semaphore::MAX_PERMITS)));
        Reaper { places, queue: Some(queue).into(), task, counts }
    }

    /// Waits for room; `None` once the reaper is drained or its runtime shut down. Reserve, then acquire: no await may stand
    /// between a resource and its guard.
    pub async fn reserve(&self) -> Option<Place<T>> {
        let permit = self.places.clone().acquire_owned().await.ok()?;
        let queue = lock(&self.queue).clone().filter(|queue| !queue.is_closed())?;
        Some(Place(permit, queue, self.counts.clone()))
    }

    /// Takes nothing new, and waits for the end of every place, guard and cleanup. Put a timeout around it if one may be kept.
    pub async fn drain(&self) -> Counts {
        self.places.close();
        drop(lock(&self.queue).take());
        self.task.close();
        self.task.wait().await;
        self.counts()
    }

    /// How many guards are where.
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }
}

impl<T> Place<T> {
    /// Guards `resource` from now on.
    pub fn guard(self, name: impl Into<Cow<'static, str>>, resource: T) -> Reaped<T> {
        lock(&self.2).alive += 1;
        Reaped(Some((name.into(), resource, self)))
    }
}

impl<T> Reaped<T> {
    /// Takes the resource out: there will be no cleanup.
    pub fn into_inner(mut self) -> T {
        let (_, resource, place) = self.0.take().expect("only the end of the guard takes it");
        lock(&place.2).alive -= 1;
        resource
    }
}

impl<T> Drop for Reaped<T> {
    fn drop(&mut self) {
        let Some((name, resource, Place(permit, queue, counts))) = self.0.take() else { return };
        let mut counts = lock(&counts);
        (counts.alive, counts.pending) = (counts.alive - 1, counts.pending + 1);
        drop(counts);
        // An error gives the resource back, and it is dropped here: the runtime was shut down.
        let _ = queue.send((name, resource, permit));
    }
}

impl<T> Deref for Reaped<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.as_ref().expect("only the end of the guard takes it").1
    }
}

impl<T> DerefMut for Reaped<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.as_mut().expect("only the end of the guard takes it").1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code of the user runs under the lock")
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    type Seen = Arc<Mutex<Vec<String>>>;

    /// A reaper of numbers, whose cleanups take 10 ms; 13 fails, 66 panics and 99 never ends.
    fn reaper(capacity: usize, at_once: usize) -> (Arc<Reaper<u32>>, Seen) {
        let seen = Seen::default();
        let (cleaned, told) = (seen.clone(), seen.clone());
        let cleanup = move |number| {
            let cleaned = cleaned.clone();
            async move {
                cleaned.lock().unwrap().push(format!("begin {number}"));
                sleep(10 * MS).await;
                match number {
                    13 => Err("unlucky"),
                    66 => std::panic::resume_unwind(Box::new("devil")),
                    99 => std::future::pending().await,
                    _ => Ok(()),
                }
            }
        };
        let report = move |name: &str, fault| told.lock().unwrap().push(format!("{name}: {fault:?}"));
        let [capacity, at_once] = [capacity, at_once].map(|n| NonZeroUsize::new(n).unwrap());
        (Arc::new(Reaper::new(Limits { capacity, at_once, each: 100 * MS }, cleanup, report)), seen)
    }

    async fn guard(reaper: &Reaper<u32>, number: u32) -> Reaped<u32> {
        reaper.reserve().await.unwrap().guard(format!("guard {number}"), number)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_the_drops_so_many_at_a_time() {
        let (start, (reaper, seen)) = (Instant::now(), reaper(9, 2));
        let guards = [guard(&reaper, 1).await, guard(&reaper, 2).await, guard(&reaper, 3).await];
        guards.into_iter().rev().for_each(drop);
        assert_eq!(reaper.drain().await, Counts { cleaned: 3, ..Counts::default() });
        assert_eq!(*seen.lock().unwrap(), ["begin 3", "begin 2", "begin 1"]);
        assert_eq!(start.elapsed(), 20 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_are_reported_and_counted() {
        let (reaper, seen) = reaper(9, 9);
        for number in [13, 66, 7] {
            drop(guard(&reaper, number).await);
        }
        let counts = Counts { failed: 1, panicked: 1, cleaned: 1, ..Counts::default() };
        assert_eq!(reaper.drain().await, counts);
        let seen = &seen.lock().unwrap()[3..];
        assert_eq!(*seen, ["guard 13: Failed(\"unlucky\")", "guard 66: Panicked(Any { .. })"]);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_report_and_of_the_call_stop_nothing() {
        let ten = NonZeroUsize::new(10).unwrap();
        let limits = Limits { capacity: ten, at_once: ten, each: MS };
        let cleanup = |number: u32| match number {
            1 => std::panic::resume_unwind(Box::new("no future")),
            _ => async { Ok::<_, ()>(()) },
        };
        let reaper = Reaper::new(limits, cleanup, |_, _| std::panic::resume_unwind(Box::new("report")));
        for number in [1, 2] {
            drop(reaper.reserve().await.unwrap().guard("guard", number));
        }
        assert_eq!(reaper.drain().await, Counts { panicked: 1, cleaned: 1, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_holder_or_of_drain_leaves_the_cleanup() {
        let (reaper, _) = reaper(9, 9);
        let held = guard(&reaper, 1).await;
        let holder = tokio::spawn(async move {
            let _held = held;
            sleep(Duration::MAX).await
        });
        assert!(timeout(MS, reaper.drain()).await.is_err());
        assert!(reaper.reserve().await.is_none());
        assert_eq!(reaper.counts().alive, 1);
        holder.abort();
        assert!(timeout(MS, reaper.drain()).await.is_err());
        assert_eq!(reaper.counts().pending, 1);
        assert_eq!(reaper.drain().await.cleaned, 1);
        assert_eq!(reaper.drain().await.cleaned, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_a_place_is_taken_until_the_cleanup_has_ended() {
        let (start, (reaper, _)) = (Instant::now(), reaper(2, 9));
        let (first, second) = (guard(&reaper, 1).await, guard(&reaper, 2).await);
        assert!(reaper.reserve().now_or_never().is_none());
        drop(first);
        assert_eq!(*guard(&reaper, 3).await, 3);
        assert_eq!(start.elapsed(), 10 * MS);
        assert_eq!(second.into_inner(), 2);
        assert!(reaper.reserve().now_or_never().is_some());
        assert_eq!(reaper.drain().await, Counts { cleaned: 2, ..Counts::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_waits_in_turn() {
        let (reaper, _) = reaper(1, 1);
        let held = guard(&reaper, 1).await;
        let mut turns = Vec::new();
        for number in 0..3 {
            let reaper = reaper.clone();
            turns.push(tokio::spawn(async move {
                drop(reaper.reserve().await);
                (number, Instant::now())
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for (turn, waited) in turns.into_iter().enumerate() {
            assert_eq!(waited.await.unwrap().0, turn);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_limit_for_each_from_its_start() {
        let (start, (reaper, seen)) = (Instant::now(), reaper(9, 1));
        for number in [99, 1, 99] {
            drop(guard(&reaper, number).await);
        }
        let counts = Counts { timed_out: 2, cleaned: 1, ..Counts::default() };
        assert_eq!(reaper.drain().await, counts);
        assert_eq!(start.elapsed(), 210 * MS);
        assert!(seen.lock().unwrap().contains(&"guard 99: TimedOut(100ms)".into()));
    }
}
