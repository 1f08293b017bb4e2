//! `watchdog`: watched futures are dropped at every point, and a model says what every check must report.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use blocking::{Checks, Stall, Watchdog};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn cancellation_errors_and_panics_at_every_point() {
    sweep(|parts| {
        let (watchdog, start) = (Watchdog::new(SECOND), Instant::now());
        let (inside, after) = (watchdog.clone(), watchdog.clone());
        let permits = Arc::new(Semaphore::new(1));
        let (own, other) = (permits.clone(), permits.clone());
        let parts = parts.clone();
        // Every poll of the outer future is a stall: it ends two checks after it has begun.
        let turns = Rc::new(AtomicUsize::new(0));
        let call = async move {
            let check = inside.clone();
            let work = async move {
                for turn in 0..3_u32 {
                    let _permit = own.acquire().await;
                    check.check(start + 10 * turn * SECOND);
                    let stalled = check.check(start + (10 * turn + 5) * SECOND);
                    assert!(stalled.iter().any(|stall| stall.name == "work" && !stall.over));
                    turns.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            };
            inside.watch("work", parts.fallible("inner", work, || "injected")).await
        };
        let alongside = async move { drop(other.acquire().await) };
        Scene::new(call).alongside(alongside).check(move |ended| {
            // What was reported is reported as over, and nothing is left.
            after.check(start + 100 * SECOND);
            assert!(after.check(start + 200 * SECOND).is_empty());
            assert!(format!("{after:?}").contains("{}"), "{after:?}");
            assert_eq!(permits.available_permits(), 1);
            if let Ended::Returned(result) = ended {
                assert!(result.is_ok() || result == Err("injected"));
            }
        })
    });
}

#[tokio::test]
async fn cancellation_of_a_stalled_future_still_reports_its_end() {
    let (watchdog, start) = (Watchdog::new(SECOND), Instant::now());
    let at = |seconds| watchdog.check(start + seconds * SECOND);
    let mut future = Box::pin(watchdog.watch(String::from("stuck"), async {
        at(1);
        assert_eq!(at(2)[0].took, SECOND);
        std::future::pending::<()>().await;
    }));
    assert!(futures::poll!(&mut future).is_pending());
    drop(future);
    assert_eq!(at(9), [Stall { name: "stuck".into(), took: 8 * SECOND, over: true }]);
    assert!(at(10).is_empty());
}

#[test]
fn clock_may_run_backwards_and_limits_may_be_extreme() {
    let now = Instant::now();
    for limit in [Duration::ZERO, Duration::MAX] {
        let watchdog = Watchdog::new(limit);
        let same = watchdog.clone();
        let mut future = Box::pin(watchdog.watch("extreme", async move {
            same.check(now + SECOND);
            same.check(now)
        }));
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let expected = usize::from(limit == Duration::ZERO);
        assert!(polled.map(|stalls| assert_eq!(stalls.len(), expected)).is_ready());
        watchdog.start(|_| ()).unwrap().stop().unwrap();
    }
}

/// A report that watches, checks and drops the handle of its own checks.
#[test]
fn order_a_report_may_use_the_watchdog() {
    let watchdog = Watchdog::new(Duration::ZERO);
    let handle: Arc<Mutex<Option<Checks>>> = Arc::default();
    let (again, own) = (watchdog.clone(), handle.clone());
    let (sender, reports) = mpsc::channel();
    let report = move |stall: Stall| {
        drop(again.watch("again", std::future::ready(())));
        again.check(Instant::now());
        drop(own.lock().unwrap().take());
        let _ = sender.send(stall.name);
    };
    let mut starting = handle.lock().unwrap();
    *starting = Some(watchdog.start(report).unwrap());
    drop(starting);
    let mut blocks = Box::pin(watchdog.watch("blocks", async { reports.iter().next() }));
    let polled = blocks.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.map(|name| assert_eq!(name.unwrap(), "blocks")).is_ready());
    assert!(reports.iter().next().is_none(), "the thread has ended, and with it the report");
    assert!(handle.lock().unwrap().is_none());
}

/// Wherever the workers are, the one that is stuck is named. The facts decide: it blocks until it was reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_task_among_many() {
    let watchdog = Watchdog::new(Duration::from_millis(1));
    let (sender, reports) = mpsc::channel();
    let mut checks = watchdog.start(move |stall| _ = sender.send(stall)).unwrap();
    let busy: Vec<_> = (0..100)
        .map(|number| {
            tokio::spawn(watchdog.watch(format!("task {number}"), async { tokio::task::yield_now().await }))
        })
        .collect();
    let stuck = watchdog.watch("stuck", async move {
        while !reports.iter().any(|stall| stall.name == "stuck" && !stall.over) {}
        reports
    });
    let reports = tokio::spawn(stuck).await.unwrap();
    for task in busy {
        task.await.unwrap();
    }
    let over =
        tokio::task::spawn_blocking(move || reports.iter().any(|stall| stall.name == "stuck" && stall.over));
    assert!(over.await.unwrap());
    checks.stop().unwrap();
}

#[test]
fn memory_of_a_hundred_thousand_futures_made_and_dropped_on_two_threads() {
    let (watchdog, begin) = (Watchdog::new(SECOND), Barrier::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                begin.wait();
                let futures: Vec<_> = (0..50_000)
                    .map(|number| watchdog.watch(number.to_string(), std::future::pending::<()>()))
                    .collect();
                assert!(watchdog.check(Instant::now()).is_empty());
                drop(futures);
            });
        }
    });
    assert!(format!("{watchdog:?}").contains("{}"));
}

type Watched = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A poll within which so many checks are made, each a second later.
    Poll(u32),
    Drop,
    /// A check between polls.
    Check,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every stall is reported once while it lasts and once when it is over, with the time that its checks have seen.
    #[test]
    fn errors_of_any_history(
        acts in prop::collection::vec(
            (0..3_usize, prop_oneof![4 => (0..6_u32).prop_map(Act::Poll), 1 => Just(Act::Drop), 2 => Just(Act::Check)]),
            0..40,
        ),
        limit in 0..4_u32,
    ) {
        let (watchdog, start) = (Watchdog::new(limit * SECOND), Instant::now());
        let clock = Rc::new(std::cell::Cell::new(0));
        let found = Rc::new(std::cell::RefCell::new(Vec::new()));
        let check = {
            let (watchdog, clock, found) = (watchdog.clone(), clock.clone(), found.clone());
            move || {
                clock.set(clock.get() + 1);
                let stalls = watchdog.check(start + clock.get() * SECOND);
                found.borrow_mut().extend(stalls.into_iter().map(|stall| (stall.name.to_string(), stall.took.as_secs(), stall.over)));
            }
        };
        let checks = Rc::new(std::cell::Cell::new(0));
        let make = |number: usize| -> Watched {
            let (check, checks) = (check.clone(), checks.clone());
            let inner = std::future::poll_fn(move |_| {
                (0..checks.get()).for_each(|_| check());
                std::task::Poll::Pending
            });
            Box::pin(watchdog.watch(number.to_string(), inner))
        };
        let mut futures: Vec<Watched> = (0..3).map(make).collect();
        let mut expected = Vec::new();
        // The future whose stall was reported and not yet as over, and since when it lasts. The next check ends it.
        let mut open: Option<(usize, u32)> = None;
        for (number, act) in acts {
            let over = |open: &mut Option<(usize, u32)>, now: u32| {
                open.take().map(|(number, since)| (number, u64::from(now - since), true))
            };
            match act {
                Act::Check => {
                    check();
                    expected.extend(over(&mut open, clock.get()));
                }
                Act::Drop => futures[number] = make(number),
                Act::Poll(count) => {
                    let begun = clock.get() + 1;
                    checks.set(count);
                    let polled = futures[number].as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    prop_assert!(polled.is_pending());
                    if count > 0 {
                        expected.extend(over(&mut open, begun));
                    }
                    // The first check sees the poll, the second can tell that it is the same one.
                    if count > limit.max(1) {
                        expected.push((number, u64::from(limit.max(1)), false));
                        open = Some((number, begun));
                    }
                }
            }
        }
        let found: Vec<_> = found.borrow().iter().map(|(name, took, over)| (name.parse::<usize>().unwrap(), *took, *over)).collect();
        prop_assert_eq!(found, expected);
    }
}
