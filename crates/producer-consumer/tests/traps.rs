//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/select_message_lost.rs"]
mod select_message_lost;
#[path = "../../../examples/traps/sender_kept_alive.rs"]
mod sender_kept_alive;

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
