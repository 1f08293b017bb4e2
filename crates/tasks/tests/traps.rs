//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/detached_handle.rs"]
mod detached_handle;
#[path = "../../../examples/traps/sleep_drift.rs"]
mod sleep_drift;

#[tokio::test(start_paused = true)]
async fn a_dropped_join_handle_stops_nothing_and_hides_a_panic() {
    use detached_handle::{Seen, wrong};
    assert_eq!(wrong().await, Seen { late_writes: 5, panic_heard: false });
}

#[tokio::test(start_paused = true)]
async fn a_dropped_background_handle_ends_its_task() {
    use detached_handle::{Seen, right};
    assert_eq!(right().await, Seen { late_writes: 0, panic_heard: true });
}

#[tokio::test(start_paused = true)]
async fn a_loop_with_sleep_falls_behind_by_every_run() {
    assert_eq!(sleep_drift::drifting().await, [0, 12, 24, 79, 91, 103, 115, 127, 139, 151]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_makes_up_for_a_stall_without_a_pause() {
    assert_eq!(sleep_drift::bursting().await, [0, 10, 20, 65, 67, 69, 71, 73, 80, 90]);
}

#[tokio::test(start_paused = true)]
async fn periodic_returns_to_the_beat_after_a_stall() {
    assert_eq!(sleep_drift::right().await, [0, 10, 20, 65, 70, 80, 90, 100, 110, 120]);
}

/// An interval with the behaviour set does the same: the default is what bites.
#[tokio::test(start_paused = true)]
async fn an_interval_that_skips_returns_to_the_beat_too() {
    use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep};
    let (start, mut begun) = (Instant::now(), Vec::new());
    let mut interval = interval(Duration::from_millis(10));
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 1..=6 {
        interval.tick().await;
        begun.push(start.elapsed().as_millis());
        sleep(Duration::from_millis(if number == 3 { 45 } else { 2 })).await;
    }
    assert_eq!(begun, [0, 10, 20, 65, 70, 80]);
}

#[tokio::test]
#[should_panic(expected = "`period` must be non-zero.")]
async fn an_interval_of_zero_panics() {
    tokio::time::interval(std::time::Duration::ZERO).tick().await;
}
