//! The mistake: `buffered(4)` where some jobs are slow, in the belief that it keeps four of them running.
//!
//! Symptom: 1000 jobs take 10.1 s; four at a time, they need 2.74 s.
//! Cause: a job that has ended keeps its place among the four until every job before it has been delivered.
//! Fix: `map_ordered_window`, which limits apart what runs and what waits for delivery.
//!
//! ```console
//! cargo run --example trap_buffered_head
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, stream};
use gather::map_ordered_window;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{Instant, sleep};

/// How many jobs may run at a time.
const LIMIT: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not zero");
/// How many jobs may be started and not yet delivered.
const WINDOW: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not zero");

/// Every tenth job takes 100 ms, the others 1 ms.
async fn job(number: u64) -> u64 {
    let time = if number.is_multiple_of(10) { 100 } else { 1 };
    waiting("io", sleep(Duration::from_millis(time))).await;
    number
}

// ANCHOR: wrong
/// How long so many jobs take.
pub async fn wrong(jobs: u64) -> Duration {
    let start = Instant::now();
    let mut results =
        stream::iter(0..jobs).map(|number| job(number).lane(format!("job {number}"))).buffered(LIMIT.get());
    while results.next().await.is_some() {}
    start.elapsed()
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How long so many jobs take.
pub async fn right(jobs: u64) -> Duration {
    let start = Instant::now();
    let job = |number| job(number).lane(format!("job {number}"));
    map_ordered_window(
        0..jobs,
        LIMIT,
        WINDOW,
        job,
        async |mut results| {
            while results.next().await.is_some() {}
        },
    )
    .await;
    start.elapsed()
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    println!("wrong: 1000 jobs took {:.2} s", wrong(1000).await.as_secs_f64());
    println!("right: 1000 jobs took {:.2} s", right(1000).await.as_secs_f64());
    // Of the picture, 24 jobs are enough.
    let (_, left) = record("buffered(4)", wrong(24)).await;
    let (_, right) = record("map_ordered_window", right(24)).await;
    args.show(&left.beside(right))
}
