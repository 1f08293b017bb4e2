//! `barrier`: nobody goes on before all are there, one of each round leads, and who leaves is not counted, whoever runs when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::{Either, select};
use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};

/// So many meet so many times.
macro_rules! rounds {
    ($recipe:ident, $participants:expr, $rounds:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Barrier;
                let barrier =
                    Arc::new(Barrier::new(std::num::NonZeroUsize::new($participants).expect("not zero")));
                let (came, led) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
                let tasks = (0..$participants).map(|_| {
                    let (barrier, came, led) = (barrier.clone(), came.clone(), led.clone());
                    spawn(async move {
                        for number in 0..$rounds {
                            came.fetch_add(1, Ordering::Relaxed);
                            let round = barrier.wait().await;
                            assert_eq!(round.number, number);
                            let all = (number as usize + 1) * $participants;
                            assert!(came.load(Ordering::Relaxed) >= all, "not all were there");
                            led.fetch_add(usize::from(round.leads), Ordering::Relaxed);
                        }
                    })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.expect("nobody panics");
                }
                assert_eq!(led.load(Ordering::Relaxed), $rounds);
            });
        }
    };
}

/// One stays, so many leave again, and one comes when those are gone: the first meets one who left, or the one who comes.
macro_rules! leaving {
    ($recipe:ident, $leave:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Barrier;
                let barrier = Arc::new(Barrier::new(std::num::NonZeroUsize::MIN.saturating_add(1)));
                let (gone, came) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
                let (first, all_gone, has_come) = (barrier.clone(), gone.clone(), came.clone());
                let first = spawn(async move {
                    let alone = all_gone.load(Ordering::Relaxed) == $leave;
                    first.wait().await;
                    assert!(!alone || has_come.load(Ordering::Relaxed), "met one who had left");
                });
                let leave = (0..$leave).map(|_| {
                    let (barrier, gone) = (barrier.clone(), gone.clone());
                    spawn(async move {
                        let mut wait = Box::pin(barrier.wait());
                        // Its first step gives way only.
                        let _ = futures::poll!(&mut wait);
                        yield_now().await;
                        let _ = futures::poll!(&mut wait);
                        yield_now().await;
                        drop(wait);
                        gone.fetch_add(1, Ordering::Relaxed);
                    })
                });
                for task in leave.collect::<Vec<_>>() {
                    task.await.expect("nobody panics");
                }
                came.store(true, Ordering::Relaxed);
                match select(first, Box::pin(barrier.wait())).await {
                    Either::Left((first, _)) => first.expect("nobody panics"),
                    Either::Right((_, first)) => first.await.expect("nobody panics"),
                }
            });
        }
    };
}

#[test]
fn barrier_by_chance() {
    search("barrier, 3 meet twice", 50_000, rounds!(barrier, 3, 2));
    search("barrier, 1 stays, 1 leaves, 1 comes", 50_000, leaving!(barrier, 1));
}

#[test]
fn barrier_in_every_order() {
    search_all("barrier, 2 meet once", 1_000_000, rounds!(barrier, 2, 1));
}

#[test]
fn mistakes_of_barrier_are_found() {
    found("looks, then arrives", 10_000, rounds!(barrier_looks_then_arrives, 3, 2));
    found("counts who left", 10_000, leaving!(barrier_counts_who_left, 1));
    found("looks, then leaves", 10_000, leaving!(barrier_looks_then_leaves, 1));
}
