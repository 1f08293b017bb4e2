//! The mistake: a call that blocks, such as a sync database driver's, in a task.
//!
//! Symptom: timers, connections and every other task of the worker thread stand still until it returns.
//! Cause: a task gives its thread back only where it awaits; a sync call does not.
//! Fix: `Offload`, which makes the call on a thread of its own.
//!
//! The picture varies: it shows real time.
//!
//! ```console
//! cargo run --example trap_blocking_call
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use blocking::{NotRun, Offload};
use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// A query of a sync driver: it returns when the heartbeat has beaten 3 times meanwhile, or after `at_most`. Says how often
/// it has.
fn query(beats: &AtomicU32, at_most: Duration) -> u32 {
    let (start, before) = (Instant::now(), beats.load(Ordering::Relaxed));
    loop {
        let beaten = beats.load(Ordering::Relaxed) - before;
        if beaten >= 3 || start.elapsed() >= at_most {
            return beaten;
        }
        std::thread::yield_now();
    }
}

// ANCHOR: wrong
/// How often the heartbeat has beaten during the query.
pub async fn wrong(beats: Arc<AtomicU32>) -> u32 {
    query(&beats, Duration::from_millis(50))
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How often the heartbeat has beaten during the query.
pub async fn right(beats: Arc<AtomicU32>) -> Result<u32, NotRun> {
    let offload = Offload::new(NonZeroUsize::MIN);
    offload.run(move |_| query(&beats, Duration::from_secs(60))).await
}
// ANCHOR_END: right

/// Runs `work` beside a heartbeat, on the same thread.
pub async fn beside_a_heartbeat<T>(work: impl AsyncFnOnce(Arc<AtomicU32>) -> T) -> T {
    let beats = Arc::new(AtomicU32::new(0));
    let counted = beats.clone();
    let heartbeat = async move {
        loop {
            waiting("timer", sleep(Duration::from_millis(5))).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    let heartbeat = tokio::spawn(heartbeat.lane("heartbeat"));
    sleep(Duration::from_millis(10)).await;
    let result = waiting("join", work(beats)).lane("query").await;
    sleep(Duration::from_millis(10)).await;
    heartbeat.abort();
    result
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (beats, left) = record("in the task", beside_a_heartbeat(wrong)).await;
    println!("wrong: the heart beats {beats} times during the query");
    let (beats, right) = record("offload", beside_a_heartbeat(right)).await;
    println!("right: the heart beats {} times during the query", beats.unwrap_or_default());
    args.show(&left.beside(right))
}
