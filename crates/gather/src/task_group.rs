//! Start tasks that may start tasks, and let none outlive the group: ask, wait, abort.
//!
//! Use it when the number of tasks is not known beforehand, when they need a limit, or when they must be given time to
//! stop. When you have all futures at once use `try_gather`.
//!
//! | | |
//! |---|---|
//! | Order | places are given first come, first served; tasks end in any order |
//! | Errors | at `max_failures` failures the group stops, at once and also while nobody waits for it; every failure is returned with its task's name, in the order in which they happened |
//! | Cancellation | stopping asks all tasks, and `grace` later aborts those that are alive; [`wait`](TaskGroup::wait) returns when every task has ended, and names the aborted. Dropping the group or `wait` aborts all tasks, and each ends at its next await without being waited for |
//! | Panics | stop the group as its last failure does; the first is resumed in the caller of `wait` after every task has ended |
//! | Memory | O(tasks alive): at most `limit` that run, and those that wait for a place after they started another; and the failures |
//! | Backpressure | `spawn` waits for a place; a task that starts another gives it its own place, and is not polled until it has the next free one: never do more than `limit` run, and a full group cannot wait for itself |
//! | Clock | `tokio::time`, for the grace |
//!
//! Nursery and `TaskGroup` are the names of this idea in Trio and asyncio; Nathaniel J. Smith's essay "Notes on structured
//! concurrency" gives the reasons.
//!
//! ```
//! use gather::{Rules, TaskGroup};
//!
//! #[tokio::main]
//! async fn main() {
//!     let group = TaskGroup::new(Rules::default());
//!     group.spawn("ok", |_| async { Ok(()) }).await.unwrap();
//!     group.spawn("bad", |_| async { Err("no route") }).await.unwrap();
//!     let stopped = group.wait().await.unwrap_err();
//!     assert_eq!(stopped.failures, [("bad".to_string(), "no route")]);
//! }
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::mem;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{FutureExt, select};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How a group behaves.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How many tasks run at a time. The default is no limit.
    pub limit: NonZeroUsize,
    /// At so many failures the group stops. The default is 1: the first failure stops it.
    pub max_failures: NonZeroUsize,
    /// How long tasks may go on after they were asked to stop. The default is not at all: they are aborted at once.
    pub grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { limit: NonZeroUsize::MAX, max_failures: NonZeroUsize::MIN, grace: Duration::ZERO }
    }
}

/// Why [`TaskGroup::wait`] has no clean end to report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} tasks failed, {} had to be aborted: {overstayed:?}", failures.len(), overstayed.len())]
pub struct Stopped<E> {
    /// Each task that failed, by name, in the order in which they did.
    pub failures: Vec<(String, E)>,
    /// The tasks that had to be aborted, by name, in the order in which they started: those that were alive when the grace
    /// was over, be it without a place, and those whose runtime was shut down.
    pub overstayed: Vec<String>,
}

/// The group is stopping or has ended, and starts no further task. The one offered was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task group is stopping")]
pub struct Stopping;

/// A set of tasks with a common end. Dropping it aborts them.
pub struct TaskGroup<E: Send + 'static> {
    shared: Arc<Shared<E>>,
}

/// What a task has of its group: it can start others, and learn that it should stop.
pub struct Scope<E: Send + 'static> {
    shared: Arc<Shared<E>>,
    place: Arc<Place>,
}

struct Shared<E> {
    rules: Rules,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: Mutex<Tasks<E>>,
}

struct Tasks<E> {
    set: JoinSet<()>,
    started: u64,
    /// Who has not ended by itself, by number. Those that are left when all tasks are gone were aborted.
    names: BTreeMap<u64, String>,
    failures: Vec<(String, E)>,
    panic: Option<Box<dyn Any + Send>>,
}

impl<E: Send + 'static> TaskGroup<E> {
    /// An empty group.
    pub fn new(rules: Rules) -> Self {
        let places = Arc::new(Semaphore::new(rules.limit.get().min(Semaphore::MAX_PERMITS)));
        let (set, names) = (JoinSet::new(), BTreeMap::new());
        let tasks = Mutex::new(Tasks { set, started: 0, names, failures: Vec::new(), panic: None });
        TaskGroup { shared: Arc::new(Shared { rules, places, stop: CancellationToken::new(), tasks }) }
    }

    /// Starts `task` under `name` as soon as there is a place for it. If this future is dropped before, nothing starts.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the group stops before there is a place.
    pub async fn spawn<F: Future<Output = Result<(), E>> + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl FnOnce(Scope<E>) -> F,
    ) -> Result<(), Stopping> {
        let permit = self.shared.places.clone().acquire_owned();
        let permit = self.shared.stop.run_until_cancelled(permit).await.ok_or(Stopping)?;
        self.shared.start(name.into(), task, permit.ok())
    }

    /// Stops the group when it is cancelled: whoever holds it can stop the group from outside.
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Waits until every task has ended. After a request to stop, the grace begins when this is waiting.
    ///
    /// # Errors
    ///
    /// [`Stopped`] with what failed, and who had to be aborted. Stopping in time without a failure is no error.
    ///
    /// # Panics
    ///
    /// If a task panicked, after every task has ended.
    pub async fn wait(self) -> Result<(), Stopped<E>> {
        let Shared { rules, stop, tasks, .. } = &*self.shared;
        let every_end = async {
            while let Some(joined) = poll_fn(|context| lock(tasks).set.poll_join_next(context)).await {
                lock(tasks).note(joined);
            }
        };
        let abort = async {
            stop.cancelled().await;
            sleep(rules.grace).await;
            lock(tasks).set.abort_all();
            pending::<()>().await;
        };
        select(pin!(every_end), pin!(abort)).await;
        let panic = lock(tasks).panic.take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        let failures = mem::take(&mut lock(tasks).failures);
        let overstayed: Vec<String> = mem::take(&mut lock(tasks).names).into_values().collect();
        let clean = failures.is_empty() && overstayed.is_empty();
        if clean { Ok(()) } else { Err(Stopped { failures, overstayed }) }
    }
}

impl<E: Send + 'static> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        lock(&self.shared.tasks).set.abort_all();
    }
}

impl<E: Send + 'static> Scope<E> {
    /// Starts another task of the group at once, in the place of this one. This one goes on when it has the next free place;
    /// until then no part of it runs.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the group is stopping. Then nothing was started.
    pub async fn spawn<F: Future<Output = Result<(), E>> + Send + 'static>(
        &mut self,
        name: impl Into<String>,
        task: impl FnOnce(Scope<E>) -> F,
    ) -> Result<(), Stopping> {
        let Scope { shared, place } = self;
        // The place may be away: an earlier call was dropped in the turn in which it gave the place away.
        shared.stop.run_until_cancelled(place.until(true)).await.ok_or(Stopping)?;
        shared.start(name.into(), task, place.replace(None))?;
        // The group stops at the latest when it ends, and so does the wait of a scope that was moved out of its task.
        shared.stop.run_until_cancelled(place.until(true)).await;
        Ok(())
    }

    /// Returns when the group has asked its tasks to stop. Select on it around waits that may be long.
    pub async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }
}

impl<E: Send + 'static> Shared<E> {
    fn start<F: Future<Output = Result<(), E>> + Send + 'static>(
        self: &Arc<Self>,
        name: String,
        task: impl FnOnce(Scope<E>) -> F,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Stopping> {
        let place = Arc::new(Place { permit: Mutex::new(permit), changed: Notify::new() });
        let task = task(Scope { shared: self.clone(), place: place.clone() });
        let mut tasks = lock(&self.tasks);
        // Under the lock, so that a group which has just aborted its tasks gets no new one.
        if self.stop.is_cancelled() {
            return Err(Stopping);
        }
        // What has ended is forgotten here, since nobody may wait for the group before a million tasks have ended.
        while let Some(joined) = tasks.set.try_join_next() {
            tasks.note(joined);
        }
        let (shared, number) = (self.clone(), tasks.started);
        tasks.set.spawn(async move {
            let ended = AssertUnwindSafe(place.run(&shared.places, task)).catch_unwind().await;
            shared.ended(number, ended);
            drop(place.replace(None));
        });
        tasks.names.insert(number, name);
        tasks.started += 1;
        Ok(())
    }

    fn ended(&self, number: u64, ended: Result<Result<(), E>, Box<dyn Any + Send>>) {
        let mut tasks = lock(&self.tasks);
        let name = tasks.names.remove(&number).unwrap_or_default();
        match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tasks.failures.push((name, error)),
            Err(panic) => _ = tasks.panic.get_or_insert(panic),
        }
        let stop = tasks.panic.is_some() || tasks.failures.len() >= self.rules.max_failures.get();
        drop(tasks);
        if stop {
            self.stop.cancel();
        }
    }
}

impl<E> Tasks<E> {
    /// A task panics here only while it is aborted, in a destructor.
    fn note(&mut self, joined: Result<(), JoinError>) {
        if let Some(panic) = joined.err().and_then(|error| error.try_into_panic().ok()) {
            self.panic.get_or_insert(panic);
        }
    }
}

/// A task's place among those that run. It is empty from when it was given away until there is another.
struct Place {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    changed: Notify,
}

impl Place {
    /// Runs `task`, and polls it only while it has its place. The place is free when this ends.
    async fn run<F: Future>(&self, places: &Arc<Semaphore>, task: F) -> F::Output {
        let mut task = pin!(task);
        loop {
            tokio::select! {
                biased;
                () = self.until(false) => drop(self.replace(places.clone().acquire_owned().await.ok())),
                output = &mut task => break output,
            }
        }
    }

    fn replace(&self, permit: Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
        let before = mem::replace(&mut *lock(&self.permit), permit);
        self.changed.notify_waiters();
        before
    }

    /// Waits until the place is there, or away.
    async fn until(&self, there: bool) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.permit).is_some() == there {
                return;
            }
            changed.await;
        }
    }
}

/// Every change under these locks is a single step, so a panic cannot leave one half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    async fn after(millis: u64, result: Result<(), &'static str>) -> Result<(), &'static str> {
        sleep(Duration::from_millis(millis)).await;
        result
    }

    /// A tree of tasks: each starts two, down to `depth`.
    #[expect(clippy::manual_async_fn, reason = "an async fn cannot say that its future is Send")]
    fn grow(
        mut scope: Scope<()>,
        depth: u32,
        grown: Arc<AtomicUsize>,
    ) -> impl Future<Output = Result<(), ()>> + Send {
        async move {
            grown.fetch_add(1, Ordering::Relaxed);
            for _ in 0..2 * depth.min(1) {
                let grown = grown.clone();
                scope.spawn("branch", move |scope| grow(scope, depth - 1, grown)).await.map_err(|_| ())?;
            }
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_a_full_group_does_not_wait_for_itself() {
        for limit in 1..4 {
            let grown = Arc::new(AtomicUsize::new(0));
            let limit = NonZeroUsize::new(limit).unwrap();
            let group = TaskGroup::new(Rules { limit, ..Rules::default() });
            let counter = grown.clone();
            group.spawn("root", |scope| grow(scope, 5, counter)).await.unwrap();
            assert_eq!(group.wait().await, Ok(()));
            assert_eq!(grown.load(Ordering::Relaxed), 63);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_waiting_is_first_come_first_served() {
        let start = Instant::now();
        let group = TaskGroup::new(Rules { limit: ONE, ..Rules::default() });
        for _ in 0..3 {
            group.spawn("ten", |_| after(10, Ok(()))).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::from_millis(20));
        assert_eq!(group.wait().await, Ok(()));
        assert_eq!(start.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_refuse_what_is_started_too_late() {
        let group = TaskGroup::new(Rules { limit: ONE, ..Rules::default() });
        group.spawn("bad", |_| after(5, Err("no"))).await.unwrap();
        assert_eq!(group.spawn("next", |_| after(5, Ok(()))).await, Err(Stopping));
        assert_eq!(group.wait().await.unwrap_err().failures, [("bad".to_string(), "no")]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_stop_the_group_at_the_threshold() {
        for (max, failures) in [(1, 1), (2, 2), (9, 3)] {
            let max_failures = NonZeroUsize::new(max).unwrap();
            let group = TaskGroup::new(Rules { max_failures, ..Rules::default() });
            for millis in [30, 10, 20] {
                group.spawn(format!("{millis}"), move |_| after(millis, Err("no"))).await.unwrap();
            }
            let names: Vec<_> =
                group.wait().await.unwrap_err().failures.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["10", "20", "30"][..failures]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_asks_then_waits_then_aborts_and_names() {
        let start = Instant::now();
        let group = TaskGroup::new(Rules { grace: Duration::from_millis(50), ..Rules::default() });
        let polite = |scope: Scope<&'static str>| async move {
            scope.stopping().await;
            after(20, Ok(())).await
        };
        group.spawn("polite", polite).await.unwrap();
        group.spawn("stubborn", |_| after(60_000, Ok(()))).await.unwrap();
        group.spawn("failing", |_| after(5, Err("no"))).await.unwrap();
        let stopped = group.wait().await.unwrap_err();
        assert_eq!(stopped.overstayed, ["stubborn"]);
        assert_eq!(stopped.failures, [("failing".into(), "no")]);
        assert_eq!(start.elapsed(), Duration::from_millis(55));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_drop_aborts_and_leaks_nothing() {
        let held = Arc::new(());
        let group = TaskGroup::new(Rules::default());
        for _ in 0..9 {
            let held = held.clone();
            let forever = |scope: Scope<()>| async move {
                let _held = (held, scope);
                std::future::pending().await
            };
            group.spawn("forever", forever).await.unwrap();
        }
        let (shared, token) = (Arc::downgrade(&group.shared), group.stop_token());
        drop(group);
        sleep(Duration::from_millis(1)).await;
        assert_eq!((Arc::strong_count(&held), shared.strong_count(), token.is_cancelled()), (1, 0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_resumed_when_every_task_has_ended() {
        let held = Arc::new(());
        let group = TaskGroup::<()>::new(Rules { grace: Duration::from_millis(50), ..Rules::default() });
        let guard = held.clone();
        let slow = |_| async move {
            let _guard = guard;
            sleep(Duration::from_millis(20)).await;
            Ok(())
        };
        group.spawn("slow", slow).await.unwrap();
        group.spawn("breaks", |_| async { resume_unwind(Box::new("broken")) }).await.unwrap();
        let panic = tokio::spawn(group.wait()).await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"broken"));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_tasks_alive() {
        let group = TaskGroup::<()>::new(Rules { limit: ONE, ..Rules::default() });
        for _ in 0..1000 {
            group.spawn("short", |_| async { Ok(()) }).await.unwrap();
        }
        let tasks = lock(&group.shared.tasks);
        assert!((tasks.set.len(), tasks.names.len()) <= (2, 1), "{} tasks are kept", tasks.set.len());
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_the_grace_is_tokios() {
        let start = Instant::now();
        let group = TaskGroup::<()>::new(Rules { grace: Duration::from_secs(60), ..Rules::default() });
        group.spawn("forever", |_| async { std::future::pending().await }).await.unwrap();
        group.stop_token().cancel();
        assert_eq!(group.wait().await.unwrap_err().overstayed, ["forever"]);
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }
}
