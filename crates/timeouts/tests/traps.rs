//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/deadline_without_attempts.rs"]
mod deadline_without_attempts;
#[path = "../../../examples/traps/hedge_percentile.rs"]
mod hedge_percentile;
#[path = "../../../examples/traps/jitter_above_cap.rs"]
mod jitter_above_cap;
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

#[tokio::test(start_paused = true)]
async fn backon_waits_longer_than_max_delay() {
    let wait = jitter_above_cap::wrong(2).await;
    assert!(wait > Duration::from_millis(1900), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_never_waits_longer_than_its_cap() {
    for seed in 0..100 {
        let wait = jitter_above_cap::right(seed).await;
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn backon_counts_only_the_waits() {
    assert_eq!(deadline_without_attempts::wrong().await, Duration::from_secs(63));
}

#[tokio::test(start_paused = true)]
async fn retry_counts_the_attempts_too() {
    assert_eq!(deadline_without_attempts::right().await, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn tower_hedges_more_than_the_percentile_says() {
    let share = hedge_percentile::wrong().await.unwrap();
    assert!((0.08..0.12).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn hedge_hedges_what_the_percentile_says() {
    let share = hedge_percentile::right().await.unwrap();
    assert!((0.04..0.06).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn tower_lets_an_error_win() {
    assert!(hedge_percentile::wrong_error().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn hedge_waits_for_the_copy_that_still_runs() {
    assert_eq!(hedge_percentile::right_error().await.unwrap(), "answer");
}
