//! `condition`: who waits learns of every change and of its end, whoever runs when.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};

/// So many take one from a number, and so many give up when they have to wait, while as many add one. So many panic meanwhile.
macro_rules! case {
    ($recipe:ident, $take:expr, $give_up:expr, $panic:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::Condition;
                let number = Arc::new(Condition::new(0));
                let takers = (0..$take + $give_up).map(|taker| {
                    let number = number.clone();
                    spawn(async move {
                        let mut take = Box::pin(number.when(|number| *number > 0, |number| *number -= 1));
                        if taker < $take {
                            return take.await.is_ok();
                        }
                        let _ = futures::poll!(&mut take);
                        yield_now().await;
                        let taken = futures::poll!(&mut take);
                        yield_now().await;
                        matches!(taken, std::task::Poll::Ready(Ok(())))
                    })
                });
                let takers: Vec<_> = takers.collect();
                let changes = (0..$take + $give_up + $panic).map(|change| {
                    let number = number.clone();
                    spawn(async move {
                        if change < $take + $give_up {
                            let _ = number.change(|number| *number += 1);
                        } else {
                            // Without the hook, which would print the order.
                            let panics = || number.change(|_| resume_unwind(Box::new("change")));
                            let _: Result<Result<(), _>, _> = catch_unwind(AssertUnwindSafe(panics));
                        }
                    })
                });
                for change in changes.collect::<Vec<_>>() {
                    change.await.expect("nobody panics");
                }
                let mut left = $take + $give_up;
                for taker in takers {
                    left -= usize::from(taker.await.expect("nobody panics"));
                }
                if $panic == 0 {
                    assert_eq!(number.change(|number| *number), Ok(left));
                } else {
                    assert!(number.change(|_| ()).is_err());
                }
            });
        }
    };
}

#[test]
fn condition_by_chance() {
    search("condition, 2 take and 1 gives up", 50_000, case!(condition, 2, 1, 0));
    search("condition, 2 take and 1 panics", 50_000, case!(condition, 2, 0, 1));
}

#[test]
fn condition_in_every_order() {
    search_all("condition, 1 takes", 1_000_000, case!(condition, 1, 0, 0));
}

#[test]
fn mistakes_of_condition_are_found() {
    found("looks, then waits", 10_000, case!(condition_looks_then_waits, 2, 0, 0));
    found("wakes, then changes", 10_000, case!(condition_wakes_then_changes, 2, 0, 0));
    found("panics in silence", 10_000, case!(condition_panics_in_silence, 2, 0, 1));
}
