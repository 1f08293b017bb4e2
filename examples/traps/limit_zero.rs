//! The mistake: a limit that is computed, and one day comes out as zero.
//!
//! Symptom: nothing runs, nothing fails, and the call never returns. Elsewhere zero means no limit at all.
//! Cause: with no place for a job, `buffered` waits for the end of a job that it never starts.
//! Fix: `NonZeroUsize`, which makes whoever computes the limit say what happens at zero.
//!
//! ```console
//! cargo run --example trap_limit_zero
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, stream};
use futures_buffered::BufferedStreamExt;
use gather::map_ordered;
use support::lanes::{LaneExt, PictureArgs, try_record, waiting};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

async fn hash(file: u32) -> u32 {
    waiting("io", sleep(Duration::from_millis(10))).await;
    file
}

// ANCHOR: wrong
/// Hashes a quarter of the files at a time, and gives up after 100 ms.
pub async fn wrong() -> Result<Vec<u32>, Elapsed> {
    let files = [1, 2, 3];
    let limit = files.len() / 4;
    let hashes = files.map(|file| hash(file).lane(format!("hash {file}")));
    let all = stream::iter(hashes).buffered(limit).collect();
    timeout(Duration::from_millis(100), all).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// Hashes a quarter of the files at a time, but at least one.
pub async fn right() -> Result<Vec<u32>, Elapsed> {
    let files = [1, 2, 3];
    let limit = NonZeroUsize::new(files.len() / 4).unwrap_or(NonZeroUsize::MIN);
    let hash = |file| hash(file).lane(format!("hash {file}"));
    timeout(Duration::from_millis(100), map_ordered(files, limit, hash)).await
}
// ANCHOR_END: right

// ANCHOR: zero
/// How long each adapter takes for three jobs of 10 ms with a limit of zero; `None` if it still waits after an hour.
pub async fn with_zero() -> [(&'static str, Option<Duration>); 6] {
    let files = || stream::iter(1..=3);
    let jobs = || files().map(hash);
    let each = async |file| _ = hash(file).await;
    let futures_each = StreamExt::for_each_concurrent(files(), 0, each);
    let buffered_each = BufferedStreamExt::for_each_concurrent(files(), 0, each);
    [
        ("futures: buffered", time(jobs().buffered(0).count()).await),
        ("futures: buffer_unordered", time(jobs().buffer_unordered(0).count()).await),
        ("futures: for_each_concurrent", time(futures_each).await),
        ("futures-buffered: buffered_unordered", time(jobs().buffered_unordered(0).count()).await),
        ("futures-buffered: for_each_concurrent", time(buffered_each).await),
        ("tokio: Semaphore", time(Semaphore::new(0).acquire()).await),
    ]
}
// ANCHOR_END: zero

async fn time(work: impl Future) -> Option<Duration> {
    let start = Instant::now();
    let ended = timeout(Duration::from_secs(3600), work).await;
    ended.is_ok().then(|| start.elapsed())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    println!("three jobs of 10 ms and a limit of zero");
    for (adapter, took) in with_zero().await {
        match took {
            None => println!("{adapter:38} hangs"),
            Some(took) => println!("{adapter:38} ends after {} ms: all at once", took.as_millis()),
        }
    }
    let (hashes, left) = try_record("buffered(0)", wrong()).await;
    println!("wrong: {} of 3 files after 100 ms", hashes.map_or(0, |hashes| hashes.len()));
    let (hashes, right) = try_record("map_ordered", right()).await;
    println!("right: {} of 3 files after 100 ms", hashes.map_or(0, |hashes| hashes.len()));
    args.show(&left.beside(right))
}
