//! `circuit_breaker`: `call` is dropped at every suspension point and compared with a model; probes are counted on two threads.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use support::sweep::{Parts, Scene, sweep};
use timeouts::{BreakerError, BreakerRules, BreakerState, CircuitBreaker};
use tokio::sync::{oneshot, watch};
use tokio::time::{advance, sleep};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Opens the breaker, waits, and sends probes. Much later it must be possible to close it, so no slot is lost.
fn scene(parts: &Parts, counts: bool) -> Scene<()> {
    let rules = BreakerRules { failures: TWO, pause: ms(10), probes: TWO };
    let breaker = Rc::new(CircuitBreaker::new("api", rules));
    let (subject, after, parts) = (breaker.clone(), breaker.clone(), parts.clone());
    let call = async move {
        for _ in 0..2 {
            let _ = subject.call(sleep(ms(1)).map(Err::<(), ()>)).await;
        }
        sleep(ms(11)).await;
        for _ in 0..2 {
            let probe = parts.fallible("probe", sleep(ms(5)).map(Ok), || "injected");
            let _ = if counts { subject.call(probe).await } else { subject.call_if(probe, |_| false).await };
        }
    };
    let later = async move {
        sleep(ms(600_000)).await;
        for _ in 0..2 {
            assert_eq!(breaker.call(async { Ok::<_, ()>(1) }).await, Ok(1));
        }
    };
    Scene::new(call)
        .alongside(later)
        .check(move |_| assert_eq!(after.state(), BreakerState::Closed { failures: 0 }))
}

#[test]
fn cancellation_loses_no_slot() {
    sweep(|parts| scene(parts, true));
}

#[test]
fn cancellation_loses_no_slot_when_errors_do_not_count() {
    sweep(|parts| scene(parts, false));
}

/// Many tasks on two threads come when the pause is over: exactly the probes are started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_on_two_threads() {
    let three = NonZeroUsize::new(3).unwrap();
    for _ in 0..200 {
        let rules = BreakerRules { failures: NonZeroUsize::MIN, pause: Duration::ZERO, probes: three };
        let breaker = Arc::new(CircuitBreaker::new("api", rules));
        assert!(breaker.call(async { Err::<(), _>(()) }).await.is_err());
        let started = Arc::new(AtomicUsize::new(0));
        let (release, released) = watch::channel(false);
        let call = |_| {
            let (breaker, started, mut released) = (breaker.clone(), started.clone(), released.clone());
            tokio::spawn(async move {
                let probe = async {
                    started.fetch_add(1, Ordering::Relaxed);
                    released.wait_for(|released| *released).await.map(drop).map_err(drop)
                };
                breaker.call(probe).await
            })
        };
        let mut calls: FuturesUnordered<_> = (0..40).map(call).collect();
        for _ in 0..37 {
            let ended = calls.next().await.unwrap().unwrap();
            assert!(matches!(ended, Err(BreakerError::Rejected { .. })));
        }
        assert_eq!(started.load(Ordering::Relaxed), 3);
        release.send_replace(true);
        while let Some(ended) = calls.next().await {
            assert_eq!(ended.unwrap(), Ok(()));
        }
        assert_eq!(breaker.state(), BreakerState::Closed { failures: 0 });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    /// One of the running calls ends: well, with a failure, or by being dropped.
    End(usize, Option<bool>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Begin),
        3 => (any::<usize>(), prop::option::weighted(0.8, any::<bool>())).prop_map(|(i, end)| Step::End(i, end)),
        1 => (1..15_u64).prop_map(Step::Wait),
    ]
}

/// The breaker in the plainest terms: how many calls of the present state run, and how they ended.
#[derive(Default)]
struct Model {
    /// The millisecond until which it is open.
    open_until: Option<u64>,
    half_open: bool,
    generation: usize,
    failures: usize,
    running: usize,
    succeeded: usize,
}

impl Model {
    fn change(&mut self, open_until: Option<u64>, half_open: bool) {
        *self = Model { open_until, half_open, generation: self.generation + 1, ..Model::default() };
    }

    /// The generation of the call, unless it is rejected.
    fn begin(&mut self, now: u64) -> Option<usize> {
        if self.open_until.is_some_and(|until| until <= now) {
            self.change(None, true);
        }
        if self.open_until.is_some() || (self.half_open && self.running + self.succeeded == 2) {
            return None;
        }
        self.running += 1;
        Some(self.generation)
    }

    fn end(&mut self, generation: usize, end: Option<bool>, now: u64) {
        if generation != self.generation {
            return;
        }
        self.running -= 1;
        match (end, self.half_open) {
            (None, _) => {}
            (Some(true), false) => self.failures = 0,
            (Some(true), true) if self.succeeded == 1 => self.change(None, false),
            (Some(true), true) => self.succeeded += 1,
            (Some(false), half_open) if half_open || self.failures == 2 => self.change(Some(now + 10), false),
            (Some(false), _) => self.failures += 1,
        }
    }
}

async fn compare(steps: Vec<Step>) {
    let rules = BreakerRules { failures: TWO.saturating_add(1), pause: ms(10), probes: TWO };
    let (breaker, mut model) = (CircuitBreaker::new("api", rules), Model::default());
    let (mut calls, mut now) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Begin => {
                let (sender, end) = oneshot::channel::<bool>();
                let call = async { if end.await == Ok(true) { Ok(()) } else { Err(()) } };
                let mut call = Box::pin(breaker.call(call));
                let rejected = call.as_mut().now_or_never().is_some();
                let generation = model.begin(now);
                assert_eq!(rejected, generation.is_none());
                calls.extend(generation.map(|generation| (generation, sender, call)));
            }
            Step::End(index, end) if !calls.is_empty() => {
                let (generation, sender, call) = calls.remove(index % calls.len());
                if let Some(success) = end {
                    sender.send(success).expect("the call holds the receiver");
                    assert_eq!(call.await.is_ok(), success);
                } else {
                    drop(call);
                }
                model.end(generation, end, now);
            }
            Step::End(..) => {}
            Step::Wait(milliseconds) => {
                advance(ms(milliseconds)).await;
                now += milliseconds;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever calls begin and end in whatever order: the breaker lets through what the model lets through.
    #[test]
    fn backpressure_is_that_of_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(compare(steps));
    }
}
