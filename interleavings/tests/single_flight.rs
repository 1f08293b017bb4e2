//! `single_flight`: who stays gets an answer, nobody gets one of before, and all work ends, whoever runs when.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};
use tokio::sync::Semaphore;

/// Tells that all is gone that a call has brought along.
struct Gone(Arc<Semaphore>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// All keys are equal.
#[derive(Clone)]
struct Key(#[allow(dead_code, reason = "its drop is what counts")] Arc<Gone>);

impl PartialEq for Key {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Callers that call so many times and stay, and callers that leave.
macro_rules! case {
    ($recipe:ident, $stay:expr, $times:expr, $leave:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::SingleFlight;
                let (flights, works, gone) =
                    (SingleFlight::new(), Arc::new(AtomicUsize::new(1)), Arc::new(Semaphore::new(0)));
                let callers = (0..$stay + $leave).map(|caller| {
                    let (flights, works, gone) = (flights.clone(), works.clone(), gone.clone());
                    let caller = async move {
                        let call = || {
                            let (works, gone) = (works.clone(), Arc::new(Gone(gone.clone())));
                            let key = Key(gone.clone());
                            let work = async move {
                                let _gone = gone;
                                let number = works.fetch_add(1, Ordering::Relaxed);
                                yield_now().await;
                                number
                            };
                            flights.run(key, work)
                        };
                        if caller < $stay {
                            let mut last = 0;
                            for _ in 0..$times {
                                let answer = call().await.expect("an answer");
                                assert!(answer > last, "an answer of before");
                                last = answer;
                            }
                        } else {
                            let _ = futures::poll!(Box::pin(call()));
                        }
                    };
                    spawn(caller)
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.expect("nobody panics");
                }
                // Nothing of a call is left, its task included.
                let _gone = gone.acquire_many($stay * $times + $leave).await.expect("nobody closes it");
                assert_eq!(flights.in_flight(), 0);
            });
        }
    };
}

#[test]
fn single_flight_by_chance() {
    search("single_flight, 2 stay and call twice, 2 leave", 100_000, case!(single_flight, 2, 2, 2));
}

#[test]
fn single_flight_in_every_order() {
    search_all("single_flight, 1 stays", 1_000_000, case!(single_flight, 1, 1, 0));
    search_all("single_flight, 1 leaves", 1_000_000, case!(single_flight, 0, 1, 1));
}

#[test]
fn mistakes_of_single_flight_are_found() {
    found("looks away", 10_000, case!(single_flight_looks_away, 2, 2, 2));
    found("keeps the key", 10_000, case!(single_flight_keeps_the_key, 2, 2, 2));
}
