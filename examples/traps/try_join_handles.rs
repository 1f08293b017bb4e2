//! The mistake: `try_join!` over the handles of spawned tasks, in the belief that an error stops the other tasks.
//!
//! Symptom: the caller has its error at 20 ms, and two uploads go on and take effect after it.
//! Cause: `try_join!` drops the other handles, and a `JoinHandle` that is dropped leaves its task running.
//! Fix: `try_gather`, which aborts the other tasks and awaits their end. Or `try_join!` over futures, not tasks.
//!
//! ```console
//! cargo run --example trap_try_join_handles
//! ```

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use gather::{Failed, try_gather};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio::try_join;

/// How many uploads have taken effect.
pub type Uploaded = Arc<AtomicUsize>;

/// Uploads a file in so many milliseconds. The one of 20 ms fails.
pub async fn upload(milliseconds: u64, uploaded: Uploaded) -> io::Result<()> {
    waiting("io", sleep(Duration::from_millis(milliseconds))).await;
    if milliseconds == 20 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    uploaded.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

// ANCHOR: wrong
/// Uploads three files, or none is of use.
pub async fn wrong(uploaded: Uploaded) -> io::Result<()> {
    let spawn = |milliseconds| {
        let upload = upload(milliseconds, uploaded.clone());
        tokio::spawn(upload.try_lane(format!("upload {milliseconds}")))
    };
    try_join!(join(spawn(50)), join(spawn(20)), join(spawn(80)))?;
    Ok(())
}

/// The upload's own error is one level deeper: over bare handles, `try_join!` does not notice it.
async fn join(task: JoinHandle<io::Result<()>>) -> io::Result<()> {
    task.await?
}
// ANCHOR_END: wrong

// ANCHOR: right
/// Uploads three files, or none is of use.
pub async fn right(uploaded: Uploaded) -> Result<(), Failed<io::Error>> {
    let uploads = [50, 20, 80].map(|milliseconds| {
        let upload = upload(milliseconds, uploaded.clone());
        upload.try_lane(format!("upload {milliseconds}"))
    });
    try_gather(uploads).await?;
    Ok(())
}
// ANCHOR_END: right

/// What a caller sees, and what happens behind its back.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// When the error came.
    pub failed_after: Duration,
    /// How many tasks were alive then.
    pub still_running: usize,
    /// How many uploads took effect after it.
    pub uploaded_later: usize,
}

/// Runs one of the two, and looks on for 80 ms after its end.
pub async fn look<E: Display + 'static>(upload_all: impl AsyncFnOnce(Uploaded) -> Result<(), E>) -> Seen {
    let (uploaded, start) = (Uploaded::default(), Instant::now());
    let _failed = upload_all(uploaded.clone()).try_lane("upload all").await;
    let failed_after = start.elapsed();
    let still_running = Handle::current().metrics().num_alive_tasks();
    let before = uploaded.load(Ordering::Relaxed);
    waiting("timer", sleep(Duration::from_millis(80))).await;
    Seen { failed_after, still_running, uploaded_later: uploaded.load(Ordering::Relaxed) - before }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (seen, left) = record("try_join!", look(wrong)).await;
    print("wrong", &seen);
    let (seen, right) = record("try_gather", look(right)).await;
    print("right", &seen);
    args.show(&left.beside(right))
}

fn print(which: &str, seen: &Seen) {
    let Seen { failed_after, still_running, uploaded_later } = seen;
    println!(
        "{which}: failed after {} ms, {still_running} tasks still running, {uploaded_later} uploads after the error",
        failed_after.as_millis()
    );
}
