//! Stop a service in ordered phases, each within a time limit, and report who did not stop.
//!
//! Use it when a program must finish what it accepted before it exits. For a part of it see `cancellation`.
//!
//! | | |
//! |---|---|
//! | Order | phases stop in the order in which they were made; a later phase works on until its turn, and takes tasks until then |
//! | Errors | [`Report`] names the tasks that had to be aborted and those that panicked, each with its phase |
//! | Cancellation | a phase's tasks are asked to stop, and aborted when its limit is over; a second signal aborts all phases at once. `run` returns when every task has ended, and one that never awaits cannot be aborted. Dropping `run` or the `Shutdown` aborts all tasks, and each ends at its next await without being waited for |
//! | Panics | a task's panic begins the shutdown as a signal does, and is in the report; `spawn` and `signals` panic outside a Tokio runtime |
//! | Memory | O(tasks alive): what has ended is forgotten when as many again have started; and the panics |
//! | Backpressure | none: a phase starts every task at once; limit them where they come from |
//! | Clock | `tokio::time`, for the limits: their sum is the longest that a shutdown can take |
//!
//! ```
//! use tasks::Shutdown;
//! #[tokio::main]
//! async fn main() {
//!     let mut shutdown = Shutdown::default();
//!     let workers = shutdown.phase("workers", std::time::Duration::ZERO);
//!     workers.spawn("stubborn", std::future::pending()).unwrap();
//!     let report = shutdown.run(futures::stream::iter(["SIGTERM"])).await;
//!     assert_eq!(report.left[0].1.name, "stubborn");
//! }
//! ```

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::background::{Background, NoResult, background};

/// The phases of a service. Dropping it aborts all their tasks.
#[derive(Debug, Default)]
pub struct Shutdown {
    phases: Vec<Phase>,
    begin: CancellationToken,
}

/// Tasks that stop together. Clones are the same phase; dropping them ends nothing.
#[derive(Clone, Debug)]
pub struct Phase {
    name: String,
    limit: Duration,
    stop: CancellationToken,
    begin: CancellationToken,
    tasks: Arc<Mutex<Tasks>>,
}

#[derive(Debug, Default)]
struct Tasks {
    started: VecDeque<Background<()>>,
    most: usize,
    left: Vec<NoResult>,
}

/// It is this phase's turn to stop, or later. The task offered was dropped without being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the phase is stopping")]
pub struct Stopping;

/// How a service ended. It ended well if nobody is `left`.
#[derive(Debug)]
#[must_use = "it names the tasks that had to be aborted or panicked"]
pub struct Report<S> {
    /// What began it; `None` if a task's panic did.
    pub cause: Option<S>,
    /// The second signal, which cut it short.
    pub hurried: Option<S>,
    /// The tasks that had to be aborted or panicked, each after its phase's name.
    pub left: Vec<(String, NoResult)>,
}

/// SIGINT (Ctrl-C) and SIGTERM, by name; on Windows Ctrl-C. From now on they do not end the program by themselves.
/// Those that come before the first was seen count as one. Fails if the system refuses a handler.
pub fn signals() -> std::io::Result<impl Stream<Item = &'static str> + Send + Unpin> {
    #[cfg(unix)]
    let mut sources = {
        use tokio::signal::unix::{SignalKind, signal};
        [("SIGINT", signal(SignalKind::interrupt())?), ("SIGTERM", signal(SignalKind::terminate())?)]
    };
    #[cfg(windows)]
    let mut sources = [("Ctrl-C", tokio::signal::windows::ctrl_c()?)];
    Ok(stream::poll_fn(move |context| {
        let mut sources = sources.iter_mut();
        let seen = sources.find_map(|(name, source)| source.poll_recv(context).is_ready().then_some(*name));
        seen.map_or(Poll::Pending, |name| Poll::Ready(Some(name)))
    }))
}

impl Shutdown {
    /// Adds a phase, which stops after those that there are. Its tasks get `limit` for that.
    pub fn phase(&mut self, name: impl Into<String>, limit: Duration) -> Phase {
        let (stop, begin, tasks) = (CancellationToken::new(), self.begin.clone(), Arc::default());
        self.phases.push(Phase { name: name.into(), limit, stop, begin, tasks });
        self.phases[self.phases.len() - 1].clone()
    }

    /// Waits for the first of `signals` or a panic, then stops one phase after the other, and returns when every task has
    /// ended. The second signal aborts all tasks that are left.
    pub async fn run<S>(self, signals: impl Stream<Item = S>) -> Report<S> {
        let mut signals = pin!(signals.chain(stream::pending()));
        let cause = tokio::select! {
            biased;
            cause = signals.next() => cause,
            () = self.begin.cancelled() => None,
        };
        let (mut hurried, mut left) = (None, Vec::new());
        for phase in &self.phases {
            drop(phase.ask());
            tokio::select! {
                biased;
                () = phase.ended() => {}
                signal = signals.next(), if hurried.is_none() => {
                    hurried = signal;
                    self.phases.iter().for_each(Phase::abort);
                }
                () = sleep(phase.limit) => phase.abort(),
            }
            phase.ended().await;
            let gone = std::mem::take(&mut phase.tasks().left);
            left.extend(gone.into_iter().map(|task| (phase.name.clone(), task)));
        }
        Report { cause, hurried, left }
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.phases.iter().for_each(Phase::abort);
    }
}

impl Phase {
    /// Starts `task`, which ends by itself when [`stopping`](Self::stopping) is cancelled.
    pub fn spawn<F>(&self, name: impl Into<String>, task: F) -> Result<(), Stopping>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A panic drops the guard, which begins the shutdown.
        let begin = self.begin.clone().drop_guard();
        let task = async move {
            task.await;
            begin.disarm();
        };
        let mut tasks = self.tasks();
        // Under the lock, so that a phase whose last task was seen to end gets no new one.
        if self.stop.is_cancelled() {
            return Err(Stopping);
        }
        let Tasks { started, most, left } = &mut *tasks;
        if started.len() >= *most {
            started.retain_mut(|task| task.now_or_never().map(|ended| left.extend(ended.err())).is_none());
            *most = 2 * started.len();
        }
        started.push_back(background(name.into(), task));
        Ok(())
    }

    /// Is cancelled when it is this phase's turn to stop. Cancelling it oneself stops whoever has this token, and no other.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.child_token()
    }

    fn ask(&self) -> MutexGuard<'_, Tasks> {
        let tasks = self.tasks();
        self.stop.cancel();
        tasks
    }

    fn abort(&self) {
        self.ask().started.iter().for_each(Background::abort);
    }

    /// Waits for every task. Only of a phase that takes no further one.
    async fn ended(&self) {
        let poll = |context: &mut Context<'_>| {
            let Tasks { started, left, .. } = &mut *self.tasks();
            while let Some(task) = started.front_mut() {
                left.extend(ready!(task.poll_unpin(context)).err());
                started.pop_front();
            }
            Poll::Ready(())
        };
        poll_fn(poll).await
    }

    /// Every change under the lock is a single step, so a panic cannot leave one half done.
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::resume_unwind;

    use tokio::runtime::Handle;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One signal, and after so many milliseconds another.
    fn after(millis: u64) -> impl Stream<Item = &'static str> {
        let second = async move {
            sleep(millis as u32 * MS).await;
            "second"
        };
        stream::iter(["first"]).chain(stream::once(second))
    }

    fn names<S>(report: &Report<S>) -> Vec<String> {
        report.left.iter().map(|(phase, task)| format!("{phase} {}", task.name)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_phase_by_phase() {
        let (log, mut logged) = mpsc::unbounded_channel();
        let mut shutdown = Shutdown::default();
        for name in ["listener", "workers", "journal"] {
            let (phase, log) = (shutdown.phase(name, 10 * MS), log.clone());
            let stop = phase.stopping();
            let task = async move {
                stop.cancelled().await;
                log.send(format!("{name} asked")).unwrap();
                sleep(2 * MS).await;
                log.send(format!("{name} done")).unwrap();
            };
            phase.spawn(name, task).unwrap();
        }
        let report = shutdown.run(stream::iter(["SIGTERM"])).await;
        assert_eq!((report.cause, report.hurried, report.left.len()), (Some("SIGTERM"), None, 0));
        drop(log);
        let mut all = Vec::new();
        while let Some(line) = logged.recv().await {
            all.push(line);
        }
        let names = ["listener", "workers", "journal"];
        assert_eq!(all, names.map(|name| [format!("{name} asked"), format!("{name} done")]).concat());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_who_overstayed() {
        let mut shutdown = Shutdown::default();
        let (first, second) = (shutdown.phase("first", 5 * MS), shutdown.phase("second", 7 * MS));
        first.spawn("stubborn", pending()).unwrap();
        first.spawn("quick", sleep(MS)).unwrap();
        second.spawn("deaf", pending()).unwrap();
        let start = Instant::now();
        let report = shutdown.run(stream::iter([()])).await;
        assert_eq!(start.elapsed(), 12 * MS);
        assert_eq!(names(&report), ["first stubborn", "second deaf"]);
        assert_eq!(second.spawn("late", pending()), Err(Stopping));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_a_second_signal_aborts_all_at_once() {
        let mut shutdown = Shutdown::default();
        let (held, start) = (Arc::new(()), Instant::now());
        for name in ["a", "b", "c"] {
            let guard = held.clone();
            let stubborn = async move {
                let _guard = guard;
                pending().await
            };
            shutdown.phase(name, Duration::MAX).spawn(name, stubborn).unwrap();
        }
        let report = shutdown.run(after(3)).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
        assert_eq!((report.cause, report.hurried), (Some("first"), Some("second")));
        assert_eq!(
            (names(&report), start.elapsed()),
            (["a a", "b b", "c c"].map(String::from).into(), 3 * MS)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn panics_begin_the_shutdown_and_are_in_the_report() {
        let mut shutdown = Shutdown::default();
        let phase = shutdown.phase("workers", MS);
        phase.spawn("bad", async { resume_unwind(Box::new("boom")) }).unwrap();
        phase.spawn("deaf", pending()).unwrap();
        let report = shutdown.run(stream::pending::<()>()).await;
        assert_eq!(
            (names(&report), report.cause),
            (["workers bad", "workers deaf"].map(String::from).into(), None)
        );
        assert!(report.left[0].1.cause.is_panic() && report.left[1].1.cause.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_the_tasks_alive() {
        let mut shutdown = Shutdown::default();
        let phase = shutdown.phase("requests", MS);
        for _ in 0..1_000 {
            phase.spawn("request", async {}).unwrap();
            tokio::task::yield_now().await;
        }
        let kept = phase.tasks().started.len();
        assert!(kept <= 2, "{kept}");
        assert!(shutdown.run(stream::iter([()])).await.left.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_limit_is_the_phases_own() {
        let mut shutdown = Shutdown::default();
        for name in ["a", "b"] {
            shutdown.phase(name, 10 * MS).spawn(name, sleep(8 * MS)).unwrap();
        }
        let start = Instant::now();
        let report = shutdown.run(stream::iter([(), ()]).take(1)).await;
        assert!(report.left.is_empty());
        assert_eq!(start.elapsed(), 8 * MS);
    }
}
