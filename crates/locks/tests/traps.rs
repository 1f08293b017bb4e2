//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/closed_semaphore.rs"]
mod closed_semaphore;
#[path = "../../../examples/traps/forgotten_await.rs"]
mod forgotten_await;
#[path = "../../../examples/traps/futurelock.rs"]
mod futurelock;
#[path = "../../../examples/traps/lost_wakeup.rs"]
mod lost_wakeup;
#[path = "../../../examples/traps/mutex_across_await.rs"]
mod mutex_across_await;
#[path = "../../../examples/traps/mutex_held_across_io.rs"]
mod mutex_held_across_io;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The second call keeps the only thread, which the first needs to free the lock: no machine is fast enough.
#[tokio::test]
async fn a_guard_across_an_await_stops_the_thread() {
    assert_eq!(mutex_across_await::wrong().await, [Ok(()), Err(mutex_across_await::StillLocked)]);
}

#[tokio::test]
async fn a_closure_frees_the_lock_before_the_await() {
    assert_eq!(mutex_across_await::right().await, [Ok(()), Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_held_across_io_lets_one_request_run_at_a_time() {
    assert_eq!(mutex_held_across_io::wrong().await, ms(8 * 50));
}

#[tokio::test(start_paused = true)]
async fn a_lock_held_before_and_after_io_lets_all_run() {
    assert_eq!(mutex_held_across_io::right().await, ms(50));
}

#[tokio::test(start_paused = true)]
async fn to_look_and_then_listen_loses_the_wake_up() {
    assert!(lost_wakeup::wrong().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn to_listen_and_then_look_loses_none() {
    assert_eq!(lost_wakeup::right().await.ok(), Some(ms(10)));
    assert_eq!(lost_wakeup::recipe().await.ok(), Some(ms(10)));
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_kept_and_not_polled_keeps_its_place_in_line() {
    assert!(futurelock::wrong().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_polled_or_dropped_does_not() {
    assert!(futurelock::right().await.is_ok());
    assert!(futurelock::dropped().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_semaphore_tells_nobody() {
    assert_eq!(closed_semaphore::wrong().await, ["still waits"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_semaphore_tells_all_who_wait() {
    assert_eq!(closed_semaphore::right().await, ["told to end"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_ends_with_the_last_clone_of_its_sender() {
    assert_eq!(closed_semaphore::channel().await, (true, Some(7), None));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_awaited_does_not_happen() {
    assert_eq!(forgotten_await::wrong().await, ["awaited"]);
    assert_eq!(forgotten_await::silent(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_awaited_happens() {
    assert_eq!(forgotten_await::right().await, ["called", "in a block", "awaited"]);
}
