//! The mistake: awaiting something slow in the loop that takes results from `buffer_unordered`.
//!
//! Symptom: a fetch that needs 100 ms takes 500 ms, and a server with a time limit hangs up on it.
//! Cause: the fetches run only while the stream is polled, and nobody polls it while the loop's body awaits.
//! Fix: `map_concurrent`, which polls the fetches and the consumer together. Or spawn each fetch as a task.
//!
//! ```console
//! cargo run --example trap_buffer_unordered
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, stream};
use gather::map_concurrent;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{Instant, sleep};

/// How many fetches may run at a time.
const LIMIT: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not zero");

/// Fetches a page of so many parts, 50 ms each, and says how long it took.
async fn fetch(parts: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..parts {
        waiting("io", sleep(Duration::from_millis(50))).await;
    }
    start.elapsed()
}

/// Saves a page, which takes 400 ms.
async fn save(_page: Duration) {
    waiting("timer", sleep(Duration::from_millis(400))).await;
}

// ANCHOR: wrong
/// How long the page of two parts took.
pub async fn wrong() -> Duration {
    let mut slowest = Duration::ZERO;
    let mut pages = stream::iter([1, 2])
        .map(|parts| fetch(parts).lane(format!("fetch {parts}")))
        .buffer_unordered(LIMIT.get());
    while let Some(page) = pages.next().await {
        slowest = slowest.max(page);
        // From here to its end nobody polls `pages`.
        save(page).lane("save").await;
    }
    slowest
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How long the page of two parts took.
pub async fn right() -> Duration {
    let fetch = |parts| fetch(parts).lane(format!("fetch {parts}"));
    map_concurrent([1, 2], LIMIT, fetch, async |mut pages| {
        let mut slowest = Duration::ZERO;
        while let Some(page) = pages.recv().await {
            slowest = slowest.max(page);
            save(page).lane("save").await;
        }
        slowest
    })
    .await
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (took, left) = record("buffer_unordered", wrong()).await;
    println!("wrong: the fetch of 100 ms took {} ms", took.as_millis());
    let (took, right) = record("map_concurrent", right()).await;
    println!("right: the fetch of 100 ms took {} ms", took.as_millis());
    args.show(&left.beside(right))
}
