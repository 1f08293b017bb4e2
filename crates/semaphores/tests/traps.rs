//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

#[path = "../../../examples/traps/fixed_window_burst.rs"]
mod fixed_window_burst;
#[path = "../../../examples/traps/permit_not_moved.rs"]
mod permit_not_moved;
#[path = "../../../examples/traps/rate_limit_starves.rs"]
mod rate_limit_starves;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_fixed_window_lets_two_bursts_meet() {
    let starts = fixed_window_burst::wrong(100, SECOND).await;
    assert_eq!(fixed_window_burst::busiest(starts, Duration::from_millis(25)), 199);
}

#[tokio::test(start_paused = true)]
async fn a_sliding_window_does_not() {
    let starts = fixed_window_burst::right(100, SECOND).await;
    assert_eq!(starts.len(), 200);
    assert_eq!(fixed_window_burst::busiest(starts, SECOND), 100);
}

/// In real time, because governor knows no other. A fact decides: who came later was served first.
#[tokio::test]
async fn governor_lets_a_large_request_starve() {
    let seen = rate_limit_starves::wrong().await;
    assert!(!seen.served || seen.overtaken_by > rate_limit_starves::GREEDY, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn leaky_bucket_lets_a_large_request_starve() {
    let seen = rate_limit_starves::leaky_bucket().await;
    assert!(!seen.served && seen.overtaken_by >= 23, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn leaky_bucket_serves_it_when_it_is_told_not_to_be_fair() {
    let seen = rate_limit_starves::leaky_bucket_unfair().await;
    assert!(seen.served && seen.overtaken_by <= rate_limit_starves::GREEDY, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn rate_limit_serves_it_when_it_is_its_turn() {
    let seen = rate_limit_starves::right().await;
    assert!(seen.served && seen.overtaken_by == rate_limit_starves::GREEDY, "{seen:?}");
}

/// The next cell comes in an hour. Two hours of tokio's paused clock do not bring it.
#[tokio::test(start_paused = true)]
async fn governor_ignores_the_paused_clock() {
    let quota = governor::Quota::per_hour(std::num::NonZeroU32::MIN);
    let limit = governor::RateLimiter::direct(quota);
    limit.until_ready().await;
    assert!(tokio::time::timeout(2 * 3600 * SECOND, limit.until_ready()).await.is_err());
    let one = std::num::NonZeroUsize::MIN;
    let ours = semaphores::RateLimit::new(semaphores::Rate { tokens: one, per: 3600 * SECOND, burst: one });
    for _ in 0..2 {
        assert!(tokio::time::timeout(2 * 3600 * SECOND, ours.acquire(1)).await.is_ok());
    }
}

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
