//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/select_message_lost.rs"]
mod select_message_lost;
#[path = "../../../examples/traps/select_timer.rs"]
mod select_timer;
#[path = "../../../examples/traps/sender_kept_alive.rs"]
mod sender_kept_alive;
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

#[tokio::test(start_paused = true)]
async fn send_in_select_loses_messages() {
    // With each beat of the heart that comes before there is a place; the consumer is too slow for most.
    let received = select_message_lost::wrong().await;
    assert!(received < 10, "{received} of 10 arrived");
}

#[tokio::test(start_paused = true)]
async fn reserve_in_select_loses_nothing() {
    assert_eq!(select_message_lost::right().await, 10);
}

#[tokio::test(start_paused = true)]
async fn kanal_loses_what_it_handed_over_to_a_wait_that_is_dropped() {
    assert_eq!(select_message_lost::kanal_receive().await, 0);
}

#[tokio::test(start_paused = true)]
async fn take_in_select_loses_nothing() {
    assert_eq!(select_message_lost::queue_take().await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_in_each_turn_loses_half_a_line() {
    assert_eq!(select_message_lost::line(false).await, "line\n");
    assert_eq!(select_message_lost::line(true).await, "half a line\n");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_waits_for_a_sender_that_is_kept() {
    assert_eq!(sender_kept_alive::wrong().await, (2, false));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_ends_when_the_last_sender_is_dropped_or_the_queue_is_closed() {
    assert_eq!(sender_kept_alive::right().await, (2, true));
    assert_eq!(sender_kept_alive::close().await, (2, true));
}
