//! The reaper beyond its own tests: every point of cancellation, the end of its runtime, other threads, any order of drops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_managers::{Counts, Fault, Limits, Reaped, Reaper};
use proptest::prelude::*;
use support::sweep::{Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

fn limits(capacity: usize, at_once: usize) -> Limits {
    let [capacity, at_once] = [capacity, at_once].map(|n| NonZeroUsize::new(n).unwrap());
    Limits { capacity, at_once, each: 50 * MS }
}

/// A reaper that counts what it cleans up.
fn counting(limits: Limits, cleaned: &Arc<AtomicUsize>) -> Arc<Reaper<usize>> {
    let cleaned = cleaned.clone();
    let cleanup = move |number: usize| {
        let cleaned = cleaned.clone();
        async move {
            sleep(5 * MS).await;
            cleaned.fetch_add(number, Ordering::Relaxed);
            Ok::<_, ()>(())
        }
    };
    Arc::new(Reaper::new(limits, cleanup, |name: &str, fault: Fault<()>| panic!("{name}: {fault:?}")))
}

/// The subject reserves, guards and works; wherever it is dropped, what it guarded is cleaned up once, and the other user of
/// the only place comes to its turn.
fn scene(_: &Parts) -> Scene<()> {
    let (cleaned, guarded) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let (sum, begun) = (cleaned.clone(), guarded.clone());
    // Made by the first who runs: the scene is built outside the runtime.
    let reaper = Arc::new(tokio::sync::OnceCell::<Arc<Reaper<usize>>>::new());
    let (own, other) = (reaper.clone(), reaper.clone());
    let (counted, counted_too) = (cleaned.clone(), cleaned.clone());
    let subject = async move {
        let reaper = own.get_or_init(async || counting(limits(1, 1), &counted)).await;
        for _ in 0..2 {
            let place = reaper.reserve().await.unwrap();
            let _guard = place.guard("subject", 1);
            guarded.fetch_add(1, Ordering::Relaxed);
            sleep(3 * MS).await;
        }
    };
    let bystander = async move {
        let reaper = other.get_or_init(async || counting(limits(1, 1), &counted_too)).await;
        for _ in 0..2 {
            let _guard = reaper.reserve().await.unwrap().guard("bystander", 100);
            sleep(MS).await;
        }
    };
    let end = reaper.clone();
    let drained = async move {
        sleep(60_000 * MS).await;
        let counts = end.get().unwrap().drain().await;
        assert_eq!((counts.alive, counts.pending), (0, 0));
    };
    Scene::new(subject)
        .alongside(bystander)
        .alongside(drained)
        .outlived()
        .check(move |_| assert_eq!(sum.load(Ordering::Relaxed), 200 + begun.load(Ordering::Relaxed)))
}

#[test]
fn cancellation_of_reserve_and_of_the_holder() {
    sweep(scene);
}

/// `drain` is dropped at each of its points, while guards are alive and cleanups wait; the next call ends well.
#[test]
fn cancellation_of_drain() {
    sweep(|_| {
        let cleaned = Arc::<AtomicUsize>::default();
        let (counted, sum) = (cleaned.clone(), cleaned);
        let reaper = Arc::new(tokio::sync::OnceCell::<Arc<Reaper<usize>>>::new());
        let again = reaper.clone();
        let subject = async move {
            let reaper = reaper.get_or_init(async || counting(limits(3, 1), &counted)).await;
            for number in [1, 10] {
                drop(reaper.reserve().await.unwrap().guard("dropped", number));
            }
            let held = reaper.reserve().await.unwrap().guard("held", 100);
            drop(tokio::spawn(async move {
                sleep(8 * MS).await;
                drop(held);
            }));
            assert_eq!(reaper.drain().await, Counts { cleaned: 3, ..Counts::default() });
        };
        let other = async move {
            sleep(60_000 * MS).await;
            if let Some(reaper) = again.get() {
                let counts = reaper.drain().await;
                assert_eq!((counts.alive, counts.pending), (0, 0));
            }
        };
        Scene::new(subject).alongside(other).outlived().check(move |ended| {
            if matches!(ended, support::sweep::Ended::Returned(())) {
                assert_eq!(sum.load(Ordering::Relaxed), 111);
            }
        })
    });
}

struct Canary(Arc<AtomicUsize>);

impl Drop for Canary {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The runtime goes away with one cleanup under way, one waiting and one guard alive: each resource is dropped, none
/// cleaned up, and all stay counted.
#[test]
fn cancellation_by_the_end_of_the_runtime() {
    let dropped = Arc::<AtomicUsize>::default();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let cleanup = async |_canary: Canary| std::future::pending::<Result<(), ()>>().await;
    let entered = runtime.enter();
    let limits = Limits { each: Duration::MAX, ..limits(3, 1) };
    let reaper = Reaper::new(limits, cleanup, |_, _| panic!("nobody is there to report"));
    let guard = || runtime.block_on(reaper.reserve()).unwrap().guard("canary", Canary(dropped.clone()));
    let alive = (guard(), guard(), guard());
    drop((alive.0, alive.1));
    runtime.block_on(sleep(MS));
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    drop(entered);
    drop(runtime);
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    assert_eq!(reaper.counts(), Counts { alive: 1, pending: 2, ..Counts::default() });
    drop(alive.2);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
    let counts = Counts { pending: 3, ..Counts::default() };
    let other = Builder::new_current_thread().build().unwrap();
    assert!(other.block_on(reaper.reserve()).is_none(), "it takes nothing that it could not clean up");
    assert_eq!(other.block_on(reaper.drain()), counts);
}

/// Nobody drains it: the task ends when reaper and guards are gone, after the last cleanup.
#[tokio::test(start_paused = true)]
async fn cancellation_by_dropping_the_reaper_leaves_no_task() {
    let cleaned = Arc::<AtomicUsize>::default();
    let reaper = counting(limits(3, 1), &cleaned);
    let guards =
        [reaper.reserve().await.unwrap().guard("a", 1), reaper.reserve().await.unwrap().guard("b", 1)];
    drop(reaper);
    sleep(MS).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
    drop(guards);
    sleep(20 * MS).await;
    assert_eq!(cleaned.load(Ordering::Relaxed), 2);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

/// A guard dropped by a panic, and a guard inside of a guard.
#[tokio::test(start_paused = true)]
async fn panics_of_the_holder_clean_up() {
    let cleaned = Arc::<AtomicUsize>::default();
    let reaper = counting(limits(3, 3), &cleaned);
    let guard = reaper.reserve().await.unwrap().guard("held", 7);
    let holder = tokio::spawn(async move {
        let _guard = guard;
        std::panic::resume_unwind(Box::new("boom"));
    });
    assert!(holder.await.unwrap_err().is_panic());
    assert_eq!(reaper.drain().await.cleaned, 1);
    assert_eq!(cleaned.load(Ordering::Relaxed), 7);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("dropped"));
    }
}

/// A cleanup that is given up at its limit, and whose drop panics, and a resource that panics when it is dropped.
#[tokio::test(start_paused = true)]
async fn panics_in_drops_of_a_cleanup_are_faults() {
    let cleanup = |late: bool| async move {
        let _bomb = PanicsWhenDropped;
        if late {
            std::future::pending::<()>().await;
        }
        Ok::<_, ()>(())
    };
    let names = Arc::<Mutex<Vec<String>>>::default();
    let told = names.clone();
    let report = move |name: &str, fault: Fault<()>| {
        assert!(matches!(fault, Fault::Panicked(_)), "{fault:?}");
        told.lock().unwrap().push(name.into());
    };
    let reaper = Reaper::new(limits(2, 2), cleanup, report);
    for (name, late) in [("late", true), ("soon", false)] {
        drop(reaper.reserve().await.unwrap().guard(name, late));
    }
    assert_eq!(reaper.drain().await, Counts { panicked: 2, ..Counts::default() });
    assert_eq!(*names.lock().unwrap(), ["soon", "late"]);
}

/// A cleanup that guards something itself, with the same reaper.
#[tokio::test(start_paused = true)]
async fn backpressure_inside_of_a_cleanup() {
    let cell = Arc::new(std::sync::OnceLock::<std::sync::Weak<Reaper<u32>>>::new());
    let own = cell.clone();
    let cleanup = move |depth: u32| {
        let reaper = own.get().and_then(std::sync::Weak::upgrade);
        async move {
            if let (Some(reaper), 1..) = (reaper, depth) {
                drop(reaper.reserve().await.ok_or("closed")?.guard("inner", depth - 1));
            }
            Ok::<_, &str>(())
        }
    };
    let reaper = Arc::new(Reaper::new(limits(2, 1), cleanup, |_, _| ()));
    cell.set(Arc::downgrade(&reaper)).unwrap();
    drop(reaper.reserve().await.unwrap().guard("outer", 5));
    sleep(MS).await;
    assert_eq!(reaper.counts(), Counts { cleaned: 6, ..Counts::default() });
    // With one place it would wait for itself, and the limit of the cleanup ends that.
    drop(reaper.reserve().await.unwrap().guard("outer", 1));
    let _kept = reaper.reserve().await.unwrap();
    sleep(100 * MS).await;
    assert_eq!(reaper.counts().pending, 0);
}

/// Guards are made and dropped on several threads, also outside the runtime, while it drains in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_order_on_several_threads() {
    for _ in 0..100 {
        let cleaned = Arc::<AtomicUsize>::default();
        let counted = cleaned.clone();
        let cleanup = move |number: usize| {
            let counted = counted.clone();
            async move {
                if number.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(())
            }
        };
        let reaper = Arc::new(Reaper::new(limits(8, 4), cleanup, |_, _| ()));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let reaper = reaper.clone();
                tokio::spawn(async move {
                    let mut made = 0;
                    while let Some(place) = reaper.reserve().await {
                        let guard: Reaped<usize> = place.guard("guard", made);
                        made += 1;
                        if made % 10 == 0 {
                            std::thread::spawn(move || drop(guard)).join().unwrap();
                        }
                        if made == 40 {
                            break;
                        }
                    }
                    made
                })
            })
            .collect();
        let early = reaper.clone();
        let drainer = tokio::spawn(async move {
            while early.counts().cleaned < 60 {
                tokio::task::yield_now().await;
            }
            early.drain().await
        });
        let mut made = 0;
        for user in users {
            made += user.await.unwrap();
        }
        let counts = drainer.await.unwrap();
        assert_eq!(counts, Counts { cleaned: made, ..Counts::default() });
        assert_eq!(cleaned.load(Ordering::Relaxed), made);
    }
}

/// So many that a cost that grows with the square would show: this takes a fraction of a second.
#[tokio::test(start_paused = true)]
async fn memory_a_hundred_thousand_at_once() {
    let cleaned = Arc::<AtomicUsize>::default();
    let reaper = counting(Limits { each: 3_600_000 * MS, ..limits(100_000, usize::MAX) }, &cleaned);
    let mut guards = Vec::new();
    for _ in 0..100_000 {
        guards.push(reaper.reserve().await.unwrap().guard("guard", 1));
    }
    drop(guards);
    assert_eq!(reaper.drain().await.cleaned, 100_000);
    assert_eq!(cleaned.load(Ordering::Relaxed), 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is made, dropped and taken out in whatever order: each guard is counted once, and at most so many run.
    #[test]
    fn order_and_memory_of_any_use(
        steps in prop::collection::vec((0..3_u8, any::<usize>(), 0..12_u64), 0..60),
        capacity in 1..8_usize,
        at_once in 1..8_usize,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (running, peak) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
            let most = peak.clone();
            let cleanup = move |millis: u64| {
                let (running, most) = (running.clone(), most.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(Duration::from_millis(millis)).await;
                    running.fetch_sub(1, Ordering::Relaxed);
                    if millis == 3 { Err(()) } else { Ok(()) }
                }
            };
            let reaper = Reaper::new(limits(capacity, at_once), cleanup, |_, _| ());
            let (mut guards, mut out, mut made) = (Vec::new(), 0, 0);
            for (step, which, millis) in steps {
                if step == 0 && guards.len() < capacity {
                    guards.push(reaper.reserve().await.unwrap().guard("guard", millis));
                    made += 1;
                } else if !guards.is_empty() {
                    let guard: Reaped<u64> = guards.swap_remove(which % guards.len());
                    if step == 1 { guard.into_inner(); out += 1 } else { drop(guard) }
                }
                let counts = reaper.counts();
                assert_eq!(counts.alive, guards.len());
                assert_eq!(made, out + counts.alive + counts.pending + counts.cleaned + counts.failed);
                assert!(counts.alive + counts.pending <= capacity);
            }
            drop(guards);
            let counts = reaper.drain().await;
            assert_eq!(made, out + counts.cleaned + counts.failed);
            assert!(peak.load(Ordering::Relaxed) <= at_once);
        });
    }
}
