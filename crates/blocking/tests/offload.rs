//! `offload`: calls are dropped at every point; no place, no panic and no output is lost, whatever the threads do.

use std::any::Any;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use blocking::{Caller, NotRun, Offload};
use futures::FutureExt;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

fn offload(limit: usize) -> Offload {
    Offload::new(NonZeroUsize::new(limit).expect("tests use a limit above zero"))
}

/// What became of pieces of work. Blocking work counts as no task, so it counts itself.
#[derive(Default)]
struct Ledger {
    begun: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
    /// Outputs that exist.
    outputs: AtomicUsize,
}

struct Output(Arc<Ledger>);

impl Drop for Output {
    fn drop(&mut self) {
        self.0.outputs.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ledger {
    /// Works until it is told to end, or nobody wants it any more.
    fn work<E: Fn() -> bool>(self: &Arc<Self>, end: E) -> impl FnOnce(&Caller) -> Output + use<E> {
        let ledger = self.clone();
        move |caller: &Caller| {
            ledger.begun.fetch_add(1, Ordering::SeqCst);
            let running = ledger.running.fetch_add(1, Ordering::SeqCst) + 1;
            ledger.peak.fetch_max(running, Ordering::SeqCst);
            while !end() && !caller.is_gone() {
                std::thread::yield_now();
            }
            ledger.running.fetch_sub(1, Ordering::SeqCst);
            ledger.outputs.fetch_add(1, Ordering::SeqCst);
            Output(ledger)
        }
    }
}

/// Two calls one after the other, while a bystander takes the only place for 3 ms and another wants it afterwards.
#[test]
fn cancellation_at_every_point() {
    let report = sweep(|_| {
        let (offload, ledger) = (offload(1), Arc::new(Ledger::default()));
        let [subject, first, last] = [(); 3].map(|()| offload.clone());
        let (work, checked) = (ledger.clone(), ledger.clone());
        let call = async move {
            for _ in 0..2 {
                drop(subject.run(work.work(|| true)).await.expect("the runtime lives"));
            }
        };
        let holds_it = async move {
            let released = Arc::new(AtomicBool::new(false));
            let end = released.clone();
            let work = move |_: &Caller| while !end.load(Ordering::SeqCst) {};
            let mut call = pin!(first.run(work));
            assert!(futures::poll!(&mut call).is_pending());
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            released.store(true, Ordering::SeqCst);
            call.await.expect("the runtime lives");
        };
        let wants_it = async move {
            sleep(Duration::from_millis(1)).await;
            last.drain().await.expect("nothing panics");
            assert_eq!(last.run(|_| 7).await, Ok(7));
        };
        Scene::new(call).alongside(holds_it).alongside(wants_it).check(move |ended| {
            assert_eq!(ledger.running.load(Ordering::SeqCst), 0);
            assert_eq!(ledger.outputs.load(Ordering::SeqCst), 0);
            if let Ended::Returned(()) = ended {
                assert_eq!(checked.begun.load(Ordering::SeqCst), 2);
            }
        })
    });
    assert!(report.points >= 3, "{report:?}");
}

/// The drain itself is dropped everywhere: it must give back what it has gathered.
#[test]
fn cancellation_of_drain_at_every_point() {
    sweep(|_| {
        let (offload, ledger) = (offload(2), Arc::new(Ledger::default()));
        let [subject, running, after] = [(); 3].map(|()| offload.clone());
        let (work, checked) = (ledger.clone(), ledger.clone());
        let call = async move { subject.drain().await.is_ok() };
        let runs = async move {
            let turns = Arc::new(AtomicUsize::new(0));
            let seen = turns.clone();
            let mut call = pin!(running.run(work.work(move || seen.load(Ordering::SeqCst) > 4)));
            while futures::poll!(&mut call).is_pending() {
                turns.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        };
        let comes_later = async move {
            tokio::task::yield_now().await;
            assert_eq!(after.run(|_| 7).await, Ok(7));
        };
        Scene::new(call).alongside(runs).alongside(comes_later).check(move |ended| {
            assert_eq!(checked.outputs.load(Ordering::SeqCst), 0);
            assert_eq!(ledger.running.load(Ordering::SeqCst), 0);
            if let Ended::Returned(well) = ended {
                assert!(well);
            }
        })
    });
}

/// Wherever a call is dropped whose work panics, the panic is the caller's or that of `drain`.
#[test]
fn panics_are_never_lost() {
    sweep(|_| {
        let offload = offload(1);
        let subject = offload.clone();
        let (begun, heard) = (Arc::new(AtomicUsize::new(0)), Rc::new(AtomicUsize::new(0)));
        let (counted, by_caller, by_drain) = (begun.clone(), heard.clone(), heard.clone());
        let call = async move {
            let work = move |_: &Caller| {
                counted.fetch_add(1, Ordering::SeqCst);
                resume_unwind(Box::new("refused"))
            };
            let call: Result<Result<(), NotRun>, _> =
                AssertUnwindSafe(subject.run(work)).catch_unwind().await;
            by_caller.fetch_add(usize::from(call.is_err()), Ordering::SeqCst);
        };
        let owner = async move {
            sleep(Duration::from_secs(1)).await;
            let drained = offload.drain().await;
            by_drain.fetch_add(usize::from(drained.is_err()), Ordering::SeqCst);
        };
        Scene::new(call).alongside(owner).check(move |_| {
            assert_eq!(begun.load(Ordering::SeqCst), heard.load(Ordering::SeqCst));
        })
    });
}

/// Work is under way when its call is dropped: it keeps its place, so nobody else begins, and it sees that it is not wanted.
#[tokio::test]
async fn cancellation_work_under_way_keeps_its_place() {
    let (offload, ledger) = (offload(1), Arc::new(Ledger::default()));
    for _ in 0..100 {
        let both = Arc::new(Barrier::new(2));
        let (started, inner) = (both.clone(), ledger.work(|| false));
        let mut call = Box::pin(offload.run(move |caller| {
            started.wait();
            inner(caller)
        }));
        assert!(futures::poll!(&mut call).is_pending());
        spawn_blocking(move || _ = both.wait()).await.unwrap();
        drop(call);
        // It waits for the place that the work still has.
        offload.run(ledger.work(|| true)).await.unwrap();
    }
    assert_eq!(ledger.peak.load(Ordering::SeqCst), 1);
    offload.drain().await.unwrap();
    assert_eq!(ledger.outputs.load(Ordering::SeqCst), 0);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

/// What nobody takes is dropped on the thread of the work, and a panic of that drop is kept too.
#[tokio::test]
async fn panics_of_an_output_that_nobody_takes() {
    let offload = offload(1);
    let (started, running) = oneshot::channel();
    let work = |caller: &Caller| {
        let _ = started.send(());
        while !caller.is_gone() {}
        PanicsWhenDropped
    };
    drop_when(offload.run(work), running).await;
    assert_eq!(offload.drain().await.unwrap_err().downcast_ref(), Some(&"dropped"));
    assert_eq!(offload.run(|_| 7).await, Ok(7));
}

/// Polls `call` until `event`, and drops it.
async fn drop_when<T>(call: impl Future<Output = T>, event: oneshot::Receiver<()>) {
    let (mut call, mut event) = (Box::pin(call), pin!(event));
    poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending());
        event.as_mut().poll(context)
    })
    .await
    .expect("the work begins");
}

#[test]
fn errors_when_the_runtime_was_shut_down() {
    let offload = offload(1);
    let runtime = Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let entered = handle.enter();
    let mut context = Context::from_waker(Waker::noop());
    let mut call = Box::pin(offload.run(|_| panic!("the runtime was shut down")));
    assert_eq!(call.as_mut().poll(&mut context), Poll::Ready(Err::<(), _>(NotRun)));
    drop((entered, call));
    // The place is back.
    let other = Builder::new_current_thread().build().unwrap();
    assert_eq!(other.block_on(offload.run(|_| 7)), Ok(7));
}

#[test]
fn clock_stands_still_while_work_runs() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let mut timer = pin!(sleep(Duration::from_secs(60)));
        assert!(futures::poll!(&mut timer).is_pending());
        assert_eq!(offload(1).run(|_| std::thread::yield_now()).await, Ok(()));
        assert_eq!(start.elapsed(), Duration::ZERO);
        timer.await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_backpressure_of_a_hundred_thousand_calls() {
    let (offload, ledger) = (offload(3), Arc::new(Ledger::default()));
    let calls: Vec<_> = (0..100_000)
        .map(|number| {
            let (offload, ledger) = (offload.clone(), ledger.clone());
            let call = tokio::spawn(async move { offload.run(ledger.work(|| true)).await.is_ok() });
            if number % 3 == 0 {
                call.abort();
            }
            call
        })
        .collect();
    let mut ended = 0;
    for call in calls {
        ended += usize::from(call.await.unwrap_or(false));
    }
    offload.drain().await.unwrap();
    assert!(ended >= 66_666);
    assert!(ledger.peak.load(Ordering::SeqCst) <= 3);
    assert_eq!(ledger.outputs.load(Ordering::SeqCst), 0);
    assert_eq!(ledger.running.load(Ordering::SeqCst), 0);
}

/// The closure's own call, made from inside the work.
#[tokio::test]
async fn order_work_may_call_when_there_is_another_place() {
    let offload = offload(2);
    let again = offload.clone();
    let runtime = tokio::runtime::Handle::current();
    assert_eq!(offload.run(move |_| runtime.block_on(again.run(|_| 7))).await, Ok(Ok(7)));
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Awaited,
    DroppedAtOnce,
    Panics,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any calls with any limit: never more than the limit at a time, each that is awaited ends, in the order of the calls
    /// where there is one place, and all is empty at the end.
    #[test]
    fn order_and_memory_of_any_calls(
        fates in prop::collection::vec(prop_oneof![Just(Fate::Awaited), Just(Fate::DroppedAtOnce), Just(Fate::Panics)], 0..30),
        limit in 1..5_usize,
    ) {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (offload, ledger) = (offload(limit), Arc::new(Ledger::default()));
        let order = Arc::new(Mutex::new(Vec::new()));
        runtime.block_on(async {
            let mut awaited = Vec::new();
            for (number, fate) in fates.iter().copied().enumerate() {
                let (inner, order) = (ledger.work(|| true), order.clone());
                let work = move |caller: &Caller| {
                    order.lock().unwrap().push(number);
                    let output = inner(caller);
                    if matches!(fate, Fate::Panics) {
                        resume_unwind(Box::new(number));
                    }
                    output
                };
                let call = AssertUnwindSafe(offload.run(work)).catch_unwind();
                let mut call = futures::future::maybe_done(Box::pin(call));
                _ = futures::poll!(&mut call);
                if !matches!(fate, Fate::DroppedAtOnce) {
                    awaited.push((number, call));
                }
            }
            for (number, call) in awaited {
                let mut call = std::pin::pin!(call);
                call.as_mut().await;
                match call.take_output().expect("it was awaited") {
                    Ok(output) => assert!(output.is_ok()),
                    Err(panic) => assert_eq!(panic.downcast_ref(), Some(&number)),
                }
            }
            assert!(offload.drain().await.is_ok());
        });
        prop_assert!(ledger.peak.load(Ordering::SeqCst) <= limit);
        prop_assert_eq!(ledger.outputs.load(Ordering::SeqCst), 0);
        if limit == 1 {
            prop_assert!(order.lock().unwrap().is_sorted());
        }
    }
}

/// A payload whose drop panics does no harm to the next call.
#[tokio::test]
async fn panics_with_a_payload_that_panics() {
    let offload = offload(1);
    for _ in 0..2 {
        let (started, running) = oneshot::channel();
        let work = |caller: &Caller| {
            let _ = started.send(());
            while !caller.is_gone() {}
            resume_unwind(Box::new(PanicsWhenDropped))
        };
        let call = async { offload.run(work).await.map(|never: ()| never) };
        drop_when(call, running).await;
        assert_eq!(offload.run(|_| 7).await, Ok(7));
    }
    let kept: Box<dyn Any + Send> = offload.drain().await.unwrap_err();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(kept))).is_err());
}
