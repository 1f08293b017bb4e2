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
#[path = "../../../examples/traps/unbounded_body.rs"]
mod unbounded_body;

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

/// The peak of what is allocated while a body is read, and the server's work with it.
fn peak<T>(read: impl AsyncFnOnce() -> T) -> (u64, T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut outcome = None;
    let info = allocation_counter::measure(|| outcome = Some(runtime.block_on(read())));
    (info.bytes_max, outcome.expect("it was run"))
}

#[test]
fn bytes_fills_the_memory_from_a_few_kilobytes() {
    let bomb = unbounded_body::bomb().unwrap();
    assert!(bomb.len() < 20 << 10);
    let (peak, bytes) = peak(async || unbounded_body::wrong(&bomb).await);
    assert_eq!(bytes.unwrap(), 16 << 20);
    assert!(peak > 16 << 20, "{peak} bytes at the peak");
}

#[test]
fn bounded_body_ends_at_the_cap() {
    let bomb = unbounded_body::bomb().unwrap();
    let (peak, error) = peak(async || unbounded_body::right(&bomb).await);
    assert!(matches!(error.unwrap(), scraping::BodyError::TooLong { cap: 0x10_0000, .. }));
    // Twice the cap while the buffer grows, and what the client holds.
    assert!(peak < 4 << 20, "{peak} bytes at the peak");
}
