//! Find the task that blocks its worker thread: its name, and for how long.
//!
//! Use it in services, where one call that blocks delays every other task. It sees the futures that were given a name, and
//! costs each of their polls a few nanoseconds, so that it can stay on.
//!
//! | | |
//! |---|---|
//! | Order | reports come in the order in which the futures were named |
//! | Errors | a poll as long as the limit is a [`Stall`], reported once while it lasts and once when it is over |
//! | Cancellation | dropping a watched future drops what is inside, and forgets its name; a stall that was reported is still reported as over |
//! | Panics | the future's panic is its caller's; a panic of the report does not end the checks, and [`stop`](Checks::stop) returns the latest |
//! | Memory | one entry for each watched future that exists, and one thread |
//! | Backpressure | none: nothing is queued, and a check waits for the reports of the one before |
//! | Clock | that of the operating system: a thread that is blocked cannot be trusted with the time. Tests give [`check`](Watchdog::check) the time they like |
//!
//! Durations are counted from the first check that saw the poll, so they are too short by at most the time between two checks:
//! a quarter of the limit. The limit is how long a poll may take, not a task: waiting is no stall.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use blocking::Watchdog;
//!
//! #[tokio::main]
//! async fn main() {
//!     let (watchdog, now) = (Watchdog::new(Duration::from_millis(100)), Instant::now());
//!     let seconds = |seconds| watchdog.check(now + Duration::from_secs(seconds));
//!     watchdog.watch("resize", async { seconds(1); seconds(2) }).await;
//!     assert_eq!(seconds(3)[0].to_string(), "resize blocked its thread for 2.0s");
//! }
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Knows which of its futures are being polled. Clones know the same.
#[derive(Clone, Debug)]
pub struct Watchdog {
    limit: Duration,
    watched: Arc<Mutex<Watched>>,
}

type Watched = BTreeMap<u64, Entry>;

#[derive(Debug)]
struct Entry {
    name: Cow<'static, str>,
    /// Counts the begin and the end of each poll: odd while it is polled.
    steps: Arc<AtomicU64>,
    /// The steps at the last check, and when a check first saw them.
    seen: (u64, Instant),
    reported: bool,
    /// It was dropped, and the end of its stall is still to be reported.
    gone: bool,
}

/// A poll that took, or takes, as long as the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The name of the future.
    pub name: Cow<'static, str>,
    /// How long the poll has been seen to take.
    pub took: Duration,
    /// Whether it has ended.
    pub over: bool,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.over { "blocked" } else { "has been blocking" };
        write!(f, "{} {verb} its thread for {:.1?}", self.name, self.took)
    }
}

impl Watchdog {
    /// Takes every poll of `limit` and longer for a stall. Nothing is checked before [`start`](Self::start).
    pub fn new(limit: Duration) -> Self {
        Watchdog { limit, watched: Arc::default() }
    }

    /// Watches the polls of `future`. Names need not be unique. The future holds nothing of the `Watchdog` but its list.
    pub fn watch<N, F>(&self, name: N, future: F) -> impl Future<Output = F::Output> + use<N, F>
    where
        N: Into<Cow<'static, str>>,
        F: Future,
    {
        let (name, steps) = (name.into(), Arc::new(AtomicU64::new(0)));
        let mut watched = lock(&self.watched);
        let id = watched.last_key_value().map_or(0, |(last, _)| last + 1);
        let seen = (0, Instant::now());
        watched.insert(id, Entry { name, steps: steps.clone(), seen, reported: false, gone: false });
        let entered = Entered { id, watched: self.watched.clone() };
        async move {
            let _entered = entered;
            let mut future = pin!(future);
            poll_fn(|context| {
                // Only the thread that polls writes, so one more need not be one operation.
                let before = steps.load(Ordering::Relaxed);
                steps.store(before + 1, Ordering::Relaxed);
                let polled = future.as_mut().poll(context);
                steps.store(before + 2, Ordering::Relaxed);
                polled
            })
            .await
        }
    }

    /// Looks at all futures, at the time `now`, and returns what has to be reported.
    pub fn check(&self, now: Instant) -> Vec<Stall> {
        let mut stalls = Vec::new();
        lock(&self.watched).retain(|_, entry| {
            let (steps, (seen, since)) = (entry.steps.load(Ordering::Relaxed), entry.seen);
            let took = now.saturating_duration_since(since);
            let over = steps != seen || entry.gone;
            let is_news =
                if over { entry.reported } else { !entry.reported && steps % 2 == 1 && took >= self.limit };
            entry.seen = if over { (steps, now) } else { (seen, since) };
            if is_news {
                entry.reported = !over;
                stalls.push(Stall { name: entry.name.clone(), took, over });
            }
            !entry.gone
        });
        stalls
    }

    /// Starts a thread that checks four times within the limit, though at most once a millisecond, and gives what it finds
    /// to `report`. It fails when the system grants no thread.
    pub fn start(&self, mut report: impl FnMut(Stall) + Send + 'static) -> io::Result<Checks> {
        let (watchdog, every) = (self.clone(), (self.limit / 4).max(Duration::from_millis(1)));
        let (stop, stopped) = channel::<()>();
        let check = move || {
            let mut end = Ok(());
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                for stall in watchdog.check(Instant::now()) {
                    end = catch_unwind(AssertUnwindSafe(|| report(stall))).and(end);
                }
            }
            end
        };
        let thread = thread::Builder::new().name("watchdog".into()).spawn(check)?;
        Ok(Checks { stop: Some(stop), thread: Some(thread) })
    }
}

/// The checks of a [`Watchdog`]. Dropping it ends them, and waits for a report that is being made; a report may drop it.
#[derive(Debug)]
#[must_use = "dropping it ends the checks"]
pub struct Checks {
    /// The thread holds the other end, and ends when this one is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<thread::Result<()>>>,
}

impl Checks {
    /// Ends the checks. An error is the latest panic of a report, with its payload.
    pub fn stop(&mut self) -> thread::Result<()> {
        self.stop = None;
        // A report that does this would wait for itself.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        thread.map_or(Ok(()), |thread| thread.join().and_then(|end| end))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // Whoever wants to know of a panic calls `stop`.
        let _ = self.stop();
    }
}

/// A future on the list.
struct Entered {
    id: u64,
    watched: Arc<Mutex<Watched>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut watched = lock(&self.watched);
        match watched.get_mut(&self.id) {
            Some(entry) if entry.reported => entry.gone = true,
            _ => _ = watched.remove(&self.id),
        }
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    // Nothing of the user's runs under the lock.
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::panic::resume_unwind;
    use std::task::{Context, Waker};

    use tokio::sync::mpsc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A watchdog with a limit of a second, and its reports at the so many-th second.
    fn watchdog() -> (Watchdog, impl Fn(u32) -> Vec<String> + Clone) {
        let (watchdog, start) = (Watchdog::new(SECOND), Instant::now());
        let same = watchdog.clone();
        let check = move |seconds| {
            let stalls = same.check(start + seconds * SECOND);
            stalls.into_iter().map(|stall| stall.to_string()).collect()
        };
        (watchdog, check)
    }

    #[tokio::test]
    async fn order_is_that_of_the_names() {
        let (watchdog, check) = watchdog();
        let inner = watchdog.watch("inner", async { [check(1), check(2)] });
        let [first, second] = watchdog.watch("outer", inner).await;
        assert!(first.is_empty());
        assert_eq!(
            second,
            ["inner has been blocking its thread for 1.0s", "outer has been blocking its thread for 1.0s"]
        );
    }

    #[tokio::test]
    async fn errors_are_reported_once_and_once_when_over() {
        let (watchdog, check) = watchdog();
        let task = watchdog.watch("resize", async {
            let reports: Vec<_> = (1..=5).flat_map(&check).collect();
            tokio::task::yield_now().await;
            (reports, check(6), check(7))
        });
        let (reports, over, again) = task.await;
        assert_eq!(reports, ["resize has been blocking its thread for 1.0s"]);
        assert_eq!(over, ["resize blocked its thread for 5.0s"]);
        assert_eq!(again, ["resize has been blocking its thread for 1.0s"]);
        assert_eq!(check(9), ["resize blocked its thread for 3.0s"]);
        assert!(check(10).is_empty());
    }

    #[tokio::test]
    async fn errors_are_not_seen_in_what_waits() {
        let (watchdog, check) = watchdog();
        let mut waits = Box::pin(watchdog.watch("waits", pending::<()>()));
        for second in 0..10 {
            assert!(check(second).is_empty());
            assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    }

    #[tokio::test]
    async fn cancellation_forgets_the_name_and_memory_is_an_entry_for_each() {
        let (watchdog, _) = watchdog();
        let names = || lock(&watchdog.watched).len();
        let futures: Vec<_> =
            (0..9).map(|number| watchdog.watch(format!("task {number}"), ready(()))).collect();
        assert_eq!(names(), 9);
        drop(futures);
        assert_eq!(names(), 0);
        assert_eq!(tokio::spawn(watchdog.watch("ready", ready(7))).await.unwrap(), 7);
        assert_eq!(names(), 0);
    }

    #[tokio::test]
    async fn panics_of_the_future_end_the_poll() {
        let (watchdog, check) = watchdog();
        let inner = check.clone();
        let task = watchdog.watch("bad", async move {
            inner(1);
            inner(2);
            resume_unwind(Box::new("bad"))
        });
        let task = tokio::spawn(task);
        assert_eq!(task.await.unwrap_err().into_panic().downcast_ref(), Some(&"bad"));
        assert_eq!(check(3), ["bad blocked its thread for 2.0s"]);
    }

    #[test]
    fn panics_of_a_report_do_not_end_the_checks() {
        let watchdog = Watchdog::new(Duration::ZERO);
        let (sender, mut reports) = mpsc::unbounded_channel();
        let report = move |stall| {
            let _ = sender.send(stall);
            resume_unwind(Box::new("in the report"))
        };
        let mut checks = watchdog.start(report).unwrap();
        // There is no runtime, so the poll may wait for the report.
        let mut blocks = Box::pin(watchdog.watch("blocks", async { reports.blocking_recv() }));
        let polled = blocks.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.map(|stall| !stall.unwrap().over).is_ready());
        drop(blocks);
        assert!(reports.blocking_recv().unwrap().over);
        assert_eq!(checks.stop().unwrap_err().downcast_ref(), Some(&"in the report"));
    }
}
