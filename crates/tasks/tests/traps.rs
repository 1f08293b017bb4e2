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
