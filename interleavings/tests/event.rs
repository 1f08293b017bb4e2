//! `event`: one set lets go all who waited before it, though it is cleared again, whoever runs when.

use std::sync::Arc;

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};
use tokio::sync::Semaphore;

/// So many wait before it is set and cleared, so many come at any time, and so many give up. It is set for good at the end.
macro_rules! case {
    ($recipe:ident, $early:expr, $late:expr, $give_up:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Event;
                let (event, waiting) = (Arc::new(Event::new()), Arc::new(Semaphore::new(0)));
                let tasks = (0..$early + $late + $give_up).map(|task| {
                    let (event, waiting) = (event.clone(), waiting.clone());
                    spawn(async move {
                        let mut wait = Box::pin(event.wait());
                        if task < $early {
                            waiting.add_permits(1);
                        } else if task >= $early + $late {
                            let _ = futures::poll!(&mut wait);
                            yield_now().await;
                            return;
                        }
                        wait.await;
                    })
                });
                let mut early: Vec<_> = tasks.collect();
                let late = early.split_off($early);
                let _ = waiting.acquire_many($early).await.expect("nobody closes it");
                event.set();
                event.clear();
                for task in early {
                    task.await.expect("nobody panics");
                }
                assert!(!event.is_set());
                event.set();
                for task in late {
                    task.await.expect("nobody panics");
                }
                assert!(event.is_set());
            });
        }
    };
}

/// One waits while it is set, and was there before that or not. If it was, it is cleared again.
macro_rules! one {
    ($recipe:ident, $early:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Event;
                let event = Arc::new(Event::new());
                let wait = $early.then(|| event.wait());
                let set = event.clone();
                let set = spawn(async move {
                    set.set();
                    if $early {
                        set.clear();
                    }
                });
                match wait {
                    Some(wait) => wait.await,
                    None => event.wait().await,
                }
                set.await.expect("nobody panics");
            });
        }
    };
}

#[test]
fn event_by_chance() {
    search("event, 2 wait before, 2 come, 1 gives up", 100_000, case!(event, 2, 2, 1));
}

#[test]
fn event_in_every_order() {
    search_all("event, 1 waits before", 1_000_000, one!(event, true));
    search_all("event, 1 comes", 1_000_000, one!(event, false));
}

#[test]
fn mistakes_of_event_are_found() {
    found("forgets at clear", 10_000, case!(event_forgets_at_clear, 2, 0, 0));
    found("counts, then sets", 10_000, one!(event_counts_then_sets, false));
}
