//! `event`, `condition`, `barrier`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use benches::{Bench, Flavour, Measure, Table, once, short, time};
use locks::{Barrier, Condition, Event};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, yield_now};

pub(crate) fn tables(bench: &mut Bench) {
    event_tables(bench);
    condition_tables(bench);
    barrier_tables(bench);
}

/// So many tasks wait, then all are woken; each is joined.
fn woken<S, F>(
    n: usize,
    state: impl Fn() -> S + Send + Sync + 'static,
    wait: fn(Arc<S>) -> F,
    wake: fn(&S),
) -> Measure
where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time_or_once(n > 10_000, move || {
        let state = Arc::new(state());
        async move {
            let tasks: Vec<_> = (0..n).map(|_| tokio::spawn(wait(state.clone()))).collect();
            // From a task, a turn of all others.
            yield_now().await;
            wake(&state);
            join_all_in_turn(tasks).await;
        }
    })
}

/// `join_all` grows with the square of the tasks under tokio's budget.
async fn join_all_in_turn(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("it neither panics nor is it aborted");
    }
}

/// What takes a tenth of a second and more is run once.
fn time_or_once<F: Future + Send>(slow: bool, body: impl Fn() -> F + Send + Sync + 'static) -> Measure {
    if slow { once(body) } else { time(body) }
}

/// What one writes by hand: listen, look, wait.
#[derive(Default)]
struct Flag {
    set: AtomicBool,
    changed: Notify,
}

impl Flag {
    async fn wait(&self) {
        let changed = self.changed.notified();
        if !self.set.load(SeqCst) {
            changed.await;
        }
    }

    fn set(&self) {
        self.set.store(true, SeqCst);
        self.changed.notify_waiters();
    }
}

fn event_tables(bench: &mut Bench) {
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} tasks wait, and one sets it", short(n));
        let event = woken(n, Event::new, |event| async move { event.wait().await }, Event::set);
        let flag = woken(n, Flag::default, |flag| async move { flag.wait().await }, Flag::set);
        let by_watch = woken(
            n,
            || watch::Sender::new(false),
            |set| async move { _ = set.subscribe().wait_for(|set| *set).await },
            |set| _ = set.send_replace(true),
        );
        let nothing = woken(n, || (), |_| async {}, |()| ());
        let table = Table::new("event", title(n), "ns/task", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("event", event)
            .peer("Notify and an atomic, by hand", flag)
            .peer("tokio watch", by_watch)
            .floor("tasks that do not wait", nothing)
            .python("Event", &format!("event {n}"));
        bench.measure(table);
    }
    let n = bench.size(10_000);
    let title = format!("{} waits for an event that is set", short(n));
    let event = time(move || async move {
        let event = Event::new();
        event.set();
        for _ in 0..n {
            event.wait().await;
        }
    });
    let flag = time(move || async move {
        let flag = Flag::default();
        flag.set();
        for _ in 0..n {
            flag.wait().await;
        }
    });
    let table = Table::new("event", title, "ns/wait", Flavour::CurrentThread, n)
        .recipe("event", event)
        .peer("Notify and an atomic, by hand", flag)
        .python("Event", &format!("event_set {n}"));
    bench.measure(table);
}

/// Steps of each task.
const STEPS: usize = 100;
/// What may be stored.
const ROOM: usize = 16;

/// Producers and consumers of one number that may not leave its bounds.
fn pairs<S, P, T>(state: fn() -> S, put: fn(Arc<S>) -> P, take: fn(Arc<S>) -> T) -> Measure
where
    S: Send + Sync + 'static,
    P: Future<Output = ()> + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    time(move || {
        let state = Arc::new(state());
        async move {
            let pair = |_| [tokio::spawn(put(state.clone())), tokio::spawn(take(state.clone()))];
            join_all_in_turn((0..4).flat_map(pair).collect()).await;
        }
    })
}

/// A mutex and a `Notify`, by hand.
#[derive(Default)]
struct ByHand {
    stored: Mutex<usize>,
    changed: Notify,
}

impl ByHand {
    async fn step(&self, step: impl Fn(usize) -> Option<usize>) {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut stored = self.stored.lock().expect("nobody panics");
                step(*stored).map(|next| *stored = next)
            };
            if next.is_some() {
                self.changed.notify_waiters();
                return;
            }
            changed.await;
        }
    }
}

struct Permits {
    free: Semaphore,
    stored: Semaphore,
}

fn condition_tables(bench: &mut Bench) {
    let condition = pairs(
        || Condition::new(0_usize),
        |stored| {
            steps(stored, |stored: Arc<Condition<usize>>| async move {
                let _ = stored.when(|stored| *stored < ROOM, |stored| *stored += 1).await;
            })
        },
        |stored| {
            steps(stored, |stored: Arc<Condition<usize>>| async move {
                let _ = stored.when(|stored| *stored > 0, |stored| *stored -= 1).await;
            })
        },
    );
    let by_hand = pairs(
        ByHand::default,
        |state| {
            steps(state, |state: Arc<ByHand>| async move {
                state.step(|stored| (stored < ROOM).then_some(stored + 1)).await;
            })
        },
        |state| {
            steps(state, |state: Arc<ByHand>| async move {
                state.step(|stored| stored.checked_sub(1)).await;
            })
        },
    );
    let permits = || Permits { free: Semaphore::new(ROOM), stored: Semaphore::new(0) };
    let semaphores = pairs(
        permits,
        |state| steps(state, |state: Arc<Permits>| async move { shift(&state.free, &state.stored).await }),
        |state| steps(state, |state: Arc<Permits>| async move { shift(&state.stored, &state.free).await }),
    );
    let title = format!("4 producers and 4 consumers, room for {ROOM}");
    let table = Table::new("condition", title, "ns/step", Flavour::CurrentThread, 8 * STEPS)
        .recipe("condition", condition)
        .peer("Mutex and Notify, by hand", by_hand)
        .floor("two semaphores, for this case", semaphores)
        .python("Condition", &format!("condition 4 {STEPS} {ROOM}"));
    bench.measure(table);

    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} tasks wait for one change", short(n));
        let condition = woken(
            n,
            || Condition::new(false),
            |open| async move { _ = open.when(|open| *open, |_| ()).await },
            |open| _ = open.change(|open| *open = true),
        );
        let by_hand = woken(
            n,
            ByHand::default,
            |open| async move { open.step(|open| (open > 0).then_some(open)).await },
            |open| {
                *open.stored.lock().expect("nobody panics") = 1;
                open.changed.notify_waiters();
            },
        );
        let table = Table::new("condition", title(n), "ns/task", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("condition", condition)
            .peer("Mutex and Notify, by hand", by_hand)
            .python("Condition, notify_all", &format!("condition_change {n}"));
        bench.measure(table);
    }
    for n in [10, 100, 1_000].map(|n| bench.size(n)) {
        let title = |n| format!("{n} tasks wait for one item each, which come one by one");
        let condition = items(
            n,
            || Condition::new(0_usize),
            |items| async move {
                _ = items.when(|items| *items > 0, |items| *items -= 1).await;
            },
            |items| _ = items.change(|items| *items += 1),
        );
        let semaphore = items(
            n,
            || Semaphore::new(0),
            |items| async move {
                items.acquire().await.expect("it is never closed").forget();
            },
            |items| items.add_permits(1),
        );
        let table = Table::new("condition", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10))
            .recipe("condition", condition)
            .floor("tokio Semaphore, which wakes one", semaphore)
            .python("Condition, notify_all", &format!("condition_items {n}"));
        bench.measure(table);
    }
}

/// So many tasks wait; as many items come, each after all had a turn.
fn items<S, F>(n: usize, state: fn() -> S, take: fn(Arc<S>) -> F, put: fn(&S)) -> Measure
where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time_or_once(n > 100, move || {
        let state = Arc::new(state());
        async move {
            let tasks: Vec<_> = (0..n).map(|_| tokio::spawn(take(state.clone()))).collect();
            for _ in 0..n {
                yield_now().await;
                put(&state);
            }
            join_all_in_turn(tasks).await;
        }
    })
}

async fn steps<S, F: Future<Output = ()>>(state: Arc<S>, step: fn(Arc<S>) -> F) {
    for _ in 0..STEPS {
        step(state.clone()).await;
    }
}

/// Moves a permit.
async fn shift(from: &Semaphore, to: &Semaphore) {
    from.acquire().await.expect("it is never closed").forget();
    to.add_permits(1);
}

fn barrier_tables(bench: &mut Bench) {
    const ROUNDS: usize = 100;
    for (n, flavour) in
        [(8, Flavour::CurrentThread), (8, Flavour::MultiThread), (1_000, Flavour::CurrentThread)]
    {
        let title = format!("{} tasks, {ROUNDS} rounds", short(n));
        let ours = tasks(
            n,
            |n| Barrier::new(NonZeroUsize::new(n).expect("not zero")),
            |barrier| async move {
                for _ in 0..ROUNDS {
                    barrier.wait().await;
                }
            },
        );
        let tokios = tasks(n, tokio::sync::Barrier::new, |barrier| async move {
            for _ in 0..ROUNDS {
                barrier.wait().await;
            }
        });
        let mut table = Table::new("barrier", title, "ns/arrival", flavour, n * ROUNDS)
            .recipe("barrier", ours)
            .peer("tokio Barrier, which counts ghosts", tokios);
        if flavour == Flavour::CurrentThread {
            table = table.python("Barrier", &format!("barrier {n} {ROUNDS}"));
        }
        bench.measure(table);
    }
}

fn tasks<S, F>(n: usize, state: fn(usize) -> S, task: fn(Arc<S>) -> F) -> Measure
where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time(move || {
        let state = Arc::new(state(n));
        async move { join_all_in_turn((0..n).map(|_| tokio::spawn(task(state.clone()))).collect()).await }
    })
}
