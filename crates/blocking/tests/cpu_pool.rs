//! `cpu_pool`: calls are dropped at every point while rayon's threads work; nothing is lost, and nothing ends the process.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use blocking::{Caller, CpuPool, NotRun, cpu_pool};
use futures::FutureExt;
use proptest::prelude::*;
use rayon::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::spawn_blocking;

fn pool(threads: usize, limit: usize) -> CpuPool {
    let [threads, limit] = [threads, limit].map(|n| NonZeroUsize::new(n).expect("above zero"));
    cpu_pool(threads, limit).expect("threads can be had")
}

/// Holds the paused clock while it lives: the runtime does not know of rayon's threads, and would let time pass.
struct HoldsClock {
    _end: mpsc::Sender<()>,
}

impl HoldsClock {
    fn new() -> Self {
        let (end, ended) = mpsc::channel();
        drop(spawn_blocking(move || ended.iter().for_each(|()| ())));
        HoldsClock { _end: end }
    }
}

#[test]
fn cancellation_at_every_point() {
    let report = sweep(|_| {
        let pool = pool(1, 2);
        let [subject, beside, last] = [(); 3].map(|()| pool.clone());
        let running = Arc::new(AtomicUsize::new(0));
        let (counted, outputs) = (running.clone(), Arc::new(()));
        let output = outputs.clone();
        let call = async move {
            let _clock = HoldsClock::new();
            for _ in 0..2 {
                let (running, output) = (counted.clone(), output.clone());
                let work = move |_: &Caller| {
                    running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    output
                };
                drop(subject.run(work).await);
            }
        };
        let uses_it = async move {
            let _clock = HoldsClock::new();
            let calls = (0..4).map(|number| {
                let pool = beside.clone();
                async move { assert_eq!(pool.run(move |_| number).await, Ok(number)) }
            });
            futures::future::join_all(calls).await;
            last.drain().await.expect("nothing panics");
        };
        let after = async move {
            let _clock = HoldsClock::new();
            tokio::task::yield_now().await;
            pool.drain().await.expect("nothing panics");
        };
        Scene::new(call).alongside(uses_it).alongside(after).check(move |ended| {
            if let Ended::Returned(()) = ended {
                assert_eq!(running.load(Ordering::SeqCst), 0);
                assert_eq!(Arc::strong_count(&outputs), 1);
            }
        })
    });
    assert!(report.points >= 4, "{report:?}");
}

#[test]
fn panics_are_never_lost() {
    sweep(|_| {
        let pool = pool(1, 1);
        let subject = pool.clone();
        let (begun, heard) = (Arc::new(AtomicUsize::new(0)), Rc::new(AtomicUsize::new(0)));
        let (counted, by_caller, by_drain) = (begun.clone(), heard.clone(), heard.clone());
        let call = async move {
            let _clock = HoldsClock::new();
            let work = move |_: &Caller| {
                counted.fetch_add(1, Ordering::SeqCst);
                resume_unwind(Box::new("refused"))
            };
            let call: Result<Result<(), NotRun>, _> =
                AssertUnwindSafe(subject.run(work)).catch_unwind().await;
            by_caller.fetch_add(usize::from(call.is_err()), Ordering::SeqCst);
        };
        let owner = async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let _clock = HoldsClock::new();
            let drained = pool.drain().await;
            by_drain.fetch_add(usize::from(drained.is_err()), Ordering::SeqCst);
        };
        Scene::new(call).alongside(owner).check(move |_| {
            assert_eq!(begun.load(Ordering::SeqCst), heard.load(Ordering::SeqCst));
        })
    });
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

/// Rayon would end the process.
#[tokio::test]
async fn panics_in_the_drop_of_a_capture_or_an_output() {
    let pool = pool(1, 2);
    for _ in 0..50 {
        let mut call = Box::pin(pool.run(|caller| {
            while !caller.is_gone() {}
            PanicsWhenDropped
        }));
        assert!(futures::poll!(&mut call).is_pending());
        let captured = PanicsWhenDropped;
        let mut queued = Box::pin(pool.run(move |_| drop(captured)));
        assert!(futures::poll!(&mut queued).is_pending());
        drop(queued);
        drop(call);
        assert!(pool.drain().await.is_err());
    }
    assert_eq!(pool.run(|_| 7).await, Ok(7));
}

/// No runtime, and the last clone dropped while work is queued.
#[test]
fn cancellation_of_the_pool_itself_ends_nothing() {
    let pool = pool(1, 9);
    let (sender, receiver) = mpsc::channel();
    let mut calls: Vec<_> = (0..9)
        .map(|number| {
            let (pool, sender) = (pool.clone(), sender.clone());
            async move { pool.run(move |_| sender.send(number)).await }.boxed()
        })
        .collect();
    drop((pool, sender));
    for call in &mut calls {
        assert!(matches!(
            call.poll_unpin(&mut Context::from_waker(Waker::noop())),
            Poll::Pending | Poll::Ready(Ok(Ok(())))
        ));
    }
    assert!(receiver.iter().take(9).eq(0..9));
    drop(calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_of_many_calls_from_several_threads() {
    let (pool, inside) = (pool(2, 3), Arc::new(AtomicUsize::new(0)));
    let calls: Vec<_> = (0..20_000_u64)
        .map(|number| {
            let (pool, inside) = (pool.clone(), inside.clone());
            let call = tokio::spawn(async move {
                let work = move |_: &Caller| {
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    number
                };
                pool.run(work).await
            });
            if number % 5 == 0 {
                call.abort();
            }
            call
        })
        .collect();
    let mut ended = 0;
    for (number, call) in (0..).zip(calls) {
        match call.await {
            Ok(output) => {
                assert_eq!(output, Ok(number));
                ended += 1;
            }
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    assert!(ended >= 16_000);
    pool.drain().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many small jobs in one call: the same as one after the other, in order, on any pool.
    #[test]
    fn order_of_a_parallel_map(numbers in prop::collection::vec(any::<u32>(), 0..500), threads in 1..4_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expected: Vec<_> = numbers.iter().map(|number| number.rotate_left(7)).collect();
        let pool = pool(threads, 1);
        let map = pool.run(move |_| numbers.par_iter().map(|number| number.rotate_left(7)).collect());
        let mapped: Result<Vec<_>, NotRun> = runtime.block_on(map);
        prop_assert_eq!(mapped, Ok(expected));
    }
}
