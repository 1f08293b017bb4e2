//! `single_flight` is dropped at every suspension point: the work ends with the last caller, and no key stays behind.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, poll};
use locks::{NoAnswer, SingleFlight};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, timeout};

type Flights = SingleFlight<&'static str, Result<u32, &'static str>>;

async fn work(permits: Arc<Semaphore>) -> Result<u32, &'static str> {
    let _permit = permits.acquire().await;
    sleep(Duration::from_millis(2)).await;
    yield_now().await;
    Ok(7)
}

/// The only caller: the work is a child of it.
#[test]
fn cancellation_of_the_only_caller_ends_the_work() {
    let report = sweep(|parts: &Parts| {
        let (flights, permits) = (Flights::new(), Arc::new(Semaphore::new(1)));
        let (after, other, left, seen) = (flights.clone(), permits.clone(), permits.clone(), parts.clone());
        let work = parts.fallible("work", work(permits), || "injected");
        let call = async move { flights.run("key", work).await };
        Scene::new(call).alongside(async move { drop(other.acquire().await) }).returns_panics().check(
            move |ended| {
                assert_eq!((after.in_flight(), left.available_permits()), (0, 1));
                match (ended, seen.fault()) {
                    (Ended::Returned(answer), Some(Fault::Fail)) => assert_eq!(answer, Ok(Err("injected"))),
                    (Ended::Returned(answer), Some(Fault::Panic)) => {
                        assert!(matches!(answer, Err(NoAnswer::Panicked(_))), "{answer:?}");
                    }
                    (Ended::Returned(answer), None) => assert_eq!(answer, Ok(Ok(7))),
                    (Ended::Dropped, _) => {}
                    other => panic!("{other:?}"),
                }
            },
        )
    });
    assert!(report.points >= 4);
}

/// The first caller leaves at any point, and the others get the answer of the one work that there is.
#[test]
fn cancellation_of_the_first_caller_leaves_the_answer_to_the_others() {
    sweep(|_| {
        let (flights, permits) = (Flights::new(), Arc::new(Semaphore::new(1)));
        let begun = Rc::new(Cell::new(0));
        let (beside, other, after, answers) =
            (flights.clone(), permits.clone(), flights.clone(), begun.clone());
        let call = async move { flights.run("key", work(permits)).await };
        let second = async move {
            yield_now().await;
            let joined = beside.in_flight() == 1;
            let answer = beside.run("key", async move { work(other).await.map(|answer| answer + 1) }).await;
            // Its own work runs only where the first caller had not come or was gone.
            assert!(answer == Ok(Ok(8)) || joined && answer == Ok(Ok(7)), "{answer:?}");
            answers.set(answers.get() + 1);
        };
        Scene::new(call).outlived().alongside(second).check(move |_| {
            assert_eq!((begun.get(), after.in_flight()), (1, 0));
        })
    });
}

/// Callers that come and leave in any order, at any time: each that stays gets the answer of a work that ran while it waited.
#[derive(Clone, Copy, Debug)]
struct Caller {
    comes: u64,
    stays: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_of_any_callers(callers in prop::collection::vec((0..40_u64, 0..30_u64), 1..30), takes in 1..12_u64) {
        let callers: Vec<_> = callers.into_iter().map(|(comes, stays)| Caller { comes, stays }).collect();
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let alive = runtime.block_on(async {
            let (flights, start) = (SingleFlight::new(), tokio::time::Instant::now());
            let calls = callers.iter().map(async |caller| {
                sleep(Duration::from_millis(caller.comes)).await;
                let running = running.clone();
                let work = async move {
                    let begun = start.elapsed();
                    let _one = One::begin(&running);
                    sleep(Duration::from_millis(takes)).await;
                    (begun, start.elapsed())
                };
                let came = start.elapsed();
                if let Ok(answer) = timeout(Duration::from_millis(caller.stays), flights.run("key", work)).await {
                    let (begun, ended) = answer.unwrap();
                    assert_eq!((ended - begun, ended), (Duration::from_millis(takes), start.elapsed()));
                    assert!(came <= ended, "an answer of before");
                } else {
                    assert!(caller.stays <= takes);
                }
            });
            join_all(calls).await;
            // The task of the last one that left has been woken, and notices now.
            yield_now().await;
            yield_now().await;
            assert_eq!(flights.in_flight(), 0);
            Handle::current().metrics().num_alive_tasks()
        });
        prop_assert_eq!((alive, running.load(Ordering::Relaxed)), (0, 0));
    }
}

/// There is one at a time.
struct One(Arc<AtomicUsize>);

impl One {
    fn begin(running: &Arc<AtomicUsize>) -> Self {
        assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
        One(running.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Callers join and leave on two threads while works end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_on_two_threads() {
    let flights = SingleFlight::new();
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..32_usize).map(|task| {
        let (flights, begun, dropped) = (flights.clone(), begun.clone(), dropped.clone());
        tokio::spawn(async move {
            for turn in 0..1000_usize {
                let (begun, dropped) = (begun.clone(), dropped.clone());
                let work = async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let _end = Dropped(dropped);
                    for _ in 0..turn % 4 {
                        yield_now().await;
                    }
                    turn
                };
                let call = flights.run(turn % 3, work);
                if (task + turn) % 2 == 0 {
                    tokio::select! { biased; answer = call => drop(answer.unwrap()), () = yield_now() => {} }
                } else {
                    call.await.unwrap();
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    while flights.in_flight() > 0 {
        yield_now().await;
    }
    // A work that was never polled drops nothing that it holds; each that began has ended.
    while dropped.load(Ordering::Relaxed) < begun.load(Ordering::Relaxed) {
        yield_now().await;
    }
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_say_that_the_runtime_is_gone_and_the_next_call_starts_anew() {
    let flights = SingleFlight::new();
    let other = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (sender, started) = oneshot::channel();
    let mut call = {
        let _entered = other.enter();
        let mut call = Box::pin(flights.run("key", async move {
            let _ = sender.send(());
            std::future::pending::<()>().await
        }));
        assert!(poll!(&mut call).is_pending());
        call
    };
    started.await.unwrap();
    std::thread::spawn(move || drop(other)).join().unwrap();
    assert_eq!((flights.in_flight(), (&mut call).await), (0, Err(NoAnswer::Stopped)));
    assert_eq!(flights.run("key", async {}).await, Ok(()));
}

#[tokio::test]
async fn errors_when_the_runtime_of_the_call_is_gone_already() {
    let flights = SingleFlight::new();
    let other = Builder::new_current_thread().build().unwrap();
    let handle = other.handle().clone();
    other.shutdown_background();
    {
        let _entered = handle.enter();
        assert_eq!(flights.run("key", async {}).now_or_never(), Some(Err(NoAnswer::Stopped)));
    }
    assert_eq!((flights.in_flight(), flights.run("key", async {}).await), (0, Ok(())));
}

#[test]
fn panics_outside_a_runtime_and_leaves_nothing_behind() {
    let flights = SingleFlight::new();
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        flights.run("key", async {}).now_or_never()
    }));
    assert!(outside.is_err());
    assert_eq!(flights.in_flight(), 0);
}

/// Work whose drop panics, after its output and when it is deserted.
#[tokio::test(start_paused = true)]
async fn panics_of_a_drop_are_an_error_too() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            resume_unwind(Box::new("in a drop"));
        }
    }
    let flights = SingleFlight::new();
    let bad = || {
        let bad = Bad;
        async move {
            let _bad = &bad;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let panicked = Err(NoAnswer::Panicked("in a drop".into()));
    assert_eq!(flights.run("key", bad()).await, panicked);
    assert!(timeout(Duration::ZERO, flights.run("key", bad())).await.is_err());
    sleep(Duration::from_millis(5)).await;
    assert_eq!((flights.in_flight(), flights.run("key", async {}).await), (0, Ok(())));
}

/// A message that is no text, and one whose drop panics.
#[tokio::test]
async fn panics_without_a_message() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    let flights = SingleFlight::<_, ()>::new();
    let panicked = Err(NoAnswer::Panicked("no message".into()));
    assert_eq!(flights.run(1, async { resume_unwind(Box::new(5)) }).await, panicked);
    assert_eq!(flights.run(1, async { resume_unwind(Box::new(Bad)) }).await, panicked);
    assert_eq!(flights.in_flight(), 0);
}

/// The work asks for other keys, in a tree, on the same flights.
#[tokio::test(start_paused = true)]
async fn order_of_work_that_calls_for_other_keys() {
    fn sum(flights: SingleFlight<u64, u64>, n: u64) -> futures::future::BoxFuture<'static, u64> {
        async move {
            if n < 2 {
                return n;
            }
            sleep(Duration::from_millis(1)).await;
            let both = [n - 1, n - 2].map(|n| {
                let inner = flights.clone();
                flights.run(n, sum(inner, n))
            });
            join_all(both).await.into_iter().map(Result::unwrap).sum()
        }
        .boxed()
    }
    let flights = SingleFlight::new();
    assert_eq!(flights.run(30, sum(flights.clone(), 30)).await, Ok(832_040));
    assert_eq!(flights.in_flight(), 0);
}

/// Who joins gets an answer that may be from before; who makes the version part of the key does not.
#[tokio::test(start_paused = true)]
async fn order_of_a_change_while_the_work_runs() {
    let (flights, value) = (SingleFlight::new(), Arc::new(AtomicUsize::new(0)));
    let read = |version: usize| {
        let value = value.clone();
        flights.run(version, async move {
            let seen = value.load(Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
            seen
        })
    };
    let mut before = Box::pin(read(0));
    assert!(poll!(&mut before).is_pending());
    yield_now().await;
    value.store(1, Ordering::Relaxed);
    assert_eq!(tokio::join!(read(0), read(1), before), (Ok(0), Ok(1), Ok(0)));
}

/// As the documentation warns.
#[tokio::test(start_paused = true)]
async fn cancellation_never_reaches_work_that_waits_for_itself() {
    let flights = SingleFlight::<_, ()>::new();
    let inner = flights.clone();
    let work = async move { drop(inner.run(1, async {}).await) };
    assert!(timeout(Duration::from_secs(3600), flights.run(1, work)).await.is_err());
    assert_eq!(flights.in_flight(), 1);
}

/// A hundred thousand callers of one key, half of which leave.
#[tokio::test(start_paused = true)]
async fn memory_of_a_crowd() {
    let flights = SingleFlight::new();
    let end = tokio::time::Instant::now() + Duration::from_millis(10);
    let callers = (0..100_000_u64).map(|caller| {
        let flights = flights.clone();
        tokio::spawn(async move {
            let stays = Duration::from_millis(if caller % 2 == 0 { 5 } else { 60_000 });
            let work = async move {
                sleep_until(end).await;
                caller
            };
            timeout(stays, flights.run("key", work)).await.ok()
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut answers = 0;
    for caller in callers {
        let answer = caller.await.unwrap();
        assert!(matches!(answer, None | Some(Ok(0))));
        answers += usize::from(answer.is_some());
    }
    assert_eq!((answers, flights.in_flight()), (50_000, 0));
}
