//! Proves that a future can be dropped anywhere: it is, at every suspension point, and what is left is checked.
//!
//! [`sweep`] builds the same [`Scene`] again and again, each time on a new single-threaded runtime with a paused clock,
//! and drops its subject at another point:
//!
//! | point | the subject is dropped |
//! |---|---|
//! | `unpolled` | before its first poll |
//! | `suspended:k` | right after its k-th poll returned `Pending` |
//! | `waiting:k` | a millisecond before it would be woken from its k-th `Pending`, as a timeout does |
//! | `woken:k` | after it was woken from its k-th `Pending`, and before it is polled again |
//!
//! Who is stuck behind a waiter that gave up shows only in the third; lost permits, lost wake-ups and lost hand-offs show
//! only in the fourth. Then come the triggers: a child that panics, fails or is aborted at each of its polls
//! ([`Parts::child`]), and a polite request to stop at each of the points above ([`Scene::stop`]). After each trigger the
//! subject first runs to its end, and then is dropped at every later point too, so that a cleanup which has begun is itself
//! cancelled.
//!
//! After every run these must hold:
//!
//! - the subject, unless it was dropped, ended within an hour of virtual time and 10,000 polls
//! - when it returned or panicked, no task of its own is alive and no [child](Parts::child) exists; when it was dropped,
//!   that holds before any time passes
//! - an hour later, every [bystander](Scene::alongside) came to its end: one that still waits has lost a wake-up, a permit
//!   or an item
//! - an injected panic reached the caller (unless [`Scene::returns_panics`]), and there was no other, not even in a drop
//! - the scene's own [check](Scene::check)
//!
//! A run is the same each time, so that a failure can be repeated, as long as the scene makes no random choice.
//! `tokio::select!` without `biased;` makes one, and so does the order of a `HashMap`: see [`Scene::random`]. What happens
//! on other threads (`spawn_blocking`) is waited for before time goes on, but counts as no task.
//!
//! ```
//! use std::{rc::Rc, time::Duration};
//! use support::sweep::{Scene, sweep};
//! use tokio::{sync::Semaphore, time::sleep};
//!
//! let report = sweep(|_| {
//!     let limit = Rc::new(Semaphore::new(1));
//!     let (subject, after) = (limit.clone(), limit.clone());
//!     Scene::new(async move {
//!         let _permit = subject.acquire().await;
//!         sleep(Duration::from_millis(5)).await;
//!     })
//!     .alongside(async move { drop(limit.acquire().await) })
//!     .check(move |_| assert_eq!(after.available_permits(), 1))
//! });
//! assert_eq!(report.points, 4);
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::task::{AbortHandle, JoinHandle, spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long the scene is left alone, in virtual time, before it is checked.
const SETTLE: Duration = Duration::from_secs(3600);
/// The resolution of tokio's timers.
const TICK: Duration = Duration::from_millis(1);
/// A subject that is polled this often will never end.
const MOST_POLLS: usize = 10_000;
/// How often each point of a [random](Scene::random) scene is tried: one choice out of two is missed once in 256 times.
const RANDOM_TRIES: usize = 8;
/// How often the point in `SWEEP_POINT` is tried until it fails: a random choice must not hide it.
const REPEATED_TRIES: usize = 64;
/// One run takes milliseconds; one that takes this long, in real time, spins.
const HUNG: Duration = Duration::from_secs(120);
/// Set to a point's name (a failing sweep prints it), it leaves out all other points; the report counts what was tried.
const ONLY: &str = "SWEEP_POINT";

/// One run: who is dropped, who else is there, what must hold afterwards.
pub struct Scene<T> {
    subject: Pin<Box<dyn Future<Output = T>>>,
    bystanders: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    stop: Option<Box<dyn FnOnce()>>,
    check: Box<dyn FnOnce(Ended<T>)>,
    outlived: bool,
    returns_panics: bool,
    tries: usize,
}

/// How the subject ended.
#[derive(Debug)]
pub enum Ended<T> {
    /// It was dropped at the point under trial.
    Dropped,
    /// It returned this.
    Returned(T),
    /// It panicked with this message.
    Panicked(String),
}

impl<T: 'static> Scene<T> {
    /// A scene about `subject`, the future that is dropped.
    pub fn new(subject: impl Future<Output = T> + 'static) -> Self {
        Scene {
            subject: Box::pin(subject),
            bystanders: Vec::new(),
            stop: None,
            check: Box::new(|_| ()),
            outlived: false,
            returns_panics: false,
            tries: 1,
        }
    }

    /// A task beside the subject, started before it. It must come to its end whatever happens to the subject, and must
    /// not leave tasks of its own behind: they would count as the subject's.
    pub fn alongside(mut self, bystander: impl Future<Output = ()> + 'static) -> Self {
        self.bystanders.push(Box::pin(bystander));
        self
    }

    /// Asks the subject to stop. The sweep calls it at each point, also when the subject was just woken by something else,
    /// and drops the subject at each later one.
    pub fn stop(mut self, ask: impl FnOnce() + 'static) -> Self {
        self.stop = Some(Box::new(ask));
        self
    }

    /// Checks the caller's invariants after everything has settled. It fails by panicking.
    pub fn check(mut self, check: impl FnOnce(Ended<T>) + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Allows work to be alive when the subject is gone, because the contract says so. It must still end by itself.
    pub fn outlived(mut self) -> Self {
        self.outlived = true;
        self
    }

    /// Says that a child's panic comes back as a value, so that the subject may return after one.
    pub fn returns_panics(mut self) -> Self {
        self.returns_panics = true;
        self
    }

    /// Says that the scene makes random choices, such as a `tokio::select!` without `biased;`: each point is tried eight
    /// times. Without it, a failure that depends on such a choice is found by luck.
    pub fn random(mut self) -> Self {
        self.tries = RANDOM_TRIES;
        self
    }
}

/// What can be done to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It returns the error given to [`Parts::fallible`].
    Fail,
    /// Its task is aborted, through the handle given to [`Parts::abort_with`].
    Abort,
}

/// The parts of a scene that the sweep can break. Clones share one state.
#[derive(Clone, Default)]
pub struct Parts(Arc<Mutex<PartsState>>);

#[derive(Default)]
struct PartsState {
    /// The child, the poll (from 0) and the fault that this run is about.
    planned: Option<(String, usize, Fault)>,
    fired: bool,
    children: BTreeMap<String, ChildState>,
}

#[derive(Clone, Default)]
struct ChildState {
    polls: usize,
    alive: usize,
    can_fail: bool,
    handle: Option<AbortHandle>,
}

impl Parts {
    /// Names `future` as a child: the sweep makes it panic at each of its polls, and checks that it does not outlive the
    /// subject. Futures with the same name, such as the attempts of a retry, count as one child that is polled on.
    pub fn child<F: Future>(&self, name: impl Into<String>, future: F) -> Child<F> {
        self.part(name.into(), future, None)
    }

    /// As [`child`](Self::child); the sweep also makes it return `error()` at each of its polls.
    pub fn fallible<F, T, E>(
        &self,
        name: impl Into<String>,
        future: F,
        error: impl Fn() -> E + Send + 'static,
    ) -> Child<F>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.part(name.into(), future, Some(Box::new(move || Err(error()))))
    }

    /// Tells how the task of the child `name` is aborted: the sweep does so at each of its polls.
    pub fn abort_with(&self, name: &str, handle: AbortHandle) {
        self.state().children.entry(name.into()).or_default().handle = Some(handle);
    }

    /// The fault that has happened so far in this run.
    pub fn fault(&self) -> Option<Fault> {
        let state = self.state();
        state.planned.as_ref().filter(|_| state.fired).map(|(_, _, fault)| *fault)
    }

    fn part<F: Future>(&self, name: String, future: F, fail: Option<Fail<F::Output>>) -> Child<F> {
        let mut state = self.state();
        let child = state.children.entry(name.clone()).or_default();
        child.alive += 1;
        child.can_fail |= fail.is_some();
        drop(state);
        Child { future: Box::pin(future), name, fail, parts: self.clone() }
    }

    /// What is alive of `tasks` tasks and all children, in words, unless it is nothing.
    fn alive(&self, tasks: usize) -> Option<String> {
        let state = self.state();
        let children = state.children.iter().filter(|(_, child)| child.alive > 0);
        let children = children.map(|(name, child)| format!("{} of child '{name}'", child.alive));
        let tasks = (tasks > 0).then(|| if tasks == 1 { "1 task".into() } else { format!("{tasks} tasks") });
        let alive: Vec<String> = tasks.into_iter().chain(children).collect();
        (!alive.is_empty()).then(|| alive.join(", "))
    }

    fn state(&self) -> MutexGuard<'_, PartsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Fail<T> = Box<dyn Fn() -> T + Send>;

/// A future that the sweep can break: see [`Parts::child`].
pub struct Child<F: Future> {
    future: Pin<Box<F>>,
    name: String,
    fail: Option<Fail<F::Output>>,
    parts: Parts,
}

impl<F: Future> Future for Child<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut state = self.parts.state();
        let child = state.children.entry(self.name.clone()).or_default();
        let (poll, handle) = (child.polls, child.handle.clone());
        child.polls += 1;
        let due = state.planned.as_ref().filter(|(name, at, _)| *name == self.name && *at == poll);
        let due = due.map(|(_, _, fault)| *fault);
        state.fired |= match due {
            Some(Fault::Panic) => true,
            Some(Fault::Fail) => self.fail.is_some(),
            Some(Fault::Abort) => handle.is_some(),
            None => false,
        };
        drop(state);
        match (due, &self.fail, handle) {
            // resume_unwind and not panic!, so that a sweep does not print a thousand expected messages
            (Some(Fault::Panic), _, _) => resume_unwind(Box::new("panic injected by the sweep")),
            (Some(Fault::Fail), Some(fail), _) => Poll::Ready(fail()),
            (Some(Fault::Abort), _, Some(handle)) => {
                handle.abort();
                Poll::Pending
            }
            _ => self.future.as_mut().poll(context),
        }
    }
}

impl<F: Future> Drop for Child<F> {
    fn drop(&mut self) {
        if let Some(child) = self.parts.state().children.get_mut(&self.name) {
            child.alive -= 1;
        }
    }
}

/// What a sweep tried and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Runs in which the subject was dropped, without a trigger.
    pub points: usize,
    /// Triggers after which the subject ran to its end: faults of children and requests to stop.
    pub triggers: usize,
    /// Runs in which the subject was dropped after a trigger.
    pub triggered_points: usize,
    /// What went wrong, with the name of the point.
    pub violations: Vec<(String, String)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { points, triggers, triggered_points, violations } = self;
        write!(f, "drops: {points}, triggers: {triggers}, drops after a trigger: {triggered_points}, ")?;
        write!(f, "violations: {}", violations.len())?;
        for (point, what) in violations.iter().take(10) {
            write!(f, "\n  {point}: {what}")?;
        }
        if violations.len() > 10 {
            write!(f, "\n  and {} more", violations.len() - 10)?;
        }
        Ok(())
    }
}

/// Drops the scene's subject at every point, as the [module](self) says, and panics if anything was left behind.
///
/// It prints how many points it tried. `make` builds the scene anew for each of them and must build the same each time.
///
/// # Panics
///
/// If any point violates a rule. The message names the points, and the command that repeats the first one alone.
pub fn sweep<T: 'static>(make: impl Fn(&Parts) -> Scene<T>) -> Report {
    let report = explore(make);
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    if let Some((point, _)) = report.violations.first() {
        panic!("sweep {test}: {report}\nrepeat the first one: {}", repeat(point, &test));
    }
    println!("sweep {test}: {report}");
    report
}

/// As [`sweep`], but returns the violations instead of panicking.
#[must_use = "the violations are in the report"]
pub fn explore<T: 'static>(make: impl Fn(&Parts) -> Scene<T>) -> Report {
    let mut sweep =
        Sweep { make, only: std::env::var(ONLY).ok(), report: Report::default(), watchdog: watchdog() };
    let whole = sweep.run(&Trigger::None, Point::End);
    if whole.endless {
        return sweep.report;
    }
    for point in points(&whole.waits) {
        let run = sweep.run(&Trigger::None, point);
        sweep.report.points += usize::from(run.reached);
    }
    for trigger in whole.triggers() {
        let run = sweep.run(&trigger, Point::End);
        sweep.report.triggers += usize::from(run.fired);
        if run.endless {
            continue;
        }
        // To drop it before the trigger would repeat a point already tried.
        let from = run.triggered.map_or((usize::MAX, 0), Point::order);
        for point in points(&run.waits).into_iter().filter(|point| point.order() >= from) {
            let run = sweep.run(&trigger, point);
            sweep.report.triggered_points += usize::from(run.reached && run.fired);
        }
    }
    sweep.report
}

struct Sweep<M> {
    make: M,
    only: Option<String>,
    report: Report,
    watchdog: mpsc::Sender<String>,
}

impl<M> Sweep<M> {
    /// Tries one point. `SWEEP_POINT` leaves out all but the runs that lead to its point.
    fn run<T: 'static>(&mut self, trigger: &Trigger, point: Point) -> Run
    where
        M: Fn(&Parts) -> Scene<T>,
    {
        let name = format!("{trigger}{point}");
        let sought = self.only.as_ref().is_none_or(|only| *only == name);
        let leads_there = |only: &String| point == Point::End && only.starts_with(&trigger.to_string());
        if !sought && !self.only.as_ref().is_some_and(leads_there) {
            return Run::default();
        }
        // The other end lives until this sweep is dropped, so the message cannot be refused.
        let _ = self.watchdog.send(name.clone());
        let mut run = once(&self.make, trigger, point);
        let tries = if sought && self.only.is_some() { REPEATED_TRIES } else { run.tries };
        for _ in 1..tries {
            if !run.violations.is_empty() {
                break;
            }
            let again = once(&self.make, trigger, point);
            // The longest of the random runs has the points that the others have, and more.
            if !again.violations.is_empty() || again.waits.len() > run.waits.len() {
                run = again;
            }
        }
        // Without its trigger, a run repeats a point already tried.
        if sought && (run.fired || matches!(trigger, Trigger::None)) {
            self.report.violations.extend(run.violations.drain(..).map(|what| (name.clone(), what)));
        }
        run
    }
}

/// One run on a runtime of its own.
fn once<T: 'static>(make: impl Fn(&Parts) -> Scene<T>, trigger: &Trigger, point: Point) -> Run {
    let runtime =
        Builder::new_current_thread().enable_all().start_paused(true).build_local(LocalOptions::default());
    let runtime = runtime.expect("the operating system grants a timer and an event queue");
    runtime.block_on(run(make, trigger, point))
}

/// Where the subject is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    End,
    Unpolled,
    Suspended(usize),
    Waiting(usize, Duration),
    Woken(usize),
}

impl Point {
    /// Sorts the points by the order in which a run passes them.
    fn order(self) -> (usize, usize) {
        match self {
            Point::Unpolled => (0, 0),
            Point::Suspended(poll) => (poll, 0),
            Point::Waiting(poll, _) => (poll, 1),
            Point::Woken(poll) => (poll, 2),
            Point::End => (usize::MAX, 1),
        }
    }
}

/// From when until when, since the start of the run, the subject was suspended.
type Wait = (Duration, Duration);

/// Each way to drop a future that is suspended like this.
fn points(waits: &[Wait]) -> Vec<Point> {
    let mut points = vec![Point::Unpolled];
    for (poll, (from, until)) in (1..).zip(waits) {
        points.push(Point::Suspended(poll));
        if until > from {
            points.push(Point::Waiting(poll, until.saturating_sub(TICK).max(*from)));
        }
        points.push(Point::Woken(poll));
    }
    points
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::End => write!(f, "end"),
            Point::Unpolled => write!(f, "unpolled"),
            Point::Suspended(poll) => write!(f, "suspended:{poll}"),
            Point::Waiting(poll, _) => write!(f, "waiting:{poll}"),
            Point::Woken(poll) => write!(f, "woken:{poll}"),
        }
    }
}

/// What happens on the way.
enum Trigger {
    None,
    Fault { child: String, poll: usize, fault: Fault },
    Stop { at: Point },
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::None => Ok(()),
            Trigger::Fault { child, poll, fault } => write!(f, "{fault:?}:{child}:{poll}/"),
            Trigger::Stop { at } => write!(f, "Stop:{at}/"),
        }
    }
}

#[derive(Default)]
struct Run {
    waits: Vec<Wait>,
    reached: bool,
    tries: usize,
    fired: bool,
    /// The first point after the trigger.
    triggered: Option<Point>,
    stoppable: bool,
    /// It woke itself over and over again: there is no point in dropping it at each of the points.
    endless: bool,
    children: BTreeMap<String, ChildState>,
    violations: Vec<String>,
}

impl Run {
    /// All triggers that a scene which ran like this one can have.
    fn triggers(&self) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        for (child, state) in &self.children {
            let faults =
                [(Fault::Panic, true), (Fault::Fail, state.can_fail), (Fault::Abort, state.handle.is_some())];
            for (fault, _) in faults.into_iter().filter(|(_, possible)| *possible) {
                triggers.extend((0..state.polls).map(|poll| Trigger::Fault {
                    child: child.clone(),
                    poll,
                    fault,
                }));
            }
        }
        if self.stoppable {
            triggers.extend(points(&self.waits).into_iter().map(|at| Trigger::Stop { at }));
        }
        triggers
    }
}

async fn run<T: 'static>(make: impl Fn(&Parts) -> Scene<T>, trigger: &Trigger, point: Point) -> Run {
    let parts = Parts::default();
    if let Trigger::Fault { child, poll, fault } = trigger {
        parts.state().planned = Some((child.clone(), *poll, *fault));
    }
    let Scene { subject, bystanders, stop, check, outlived, returns_panics, tries } = make(&parts);
    let bystanders: Vec<JoinHandle<()>> = bystanders.into_iter().map(spawn_local).collect();
    let stop_at = if let Trigger::Stop { at } = trigger { Some(*at) } else { None };
    yield_now().await;
    let mut driver = Driver {
        subject: Some(subject),
        polls: 0,
        waits: Vec::new(),
        point,
        reached: false,
        stoppable: stop.is_some(),
        stop,
        stop_at,
        parts: parts.clone(),
        triggered: None,
        endless: false,
        violations: Vec::new(),
    };
    let ended = timeout(SETTLE, driver.drive()).await.unwrap_or_else(|_| {
        let polls = driver.polls;
        driver.violations.push(format!(
            "the subject waits for ever: it was polled {polls} times and did not end within an hour"
        ));
        driver.drop_subject();
        Ended::Dropped
    });
    let mut violations = std::mem::take(&mut driver.violations);
    let fired = driver.fired();
    if matches!(ended, Ended::Dropped) {
        // Whatever is ready to run does so before the clock moves on.
        sleep(TICK).await;
    }
    let waiting = bystanders.iter().filter(|task| !task.is_finished()).count();
    let tasks = Handle::current().metrics().num_alive_tasks().saturating_sub(waiting);
    if !outlived && let Some(alive) = parts.alive(tasks) {
        let how = match &ended {
            Ended::Dropped => "was dropped",
            Ended::Returned(_) => "returned",
            Ended::Panicked(_) => "panicked",
        };
        violations.push(format!("the subject {how}, but alive of its own: {alive}"));
    }
    match &ended {
        Ended::Panicked(message) if parts.fault() != Some(Fault::Panic) => {
            violations.push(format!("the subject panicked: {message}"));
        }
        Ended::Returned(_) if parts.fault() == Some(Fault::Panic) && !returns_panics => {
            violations.push("the subject returned as if its child had not panicked".into());
        }
        _ => {}
    }

    sleep(SETTLE).await;
    let alive = Handle::current().metrics().num_alive_tasks();
    let mut waiting = 0;
    let all = bystanders.len();
    for (number, task) in (1..).zip(bystanders) {
        if !task.is_finished() {
            waiting += 1;
            violations.push(format!(
                "bystander {number} of {all} still waits an hour later: something meant for it was lost"
            ));
        } else if let Err(error) = task.await {
            violations.push(format!("bystander {number} of {all} failed: {error}"));
        }
    }
    if let Some(alive) = parts.alive(alive.saturating_sub(waiting)) {
        violations.push(format!("alive an hour later: {alive}"));
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(ended))) {
        violations.push(message(panic));
    }
    let state = parts.state();
    Run {
        waits: driver.waits,
        reached: driver.reached,
        tries,
        fired,
        triggered: driver.triggered,
        stoppable: driver.stoppable,
        endless: driver.endless,
        children: state.children.clone(),
        violations,
    }
}

/// Polls the subject exactly when it was woken, and drops it at its point.
struct Driver<T> {
    subject: Option<Pin<Box<dyn Future<Output = T>>>>,
    polls: usize,
    waits: Vec<Wait>,
    point: Point,
    reached: bool,
    stoppable: bool,
    stop: Option<Box<dyn FnOnce()>>,
    stop_at: Option<Point>,
    parts: Parts,
    triggered: Option<Point>,
    endless: bool,
    violations: Vec<String>,
}

impl<T> Driver<T> {
    async fn drive(&mut self) -> Ended<T> {
        let woken = Arc::new(Woken { flag: AtomicBool::new(true), outer: Mutex::new(Waker::noop().clone()) });
        let waker = Waker::from(woken.clone());
        let start = Instant::now();
        let mut suspended = Duration::ZERO;
        let points = [Some(self.point), self.stop_at].into_iter().flatten();
        let mut alarms: Vec<_> = points.filter_map(|point| alarm(start, point)).collect();
        poll_fn(|context| {
            woken.outer().clone_from(context.waker());
            if woken.flag.load(Ordering::Acquire) {
                if self.polls > 0 {
                    self.waits.push((suspended, start.elapsed()));
                }
                if self.arrive(if self.polls == 0 { Point::Unpolled } else { Point::Woken(self.polls) }) {
                    return Poll::Ready(Ended::Dropped);
                }
                let Some(subject) = &mut self.subject else { return Poll::Pending };
                self.polls += 1;
                // All wake-ups up to here, the request to stop among them, make one poll.
                woken.flag.swap(false, Ordering::AcqRel);
                let mut context = Context::from_waker(&waker);
                let ended = match catch_unwind(AssertUnwindSafe(|| subject.as_mut().poll(&mut context))) {
                    Err(panic) => Some(Ended::Panicked(message(panic))),
                    Ok(Poll::Ready(value)) => Some(Ended::Returned(value)),
                    Ok(Poll::Pending) if self.polls == MOST_POLLS => {
                        self.endless = true;
                        self.violations
                            .push(format!("the subject was polled {MOST_POLLS} times without an end"));
                        Some(Ended::Dropped)
                    }
                    Ok(Poll::Pending) => None,
                };
                if let Some(ended) = ended {
                    // `.await` drops a future that is ready, with all it still holds, before the caller goes on.
                    self.drop_subject();
                    return Poll::Ready(ended);
                }
                suspended = start.elapsed();
                if self.arrive(Point::Suspended(self.polls)) {
                    return Poll::Ready(Ended::Dropped);
                }
            }
            // A subject that woke itself has woken the driver too: it is polled in the next turn, as the scheduler
            // would do.
            let poll = self.polls;
            for alarm in alarms.iter_mut().filter(|alarm| alarm.poll == poll) {
                if alarm.at.as_mut().is_some_and(|at| at.as_mut().poll(context).is_ready()) {
                    alarm.at = None;
                    if self.arrive(alarm.point) {
                        return Poll::Ready(Ended::Dropped);
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Does what is to be done at `point`, and says whether the subject was dropped there.
    fn arrive(&mut self, point: Point) -> bool {
        if self.stop_at == Some(point)
            && let Some(ask) = self.stop.take()
        {
            ask();
        }
        if self.fired() {
            self.triggered.get_or_insert(point);
        }
        if self.point == point {
            self.reached = true;
            self.drop_subject();
        }
        self.reached
    }

    fn fired(&self) -> bool {
        self.stoppable && self.stop.is_none() || self.parts.state().fired
    }

    fn drop_subject(&mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(self.subject.take()))) {
            self.violations.push(format!("the subject panicked while it was dropped: {}", message(panic)));
        }
    }
}

/// Rings at a point that is an instant and no poll.
struct Alarm {
    point: Point,
    poll: usize,
    at: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

fn alarm(start: Instant, point: Point) -> Option<Alarm> {
    let Point::Waiting(poll, at) = point else { return None };
    let at = Box::pin(async move {
        sleep_until(start + at).await;
        // Whoever has something to do at this instant does it first.
        yield_now().await;
    });
    Some(Alarm { point, poll, at: Some(at) })
}

/// Notes that the subject was woken, and wakes the driver.
struct Woken {
    flag: AtomicBool,
    outer: Mutex<Waker>,
}

impl Woken {
    fn outer(&self) -> MutexGuard<'_, Waker> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        let outer = self.outer().clone();
        outer.wake();
    }
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

/// The command that tries `point` alone, in the test that runs now.
fn repeat(point: &str, test: &str) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "PACKAGE".into());
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let target = program.rsplit_once('-').map_or(program.as_str(), |(target, _hash)| target);
    // The package's unit tests, or an integration test that has its name: nothing tells them apart.
    let target =
        if target == package.replace('-', "_") { String::new() } else { format!(" --test {target}") };
    let point = point.replace('\'', r"'\''");
    format!("{ONLY}='{point}' cargo test -p {package}{target} -- --exact {test} --nocapture")
}

/// Ends the process when one point spins for so long that it cannot be waiting for the processor.
fn watchdog() -> mpsc::Sender<String> {
    let (sender, runs) = mpsc::channel::<String>();
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    std::thread::spawn(move || {
        let mut point = String::new();
        loop {
            match runs.recv_timeout(HUNG) {
                Ok(next) => point = next,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // Not eprintln!, which a test run keeps to itself until the test has ended. A terminal that is gone
                    // cannot be told.
                    let _ = writeln!(
                        std::io::stderr(),
                        "sweep {test}: {point} spins: it has used {HUNG:?} of real time without coming to rest\n\
                         repeat it: {}",
                        repeat(&point, &test)
                    );
                    std::process::exit(101);
                }
            }
        }
    });
    sender
}
