//! `batch_loader`: callers are dropped at every suspension point and batches fail at every poll; nobody else feels it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use producer_consumer::{BatchLoader, LoadError};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::runtime::{Builder, Handle};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
const MS: Duration = Duration::from_millis(1);

type Loader = BatchLoader<u32, u32, &'static str>;
type Log = Arc<Mutex<Vec<Vec<u32>>>>;

/// Doubles keys in 3 ms. Each batch is the child "batch", and stands in the log.
fn doubling(parts: &Parts, keys: NonZeroUsize, batches: NonZeroUsize) -> (Loader, Log) {
    let (parts, log) = (parts.clone(), Log::default());
    let own = log.clone();
    let work = move |keys: Vec<u32>| {
        own.lock().unwrap().push(keys.clone());
        let double = async move {
            sleep(3 * MS).await;
            Ok(keys.into_iter().map(|key| (key, 2 * key)).collect())
        };
        parts.fallible("batch", double, || "failed")
    };
    (BatchLoader::new(keys, batches, work), log)
}

fn is_double(key: u32, answer: &Result<Option<u32>, Arc<LoadError<&'static str>>>) -> bool {
    matches!(answer, Ok(Some(value)) if *value == 2 * key)
}

/// The loader goes with its last caller, and with it the task and every batch.
#[test]
fn cancellation_of_all_callers_leaves_no_task_and_no_batch() {
    sweep(|parts| {
        let (parts, seen) = (parts.clone(), parts.clone());
        let call = async move {
            let (loader, log) = doubling(&parts, TWO, TWO);
            let answers = join_all((0..7).map(|key| loader.load(key))).await;
            drop(loader);
            // Its task ends when it has its next turn.
            sleep(MS).await;
            (answers, log)
        };
        Scene::new(call).returns_panics().check(move |ended| {
            let Ended::Returned((answers, log)) = ended else { return };
            let failed = answers.iter().zip(0..).filter(|(answer, key)| !is_double(*key, answer));
            let failed: Vec<u32> = failed.map(|(_, key)| key).collect();
            match seen.fault() {
                None => assert_eq!(failed, [0; 0]),
                Some(fault) => {
                    // All of one batch, and nobody else.
                    assert!(log.lock().unwrap().contains(&failed), "{fault:?}: {failed:?}");
                    for key in failed {
                        let error = answers[key as usize].as_ref().unwrap_err();
                        match fault {
                            Fault::Fail => assert!(matches!(**error, LoadError::Failed("failed"))),
                            _ => assert!(matches!(&**error, LoadError::Lost(lost) if lost.is_panic())),
                        }
                    }
                }
            }
        })
    });
}

/// One caller gives up, others go on: they have their answers, and what only the one wanted is not asked for.
#[test]
fn cancellation_of_one_caller_is_not_felt_by_others() {
    sweep(|parts| {
        let (loader, log) = doubling(parts, TWO, ONE);
        let loader = Rc::new(loader);
        let seen = parts.clone();
        let (own, answers) = (loader.clone(), Rc::new(RefCell::new(Vec::new())));
        let call = async move {
            sleep(MS).await;
            // A key that is in work already, one that another wants too, and two of its own.
            let answers = tokio::join!(own.load(0), own.load(2), own.load(100), own.load(101));
            [answers.0, answers.1, answers.2, answers.3]
        };
        let load = |after: u32, key: u32| {
            let (loader, answers) = (loader.clone(), answers.clone());
            async move {
                sleep(after * MS).await;
                let answer = loader.load(key).await;
                answers.borrow_mut().push((key, answer));
            }
        };
        Scene::new(call)
            .returns_panics()
            // The loader's task lives as long as the loader, which the others have.
            .outlived()
            .alongside(load(0, 0))
            .alongside(load(0, 1))
            .alongside(load(1, 2))
            .alongside(load(2, 3))
            .alongside(load(2, 1))
            .alongside(load(5, 4))
            .check(move |ended| {
                let (log, answers) = (log.lock().unwrap(), answers.borrow());
                assert_eq!(answers.len(), 6);
                let failed: HashSet<_> = answers
                    .iter()
                    .filter(|(key, answer)| !is_double(*key, answer))
                    .map(|(key, _)| *key)
                    .collect();
                match seen.fault() {
                    None => assert!(failed.is_empty()),
                    Some(_) => assert!(log.iter().any(|keys| failed.iter().all(|key| keys.contains(key)))),
                }
                assert!(log.iter().all(|keys| keys.len() <= 2 && keys.first() != keys.get(1)));
                if let Ended::Returned(own) = ended {
                    if seen.fault().is_none() {
                        assert!(own.iter().zip([0, 2, 100, 101]).all(|(answer, key)| is_double(key, answer)));
                    }
                    // Those who waited for key 2 shared it.
                    assert_eq!(log.iter().filter(|keys| keys.contains(&2)).count(), 1);
                }
            })
    });
}

/// A caller that gave up while its key waited is not asked for.
#[tokio::test(start_paused = true)]
async fn cancellation_takes_the_key_out_at_any_time_before_its_batch() {
    for gives_up in 0..8 {
        let (loader, log) = doubling(&Parts::default(), TWO, ONE);
        let impatient = timeout(gives_up * MS, loader.load(2));
        let late = async {
            sleep(MS).await;
            loader.load(3).await
        };
        let answers = tokio::join!(loader.load(0), loader.load(1), impatient, late);
        assert!(is_double(3, &answers.3));
        // The second batch begins at 3 ms and ends at 6. Who is first at that very moment is not what this is about.
        if ![3, 6].contains(&gives_up) {
            let expected: &[u32] = if gives_up < 3 { &[3] } else { &[2, 3] };
            assert_eq!(log.lock().unwrap()[1..], [expected], "gave up after {gives_up} ms");
            assert_eq!(answers.2.is_ok(), gives_up > 6);
        }
    }
}

/// Callers on several threads that give up at random moments: each answer is right, and the limits hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancellation_on_several_threads_mixes_up_no_answer() {
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (own_peak, wrong) = (peak.clone(), Arc::new(AtomicUsize::new(0)));
    let own_wrong = wrong.clone();
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let work = move |keys: Vec<usize>| {
        let (running, peak, wrong) = (running.clone(), own_peak.clone(), own_wrong.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
            let _running = Running(running);
            let different = keys.iter().collect::<HashSet<_>>().len();
            wrong.fetch_add(usize::from(keys.len() > 10 || different < keys.len()), Relaxed);
            turns(keys[0] % 7).await;
            match keys[0] % 5 {
                0 => Err("failed"),
                1 if keys[0].is_multiple_of(2) => resume_unwind(Box::new("panicked")),
                _ => Ok(keys.into_iter().filter(|key| key % 3 > 0).map(|key| (key, key + 1)).collect()),
            }
        }
    };
    let loader = Arc::new(BatchLoader::new(TEN, TWO, work));
    let callers: Vec<_> = (0..32_usize)
        .map(|caller| {
            let loader = loader.clone();
            tokio::spawn(async move {
                let (mut answered, mut gave_up) = (0, 0);
                for round in 0..500 {
                    let key = (caller * 31 + round * 7) % 90;
                    tokio::select! {
                        answer = loader.load(key) => match &answer {
                            Ok(value) => assert_eq!(*value, (key % 3 > 0).then_some(key + 1)),
                            Err(error) => assert!(!matches!(**error, LoadError::Stopped)),
                        },
                        () = turns(2 + round % 40) => {
                            gave_up += 1;
                            continue;
                        }
                    }
                    answered += 1;
                }
                (answered, gave_up)
            })
        })
        .collect();
    let mut all = (0, 0);
    for caller in callers {
        let (answered, gave_up) = caller.await.unwrap();
        all = (all.0 + answered, all.1 + gave_up);
    }
    assert!(all.0 > 0 && all.1 > 0, "{all:?}: the test is to have both");
    assert!(peak.load(Relaxed) <= 2 && wrong.load(Relaxed) == 0);
    drop(loader);
    while Handle::current().metrics().num_alive_tasks() > 0 {
        yield_now().await;
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// As many as there may be: all in one batch, and the loader's task gives way to others meanwhile.
#[tokio::test]
async fn backpressure_of_very_many_callers() {
    let work =
        async |keys: Vec<u32>| Ok::<HashMap<_, _>, ()>(keys.into_iter().map(|key| (key, key)).collect());
    let loader = Arc::new(BatchLoader::new(NonZeroUsize::MAX, NonZeroUsize::MAX, work));
    let own = loader.clone();
    let different = tokio::spawn(async move { join_all((0..100_000).map(|key| own.load(key))).await });
    let mut turns = 0;
    while !different.is_finished() {
        yield_now().await;
        turns += 1;
    }
    assert!(turns > 500, "a neighbour had {turns} turns during 100,000 calls");
    assert!(different.await.unwrap().into_iter().zip(0..).all(|(answer, key)| answer.unwrap() == Some(key)));
    let same = join_all((0..100_000).map(|_| loader.load(7))).await;
    assert!(same.into_iter().all(|answer| answer.unwrap() == Some(7)));
}

/// While it takes in very many calls the loader's task gives way to others.
#[tokio::test]
async fn backpressure_of_very_many_calls_leaves_neighbours_their_turn() {
    static HASHED: AtomicUsize = AtomicUsize::new(0);
    #[derive(Clone, PartialEq, Eq)]
    struct Key(usize);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            HASHED.fetch_add(1, Relaxed);
            self.0.hash(state);
        }
    }
    let begun = Arc::new(tokio::sync::Notify::new());
    let own = begun.clone();
    let work = move |_: Vec<Key>| {
        own.notify_one();
        std::future::pending::<Result<HashMap<Key, ()>, ()>>()
    };
    let loader = Arc::new(BatchLoader::new(NonZeroUsize::MAX, ONE, work));
    let mut callers = tokio::task::JoinSet::new();
    for key in 0..50_000 {
        let loader = loader.clone();
        callers.spawn(async move { loader.load(Key(key)).await.is_ok() });
    }
    let (mut longest, mut begins) = (0, std::pin::pin!(begun.notified()));
    while begins.as_mut().now_or_never().is_none() {
        let before = HASHED.load(Relaxed);
        yield_now().await;
        longest = longest.max(HASHED.load(Relaxed) - before);
    }
    // A search for those who gave up hashes each key once, and there is one at 32,768 callers.
    assert!(longest < 60_000, "{longest} keys were hashed in one turn");
}

/// Callers that are not polled hold up nobody.
#[tokio::test(start_paused = true)]
async fn backpressure_does_not_depend_on_callers_being_polled() {
    let (loader, _) = doubling(&Parts::default(), ONE, ONE);
    let mut stuck = Box::pin(loader.load(1));
    assert!(stuck.as_mut().now_or_never().is_none());
    assert!(is_double(2, &timeout(10 * MS, loader.load(2)).await.unwrap()));
    assert!(is_double(1, &stuck.now_or_never().unwrap()));
}

/// No window: a lone caller waits for its batch and for nothing else.
#[tokio::test(start_paused = true)]
async fn clock_adds_nothing_to_a_lone_call() {
    let (loader, _) = doubling(&Parts::default(), TEN, ONE);
    let start = Instant::now();
    for key in 0..5 {
        assert!(is_double(key, &loader.load(key).await));
    }
    assert_eq!(start.elapsed(), 5 * 3 * MS);
}

/// A batch whose drop panics, an answer whose clone or drop panics: the loader goes on.
#[tokio::test(start_paused = true)]
async fn panics_elsewhere_do_not_stop_the_loader() {
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 && !std::thread::panicking() {
                // Not `panic!`: the message would be printed though the panic is expected.
                resume_unwind(Box::new("dropped"));
            }
        }
    }
    impl Clone for Bomb {
        fn clone(&self) -> Self {
            resume_unwind(Box::new("cloned"));
        }
    }
    let work = async |keys: Vec<u32>| {
        let mut in_work = Bomb(keys[0] == 0);
        sleep(3 * MS).await;
        in_work.0 = false;
        Ok::<HashMap<_, _>, ()>(keys.into_iter().map(|key| (key, Bomb(key == 1))).collect())
    };
    let loader = BatchLoader::new(ONE, ONE, work);
    assert!(timeout(MS, loader.load(0)).await.is_err());
    let clone = std::panic::AssertUnwindSafe(loader.load(2)).catch_unwind().await;
    assert!(clone.is_err());
    assert!(timeout(3 * MS, loader.load(1)).await.is_err());
    sleep(MS).await;
    assert!(std::panic::AssertUnwindSafe(loader.load(3)).catch_unwind().await.is_err(), "it was cloned");
}

/// The loader's runtime is gone: those who wait and those who come are told.
#[test]
fn errors_tell_when_the_runtime_has_gone() {
    let other = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let never = |_: Vec<u32>| std::future::pending::<Result<HashMap<u32, u32>, ()>>();
    let loader = {
        let _entered = other.enter();
        BatchLoader::new(ONE, ONE, never)
    };
    Builder::new_current_thread().build().unwrap().block_on(async {
        let waiting = async { tokio::join!(loader.load(1), loader.load(2)) };
        let shutdown = async {
            while other.metrics().num_alive_tasks() < 3 {
                yield_now().await;
            }
            other.shutdown_background();
        };
        let ((one, two), ()) = tokio::join!(waiting, shutdown);
        for answer in [one, two, loader.load(3).await] {
            let error = answer.unwrap_err();
            // What its task says when that is dropped later than the batch.
            assert!(matches!(&*error, LoadError::Stopped | LoadError::Lost(_)), "{error}");
        }
        assert!(matches!(*loader.load(4).await.unwrap_err(), LoadError::Stopped));
    });
}

/// One call: when it is made, of which key, and for how long the caller waits.
type Call = (u64, u32, u64);

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any calls: right answers, no key twice in a batch, the limits hold, no batch is begun for callers that have gone, and
    /// whoever has patience is answered.
    #[test]
    fn order_and_limits_hold_for_any_calls(
        calls in prop::collection::vec((0..40_u64, 0..20_u32, 1..60_u64), 1..60),
        (keys, batches) in (1..6_usize, 1..4_usize),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let calls: Vec<Call> = calls;
        runtime.block_on(async {
            type Begun = (Instant, Vec<u32>);
            let begun: Arc<Mutex<Vec<Begun>>> = Arc::default();
            let (running, log) = (Arc::new(AtomicUsize::new(0)), begun.clone());
            struct Running(Arc<AtomicUsize>);
            impl Drop for Running {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Relaxed);
                }
            }
            let work = move |asked: Vec<u32>| {
                assert!(running.fetch_add(1, Relaxed) < batches && asked.len() <= keys);
                let guard = Running(running.clone());
                log.lock().unwrap().push((Instant::now(), asked.clone()));
                async move {
                    let _running = guard;
                    sleep(5 * MS).await;
                    Ok::<HashMap<_, _>, ()>(asked.into_iter().filter(|key| key % 4 > 0).map(|key| (key, 2 * key)).collect())
                }
            };
            let loader = BatchLoader::new(NonZeroUsize::new(keys).unwrap(), NonZeroUsize::new(batches).unwrap(), work);
            let start = Instant::now();
            let ms = Duration::from_millis;
            let made = calls.iter().map(|&(at, key, patience)| {
                let (loader, all) = (&loader, calls.len() as u64);
                async move {
                    sleep(ms(at)).await;
                    match timeout(ms(patience), loader.load(key)).await {
                        Ok(answer) => assert_eq!(answer.unwrap(), (key % 4 > 0).then_some(2 * key)),
                        // Nobody waits longer than all batches of all calls take.
                        Err(_) => assert!(patience <= 5 * all + 5),
                    }
                }
            });
            join_all(made).await;
            for (at, asked) in begun.lock().unwrap().iter() {
                assert_eq!(asked.iter().collect::<HashSet<_>>().len(), asked.len());
                for key in asked {
                    let wanted = |&(from, own, patience): &Call| {
                        own == *key && start + ms(from) <= *at && *at <= start + ms(from + patience)
                    };
                    assert!(calls.iter().any(wanted), "{key} was asked for, and nobody wanted it");
                }
            }
        });
    }
}
