//! The mistake: taking `max_delay` for the longest wait, when jitter is added on top of it.
//!
//! Symptom: a retry that should wait at most 1 s waits nearly 2 s.
//! Cause: backon caps the delay first and adds up to as much again.
//! Fix: full jitter, drawn between zero and the cap. With backon: halve `max_delay`.
//!
//! ```console
//! cargo run --example trap_jitter_above_cap
//! ```

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Retry, Verdict, retry};
use tokio::time::{Instant, sleep};

const CAP: Duration = Duration::from_secs(1);

/// When each attempt began.
type Attempts = Mutex<Vec<Instant>>;

/// Fails after 50 ms.
async fn fetch(attempts: &Attempts) -> Result<(), &'static str> {
    let number = {
        let mut attempts = attempts.lock().map_err(|_| "poisoned")?;
        attempts.push(Instant::now());
        attempts.len()
    };
    let attempt = async {
        sleep(Duration::from_millis(50)).await;
        Err("unavailable")
    };
    attempt.try_lane(format!("attempt {number}")).await
}

fn longest_wait(attempts: Attempts) -> Duration {
    let attempts = attempts.into_inner().unwrap_or_default();
    let waits = attempts.windows(2).map(|pair| pair[1] - pair[0] - Duration::from_millis(50));
    waits.max().unwrap_or_default()
}

// ANCHOR: wrong
/// The longest wait between two of 8 attempts.
pub async fn wrong(seed: u64) -> Duration {
    let attempts = Attempts::default();
    let backoff = ExponentialBuilder::new()
        .with_min_delay(CAP)
        .with_max_delay(CAP)
        .with_jitter()
        .with_jitter_seed(seed)
        .with_max_times(7);
    let _ = (|| fetch(&attempts)).retry(backoff).await;
    longest_wait(attempts)
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The longest wait between two of 8 attempts.
pub async fn right(seed: u64) -> Duration {
    fastrand::seed(seed);
    let attempts = Attempts::default();
    let eight = NonZeroUsize::MIN.saturating_add(7);
    let policy = Retry { attempts: eight, base: CAP, cap: CAP, ..Retry::default() };
    let _ = retry(&policy, |_| Verdict::Transient, |_| fetch(&attempts)).await;
    longest_wait(attempts)
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (wait, left) = record("backon, max_delay 1 s", wrong(2)).await;
    println!("wrong: the longest wait was {} ms", wait.as_millis());
    let (wait, right) = record("retry, cap 1 s", right(2)).await;
    println!("right: the longest wait was {} ms", wait.as_millis());
    args.show(&left.beside(right))
}
