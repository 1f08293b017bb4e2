//! Proves that a future can be dropped anywhere: it is, at every suspension point, and what is left is checked.
//!
//! [`sweep`] builds the same [`Scene`] again and again, each time on a new single-threaded runtime with a paused clock,
//! and drops its subject at another point:
//!
//! | point | the subject is dropped |
//! |---|---|
//! | `unpolled` | before its first poll |
//! | `suspended:k` | right after its k-th poll returned `Pending` |
//! | `woken:k` | after it was woken from its k-th `Pending`, and before it is polled again |
//!
//! Lost permits, lost wake-ups and lost hand-offs show only in the third. Then come the triggers, each at every point in
//! time it can happen: a child that panics, fails or is aborted at each of its polls ([`Parts::child`]), and a polite
//! request to stop ([`Scene::stop`]). After each trigger the subject first runs to its end, and then is dropped at every
//! later point too, so that a cleanup which has begun is itself cancelled.
//!
//! After every run these must hold:
//!
//! - when the subject returned, no task of its own is alive and no [child](Parts::child) exists; when it was dropped, that
//!   holds before any time passes
//! - an hour of virtual time later, every [bystander](Scene::alongside) came to its end: one that still waits has lost a wake-up, a permit or an item
//! - an injected panic reached the caller (unless [`Scene::returns_panics`])
//! - the scene's own [check](Scene::check)
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
//! assert_eq!(report.points, 3);
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::task::{AbortHandle, JoinHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

/// How long the scene is left alone, in virtual time, before it is checked.
const SETTLE: Duration = Duration::from_secs(3600);
/// A subject that is polled this often will never end.
const MOST_POLLS: usize = 10_000;
/// One run takes milliseconds; one that takes this long, in real time, spins.
const HUNG: Duration = Duration::from_secs(120);
/// Set to a point's name (a failing sweep prints it), it leaves out all other points.
const ONLY: &str = "SWEEP_POINT";

/// One run: who is dropped, who else is there, what must hold afterwards.
pub struct Scene<T> {
    subject: Pin<Box<dyn Future<Output = T>>>,
    bystanders: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    stop: Option<Box<dyn FnOnce()>>,
    check: Box<dyn FnOnce(Ended<T>)>,
    outlived: bool,
    returns_panics: bool,
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
        }
    }

    /// A task beside the subject, started before it. It must come to its end whatever happens to the subject.
    pub fn alongside(mut self, bystander: impl Future<Output = ()> + 'static) -> Self {
        self.bystanders.push(Box::pin(bystander));
        self
    }

    /// Asks the subject to stop. The sweep calls it at each suspension point, and drops the subject at each later one.
    pub fn stop(mut self, ask: impl FnOnce() + 'static) -> Self {
        self.stop = Some(Box::new(ask));
        self
    }

    /// Checks the caller's invariants after everything has settled. It fails by panicking.
    pub fn check(mut self, check: impl FnOnce(Ended<T>) + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Allows work to be alive when the subject returns, because the contract says so. It must still end by itself.
    pub fn outlived(mut self) -> Self {
        self.outlived = true;
        self
    }

    /// Says that a child's panic comes back as a value, so that the subject may return after one.
    pub fn returns_panics(mut self) -> Self {
        self.returns_panics = true;
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
    alive: usize,
    children: BTreeMap<String, ChildState>,
}

#[derive(Clone, Default)]
struct ChildState {
    polls: usize,
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
        state.alive += 1;
        state.children.entry(name.clone()).or_default().can_fail |= fail.is_some();
        drop(state);
        Child { future: Box::pin(future), name, fail, parts: self.clone() }
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
        state.fired |= due.is_some();
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
        self.parts.state().alive -= 1;
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
        write!(f, "{points} points dropped, {triggers} faults, {triggered_points} dropped after a fault: ")?;
        write!(f, "{} violations", violations.len())?;
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
    println!("sweep {test}: {report}");
    if let Some((point, _)) = report.violations.first() {
        panic!("sweep {test}: {report}\nrepeat the first one: {}", repeat(point, &test));
    }
    report
}

/// As [`sweep`], but returns the violations instead of panicking.
#[must_use = "the violations are in the report"]
pub fn explore<T: 'static>(make: impl Fn(&Parts) -> Scene<T>) -> Report {
    let mut sweep =
        Sweep { make, only: std::env::var(ONLY).ok(), report: Report::default(), watchdog: watchdog() };
    let whole = sweep.run(&Trigger::None, Point::End);
    for point in points(whole.polls) {
        let run = sweep.run(&Trigger::None, point);
        sweep.report.points += usize::from(run.reached);
    }
    for trigger in whole.triggers() {
        let run = sweep.run(&trigger, Point::End);
        sweep.report.triggers += usize::from(run.fired);
        for point in points(run.polls) {
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
    /// One run on a runtime of its own. Runs left out by `SWEEP_POINT` are made too, but say nothing.
    fn run<T: 'static>(&mut self, trigger: &Trigger, point: Point) -> Run
    where
        M: Fn(&Parts) -> Scene<T>,
    {
        let name = format!("{trigger}{point}");
        // The other end lives until this sweep is dropped, so the message cannot be refused.
        let _ = self.watchdog.send(name.clone());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(LocalOptions::default());
        let runtime = runtime.expect("the operating system grants a timer and an event queue");
        let mut run = runtime.block_on(run(&self.make, trigger, point));
        // A trigger that did not happen before the drop repeats a point already tried.
        let repeated = !matches!(trigger, Trigger::None) && !run.fired;
        if !repeated && self.only.as_ref().is_none_or(|only| *only == name) {
            self.report.violations.extend(run.violations.drain(..).map(|what| (name.clone(), what)));
        }
        run
    }
}

/// Where the subject is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    End,
    Unpolled,
    Suspended(usize),
    Woken(usize),
}

/// Each way to drop a future that returns at its poll number `polls`.
fn points(polls: usize) -> impl Iterator<Item = Point> {
    let suspended = (1..polls).flat_map(|poll| [Point::Suspended(poll), Point::Woken(poll)]);
    std::iter::once(Point::Unpolled).chain(suspended)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::End => write!(f, "end"),
            Point::Unpolled => write!(f, "unpolled"),
            Point::Suspended(poll) => write!(f, "suspended:{poll}"),
            Point::Woken(poll) => write!(f, "woken:{poll}"),
        }
    }
}

/// What happens on the way.
enum Trigger {
    None,
    Fault { child: String, poll: usize, fault: Fault },
    Stop { after: usize },
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::None => Ok(()),
            Trigger::Fault { child, poll, fault } => write!(f, "{fault:?}:{child}:{poll}/"),
            Trigger::Stop { after } => write!(f, "Stop:{after}/"),
        }
    }
}

struct Run {
    polls: usize,
    reached: bool,
    fired: bool,
    stoppable: bool,
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
            triggers.extend((0..self.polls).map(|after| Trigger::Stop { after }));
        }
        triggers
    }
}

async fn run<T: 'static>(make: impl Fn(&Parts) -> Scene<T>, trigger: &Trigger, point: Point) -> Run {
    let parts = Parts::default();
    if let Trigger::Fault { child, poll, fault } = trigger {
        parts.state().planned = Some((child.clone(), *poll, *fault));
    }
    let Scene { subject, bystanders, stop, check, outlived, returns_panics } = make(&parts);
    let bystanders: Vec<JoinHandle<()>> = bystanders.into_iter().map(spawn_local).collect();
    let stop_after = if let Trigger::Stop { after } = trigger { Some(*after) } else { None };
    yield_now().await;
    let mut driver = Driver {
        subject: Some(subject),
        polls: 0,
        point,
        reached: false,
        stoppable: stop.is_some(),
        stop,
        stop_after,
    };
    let mut violations = Vec::new();

    let ended = timeout(SETTLE, driver.drive()).await.unwrap_or_else(|_| {
        violations.push(format!("the subject was polled {} times and then waited for ever", driver.polls));
        drop(driver.subject.take());
        Ended::Dropped
    });
    let fired = driver.stoppable && driver.stop.is_none() || parts.state().fired;
    if matches!(ended, Ended::Dropped) {
        // Timers have a resolution of 1 ms: whatever is ready to run does so first, and nothing else.
        sleep(Duration::from_millis(1)).await;
    }
    let waiting = bystanders.iter().filter(|task| !task.is_finished()).count();
    let tasks = Handle::current().metrics().num_alive_tasks().saturating_sub(waiting);
    let children = parts.state().alive;
    if !outlived && (tasks > 0 || children > 0) {
        violations
            .push(format!("it is gone, but {tasks} tasks and {children} children of its own are alive"));
    }
    match &ended {
        Ended::Panicked(message) if parts.fault() != Some(Fault::Panic) => {
            violations.push(format!("the subject panicked: {message}"));
        }
        Ended::Returned(_) if parts.fault() == Some(Fault::Panic) && !returns_panics => {
            violations.push("it returned as if its child had not panicked".into());
        }
        _ => {}
    }
    drop(driver.subject);

    sleep(SETTLE).await;
    let alive = Handle::current().metrics().num_alive_tasks();
    let mut waiting = 0;
    for (number, task) in bystanders.into_iter().enumerate() {
        if !task.is_finished() {
            waiting += 1;
            violations.push(format!(
                "bystander {number} still waits an hour later: something meant for it was lost"
            ));
        } else if let Err(error) = task.await {
            violations.push(format!("bystander {number} failed: {error}"));
        }
    }
    if alive > waiting {
        violations.push(format!("{} tasks are alive an hour later", alive - waiting));
    }
    if parts.state().alive > 0 {
        violations.push(format!("{} children still exist an hour later", parts.state().alive));
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(ended))) {
        violations.push(message(panic));
    }
    let state = parts.state();
    Run {
        polls: driver.polls,
        reached: driver.reached,
        fired,
        stoppable: driver.stoppable,
        children: state.children.clone(),
        violations,
    }
}

/// Polls the subject exactly when it was woken, and drops it at its point.
struct Driver<T> {
    subject: Option<Pin<Box<dyn Future<Output = T>>>>,
    polls: usize,
    point: Point,
    reached: bool,
    stoppable: bool,
    stop: Option<Box<dyn FnOnce()>>,
    stop_after: Option<usize>,
}

impl<T> Driver<T> {
    async fn drive(&mut self) -> Ended<T> {
        let woken = Arc::new(Woken { flag: AtomicBool::new(true), outer: Mutex::new(Waker::noop().clone()) });
        let waker = Waker::from(woken.clone());
        poll_fn(|context| {
            woken.outer().clone_from(context.waker());
            while woken.flag.swap(false, Ordering::AcqRel) {
                let point = if self.polls == 0 { Point::Unpolled } else { Point::Woken(self.polls) };
                if self.stop_after == Some(0) && self.polls == 0 {
                    self.ask_to_stop();
                }
                if self.point == point {
                    return Poll::Ready(self.drop_subject());
                }
                assert!(self.polls < MOST_POLLS, "the subject was polled {MOST_POLLS} times without an end");
                let Some(subject) = &mut self.subject else { return Poll::Pending };
                self.polls += 1;
                let mut context = Context::from_waker(&waker);
                match catch_unwind(AssertUnwindSafe(|| subject.as_mut().poll(&mut context))) {
                    Err(panic) => return Poll::Ready(Ended::Panicked(message(panic))),
                    Ok(Poll::Ready(value)) => return Poll::Ready(Ended::Returned(value)),
                    Ok(Poll::Pending) => {}
                }
                if self.stop_after == Some(self.polls) {
                    self.ask_to_stop();
                }
                if self.point == Point::Suspended(self.polls) {
                    return Poll::Ready(self.drop_subject());
                }
                // A subject that woke itself is polled in the next turn, as the scheduler would do.
                if woken.flag.load(Ordering::Acquire) {
                    return Poll::Pending;
                }
            }
            Poll::Pending
        })
        .await
    }

    fn ask_to_stop(&mut self) {
        if let Some(ask) = self.stop.take() {
            ask();
        }
    }

    fn drop_subject(&mut self) -> Ended<T> {
        self.reached = true;
        match catch_unwind(AssertUnwindSafe(|| drop(self.subject.take()))) {
            Ok(()) => Ended::Dropped,
            Err(panic) => Ended::Panicked(format!("while it was dropped: {}", message(panic))),
        }
    }
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
    let target =
        if target == package.replace('-', "_") { "--lib".into() } else { format!("--test {target}") };
    format!("{ONLY}='{point}' cargo test -p {package} {target} -- --exact {test}")
}

/// Ends the process when one run spins for so long that it cannot be waiting for the processor.
fn watchdog() -> mpsc::Sender<String> {
    let (sender, runs) = mpsc::channel::<String>();
    std::thread::spawn(move || {
        let mut point = String::new();
        loop {
            match runs.recv_timeout(HUNG) {
                Ok(next) => point = next,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    eprintln!(
                        "sweep: {point} spins: it has used {HUNG:?} of real time without coming to rest"
                    );
                    std::process::exit(101);
                }
            }
        }
    });
    sender
}
