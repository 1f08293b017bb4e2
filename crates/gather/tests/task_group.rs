//! `task_group`: the group is dropped and stopped at every suspension point; its tasks fail, panic and are aborted.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::poll;
use gather::{Rules, Scope, Stopped, Stopping, TaskGroup};
use proptest::prelude::*;
use support::sweep::{Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Counts tasks in work, which must never be more than the limit.
struct Working<'a>(&'a AtomicUsize);

impl<'a> Working<'a> {
    fn begin(working: &'a AtomicUsize, limit: usize) -> Self {
        let before = working.fetch_add(1, Ordering::Relaxed);
        assert!(before < limit, "{} tasks work at a time", before + 1);
        Working(working)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn scene(parts: &Parts, limit: usize) -> Scene<()> {
    let rules = Rules {
        limit: NonZeroUsize::new(limit).expect("not zero"),
        grace: Duration::from_millis(3),
        ..Rules::default()
    };
    let permits = Arc::new(Semaphore::new(1));
    let (after, other) = (permits.clone(), permits.clone());
    let working = Arc::new(AtomicUsize::new(0));
    let still = working.clone();
    let group = TaskGroup::new(rules);
    let stop = group.stop_token();
    let parts = parts.clone();
    let call = async move {
        for name in ["a", "b"] {
            let (permits, working, parts) = (permits.clone(), working.clone(), parts.clone());
            let parent = move |mut scope: Scope<&'static str>| {
                let (inner, child_working) = (permits.clone(), working.clone());
                let task = async move {
                    let at_work = Working::begin(&working, limit);
                    let permit = permits.acquire().await;
                    sleep(Duration::from_millis(1)).await;
                    drop((permit, at_work));
                    let child = move |scope: Scope<&'static str>| async move {
                        let _at_work = Working::begin(&child_working, limit);
                        tokio::select! {
                            permit = inner.acquire() => drop(permit),
                            () = scope.stopping() => {}
                        }
                        sleep(Duration::from_millis(1)).await;
                        Ok(())
                    };
                    match scope.spawn("child", child).await {
                        Ok(()) | Err(Stopping) => Ok(()),
                    }
                };
                parts.fallible(name, task, || "injected")
            };
            // A group that is stopping takes no more; what it has is waited for below.
            if group.spawn(name, parent).await.is_err() {
                break;
            }
        }
        let _ = group.wait().await;
    };
    Scene::new(call)
        .alongside(async move { drop(other.acquire().await) })
        .stop(move || stop.cancel())
        .check(move |_| assert_eq!((after.available_permits(), still.load(Ordering::Relaxed)), (1, 0)))
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_one() {
    sweep(|parts| scene(parts, 1));
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_three() {
    sweep(|parts| scene(parts, 3));
}

/// A task that ignores the request to stop is aborted after the grace, however late the request comes.
#[test]
fn cancellation_ends_a_stubborn_task() {
    sweep(|_| {
        let group = TaskGroup::<()>::new(Rules { grace: Duration::from_millis(5), ..Rules::default() });
        let stop = group.stop_token();
        let (ask, fallback) = (stop.clone(), CancellationToken::clone(&stop));
        let call = async move {
            for _ in 0..2 {
                let _ = group.spawn("stubborn", |_| async { std::future::pending().await }).await;
            }
            let _ = group.wait().await;
        };
        let later = async move {
            sleep(Duration::from_millis(50)).await;
            fallback.cancel();
        };
        Scene::new(call).alongside(later).stop(move || ask.cancel())
    });
}

/// Nobody waits for the group yet, and still its tasks are asked to stop when the first fails.
#[tokio::test(start_paused = true)]
async fn errors_stop_a_group_that_nobody_waits_for() {
    let held = Arc::new(());
    let group = TaskGroup::new(Rules::default());
    let guard = held.clone();
    let polite = |scope: Scope<&'static str>| async move {
        let _guard = guard;
        scope.stopping().await;
        Ok(())
    };
    group.spawn("polite", polite).await.unwrap();
    group.spawn("bad", |_| async { Err("no") }).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(group.spawn("late", |_| async { Ok(()) }).await, Err(Stopping));
}

#[tokio::test(start_paused = true)]
async fn cancellation_names_tasks_whose_runtime_was_shut_down() {
    let group = TaskGroup::<()>::new(Rules::default());
    start_and_shut_down(&group, std::future::pending()).await;
    assert_eq!(group.wait().await.unwrap_err().overstayed, ["forever"]);
}

#[tokio::test(start_paused = true)]
async fn panics_in_a_runtime_that_was_shut_down_are_not_lost() {
    let group = TaskGroup::<()>::new(Rules::default());
    let forever = async {
        let _guard = PanicsWhenDropped("shut down");
        std::future::pending().await
    };
    start_and_shut_down(&group, forever).await;
    // Forgets the task above, but not its panic.
    group.spawn("next", |_| async { Ok(()) }).await.unwrap();
    let panic = tokio::spawn(group.wait()).await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"shut down"));
}

/// Runs the task until it waits, in a runtime which then goes away.
async fn start_and_shut_down(
    group: &TaskGroup<()>,
    task: impl Future<Output = Result<(), ()>> + Send + 'static,
) {
    let (sender, started) = oneshot::channel();
    let other = Builder::new_multi_thread().worker_threads(1).build().expect("a thread can be had");
    {
        let _entered = other.enter();
        let task = |_| async {
            let _ = sender.send(());
            task.await
        };
        assert_eq!(poll!(Box::pin(group.spawn("forever", task))), Poll::Ready(Ok(())));
    }
    started.await.expect("the task runs");
    std::thread::spawn(move || drop(other)).join().expect("it shuts down");
}

struct PanicsWhenDropped(&'static str);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        resume_unwind(Box::new(self.0));
    }
}

#[tokio::test(start_paused = true)]
async fn panics_while_the_group_is_stopped_are_not_lost() {
    for first in [None, Some("first")] {
        let group = TaskGroup::new(Rules::default());
        let stubborn = |_| async {
            let _guard = PanicsWhenDropped("on the way out");
            std::future::pending().await
        };
        let failing = move |_| async move {
            sleep(Duration::from_millis(1)).await;
            first.map_or(Err("failed"), |panic| resume_unwind(Box::new(panic)))
        };
        group.spawn("stubborn", stubborn).await.unwrap();
        group.spawn("failing", failing).await.unwrap();
        let panic = tokio::spawn(group.wait()).await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&first.unwrap_or("on the way out")));
    }
}

/// A task that gives up while another has its place does not go on before it has one again.
#[tokio::test(start_paused = true)]
async fn backpressure_of_a_spawn_that_was_given_up() {
    let working = Arc::new(AtomicUsize::new(0));
    let group = TaskGroup::<()>::new(Rules { limit: NonZeroUsize::MIN, ..Rules::default() });
    let parent = |mut scope: Scope<()>| async move {
        for _ in 0..3 {
            let inner = working.clone();
            let child = |_| async move {
                let _at_work = Working::begin(&inner, 1);
                sleep(Duration::from_millis(10)).await;
                Ok(())
            };
            assert!(poll!(Box::pin(scope.spawn("child", child))).is_pending());
            // In the same turn, so that the place is still away.
            assert!(poll!(Box::pin(scope.spawn("never", |_| async { panic!("started") }))).is_pending());
            yield_now().await;
            let _at_work = Working::begin(&working, 1);
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    let start = Instant::now();
    group.spawn("parent", parent).await.unwrap();
    assert_eq!(group.wait().await, Ok(()));
    assert_eq!(start.elapsed(), Duration::from_millis(33));
}

/// A scope that left its task can start others as long as its task lives. After that it is refused, and keeps no place.
#[tokio::test(start_paused = true)]
async fn backpressure_of_a_scope_that_left_its_task() {
    let group = TaskGroup::<()>::new(Rules { limit: NonZeroUsize::MIN, ..Rules::default() });
    let (sender, scopes) = oneshot::channel();
    let parent = |scope| async move {
        let _ = sender.send(scope);
        sleep(Duration::from_millis(15)).await;
        Ok(())
    };
    let child = |_| sleep(Duration::from_millis(10)).map(Ok);
    group.spawn("parent", parent).await.unwrap();
    let elsewhere = tokio::spawn(async move {
        let mut scope: Scope<()> = scopes.await.unwrap();
        assert_eq!(scope.spawn("child", child).await, Ok(()));
        sleep(Duration::from_millis(10)).await;
        scope.spawn("late", child).await
    });
    sleep(Duration::from_millis(20)).await;
    assert_eq!(group.spawn("next", child).await, Ok(()));
    assert_eq!(group.wait().await, Ok(()));
    assert_eq!(elsewhere.await.unwrap(), Err(Stopping));
}

#[derive(Clone, Copy, Debug)]
enum End {
    Well,
    Failure,
    Panic,
}

/// A task of a tree.
#[derive(Clone, Debug)]
struct Node {
    /// Which of the tasks before it starts it: this modulo their number.
    parent: usize,
    /// What it waits for before each task it starts, and at its end.
    millis: u64,
    /// It starts tasks, and drops the future that does, at once.
    gives_up: bool,
    stubborn: bool,
    end: End,
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let end = prop_oneof![12 => Just(End::Well), 2 => Just(End::Failure), 1 => Just(End::Panic)];
    let node = (any::<usize>(), 0..5_u64, any::<bool>(), any::<bool>(), end).prop_map(
        |(parent, millis, gives_up, stubborn, end)| Node { parent, millis, gives_up, stubborn, end },
    );
    prop::collection::vec(node, 1..40)
}

/// What is known of all tasks of a tree.
#[derive(Default)]
struct Seen {
    working: AtomicUsize,
    alive: AtomicUsize,
    begun: Mutex<BTreeSet<usize>>,
    refused: Mutex<BTreeSet<usize>>,
}

type BoxedTask = BoxFuture<'static, Result<(), usize>>;

fn tree(
    mut scope: Scope<usize>,
    number: usize,
    nodes: Arc<[Node]>,
    limit: usize,
    seen: Arc<Seen>,
) -> BoxedTask {
    let alive = Alive::begin(&seen);
    let task = async move {
        let _alive = alive;
        lock(&seen.begun).insert(number);
        let work = async |scope: &Scope<usize>| {
            let _at_work = Working::begin(&seen.working, limit);
            tokio::select! {
                () = pause(nodes[number].millis) => false,
                () = scope.stopping(), if !nodes[number].stubborn => true,
            }
        };
        for child in (1..nodes.len()).filter(|child| nodes[*child].parent % *child == number) {
            if work(&scope).await {
                return Ok(());
            }
            let (inner, counters) = (nodes.clone(), seen.clone());
            let start = move |scope| tree(scope, child, inner, limit, counters);
            let mut spawned = Box::pin(scope.spawn(format!("task {child}"), start));
            let result =
                if nodes[number].gives_up { poll!(&mut spawned) } else { Poll::Ready(spawned.await) };
            if result == Poll::Ready(Err(Stopping)) {
                lock(&seen.refused).insert(child);
            }
            yield_now().await;
        }
        if work(&scope).await {
            return Ok(());
        }
        match nodes[number].end {
            End::Well => Ok(()),
            End::Failure => Err(number),
            End::Panic => resume_unwind(Box::new(number)),
        }
    };
    task.boxed()
}

fn lock(numbers: &Mutex<BTreeSet<usize>>) -> MutexGuard<'_, BTreeSet<usize>> {
    numbers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A turn of the scheduler, or some time.
async fn pause(millis: u64) {
    if millis == 0 { yield_now().await } else { sleep(Duration::from_millis(millis)).await }
}

/// Counts tasks that exist.
struct Alive(Arc<Seen>);

impl Alive {
    fn begin(seen: &Arc<Seen>) -> Self {
        seen.alive.fetch_add(1, Ordering::Relaxed);
        Alive(seen.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs the tree to its end and checks what must hold in every case. Returns whether each task ended well.
async fn grow(nodes: Vec<Node>, rules: Rules, stop_after: Option<u64>) -> (bool, Arc<Seen>) {
    let (seen, nodes): (_, Arc<[Node]>) = (Arc::new(Seen::default()), nodes.into());
    let group = TaskGroup::new(rules);
    let stop = group.stop_token();
    let stopper = tokio::spawn(async move {
        if let Some(millis) = stop_after {
            sleep(Duration::from_millis(millis)).await;
            stop.cancel();
        }
    });
    let (inner, counters, limit) = (nodes.clone(), seen.clone(), rules.limit.get());
    group
        .spawn("task 0", move |scope| tree(scope, 0, inner, limit, counters))
        .await
        .expect("stopped by nobody");
    let ended = AssertUnwindSafe(timeout(Duration::from_secs(60), group.wait())).catch_unwind().await;
    assert_eq!(seen.alive.load(Ordering::Relaxed), 0, "a task is alive");
    assert_eq!(seen.working.load(Ordering::Relaxed), 0);
    stopper.await.expect("it does not panic");
    let well = match ended {
        Ok(ended) => match ended.expect("no deadlock") {
            Ok(()) => stop_after.is_none(),
            Err(Stopped { failures, overstayed }) => {
                assert!(failures.iter().all(|(name, number)| *name == format!("task {number}")));
                assert!(failures.iter().all(|(_, number)| matches!(nodes[*number].end, End::Failure)));
                assert!(overstayed.len() <= nodes.len() - failures.len());
                if stop_after.is_none() && failures.len() < rules.max_failures.get() {
                    assert_eq!(overstayed, Vec::<String>::new());
                }
                false
            }
        },
        Err(panic) => {
            // A broken promise of `Working` is a panic with a message; a task of the tree panics with its number.
            let number = *panic.downcast::<usize>().expect("a task of the tree that panics on purpose");
            assert!(matches!(nodes[number].end, End::Panic));
            false
        }
    };
    (well, seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever tree of tasks under whatever rules: it ends, never more than the limit run, and nothing is lost.
    #[test]
    fn backpressure_and_the_end_of_any_tree(
        nodes in nodes(),
        limit in 1..6_usize,
        max_failures in 1..4_usize,
        grace in 0..10_u64,
        stop_after in prop::option::of(0..100_u64),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (limit, max_failures) = (NonZeroUsize::new(limit).unwrap(), NonZeroUsize::new(max_failures).unwrap());
        let rules = Rules { limit, max_failures, grace: Duration::from_millis(grace) };
        let all_well = nodes.iter().all(|node| matches!(node.end, End::Well));
        let size = nodes.len();
        let (well, seen) = runtime.block_on(grow(nodes, rules, stop_after));
        let (begun, refused) = (lock(&seen.begun), lock(&seen.refused));
        prop_assert!(begun.is_disjoint(&refused), "refused, and yet they ran: {:?} {:?}", begun, refused);
        if all_well && stop_after.is_none() {
            prop_assert!(well);
            prop_assert_eq!((begun.len(), refused.len()), (size, 0));
        }
    }
}

/// The same on two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_on_two_threads() {
    for round in 0..300_usize {
        let nodes = (0..40).map(|i| Node {
            parent: i * 7 + round,
            millis: 0,
            gives_up: false,
            stubborn: false,
            end: if i == 39 && round % 3 == 0 { End::Failure } else { End::Well },
        });
        let limit = NonZeroUsize::new(1 + round % 4).unwrap();
        let rules = Rules { limit, grace: Duration::from_secs(10), ..Rules::default() };
        let (well, seen) = tokio::spawn(grow(nodes.collect(), rules, None)).await.unwrap();
        assert_eq!(well, round % 3 != 0);
        if well {
            assert_eq!(lock(&seen.begun).len(), 40);
        }
    }
}
