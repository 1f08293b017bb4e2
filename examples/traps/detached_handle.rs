//! The mistake: believing that a task ends with its `JoinHandle`, or with the `timeout` around it.
//!
//! Symptom: the refresh that was given up goes on writing, and when it panics nobody hears of it.
//! Cause: dropping a `JoinHandle` detaches the task; its output, a panic too, is thrown away.
//! Fix: `background`, whose handle aborts the task when dropped, and which detaches only to an owner that hears of the end.
//!
//! ```console
//! cargo run --example trap_detached_handle
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tasks::background;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_millis(25);

/// What a caller saw, and what happened after it had given up.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Writes after the caller had given up.
    pub late_writes: u32,
    /// Whether anybody heard of the panic.
    pub panic_heard: bool,
}

/// Writes every 10 ms.
async fn refresh(writes: Arc<AtomicU32>) {
    loop {
        waiting("io", sleep(Duration::from_millis(10))).await;
        writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Breaks after 5 ms. Not `panic!`, whose message would be printed although it is expected.
async fn broken() {
    waiting("io", sleep(Duration::from_millis(5))).await;
    std::panic::resume_unwind(Box::new("broken"))
}

// ANCHOR: wrong
/// Gives up a refresh after 25 ms, and lets a task that will panic go.
pub async fn wrong() -> Seen {
    let writes = Arc::new(AtomicU32::new(0));
    drop(tokio::spawn(broken().lane("broken")));
    let task = tokio::spawn(refresh(writes.clone()).lane("refresh"));
    let _ = timeout(PATIENCE, task).await;
    let until_then = writes.load(Ordering::Relaxed);
    sleep(Duration::from_millis(50)).await;
    Seen { late_writes: writes.load(Ordering::Relaxed) - until_then, panic_heard: false }
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same with handles that abort, and a detached task that has an owner.
pub async fn right() -> Seen {
    let writes = Arc::new(AtomicU32::new(0));
    let (owner, panics) = (TaskTracker::new(), Arc::new(AtomicU32::new(0)));
    let heard = panics.clone();
    background("broken", broken().lane("broken"))
        .detach(&owner, move |result| _ = heard.fetch_add(u32::from(result.is_err()), Ordering::Relaxed));
    let task = background("refresh", refresh(writes.clone()).lane("refresh"));
    let _ = timeout(PATIENCE, task).await;
    let until_then = writes.load(Ordering::Relaxed);
    sleep(Duration::from_millis(50)).await;
    Seen {
        late_writes: writes.load(Ordering::Relaxed) - until_then,
        panic_heard: panics.load(Ordering::Relaxed) == 1,
    }
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let say = |way, seen: &Seen| {
        let heard = if seen.panic_heard { "was heard of" } else { "went unnoticed" };
        println!("{way}: {} writes after it was given up, the panic {heard}", seen.late_writes);
    };
    let (seen, left) = record("tokio::spawn", wrong()).await;
    say("wrong", &seen);
    let (seen, right) = record("background", right()).await;
    say("right", &seen);
    args.show(&left.beside(right))
}
