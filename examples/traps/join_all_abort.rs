//! The mistake: `JoinSet::join_all` on a set of which a task may be aborted.
//!
//! Symptom: the caller panics, the results that were there are lost, and the other tasks are aborted too.
//! Cause: an aborted task is an error to join, and `join_all` turns each of those into a panic.
//! Fix: `join_next` in a loop that looks at `JoinError::is_cancelled`.
//!
//! ```console
//! cargo run --example trap_join_all_abort
//! ```

use std::panic::resume_unwind;
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::task::JoinSet;
use tokio::time::sleep;

async fn download(id: u64) -> u64 {
    waiting("io", sleep(Duration::from_millis(20 * id))).await;
    id
}

/// Three downloads of 20, 40 and 60 ms. At 30 ms the user cancels the second.
async fn downloads() -> JoinSet<u64> {
    let mut set = JoinSet::new();
    set.spawn(download(1).lane("download 1"));
    let second = set.spawn(download(2).lane("download 2"));
    set.spawn(download(3).lane("download 3"));
    sleep(Duration::from_millis(30)).await;
    second.abort();
    set
}

// ANCHOR: wrong
/// What was downloaded, unless it panics.
pub async fn wrong() -> Vec<u64> {
    let set = downloads().await;
    set.join_all().await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// What was downloaded, and how many downloads were cancelled.
pub async fn right() -> (Vec<u64>, usize) {
    let mut set = downloads().await;
    let (mut downloaded, mut cancelled) = (Vec::new(), 0);
    while let Some(joined) = set.join_next().await {
        match joined {
            Ok(id) => downloaded.push(id),
            Err(error) if error.is_cancelled() => cancelled += 1,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
    (downloaded, cancelled)
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    // A task of its own, so that the example outlives the panic.
    let caller = async { tokio::spawn(wrong().lane("caller")).await };
    let (downloaded, left) = record("join_all", caller).await;
    match downloaded {
        Ok(downloaded) => println!("wrong: {} downloads", downloaded.len()),
        Err(error) => println!("wrong: no download, {error}"),
    }
    let ((downloaded, cancelled), right) = record("join_next", async { right().lane("caller").await }).await;
    println!("right: {} downloads, {cancelled} cancelled", downloaded.len());
    args.show(&left.beside(right))
}
