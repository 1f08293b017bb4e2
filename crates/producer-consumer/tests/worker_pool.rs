//! `worker_pool`: dropped at every suspension point; its jobs fail and panic at each of their polls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use producer_consumer::{Failure, worker_pool};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;

fn limit(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("tests use numbers above zero")
}

/// Counts jobs at work, which must never be more than the workers.
struct Working(Arc<AtomicUsize>);

impl Working {
    fn begin(working: &Arc<AtomicUsize>, workers: usize) -> Self {
        let before = working.fetch_add(1, Relaxed);
        assert!(before < workers, "{} jobs at work at a time", before + 1);
        Working(working.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn scene(parts: &Parts, workers: usize, tries: usize) -> Scene<usize> {
    let (permits, working) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
    let (after, other, still) = (permits.clone(), permits.clone(), working.clone());
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (all, parts, seen) = (ended.clone(), parts.clone(), parts.clone());
    let work = move |job: u32| {
        let (permits, working, ended) = (permits.clone(), working.clone(), ended.clone());
        let work = async move {
            let _working = Working::begin(&working, workers);
            let permit = permits.acquire().await.expect("it is never closed");
            sleep(Duration::from_millis(1)).await;
            drop(permit);
            ended.lock().unwrap().push(job);
            Ok(if job < 3 { vec![10 * job, 10 * job + 1] } else { Vec::new() })
        };
        parts.fallible(format!("job {job}"), work, || "injected")
    };
    let call = async move { worker_pool(1..=2, limit(workers), limit(tries), work).await.len() };
    Scene::new(call).returns_panics().alongside(async move { drop(other.acquire().await) }).check(
        move |end| {
            assert_eq!((after.available_permits(), still.load(Relaxed)), (1, 0));
            let mut all = all.lock().unwrap().clone();
            all.sort_unstable();
            if let Ended::Returned(dead) = end {
                // With a second try nothing is lost by one fault. With one try, one job is dead and its follow-ups never were.
                let lost = usize::from(seen.fault().is_some() && tries == 1);
                assert_eq!(dead, lost);
                if lost == 0 {
                    assert_eq!(all, [1, 2, 10, 11, 20, 21]);
                }
            }
            let before = all.len();
            all.dedup();
            assert_eq!(all.len(), before, "a job ended well twice");
            let _: Option<Fault> = seen.fault();
        },
    )
}

#[test]
fn cancellation_errors_and_panics_with_one_worker() {
    sweep(|parts| scene(parts, 1, 1));
}

#[test]
fn cancellation_errors_and_panics_with_two_workers_and_a_second_try() {
    sweep(|parts| scene(parts, 2, 2));
}

/// How a job of the property ends at each of its tries.
#[derive(Clone, Copy, Debug)]
enum End {
    Well,
    Fails(usize),
    Panics(usize),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any tree of jobs: each ends well once, or is a dead letter after all its tries, and nothing follows from a dead one.
    #[test]
    fn order_and_errors_of_any_tree(
        nodes in prop::collection::vec((any::<usize>(), prop_oneof![Just(End::Well), (1..4_usize).prop_map(End::Fails), (1..4_usize).prop_map(End::Panics)], 0..3_u64), 1..30),
        workers in 1..6_usize,
        tries in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let nodes: Arc<[_]> = nodes.into();
        let parent = |nodes: &[(usize, End, u64)], job: usize| nodes[job].0 % job;
        let counts = Arc::new(Mutex::new(BTreeMap::<usize, usize>::new()));
        let (own, seen, working) = (nodes.clone(), counts.clone(), Arc::new(AtomicUsize::new(0)));
        let work = move |job: usize| {
            let (nodes, counts, working) = (own.clone(), seen.clone(), working.clone());
            async move {
                let _working = Working::begin(&working, workers);
                sleep(Duration::from_millis(nodes[job].2)).await;
                let tried = *counts.lock().unwrap().entry(job).and_modify(|tried| *tried += 1).or_insert(1);
                match nodes[job].1 {
                    End::Fails(times) if tried <= times => Err(job),
                    End::Panics(times) if tried <= times => resume_unwind(Box::new(job)),
                    _ => {
                        let nodes = nodes.clone();
                        Ok((job + 1..nodes.len()).filter(move |child| nodes[*child].0 % *child == job))
                    }
                }
            }
        };
        let dead = runtime.block_on(worker_pool([0], limit(workers), limit(tries), work));
        let counts = counts.lock().unwrap();
        let mut expected = Vec::new();
        let mut alive = vec![false; nodes.len()];
        for job in 0..nodes.len() {
            if job > 0 && !alive[parent(&nodes, job)] {
                prop_assert_eq!(counts.get(&job), None);
                continue;
            }
            let failures = match nodes[job].1 { End::Well => 0, End::Fails(times) | End::Panics(times) => times };
            alive[job] = failures < tries;
            prop_assert_eq!(counts.get(&job), Some(&tries.min(failures + 1)));
            if !alive[job] {
                expected.push(job);
            }
        }
        let mut letters: Vec<usize> = dead.iter().map(|letter| letter.job).collect();
        letters.sort_unstable();
        prop_assert_eq!(letters, expected);
        for letter in dead {
            prop_assert_eq!(letter.tries, tries);
            match letter.failure {
                Failure::Error(job) => prop_assert_eq!(job, letter.job),
                Failure::Panic(job) => prop_assert_eq!(*job.downcast::<usize>().expect("its number"), letter.job),
                Failure::Aborted => prop_assert!(false, "nobody aborts"),
            }
        }
    }
}

/// The stock of iterators is that of the depth: a tree of 100 times as many jobs holds no more at a time.
#[tokio::test(start_paused = true)]
async fn memory_is_flat_while_the_input_grows_a_hundredfold() {
    let mut peaks = Vec::new();
    for leaves in [1_000_u64, 100_000] {
        // A job of the upper half is a range of leaves, and leads to an iterator over them.
        let alive = Arc::new(());
        let (held, peak) = (alive.clone(), Arc::new(AtomicUsize::new(0)));
        let highest = peak.clone();
        let work = move |job: Option<u64>| {
            let (held, peak) = (held.clone(), highest.clone());
            async move {
                yield_now().await;
                peak.fetch_max(Arc::strong_count(&held), Relaxed);
                let follow_ups = if job.is_none() { 0..leaves } else { 0..0 };
                Ok::<_, ()>(follow_ups.map(move |leaf| {
                    let _in_stock = &held;
                    Some(leaf)
                }))
            }
        };
        assert!(worker_pool([None, None], limit(4), limit(1), work).await.is_empty());
        peaks.push(peak.load(Relaxed));
    }
    assert_eq!(peaks[0], peaks[1]);
    assert!(peaks[0] < 16, "{peaks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_on_several_threads_loses_and_doubles_nothing() {
    for round in 0..20 {
        let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..2_000).map(|_| AtomicUsize::new(0)).collect());
        let seen = counts.clone();
        let work = move |job: usize| {
            let counts = seen.clone();
            async move {
                if job.is_multiple_of(3) {
                    yield_now().await;
                }
                counts[job].fetch_add(1, Relaxed);
                if job % 100 == 99 {
                    return Err("the hundredth");
                }
                Ok([2 * job, 2 * job + 1].into_iter().filter(move |child| *child > job && *child < 2_000))
            }
        };
        let dead = tokio::spawn(worker_pool([1], limit(1 + round % 7), limit(2), work)).await.unwrap();
        assert!(dead.iter().all(|letter| letter.job % 100 == 99 && counts[letter.job].load(Relaxed) == 2));
        let ancestors = |job: usize| std::iter::successors(Some(job), |job| (*job > 1).then_some(job / 2));
        for (job, count) in counts.iter().enumerate().skip(1) {
            let dead_above = ancestors(job).skip(1).any(|job| job % 100 == 99);
            let expected = if dead_above { 0 } else { 1 + usize::from(job % 100 == 99) };
            assert_eq!(count.load(Relaxed), expected, "job {job}");
        }
    }
}

#[tokio::test]
async fn panics_of_the_input_are_the_callers_and_an_empty_input_ends() {
    let work = |_: u32| async { Ok::<_, ()>([]) };
    assert!(worker_pool([], limit(1), limit(1), work).await.is_empty());
    let input = (0..3).inspect(|item| {
        if *item == 2 {
            resume_unwind(Box::new("the input"));
        }
    });
    // The input need not be `Send` to be used on the spot.
    let call = std::panic::AssertUnwindSafe(worker_pool(input, limit(1), limit(1), work));
    assert!(futures::FutureExt::catch_unwind(call).await.is_err());
}
