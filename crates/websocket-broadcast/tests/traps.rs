//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

#[path = "../../../examples/traps/no_origin_check.rs"]
mod no_origin_check;
#[path = "../../../examples/traps/slow_client.rs"]
mod slow_client;
#[path = "../../../examples/traps/split_sink_dropped.rs"]
mod split_sink_dropped;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_slows_a_loop_of_sends() {
    assert_eq!(slow_client::wrong().await, ms(720));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_does_not_slow_a_hub() {
    assert_eq!(slow_client::right().await, ms(100));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_sink_says_nothing() {
    assert!(split_sink_dropped::wrong().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_closed_sink_says_so() {
    let saw = split_sink_dropped::right().await;
    let Ok(Some(Message::Close(Some(close)))) = saw else { panic!("{saw:?}") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "that was all"));
}

/// Without either half the connection ends, but without a close frame.
#[tokio::test(start_paused = true)]
async fn two_dropped_halves_end_without_a_close_frame() {
    let (server, client) = split_sink_dropped::sockets().await;
    let (mut sink, messages) = server.split();
    sink.send("the last message".into()).await.unwrap();
    drop((sink, messages));
    assert_eq!(split_sink_dropped::client(client).await.unwrap(), Some("the last message".into()));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_page_reads_in_the_users_name_where_nobody_checks() {
    let seen = no_origin_check::page("https://evil.example", no_origin_check::wrong).await;
    assert_eq!(seen.unwrap(), "alice has 1200 EUR");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_page_gets_403_and_the_own_page_its_answer() {
    let seen = no_origin_check::page("https://evil.example", no_origin_check::right).await;
    assert_eq!(seen.unwrap_err().to_string(), "HTTP error: 403 Forbidden");
    let seen = no_origin_check::page("https://bank.example", no_origin_check::right).await;
    assert_eq!(seen.unwrap(), "alice has 1200 EUR");
}
