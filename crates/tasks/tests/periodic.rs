//! `Periodic::tick` is dropped at every suspension point: the next call returns the tick that was waited for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Scene, sweep};
use tasks::{MissedTickBehavior, Periodic};
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const POLICIES: [MissedTickBehavior; 3] =
    [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip];

/// Two share the ticks: one is dropped anywhere, and the other gets every tick that is left.
fn scene(catch_up: MissedTickBehavior, jitter: Duration) -> Scene<()> {
    fastrand::seed(7);
    let numbers = Rc::new(RefCell::new(Vec::new()));
    let periodic = Periodic::new(ms(10), catch_up).expect("not zero").with_jitter(jitter);
    let periodic = Rc::new(Mutex::new(periodic));
    let stop = CancellationToken::new();
    let take = |periodic: Rc<Mutex<Periodic>>, numbers: Rc<RefCell<Vec<u64>>>| async move {
        while numbers.borrow().len() < 5 {
            let tick = periodic.lock().await.tick().await;
            // A tick that was lost would leave a gap in the beat.
            assert!(catch_up != MissedTickBehavior::Burst || tick.missed == 0, "{tick:?}");
            numbers.borrow_mut().push(tick.number);
            sleep(ms(if tick.number == 2 { 25 } else { 4 })).await;
        }
    };
    let (first, second) = (take(periodic.clone(), numbers.clone()), take(periodic, numbers.clone()));
    let ask = stop.clone();
    Scene::new(async move { _ = stop.run_until_cancelled(first).await })
        .alongside(second)
        .stop(move || ask.cancel())
        .check(move |_| assert!(numbers.borrow().iter().copied().eq(1..=numbers.borrow().len() as u64)))
}

#[test]
fn cancellation_at_every_point() {
    for catch_up in POLICIES {
        sweep(|_| scene(catch_up, Duration::ZERO));
    }
}

#[test]
fn cancellation_at_every_point_of_the_jitter() {
    for catch_up in POLICIES {
        sweep(|_| scene(catch_up, ms(8)));
    }
}

/// A period that is always over makes a loop without waits, and still others have their turn and a stop is heard.
#[tokio::test]
async fn cancellation_of_a_loop_that_is_always_late() {
    let stop = CancellationToken::new();
    let ask = stop.clone();
    let endless = tokio::spawn(async move {
        let mut periodic = Periodic::new(Duration::from_nanos(1), MissedTickBehavior::Burst).unwrap();
        let endless = async {
            loop {
                periodic.tick().await;
            }
        };
        stop.run_until_cancelled(endless).await.is_none()
    });
    tokio::task::yield_now().await;
    ask.cancel();
    assert!(endless.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn cancellation_stops_in_a_wait_and_in_a_run_at_once() {
    for stop_after in [5, 12] {
        let start = Instant::now();
        let stop = CancellationToken::new();
        let mut periodic = Periodic::new(ms(10), MissedTickBehavior::Skip).unwrap();
        let job = async {
            loop {
                periodic.tick().await;
                sleep(ms(4)).await;
            }
        };
        let ask = async {
            sleep(ms(stop_after)).await;
            stop.cancel();
        };
        let ended: (Option<()>, ()) = tokio::join!(stop.run_until_cancelled(job), ask);
        assert_eq!((ended.0, start.elapsed()), (None, ms(stop_after)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the runs take: none begins early, none overlaps, and ticks and misses add up to the beat.
    #[test]
    fn order_and_misses_add_up(
        lengths in prop::collection::vec(0..70_u64, 1..60),
        period in 1..30_u64,
        jitter in 0..40_u64,
        policy in 0..3_usize,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let catch_up = POLICIES[policy];
        let runs = runtime.block_on(async {
            let start = Instant::now();
            let mut periodic = Periodic::new(ms(period), catch_up).unwrap().with_jitter(ms(jitter));
            let mut runs = Vec::new();
            for length in &lengths {
                let tick = periodic.tick().await;
                let begin = start.elapsed();
                if *length > 0 {
                    sleep(ms(*length)).await;
                }
                runs.push((tick, tick.due - start, begin, start.elapsed()));
            }
            runs
        });
        let (mut beats, mut free, mut last_due) = (0, Duration::ZERO, None);
        for (index, (tick, due, begin, end)) in runs.into_iter().enumerate() {
            prop_assert_eq!(tick.number, index as u64 + 1);
            prop_assert!(begin >= due && begin >= free);
            // The clock of tokio's timers rounds up to a millisecond.
            prop_assert!(begin <= free.max(due + ms(jitter.min(period)) + ms(1)));
            if catch_up == MissedTickBehavior::Delay {
                prop_assert!(last_due.is_none_or(|last| due >= last + ms(period)));
            } else {
                beats += tick.missed + u64::from(index > 0);
                prop_assert_eq!(due, ms(period * beats));
            }
            prop_assert!(catch_up != MissedTickBehavior::Burst || tick.missed == 0);
            (free, last_due) = (end, Some(due));
        }
    }
}
