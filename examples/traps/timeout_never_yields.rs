//! The mistake: a timeout around code that computes without awaiting.
//!
//! Symptom: a limit of 10 ms, an answer after 50 ms, and no error.
//! Cause: the timer is polled by the same task, which is busy.
//! Fix: yield between parts of the work, or compute on another thread; `Limit` reports what came late.
//!
//! ```console
//! cargo run --example trap_timeout_never_yields
//! ```

use std::time::Duration;

use clap::Parser;
use futures::FutureExt;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Late, Limit, TimedOut, timeout};
use tokio::task::yield_now;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, advance};

const LIMIT: Duration = Duration::from_millis(10);

/// Computes for 5 ms. On the paused clock computing takes no time, so the clock is moved, within one poll.
fn hash_block() {
    let _ = advance(Duration::from_millis(5)).now_or_never();
}

// ANCHOR: wrong
/// Hashes ten blocks without a break.
pub async fn wrong() -> Result<usize, Elapsed> {
    let hash = async {
        (0..10).for_each(|_| hash_block());
        10
    };
    tokio::time::timeout(LIMIT, hash.lane("hash")).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// Hashes ten blocks and yields after each.
pub async fn right() -> Result<usize, TimedOut> {
    let hash = async {
        for _ in 0..10 {
            hash_block();
            yield_now().await;
        }
        10
    };
    timeout("hash", LIMIT, hash.lane("hash")).await
}
// ANCHOR_END: right

// ANCHOR: reported
/// Hashes ten blocks without a break, and says that it was late.
pub async fn reported() -> Result<usize, Late<usize>> {
    let hash = async {
        (0..10).for_each(|_| hash_block());
        10
    };
    Limit::new("hash", LIMIT).run(hash.lane("hash")).await
}
// ANCHOR_END: reported

/// What `run` returns, and how long it took.
pub async fn look<T>(run: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (run.await, start.elapsed())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    println!("a limit of 10 ms around ten blocks of 5 ms each");
    let ((result, took), left) = record("no await", look(wrong())).await;
    println!("wrong: {} after {} ms", if result.is_ok() { "no error" } else { "cut off" }, took.as_millis());
    let ((result, took), right) = record("yields", look(right())).await;
    println!("right: {} after {} ms", if result.is_ok() { "no error" } else { "cut off" }, took.as_millis());
    match reported().await {
        Ok(_) => println!("in time"),
        Err(late) => println!("reported: {late}, {} blocks", late.output.unwrap_or_default()),
    }
    args.show(&left.beside(right))
}
