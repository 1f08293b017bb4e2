//! The recorder: wrappers around futures and wakers, and the notes that they take.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::facts::{Level, Panel, Woken};
use super::{Activity, End, LaneFacts, Picture, Reason, Span};

/// A poll shorter than this is drawn as if it took no time.
const BUSY: Duration = Duration::from_millis(1);
/// How long, by the wall clock, and for how many turns at least `record` lets the runtime drop what the body aborted.
const SETTLE: Duration = Duration::from_millis(5);
const TURNS: usize = 1000;

// ---------------------------------------------------------------------------------------------- what a caller uses

/// Runs `body` as the root lane `title`. Everything named inside it, however deep or spawned, is recorded.
///
/// The root ends ok whatever `body` returns; see [`try_record`] for a body that can fail. Dropping the future cancels
/// `body` and gives up the recording.
pub fn record<T>(
    title: impl Into<String>,
    body: impl Future<Output = T>,
) -> impl Future<Output = (T, Picture)> {
    run(title.into(), body, Judge::End(|_| End::Ok))
}

/// As [`record`], for a body that returns a `Result`: the root ends as [`LaneExt::try_lane`] says.
pub fn try_record<T, E: Display + 'static>(
    title: impl Into<String>,
    body: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = (Result<T, E>, Picture)> {
    run(title.into(), body, Judge::Explained(explain))
}

/// Names a future as a lane.
pub trait LaneExt: Future + Sized {
    /// A lane that ends ok when it returns.
    fn lane(self, name: impl Into<String>) -> Lane<Self> {
        Lane::new(self, name, Judge::End(|_| End::Ok))
    }

    /// A lane that ends ok or in error, as its `Result` says. Tokio's [`Elapsed`] is an end of its own: timed out.
    fn try_lane<T, E>(self, name: impl Into<String>) -> Lane<Self>
    where
        Self: Future<Output = Result<T, E>>,
        E: Display + 'static,
    {
        Lane::new(self, name, Judge::Explained(explain))
    }

    /// A lane whose end is read from its output.
    fn lane_with(self, name: impl Into<String>, end: fn(&Self::Output) -> End) -> Lane<Self> {
        Lane::new(self, name, Judge::End(end))
    }
}

impl<F: Future> LaneExt for F {}

pin_project! {
    /// A future with a name. Dropping it cancels the future.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Lane<F: Future> {
        #[pin]
        future: Option<F>,
        judge: Judge<F::Output>,
        track: Option<Track>,
    }

    impl<F: Future> PinnedDrop for Lane<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(track) = this.track.take() {
                // The lanes inside it end before it does.
                let within = Within::enter(&track.place);
                this.future.set(None);
                drop(within);
                track.place.finish(End::Cancelled, None);
            }
        }
    }
}

/// Says for what the lane waits while `future` is pending. A reason given inside `future` is the one that counts.
pub fn waiting<F: Future>(reason: impl Into<Reason>, future: F) -> Waiting<F> {
    Waiting { future, reason: reason.into(), held: None }
}

pin_project! {
    /// A future with a reason for waiting, made by [`waiting`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct Waiting<F> {
        #[pin]
        future: F,
        reason: Reason,
        held: Option<(Place, u64)>,
    }

    impl<F> PinnedDrop for Waiting<F> {
        fn drop(this: Pin<&mut Self>) {
            release(this.project().held);
        }
    }
}

/// Notes what a resource stands at now: permits in use, the depth of a queue. Each name is drawn as a row of its own.
pub fn level(name: &'static str, value: usize) {
    if let Some(place) = current() {
        place.recording.note(|state, now| state.level(name, value, now));
    }
}

// ------------------------------------------------------------------------------------------------------- the lane

/// How a lane's end is read from its output.
enum Judge<T> {
    End(fn(&T) -> End),
    Explained(fn(&T) -> (End, Option<String>)),
}

impl<T> Judge<T> {
    fn of(&self, output: &T) -> (End, Option<String>) {
        match self {
            Judge::End(end) => (end(output), None),
            Judge::Explained(explain) => explain(output),
        }
    }
}

fn explain<T, E: Display + 'static>(output: &Result<T, E>) -> (End, Option<String>) {
    match output {
        Ok(_) => (End::Ok, None),
        Err(error) if (error as &dyn Any).is::<Elapsed>() => (End::TimedOut, Some(error.to_string())),
        Err(error) => (End::Error, Some(error.to_string())),
    }
}

/// What a lane that is recorded holds besides its future.
struct Track {
    place: Place,
    /// The waker that it was last polled with, and the wrapper around it.
    wakers: Option<(Waker, Waker)>,
}

/// The waker for the next poll. The wrapper is kept as long as the waker inside it would do the same.
fn wrapped<'a>(wakers: &'a mut Option<(Waker, Waker)>, place: &Place, outer: &Waker) -> &'a Waker {
    if !matches!(wakers, Some((kept, _)) if kept.will_wake(outer)) {
        *wakers = None;
    }
    let (_, wrapper) = wakers.get_or_insert_with(|| {
        let wrapper = Arc::new(LaneWaker { place: place.clone(), inner: outer.clone() });
        (outer.clone(), wrapper.into())
    });
    wrapper
}

impl<F: Future> Lane<F> {
    fn new(future: F, name: impl Into<String>, judge: Judge<F::Output>) -> Self {
        let place = current().and_then(|owner| owner.open(name.into()));
        Lane { future: Some(future), judge, track: place.map(|place| Track { place, wakers: None }) }
    }
}

impl<F: Future> Future for Lane<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let future = this.future.as_mut().as_pin_mut().expect("a lane is not polled after it has returned");
        let Some(Track { place, wakers }) =
            this.track.as_mut().filter(|track| track.place.recording.is_open())
        else {
            return future.poll(context);
        };
        let waker = wrapped(wakers, place, context.waker());
        let polling = Polling::begin(place);
        let output = match future.poll(&mut Context::from_waker(waker)) {
            Poll::Pending => {
                polling.pending();
                return Poll::Pending;
            }
            Poll::Ready(output) => output,
        };
        let (end, message) = this.judge.of(&output);
        // The lanes inside it, and the guards that it holds, go before it ends.
        this.future.set(None);
        polling.ready(end, message);
        *this.track = None;
        Poll::Ready(output)
    }
}

impl<F: Future> Future for Waiting<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let depth = DEPTH.try_with(Cell::get).unwrap_or(0);
        let deeper = Deeper::enter(depth);
        let polled = this.future.poll(context);
        drop(deeper);
        if polled.is_pending() && this.held.is_none() {
            *this.held = here().and_then(|place| {
                let ticket = place.recording.note(|state, _| state.wait(place.index, depth, *this.reason))?;
                Some((place, ticket))
            });
        }
        let output = ready!(polled);
        release(this.held);
        Poll::Ready(output)
    }
}

/// While it lives, a wait begun on this thread lies inside one more.
struct Deeper {
    depth: usize,
}

impl Deeper {
    fn enter(depth: usize) -> Self {
        let _ = DEPTH.try_with(|deepest| deepest.set(depth + 1));
        Deeper { depth }
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|deepest| deepest.set(self.depth));
    }
}

fn release(held: &mut Option<(Place, u64)>) {
    if let Some((place, ticket)) = held.take() {
        place.recording.note(|state, _| state.lanes[place.index].waits.retain(|wait| wait.ticket != ticket));
    }
}

/// One poll of a lane. When it is dropped without a result, the poll has panicked.
struct Polling<'a> {
    within: Within,
    place: &'a Place,
    over: bool,
}

impl<'a> Polling<'a> {
    fn begin(place: &'a Place) -> Self {
        let within = Within::enter(place);
        let outer = within.previous.as_ref().filter(|outer| Arc::ptr_eq(&outer.recording, &place.recording));
        let outer = outer.map(|outer| outer.index);
        place.recording.note(|state, now| state.begin(place.index, outer, now));
        Polling { within, place, over: false }
    }

    fn pending(mut self) {
        self.over = true;
        let took = self.place.recording.note(|state, now| state.suspend(self.place.index, now));
        self.charge(took);
    }

    fn ready(mut self, end: End, message: Option<String>) {
        self.over = true;
        let took = self.place.finish(end, message);
        self.charge(took);
    }

    /// The time spent in here is not the surrounding lane's own.
    fn charge(&self, took: Option<Duration>) {
        if let (Some(took), Some(outer)) = (took, &self.within.previous) {
            outer.recording.note(|state, _| state.lanes[outer.index].below += took);
        }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if !self.over {
            let took = self.place.recording.note(|state, now| state.panicked(self.place.index, now));
            self.charge(took);
        }
    }
}

/// While it lives, lanes named on this thread belong to its place.
struct Within {
    previous: Option<Place>,
}

impl Within {
    fn enter(place: &Place) -> Self {
        let previous = CURRENT.try_with(|current| current.replace(Some(place.clone())));
        Within { previous: previous.ok().flatten() }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        // A thread that is going away has no current lane to restore.
        let entered = CURRENT.try_with(|current| current.replace(self.previous.take()));
        drop(entered);
    }
}

// ------------------------------------------------------------------------------------------------------ the waker

/// Notes who woke the lane, and wakes it.
struct LaneWaker {
    place: Place,
    inner: Waker,
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A wake on its way out passes the wrappers of all lanes around this one: they are not who it was meant for.
        let passing = FORWARDING.try_with(|forwarding| forwarding.replace(true)).unwrap_or(true);
        if !passing {
            self.note();
        }
        let restore = Restore(passing);
        self.inner.wake_by_ref();
        drop(restore);
    }
}

impl LaneWaker {
    fn note(&self) {
        let target = &self.place;
        let source = CURRENT.try_with(|current| {
            let current = current.borrow();
            let source = current.as_ref().filter(|source| Arc::ptr_eq(&source.recording, &target.recording));
            source.map(|source| source.index)
        });
        if let Ok(Some(source)) = source
            && source != target.index
        {
            target.recording.note(|state, now| state.wake(source, target.index, now));
        }
    }
}

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        // Nothing is forwarded on a thread that is going away.
        let _ = FORWARDING.try_with(|forwarding| forwarding.set(self.0));
    }
}

// -------------------------------------------------------------------------------------------------- the recording

thread_local! {
    /// The lane that this thread polls now.
    static CURRENT: RefCell<Option<Place>> = const { RefCell::new(None) };
    /// How many waits are being polled on this thread, one inside the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether a waker's wrapper is calling the waker inside it.
    static FORWARDING: Cell<bool> = const { Cell::new(false) };
}

/// The recordings that run now, by runtime, and how many: a look at the number is all that a lane costs without any.
static RUNNING: Mutex<Vec<(Id, Arc<Recording>)>> = Mutex::new(Vec::new());
static HOW_MANY: AtomicUsize = AtomicUsize::new(0);

/// One entry of one recording.
#[derive(Clone)]
struct Place {
    recording: Arc<Recording>,
    index: usize,
}

/// The lane that this thread polls.
fn here() -> Option<Place> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// The lane that this thread polls; otherwise the root of the only recording in this runtime.
fn current() -> Option<Place> {
    if let Some(place) = here() {
        return Some(place);
    }
    if HOW_MANY.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let runtime = Handle::try_current().ok()?.id();
    let running = lock(&RUNNING);
    let mut here = running.iter().filter(|(id, _)| *id == runtime);
    match (here.next(), here.next()) {
        (Some((_, recording)), None) => Some(Place { recording: recording.clone(), index: 0 }),
        _ => None,
    }
}

impl Place {
    fn open(&self, name: String) -> Option<Place> {
        let index = self.recording.note(|state, now| state.open(name, Some(self.index), now))?;
        Some(Place { recording: self.recording.clone(), index })
    }

    /// Ends the lane; how long its last poll took.
    fn finish(&self, end: End, message: Option<String>) -> Option<Duration> {
        self.recording.note(|state, now| state.finish(self.index, end, message, now))
    }
}

struct Recording {
    began: Instant,
    open: AtomicBool,
    state: Mutex<State>,
}

impl Recording {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a note, unless the recording is over. The time is read under the lock, so that notes are in order.
    fn note<R>(&self, take: impl FnOnce(&mut State, Duration) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        self.is_open().then(|| take(&mut state, self.began.elapsed()))
    }

    fn alive(&self) -> bool {
        lock(&self.state).lanes.iter().any(|lane| lane.end.is_none())
    }

    fn close(&self) -> Picture {
        let mut state = lock(&self.state);
        self.open.store(false, Ordering::Relaxed);
        Picture { panels: vec![std::mem::take(&mut *state).panel(self.began.elapsed())] }
    }
}

/// Poisoned or not: no note panics halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the recording while it runs, and closes it when the future that runs it is dropped.
struct Listed(Arc<Recording>);

impl Listed {
    fn new(recording: Arc<Recording>) -> Self {
        if let Ok(handle) = Handle::try_current() {
            lock(&RUNNING).push((handle.id(), recording.clone()));
            HOW_MANY.fetch_add(1, Ordering::Relaxed);
        }
        Listed(recording)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.open.store(false, Ordering::Relaxed);
        let mut running = lock(&RUNNING);
        if let Some(place) = running.iter().position(|(_, recording)| Arc::ptr_eq(recording, &self.0)) {
            running.swap_remove(place);
            HOW_MANY.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The code with which a program ends that wrote to a closed pipe: 128 and the number of the signal.
const PIPE_CLOSED: i32 = 141;

/// `println!` panics when nobody reads on: `cargo run --example gather | head -1`. The process then ends as others do.
fn quiet_without_reader() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info
                .payload_as_str()
                .is_some_and(|it| it.starts_with("failed printing to stdout: Broken pipe"))
            {
                process::exit(PIPE_CLOSED);
            }
            before(info);
        }));
    });
}

fn run<T>(
    title: String,
    body: impl Future<Output = T>,
    judge: Judge<T>,
) -> impl Future<Output = (T, Picture)> {
    // Boxed, because an async block would hold the body twice: as it was handed in and as it is awaited.
    let body = Box::pin(body);
    quiet_without_reader();
    async move {
        let state = Mutex::new(State::default());
        let recording = Arc::new(Recording { began: Instant::now(), open: AtomicBool::new(true), state });
        let listed = Listed::new(recording.clone());
        let index = recording.note(|state, now| state.open(title, None, now)).unwrap_or(0);
        let place = Place { recording: recording.clone(), index };
        let root = Lane { future: Some(body), judge, track: Some(Track { place, wakers: None }) };
        let output = root.await;
        // The wall clock, because under a paused clock no time passes here; and turns, because a busy machine has few.
        let over = std::time::Instant::now();
        let mut turns = 0;
        while recording.alive() && (turns < TURNS || over.elapsed() < SETTLE) {
            turns += 1;
            tokio::task::yield_now().await;
        }
        let picture = recording.close();
        drop(listed);
        (output, picture)
    }
}

// ------------------------------------------------------------------------------------------------------ the notes

#[derive(Default)]
struct State {
    lanes: Vec<Entry>,
    wakes: Vec<Woken>,
    levels: Vec<Level>,
    tickets: u64,
}

#[derive(Default)]
struct Entry {
    name: String,
    owner: Option<usize>,
    from: Duration,
    polls: u64,
    /// Since when the running poll runs, and how much of it was spent in polls of other lanes.
    polling: Option<Duration>,
    below: Duration,
    /// The reasons given by `waiting`, the outermost first, and of those side by side the oldest.
    waits: Vec<Wait>,
    /// Children that have not ended.
    living: usize,
    woken: bool,
    /// What it did since when: each until the next.
    spans: Vec<(Duration, Activity)>,
    end: Option<(End, Duration, Option<String>)>,
    /// When it and everything in it was gone. A lane that panicked has ended before that.
    gone: Option<Duration>,
    ran_on: bool,
    leaked: bool,
}

struct Wait {
    ticket: u64,
    depth: usize,
    reason: Reason,
}

impl Entry {
    fn note(&mut self, since: Duration, activity: Activity) {
        if self.spans.last().is_some_and(|(from, _)| *from >= since) {
            self.spans.pop();
        }
        if self.spans.last().is_none_or(|(_, last)| *last != activity) {
            self.spans.push((since, activity));
        }
    }

    fn suspended(&self) -> Activity {
        let given = self.waits.last().map(|wait| wait.reason);
        let default = if self.living > 0 { Reason::Join } else { Reason::Io };
        Activity::Waiting(given.unwrap_or(default))
    }

    /// Ends the running poll, if one runs: how long it took, and whether that was by its own code.
    fn polled(&mut self, now: Duration) -> (Duration, bool) {
        let Some(since) = self.polling.take() else { return (Duration::ZERO, false) };
        let took = now - since;
        let busy = took.saturating_sub(self.below) >= BUSY;
        if busy {
            self.note(since, Activity::Busy);
        }
        (took, busy)
    }
}

impl State {
    fn open(&mut self, name: String, owner: Option<usize>, now: Duration) -> usize {
        let spans = vec![(now, Activity::NotStarted)];
        self.lanes.push(Entry { name, owner, from: now, spans, ..Entry::default() });
        if let Some(owner) = owner {
            self.lanes[owner].living += 1;
            self.children_changed(owner, now);
        }
        self.lanes.len() - 1
    }

    fn begin(&mut self, index: usize, outer: Option<usize>, now: Duration) {
        if self.lanes[index].polls == 0
            && let Some(outer) = outer
        {
            self.adopt(index, outer, now);
        }
        let owner_gone = self.lanes[index].owner.is_some_and(|owner| self.lanes[owner].gone.is_some());
        let lane = &mut self.lanes[index];
        lane.polls += 1;
        lane.polling = Some(now);
        lane.below = Duration::ZERO;
        lane.woken = false;
        lane.ran_on |= owner_gone;
    }

    /// A lane that was named as an argument, `timeout(.., work.lane("work")).try_lane("call")`, belongs to the lane that
    /// polls it, provided that this one lies inside the lane in which it was named.
    fn adopt(&mut self, index: usize, outer: usize, now: Duration) {
        let Some(named_in) = self.lanes[index].owner.filter(|named_in| *named_in != outer) else { return };
        let mut above = self.lanes[outer].owner;
        while above.is_some_and(|above| above != named_in) {
            above = above.and_then(|above| self.lanes[above].owner);
        }
        if above.is_some() {
            self.lanes[index].owner = Some(outer);
            self.lanes[outer].living += 1;
            self.lanes[named_in].living -= 1;
            self.children_changed(named_in, now);
        }
    }

    fn suspend(&mut self, index: usize, now: Duration) -> Duration {
        let lane = &mut self.lanes[index];
        let (took, busy) = lane.polled(now);
        // A poll that was not busy belongs to the wait that it began.
        lane.note(if busy { now } else { now - took }, lane.suspended());
        took
    }

    fn wait(&mut self, index: usize, depth: usize, reason: Reason) -> u64 {
        self.tickets += 1;
        let waits = &mut self.lanes[index].waits;
        // The inner one returns first, so the outer one is noted after it.
        let place = waits.partition_point(|wait| wait.depth <= depth);
        waits.insert(place, Wait { ticket: self.tickets, depth, reason });
        self.tickets
    }

    /// A lane that waits for its children alone waits for something else once they are gone.
    fn children_changed(&mut self, owner: usize, now: Duration) {
        let lane = &mut self.lanes[owner];
        if lane.polls > 0 && lane.polling.is_none() && lane.end.is_none() {
            lane.note(now, lane.suspended());
        }
    }

    fn panicked(&mut self, index: usize, now: Duration) -> Duration {
        let lane = &mut self.lanes[index];
        let took = lane.polled(now).0;
        lane.end = Some((End::Panicked, now, None));
        took
    }

    fn finish(&mut self, index: usize, end: End, message: Option<String>, now: Duration) -> Duration {
        let lane = &mut self.lanes[index];
        let took = lane.polled(now).0;
        lane.end.get_or_insert((end, now, message));
        lane.gone = Some(now);
        if let Some(owner) = lane.owner {
            self.lanes[owner].living -= 1;
            let outlived = self.lanes[owner].gone.is_some_and(|gone| {
                // What was aborted with its owner is not polled again, and is dropped in a moment.
                let lane = &self.lanes[index];
                let dropped = matches!(lane.end, Some((End::Cancelled, at, _)) if at - gone <= SETTLE);
                lane.ran_on || !dropped
            });
            self.lanes[index].leaked = outlived;
            self.children_changed(owner, now);
        }
        took
    }

    fn wake(&mut self, from: usize, to: usize, at: Duration) {
        let lane = &mut self.lanes[to];
        // Only the first wake of a suspended lane is why it runs again.
        if lane.polls > 0 && lane.polling.is_none() && lane.end.is_none() && !lane.woken {
            lane.woken = true;
            let Activity::Waiting(reason) = lane.suspended() else { return };
            self.wakes.push(Woken { from, to, at, reason });
        }
    }

    fn level(&mut self, name: &'static str, value: usize, now: Duration) {
        let place = self.levels.iter().position(|level| level.name == name).unwrap_or_else(|| {
            self.levels.push(Level { name, steps: Vec::new() });
            self.levels.len() - 1
        });
        let steps = &mut self.levels[place].steps;
        if steps.last().is_some_and(|(at, _)| *at == now) {
            steps.pop();
        }
        if steps.last().is_none_or(|(_, last)| *last != value) {
            steps.push((now, value));
        }
    }

    /// What was noted, with each lane after its owner.
    fn panel(self, until: Duration) -> Panel {
        let mut children = vec![Vec::new(); self.lanes.len()];
        for (index, lane) in self.lanes.iter().enumerate() {
            if let Some(owner) = lane.owner {
                children[owner].push(index);
            }
        }
        let (mut order, mut depths, mut stack) = (Vec::new(), vec![0; self.lanes.len()], vec![0]);
        while let Some(index) = stack.pop() {
            order.push(index);
            for &child in children[index].iter().rev() {
                depths[child] = depths[index] + 1;
                stack.push(child);
            }
        }
        let mut places = vec![0; self.lanes.len()];
        for (place, &index) in order.iter().enumerate() {
            places[index] = place;
        }
        let mut entries: Vec<_> = self.lanes.into_iter().map(Some).collect();
        let in_order = order.iter().filter_map(|&index| Some((index, entries[index].take()?)));
        let lanes = in_order
            .map(|(index, entry)| {
                let mut facts = entry.facts(until);
                facts.depth = depths[index];
                facts.owner = facts.owner.map(|owner| places[owner]);
                facts
            })
            .collect();
        let mut wakes = self.wakes;
        for wake in &mut wakes {
            (wake.from, wake.to) = (places[wake.from], places[wake.to]);
        }
        Panel { lanes, wakes, levels: self.levels }
    }
}

impl Entry {
    fn facts(self, until: Duration) -> LaneFacts {
        let leaked = self.leaked || self.end.is_none();
        let (end, to, message) = match self.end {
            Some((end, at, message)) => (Some(end), at, message),
            None => (None, until, None),
        };
        let ends = self.spans.iter().skip(1).map(|(from, _)| *from).chain([to]);
        let spans = self.spans.iter().zip(ends).map(|(&(from, activity), to)| Span { activity, from, to });
        let only_admission = self.spans.iter().all(|(_, activity)| {
            matches!(activity, Activity::NotStarted | Activity::Waiting(Reason::Permit | Reason::Lock))
        });
        let returned = !matches!(end, None | Some(End::Cancelled));
        LaneFacts {
            name: self.name,
            depth: 0,
            owner: self.owner,
            end,
            message,
            started: self.polls > 0 && (returned || !only_admission),
            from: self.from,
            to,
            polls: self.polls,
            leaked,
            spans: spans.filter(|span| span.from < span.to).collect(),
        }
    }
}
