//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/timeout_never_yields.rs"]
mod timeout_never_yields;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_code_that_never_yields_is_silently_late() {
    use timeout_never_yields::{look, wrong};
    assert_eq!(look(wrong()).await, (Ok(10), ms(50)));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_code_that_yields_cuts_it_off() {
    use timeout_never_yields::{look, right};
    let (result, took) = look(right()).await;
    assert!(result.is_err());
    // The limit counts from the first yield, after 5 ms.
    assert!(took <= ms(20), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_reports_what_came_late() {
    let late = timeout_never_yields::reported().await.unwrap_err();
    assert_eq!((late.output, late.timed_out.took), (Some(10), ms(50)));
}
