//! Start tasks that may start tasks, and let none outlive the group: ask, wait, abort.
//!
//! Use it when the number of tasks is not known beforehand, when they need a limit, or when they must be given time to
//! stop. When you have all futures at once use `try_gather`.
//!
//! | | |
//! |---|---|
//! | Order | who waits for a place gets it first come, first served; tasks end in any order |
//! | Errors | at `max_failures` failures the group stops; every failure is returned with its task's name, in the order in which the tasks ended |
//! | Cancellation | stopping asks all tasks, and aborts those that are alive after `grace`; [`wait`](TaskGroup::wait) returns when every task has ended, and names those that overstayed. Dropping the group or `wait` aborts all tasks, and each ends at its next await without being waited for |
//! | Panics | stop the group as a failure does; the first is resumed in the caller of `wait` after every task has ended |
//! | Memory | O(tasks alive): at most `limit` that run, and those that wait in their own `spawn`; and the failures |
//! | Backpressure | `spawn` waits for a place; a task that waits in `spawn` lends its own place meanwhile, so that a full group cannot wait for itself |
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
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::{consume_budget, unconstrained};
use tokio::task::{Id, JoinError, JoinSet};
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
    /// Each task that failed, by name, in the order in which they ended.
    pub failures: Vec<(String, E)>,
    /// The tasks that were alive when the grace was over, by name, in alphabetical order.
    pub overstayed: Vec<String>,
}

/// The group is stopping or has ended, and starts no further task. The one offered was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task group is stopping")]
pub struct Stopping;

/// A set of tasks with a common end. Dropping it aborts them.
pub struct TaskGroup<E: Send + 'static> {
    shared: Arc<Shared<E>>,
    rules: Rules,
}

/// What a task has of its group: it can start others, and learn that it should stop.
pub struct Scope<E: Send + 'static> {
    shared: Arc<Shared<E>>,
    place: Place,
}

/// A task's place among those that run. The task holds it to its end; its scope lends it while it waits for another's.
type Place = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

struct Shared<E> {
    tasks: Mutex<Tasks<E>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

struct Tasks<E> {
    set: JoinSet<Result<(), E>>,
    names: HashMap<Id, String>,
}

impl<E: Send + 'static> TaskGroup<E> {
    /// An empty group.
    pub fn new(rules: Rules) -> Self {
        let places = Arc::new(Semaphore::new(rules.limit.get().min(Semaphore::MAX_PERMITS)));
        let tasks = Mutex::new(Tasks { set: JoinSet::new(), names: HashMap::new() });
        TaskGroup { shared: Arc::new(Shared { tasks, places, stop: CancellationToken::new() }), rules }
    }

    /// Starts `task` under `name` as soon as there is a place for it. Dropping this future starts nothing.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the group stops before there is a place.
    pub async fn spawn<F: Future<Output = Result<(), E>> + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl FnOnce(Scope<E>) -> F,
    ) -> Result<(), Stopping> {
        self.shared.start(name.into(), task).await
    }

    /// Stops the group when it is cancelled: whoever holds it can stop the group from outside.
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Waits until every task has ended.
    ///
    /// # Errors
    ///
    /// [`Stopped`] with what failed, and who overstayed the grace. Stopping in time without a failure is no error.
    ///
    /// # Panics
    ///
    /// If a task panicked, after every task has ended.
    pub async fn wait(self) -> Result<(), Stopped<E>> {
        let shared = &self.shared;
        let mut stopped = Stopped { failures: Vec::new(), overstayed: Vec::new() };
        let mut panic = None;
        let grace = async {
            shared.stop.cancelled().await;
            sleep(self.rules.grace).await;
        };
        let mut grace = pin!(grace);
        let mut aborted = false;
        loop {
            consume_budget().await;
            tokio::select! {
                biased;
                // Out of budget, a join set would put the task whose turn it is behind all others.
                ended = unconstrained(poll_fn(|context| lock(&shared.tasks).set.poll_join_next_with_id(context))) => {
                    let Some(ended) = ended else { break };
                    self.note(ended, &mut stopped.failures, &mut panic);
                    if panic.is_some() || stopped.failures.len() >= self.rules.max_failures.get() {
                        shared.stop.cancel();
                    }
                }
                () = &mut grace, if !aborted => {
                    aborted = true;
                    let mut tasks = lock(&shared.tasks);
                    stopped.overstayed.extend(tasks.names.values().cloned());
                    stopped.overstayed.sort();
                    tasks.set.abort_all();
                }
            }
        }
        shared.stop.cancel();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if stopped.failures.is_empty() && stopped.overstayed.is_empty() { Ok(()) } else { Err(stopped) }
    }

    fn note(
        &self,
        ended: Result<(Id, Result<(), E>), JoinError>,
        failures: &mut Vec<(String, E)>,
        panic: &mut Option<Box<dyn Any + Send>>,
    ) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = lock(&self.shared.tasks).names.remove(&id).unwrap_or_default();
        match ended.map_err(JoinError::try_into_panic) {
            Ok((_, Ok(()))) => {}
            Ok((_, Err(error))) => failures.push((name, error)),
            Err(Ok(payload)) => _ = panic.get_or_insert(payload),
            Err(Err(_aborted)) => {}
        }
    }
}

impl<E: Send + 'static> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        lock(&self.shared.tasks).set.abort_all();
    }
}

impl<E: Send + 'static> Scope<E> {
    /// Starts another task of the group, as [`TaskGroup::spawn`]. While it waits this task lends its own place, and takes
    /// one again before it goes on. If this future is dropped while it waits, the place stays lent until the next call.
    ///
    /// # Errors
    ///
    /// [`Stopping`] when the group stops before there is a place for each of the two.
    pub async fn spawn<F: Future<Output = Result<(), E>> + Send + 'static>(
        &mut self,
        name: impl Into<String>,
        task: impl FnOnce(Scope<E>) -> F,
    ) -> Result<(), Stopping> {
        drop(lock(&self.place).take());
        self.shared.start(name.into(), task).await?;
        let place = self.shared.place().await?;
        *lock(&self.place) = Some(place);
        Ok(())
    }

    /// Returns when the group has asked its tasks to stop. Select on it around waits that may be long.
    pub async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }
}

impl<E: Send + 'static> Shared<E> {
    async fn start<F: Future<Output = Result<(), E>> + Send + 'static>(
        self: &Arc<Self>,
        name: String,
        task: impl FnOnce(Scope<E>) -> F,
    ) -> Result<(), Stopping> {
        let place = Arc::new(Mutex::new(Some(self.place().await?)));
        let task = task(Scope { shared: self.clone(), place: place.clone() });
        let mut tasks = lock(&self.tasks);
        // Under the lock, so that a group which has just aborted its tasks gets no new one.
        if self.stop.is_cancelled() {
            return Err(Stopping);
        }
        let whole = async move {
            let _place = place;
            task.await
        };
        let id = tasks.set.spawn(whole).id();
        tasks.names.insert(id, name);
        Ok(())
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Stopping> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stopping),
            place = self.places.clone().acquire_owned() => place.map_err(|_never_closed| Stopping),
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
    async fn memory_and_clock_a_stopping_group_starts_nothing() {
        let group = TaskGroup::<()>::new(Rules::default());
        group.stop_token().cancel();
        assert_eq!(group.spawn("late", |_| async { Ok(()) }).await, Err(Stopping));
        assert_eq!(group.wait().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_limit() {
        let group = TaskGroup::<()>::new(Rules { limit: ONE, ..Rules::default() });
        group.spawn("first", |_| async { std::future::pending().await }).await.unwrap();
        let mut second = Box::pin(group.spawn("second", |_| async { Ok(()) }));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
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
