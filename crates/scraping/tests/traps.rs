//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/client_per_request.rs"]
mod client_per_request;
#[path = "../../../examples/traps/no_client_timeout.rs"]
mod no_client_timeout;

#[tokio::test(start_paused = true)]
async fn a_client_without_a_limit_waits_for_an_hour() {
    assert!(no_client_timeout::wrong().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_with_limits_gives_up() {
    use scraping::{HttpError, Limit};
    match no_client_timeout::right().await {
        Ok(Err(HttpError::TimedOut(timed_out))) => assert_eq!(timed_out.limit, Limit::Header),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_per_request_makes_as_many_connections() {
    assert_eq!(client_per_request::wrong().await.unwrap(), 6);
}

#[tokio::test]
async fn one_client_makes_one_connection() {
    assert_eq!(client_per_request::right().await.unwrap(), 1);
}
