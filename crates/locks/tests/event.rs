//! `event`: waits are dropped at every suspension point, and no wake-up is lost.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, poll};
use locks::Event;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::sleep;

#[test]
fn cancellation_at_every_point() {
    sweep(|_| {
        let event = Rc::new(Event::new());
        let (subject, before, behind, setter) = (event.clone(), event.clone(), event.clone(), event);
        let call = async move {
            subject.wait().await;
            // Cleared by now: this is the second time.
            yield_now().await;
            subject.wait().await;
        };
        let waiter = |event: Rc<Event>, late: u64| async move {
            sleep(Duration::from_millis(late)).await;
            event.wait().await;
        };
        Scene::new(call)
            .alongside(waiter(before, 0))
            .alongside(waiter(behind, 1))
            .alongside(async move {
                for _ in 0..2 {
                    sleep(Duration::from_millis(5)).await;
                    setter.set();
                    setter.clear();
                }
            })
            .check(|ended| assert!(!matches!(ended, Ended::Panicked(_))))
            // Of those whom a set wakes, a watch channel wakes one or the other first.
            .random()
    });
}

/// Set and cleared at once, again and again, from another thread: whoever waited before it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_no_wake_up_is_lost_between_threads() {
    let (event, passed) = (Arc::new(Event::new()), Arc::new(AtomicUsize::new(0)));
    for round in 1..=500 {
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let (event, passed) = (event.clone(), passed.clone());
                // The call is made here, and polled on another thread, before or after the set.
                let wait = Box::pin(async move {
                    let wait = event.wait();
                    wait.await;
                    passed.fetch_add(1, Ordering::Relaxed);
                });
                tokio::spawn(wait)
            })
            .collect();
        let (setter, stop) = (event.clone(), Arc::new(AtomicUsize::new(0)));
        let stopped = stop.clone();
        // It pulses until all have passed, and each that began to wait must be let go by the next pulse.
        let pulses = tokio::spawn(async move {
            while stopped.load(Ordering::Relaxed) == 0 {
                setter.set();
                setter.clear();
                yield_now().await;
            }
        });
        join_all(waiting).await;
        stop.store(1, Ordering::Relaxed);
        pulses.await.unwrap();
        assert_eq!(passed.load(Ordering::Relaxed), round * 8);
    }
}

/// The waits exist before the one pulse and are polled after it or at the same time: all end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_one_pulse_lets_go_all_whose_wait_was_called() {
    for _ in 0..2000 {
        let event: &'static Event = Box::leak(Box::new(Event::new()));
        let waits: Vec<_> = (0..4).map(|_| event.wait()).collect();
        let waiting: Vec<_> = waits.into_iter().map(tokio::spawn).collect();
        tokio::spawn(async {
            event.set();
            event.clear();
        });
        for waited in join_all(waiting).await {
            waited.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn memory_and_order_of_a_hundred_thousand() {
    let event = Arc::new(Event::new());
    let wait = |event: Arc<Event>| async move { event.wait().await };
    let tasks: Vec<_> = (0..100_000).map(|_| tokio::spawn(wait(event.clone()))).collect();
    // The clock goes on when all wait.
    sleep(Duration::from_millis(1)).await;
    event.set();
    event.clear();
    assert!(join_all(tasks).await.into_iter().all(|task| task.is_ok()));
    assert_eq!(Arc::strong_count(&event), 1);
}

/// A loop over an event that is set gives other tasks their turn.
#[tokio::test]
async fn backpressure_a_loop_of_waits_yields() {
    let event = Arc::new(Event::new());
    event.set();
    let endless = tokio::spawn(async move {
        loop {
            event.wait().await;
        }
    });
    // It would never be this task's turn again.
    yield_now().await;
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

/// Wakers that call the event themselves, as a waker may, find no lock held.
#[test]
fn cancellation_and_wakes_inside_a_wake() {
    use std::task::{Context, Wake, Waker};
    struct Calls(Arc<Event>);
    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.set();
            self.0.clear();
            assert!(self.0.wait().now_or_never().is_none());
        }
    }
    let event = Arc::new(Event::new());
    let waker = Waker::from(Arc::new(Calls(event.clone())));
    let mut wait = Box::pin(event.wait());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    event.set();
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Set,
    Clear,
    Wait,
    Poll(usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Set),
        Just(Step::Clear),
        Just(Step::Wait),
        any::<usize>().prop_map(Step::Poll),
        any::<usize>().prop_map(Step::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the plainest model: a wait is ready if the event was set at its call or at any time after it.
    #[test]
    fn order_is_that_of_a_model(steps in prop::collection::vec(step(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let event = Event::new();
            let (mut set, mut waits) = (false, Vec::new());
            for step in steps {
                match step {
                    Step::Set => {
                        event.set();
                        set = true;
                        waits.iter_mut().for_each(|(_, ready)| *ready = true);
                    }
                    Step::Clear => {
                        event.clear();
                        set = false;
                    }
                    Step::Wait => waits.push((Box::pin(event.wait()), set)),
                    Step::Poll(which) if !waits.is_empty() => {
                        let which = which % waits.len();
                        let (wait, ready) = &mut waits[which];
                        let polled = poll!(wait).is_ready();
                        assert_eq!(polled, *ready);
                        if polled {
                            drop(waits.swap_remove(which));
                        }
                    }
                    Step::Drop(which) if !waits.is_empty() => drop(waits.swap_remove(which % waits.len())),
                    _ => {}
                }
                assert_eq!(event.is_set(), set);
            }
        });
    }
}
