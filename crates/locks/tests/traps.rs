//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/closed_semaphore.rs"]
mod closed_semaphore;
#[path = "../../../examples/traps/forgotten_await.rs"]
mod forgotten_await;

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
