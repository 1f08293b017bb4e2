//! `offload`: so much at a time, a place is free when its call returns, and `drain` misses no work and no panic, whoever runs when.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::thread;

/// What happened to work.
#[derive(Default)]
struct Work {
    runs: AtomicBool,
    panicked: AtomicBool,
    outputs: AtomicUsize,
}

struct Output(Arc<Work>);

impl Drop for Output {
    fn drop(&mut self) {
        thread::yield_now();
        self.0.outputs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Work {
    fn run(self: Arc<Self>, panics: bool) -> Output {
        assert!(!self.runs.swap(true, Ordering::Relaxed), "two at a time");
        thread::yield_now();
        self.runs.store(false, Ordering::Relaxed);
        if panics {
            self.panicked.store(true, Ordering::Relaxed);
            // Without the hook, which would print the order.
            resume_unwind(Box::new("work"));
        }
        self.outputs.fetch_add(1, Ordering::Relaxed);
        Output(self)
    }
}

/// One place, and so many callers that stay, that leave, and that leave work which panics. At the end there is another call, or not.
macro_rules! case {
    ($recipe:ident, $stay:expr, $leave:expr, $panic:expr, $last:expr) => {
        move || {
            use interleavings::$recipe::{Offload, Threads};
            #[derive(Clone)]
            struct Model;
            impl Threads for Model {
                fn spawn(&self, job: impl FnOnce() + Send + 'static) {
                    thread::spawn(job);
                }
            }
            block_on(async {
                let offload = Offload::on(Model, NonZeroUsize::MIN);
                let work = Arc::new(Work::default());
                let quiet = $stay + $leave;
                let callers = (0..quiet + $panic).map(|caller| {
                    let (offload, work) = (offload.clone(), work.clone());
                    spawn(async move {
                        let mut call = Box::pin(offload.run(move |_| work.run(caller >= quiet)));
                        if caller < $stay {
                            assert!(call.await.is_ok());
                        } else {
                            let _ = futures::poll!(&mut call);
                            yield_now().await;
                        }
                    })
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.expect("nobody panics");
                }
                let drained = offload.drain().await;
                assert!(!work.runs.load(Ordering::Relaxed), "work runs after the drain");
                assert_eq!(work.outputs.load(Ordering::Relaxed), 0, "an output is left after the drain");
                assert_eq!(drained.is_err(), work.panicked.load(Ordering::Relaxed), "a panic is lost");
                if $last {
                    assert!(offload.run(|_| ()).await.is_ok());
                    let drained = futures::poll!(Box::pin(offload.drain()));
                    assert!(drained.is_ready(), "a call returned, and its place is taken");
                }
            });
        }
    };
}

#[test]
fn offload_by_chance() {
    search("offload, 2 stay, 2 leave, 1 leaves a panic", 100_000, case!(offload, 2, 2, 1, true));
}

#[test]
fn offload_in_every_order() {
    search_all("offload, 1 stays", 1_000_000, case!(offload, 0, 0, 0, true));
    search_all("offload, 1 leaves", 1_000_000, case!(offload, 0, 1, 0, false));
    search_all("offload, 1 leaves a panic", 1_000_000, case!(offload, 0, 0, 1, false));
}

#[test]
fn mistakes_of_offload_are_found() {
    found("frees in two steps", 1_000, case!(offload_frees_in_two_steps, 0, 0, 0, true));
    found("drops the output late", 100_000, case!(offload_drops_the_output_late, 2, 2, 1, false));
    found("looks, then leaves", 100_000, case!(offload_looks_then_leaves, 2, 2, 1, false));
}
