//! The mistake: a future that waits for a lock, kept by its task and not polled while the task waits for the same lock.
//!
//! Symptom: a task waits for ever for a lock that nobody holds.
//! Cause: tokio's lock is given to who is first in line. That future is, and nobody polls it, so that it never takes it.
//! Fix: poll both, or drop the one before the other is awaited, or give it a task of its own.
//!
//! ```console
//! cargo run --example trap_futurelock
//! ```

use std::pin::pin;
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, try_record, waiting};
use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Holds the lock for so long.
async fn write(file: &Mutex<()>, takes: Duration) {
    let _file = waiting("lock", file.lock()).await;
    waiting("io", sleep(takes)).await;
}

// ANCHOR: wrong
async fn save_wrong(file: &Mutex<()>) {
    let mut save = pin!(write(file, ms(10)).lane("save"));
    tokio::select! {
        () = &mut save => {}
        () = sleep(ms(20)) => {
            // `save` still exists: it is the next in line, and nobody polls it.
            write(file, ms(5)).lane("report").await;
        }
    }
}
// ANCHOR_END: wrong

// ANCHOR: right
async fn save_right(file: &Mutex<()>) {
    let mut save = pin!(write(file, ms(10)).lane("save"));
    tokio::select! {
        () = &mut save => {}
        () = sleep(ms(20)) => {
            tokio::join!(save, write(file, ms(5)).lane("report")); // both are polled
        }
    }
}
// ANCHOR_END: right

// ANCHOR: dropped
async fn save_or_give_up(file: &Mutex<()>) {
    tokio::select! {
        () = write(file, ms(10)).lane("save") => {}
        // By value: `select!` drops the other future before this block runs.
        () = sleep(ms(20)) => write(file, ms(5)).lane("report").await,
    }
}
// ANCHOR_END: dropped

/// Somebody else has the file for the first 50 ms.
async fn beside(file: &Mutex<()>, save: impl Future<Output = ()>) -> Result<(), Elapsed> {
    let both = async { tokio::join!(write(file, ms(50)).lane("other"), save.lane("task")) };
    timeout(ms(150), both).await.map(drop)
}

/// Whether all is written within 150 ms, when `save` is kept and not polled.
pub async fn wrong() -> Result<(), Elapsed> {
    let file = Mutex::new(());
    beside(&file, save_wrong(&file)).await
}

/// The same when both are polled.
pub async fn right() -> Result<(), Elapsed> {
    let file = Mutex::new(());
    beside(&file, save_right(&file)).await
}

/// The same when `save` is dropped.
pub async fn dropped() -> Result<(), Elapsed> {
    let file = Mutex::new(());
    beside(&file, save_or_give_up(&file)).await
}

fn say(ended: &Result<(), Elapsed>) -> &'static str {
    if ended.is_ok() { "all is written" } else { "the report still waits for the lock, which nobody holds" }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (ended, left) = try_record("kept and not polled", wrong()).await;
    println!("wrong: {}", say(&ended));
    let (ended, right) = try_record("both are polled", right()).await;
    println!("right: {}", say(&ended));
    println!("right: {}, when `save` is dropped", say(&dropped().await));
    args.show(&left.beside(right))
}
