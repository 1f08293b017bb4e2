//! The mistake: taking `total_delay` for a deadline, when it counts the waits and not the attempts.
//!
//! Symptom: a retry with `total_delay` of 5 s runs for 63 s.
//! Cause: only the waits are added up. Three attempts of 20 s and waits of 1 and 2 s are "3 s".
//! Fix: one deadline over attempts and waits. With backon: `tokio::time::timeout` around the whole.
//!
//! ```console
//! cargo run --example trap_deadline_without_attempts
//! ```

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Retry, Verdict, retry};
use tokio::time::{Instant, sleep};

const TOTAL: Duration = Duration::from_secs(5);

/// Hangs for 20 s, and then fails.
async fn fetch() -> Result<(), &'static str> {
    let attempt = async {
        sleep(Duration::from_secs(20)).await;
        Err("connection timed out")
    };
    attempt.try_lane("attempt").await
}

// ANCHOR: wrong
/// How long it takes until the caller knows.
pub async fn wrong() -> Duration {
    let start = Instant::now();
    let backoff = ExponentialBuilder::new().with_total_delay(Some(TOTAL)).without_max_times();
    let _ = fetch.retry(backoff).await;
    start.elapsed()
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How long it takes until the caller knows.
pub async fn right() -> Duration {
    let start = Instant::now();
    let policy = Retry { deadline: TOTAL, ..Retry::default() };
    let _ = retry(&policy, |_| Verdict::Transient, |_| fetch()).await;
    start.elapsed()
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (took, left) = record("backon, total_delay 5 s", wrong()).await;
    println!("wrong: the caller waited {} s", took.as_secs());
    let (took, right) = record("retry, deadline 5 s", right()).await;
    println!("right: the caller waited {} s", took.as_secs());
    args.show(&left.beside(right))
}
