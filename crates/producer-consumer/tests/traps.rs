//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/select_timer.rs"]
mod select_timer;
#[path = "../../../examples/traps/unbounded_channel.rs"]
mod unbounded_channel;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn a_timer_made_at_each_turn_never_flushes() {
    assert_eq!(select_timer::wrong().await, ms(19 * 30), "the first event waits for the last");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_for_the_batch_flushes_in_time() {
    assert_eq!(select_timer::right().await, ms(50));
}

/// A line each millisecond, and one in four is written.
#[tokio::test(start_paused = true)]
async fn an_unbounded_channel_grows_with_its_input() {
    let seen = unbounded_channel::wrong().await;
    assert_eq!(seen.most_bytes, 75_000, "{seen:?}");
    assert_eq!(seen.longest_wait, ms(297), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_channel_slows_its_sender_down() {
    let seen = unbounded_channel::right().await;
    assert_eq!(seen.most_bytes, 8_000, "{seen:?}");
    assert!(seen.longest_wait <= ms(4 * 9), "{seen:?}");
}
