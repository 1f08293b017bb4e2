//! `keyed_limit`: callers are dropped at every suspension point; no permit is lost and no key stays behind.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use proptest::prelude::*;
use semaphores::KeyedLimit;
use support::sweep::{Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

fn limit<K: Eq + Hash + Clone>(per_key: usize, overall: usize) -> KeyedLimit<K> {
    let [per_key, overall] = [per_key, overall].map(|number| NonZeroUsize::new(number).expect("not zero"));
    KeyedLimit::new(per_key, overall)
}

async fn visit(limit: KeyedLimit<String>, key: &'static str, after: u64, takes: u64) {
    sleep(Duration::from_millis(after)).await;
    let _permit = limit.acquire(key.to_string()).await;
    sleep(Duration::from_millis(takes)).await;
}

fn scene(per_key: usize, overall: usize) -> Scene<()> {
    let limit = limit(per_key, overall);
    let (subject, after) = (limit.clone(), limit.clone());
    let call = async move {
        visit(subject.clone(), "a", 1, 2).await;
        visit(subject, "b", 0, 2).await;
    };
    Scene::new(call)
        .alongside(visit(limit.clone(), "a", 0, 4))
        .alongside(visit(limit.clone(), "b", 0, 3))
        .alongside(visit(limit.clone(), "a", 2, 1))
        .alongside(visit(limit, "c", 2, 1))
        .check(move |_| {
            assert_eq!(after.keys_in_use(), 0);
            // All permits are there, of each key and of all.
            let all = join_all((0..overall).map(|number| after.acquire(number.to_string())));
            assert!(all.now_or_never().is_some());
            let same = join_all((0..per_key.min(overall)).map(|_| after.acquire("a".into())));
            assert!(same.now_or_never().is_some());
        })
}

#[test]
fn cancellation_while_the_key_is_busy() {
    sweep(|_| scene(1, 9));
}

#[test]
fn cancellation_while_everything_is_busy() {
    sweep(|_| scene(1, 1));
    sweep(|_| scene(2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever keys, whoever gives up: never above either limit, no slot idle that could be used, no key left behind.
    #[test]
    fn backpressure_keeps_both_limits(
        calls in prop::collection::vec((0..4_usize, 0..6_u64, 0..9_u64, 0..40_u64), 0..50),
        per_key in 1..4_usize,
        overall in 1..6_usize,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let limit = limit::<usize>(per_key, overall);
        let running = RefCell::new(HashMap::<usize, usize>::new());
        let call = async |(key, after, takes, patience): (usize, u64, u64, u64)| {
            sleep(Duration::from_millis(after)).await;
            let permit = timeout(Duration::from_millis(patience), limit.acquire(key)).await;
            let Ok(permit) = permit else {
                // The key or everything was in use, as far as the others have not ended in this same millisecond.
                return;
            };
            *running.borrow_mut().entry(key).or_default() += 1;
            assert!(running.borrow()[permit.key()] <= per_key);
            assert!(running.borrow().values().sum::<usize>() <= overall);
            sleep(Duration::from_millis(takes)).await;
            *running.borrow_mut().entry(key).or_default() -= 1;
        };
        runtime.block_on(join_all(calls.into_iter().map(call)));
        prop_assert_eq!(limit.keys_in_use(), 0);
    }
}

/// A key that runs something when it is dropped.
#[derive(Clone)]
struct Loud(Option<Rc<dyn Fn()>>);

impl PartialEq for Loud {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Loud {}

impl Hash for Loud {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Drop for Loud {
    fn drop(&mut self) {
        if let Some(hook) = &self.0 {
            hook();
        }
    }
}

/// When a key is forgotten its permit and that of all are free, and its own drop may use the limit.
#[test]
fn memory_a_key_is_forgotten_after_its_permit() {
    let limit = limit::<Loud>(1, 1);
    let (inner, dropped) = (limit.clone(), Rc::new(Cell::new(0)));
    let count = dropped.clone();
    let hook = move || {
        count.set(count.get() + 1);
        assert!(inner.acquire(Loud(None)).now_or_never().is_some());
    };
    let permit = limit.acquire(Loud(Some(Rc::new(hook)))).now_or_never();
    assert!(permit.is_some());
    drop(permit);
    assert_eq!((dropped.get(), limit.keys_in_use()), (2, 0), "the permit's key and the table's");
}

/// The pitfall on the page: the overall permit first.
#[tokio::test(start_paused = true)]
async fn pitfall_the_two_semaphores_in_the_other_order() {
    let (overall, a, b) = (Semaphore::new(2), Semaphore::new(1), Semaphore::new(1));
    let start = Instant::now();
    let call = async |key: &Semaphore| {
        let _overall = overall.acquire().await;
        let _key = key.acquire().await;
        let begun = start.elapsed();
        sleep(Duration::from_millis(10)).await;
        begun
    };
    let begun = join_all([&a, &a, &a, &a, &b].map(call)).await;
    assert_eq!(begun[4], Duration::from_millis(30));

    let (limit, start) = (limit(1, 2), Instant::now());
    let call = async |key| {
        let _permit = limit.acquire(key).await;
        let begun = start.elapsed();
        sleep(Duration::from_millis(10)).await;
        begun
    };
    let begun = join_all("aaaab".chars().map(call)).await;
    assert_eq!(begun[4], Duration::ZERO);
}

/// Keys come and go on two threads while callers are aborted: a key that is forgotten too early would run too often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_limits_on_two_threads() {
    let limit = limit::<usize>(1, 3);
    let running: Arc<[AtomicUsize; 5]> = Arc::default();
    for _ in 0..200 {
        let tasks: Vec<_> = (0..100_usize)
            .map(|number| {
                let (limit, running) = (limit.clone(), running.clone());
                tokio::spawn(async move {
                    let permit = limit.acquire(number % 5).await;
                    let running = &running[*permit.key()];
                    assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0, "twice at a time");
                    std::hint::black_box(number);
                    running.fetch_sub(1, Ordering::Relaxed);
                    drop(permit);
                    yield_now().await;
                })
            })
            .collect();
        yield_now().await;
        tasks.iter().step_by(3).for_each(JoinHandle::abort);
        for (number, task) in tasks.into_iter().enumerate() {
            assert!(task.await.is_ok() || number % 3 == 0);
        }
        assert_eq!(limit.keys_in_use(), 0);
    }
}
