//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/permit_not_moved.rs"]
mod permit_not_moved;

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_not_moved_limits_nothing() {
    assert_eq!(permit_not_moved::wrong().await.unwrap(), 8);
    assert_eq!(permit_not_moved::underscore().await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_moved_limits() {
    assert_eq!(permit_not_moved::right().await.unwrap(), 2);
    assert_eq!(permit_not_moved::recipe().await, 2);
}
