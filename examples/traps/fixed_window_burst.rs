//! The mistake: taking "100 a second" of a fixed window for a limit on every second.
//!
//! Symptom: 199 calls in 10 ms, and a server that allows 100 a second refuses the rest.
//! Cause: the count starts again with each window, however full the end of the last one was.
//! Fix: a limit on any window, such as `WindowLimit`; or a token bucket with a small burst.
//!
//! ```console
//! cargo run --example trap_fixed_window_burst
//! ```

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use semaphores::WindowLimit;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};

/// How long a call takes.
const CALL: Duration = Duration::from_millis(5);
/// How long before the end of the first window the many calls come.
const BEFORE: Duration = Duration::from_millis(10);

/// Starts at once, and returns when it did.
async fn call(number: usize) -> Result<Instant, Infallible> {
    let call = async {
        let start = Instant::now();
        waiting("io", sleep(CALL)).await;
        Ok(start)
    };
    call.lane(format!("call {number}")).await
}

// ANCHOR: wrong
/// When each call started: one, and many towards the end of the first window.
pub async fn wrong(calls: usize, window: Duration) -> Vec<Instant> {
    let mut limited = ServiceBuilder::new().rate_limit(calls as u64, window).service_fn(call);
    let mut running = JoinSet::new();
    for number in 1..=2 * calls {
        // `Infallible`: neither being ready nor a call can fail.
        let Ok(ready) = limited.ready().await;
        running.spawn(ready.call(number));
        if number == 1 {
            sleep(window - BEFORE).await;
        }
    }
    running.join_all().await.into_iter().flatten().collect()
}
// ANCHOR_END: wrong

// ANCHOR: right
/// When each call started: one, and many towards the end of the first window.
pub async fn right(calls: usize, window: Duration) -> Vec<Instant> {
    let limit = WindowLimit::new(NonZeroUsize::new(calls).unwrap_or(NonZeroUsize::MIN), window);
    let mut running = JoinSet::new();
    for number in 1..=2 * calls {
        let permit = limit.acquire().await;
        running.spawn(async move {
            let started = call(number).await;
            drop(permit);
            started
        });
        if number == 1 {
            sleep(window - BEFORE).await;
        }
    }
    running.join_all().await.into_iter().flatten().collect()
}
// ANCHOR_END: right

/// The most calls that started within any window of this length.
pub fn busiest(mut starts: Vec<Instant>, window: Duration) -> usize {
    starts.sort();
    let within = |first: &Instant| {
        let inside = starts.iter().filter(|start| *start >= first && **start < *first + window);
        inside.count()
    };
    starts.iter().map(within).max().unwrap_or(0)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (second, blink) = (Duration::from_secs(1), Duration::from_millis(25));
    let starts = wrong(100, second).await;
    println!("wrong, 100 a second: {} calls in 25 ms", busiest(starts, blink));
    let starts = right(100, second).await;
    println!("right, 100 a second: {} calls in any second", busiest(starts, second));
    println!("\nthe same with 4 in 100 ms:");
    let window = Duration::from_millis(100);
    let (_, left) = record("tower RateLimit", wrong(4, window)).await;
    let (_, right) = record("WindowLimit", right(4, window)).await;
    args.show(&left.beside(right))
}
