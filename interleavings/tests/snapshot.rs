//! `snapshot`: no change is lost, nobody sees an older version after a newer one, and who waits for a change learns of it, whoever
//! runs when.

use std::sync::Arc;

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};

/// So many add one to a number, so many leave when they have the turn, and so many follow the number until it is complete.
macro_rules! case {
    ($recipe:ident, $write:expr, $leave:expr, $follow:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Snapshot;
                let number = Arc::new(Snapshot::new(0));
                let tasks = (0..$write + $leave + $follow).map(|task| {
                    let number = number.clone();
                    spawn(async move {
                        if task < $write {
                            let writer = number.write().await;
                            let next = *writer + 1;
                            writer.publish(next);
                        } else if task < $write + $leave {
                            let mut write = Box::pin(number.write());
                            if futures::poll!(&mut write).is_pending() {
                                yield_now().await;
                            }
                        } else {
                            let mut seen = number.get();
                            while *seen < $write {
                                let newer = number.changed(&seen).await;
                                assert!(*newer > *seen, "an older version");
                                seen = newer;
                            }
                        }
                    })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.expect("nobody panics");
                }
                assert_eq!(*number.get(), $write, "a change is lost");
            });
        }
    };
}

#[test]
fn snapshot_by_chance() {
    search("snapshot, 2 write, 1 leaves, 2 follow", 100_000, case!(snapshot, 2, 1, 2));
}

#[test]
fn snapshot_in_every_order() {
    search_all("snapshot, 1 writes and 1 follows", 1_000_000, case!(snapshot, 1, 0, 1));
    search_all("snapshot, 1 writes and 1 leaves", 1_000_000, case!(snapshot, 1, 1, 0));
}

#[test]
fn mistakes_of_snapshot_are_found() {
    found("looks, then waits", 10_000, case!(snapshot_looks_then_waits, 2, 0, 2));
    found("wakes, then publishes", 10_000, case!(snapshot_wakes_then_publishes, 2, 0, 2));
    found("ends its turn, then publishes", 10_000, case!(snapshot_ends_its_turn_then_publishes, 2, 0, 0));
}
