//! The mistake: taking a permit before a task is spawned, and not moving it into the task.
//!
//! Symptom: all eight fetches run at once under a limit of two.
//! Cause: the permit belongs to the loop's body, which ends when the task has been spawned, not when it is done.
//! Fix: name the permit inside the task, so that it is moved there. `let _ = permit;` does not name it: it moves nothing.
//!
//! ```console
//! cargo run --example trap_permit_not_moved
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use semaphores::ConcurrencyLimit;
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::sync::{AcquireError, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Counts fetches that run.
#[derive(Clone, Default)]
pub struct Gauge(Arc<[AtomicUsize; 2]>);

impl Gauge {
    async fn fetch(self) {
        let running = self.0[0].fetch_add(1, Ordering::Relaxed) + 1;
        self.0[1].fetch_max(running, Ordering::Relaxed);
        level("running", running);
        waiting("io", sleep(Duration::from_millis(20))).await;
        level("running", self.0[0].fetch_sub(1, Ordering::Relaxed) - 1);
    }

    fn peak(&self) -> usize {
        self.0[1].load(Ordering::Relaxed)
    }
}

// ANCHOR: wrong
/// How many of eight fetches ran at a time.
pub async fn wrong() -> Result<usize, AcquireError> {
    let (gauge, limit, mut tasks) = (Gauge::default(), Arc::new(Semaphore::new(2)), JoinSet::new());
    for number in 1..=8 {
        let _permit = limit.clone().acquire_owned().await?;
        tasks.spawn(gauge.clone().fetch().lane(format!("fetch {number}")));
        // Here the permit is dropped: the task has only begun.
    }
    tasks.join_all().await;
    Ok(gauge.peak())
}
// ANCHOR_END: wrong

// ANCHOR: underscore
/// As `wrong`, though the permit is spoken of inside the task.
pub async fn underscore() -> Result<usize, AcquireError> {
    let (gauge, limit, mut tasks) = (Gauge::default(), Arc::new(Semaphore::new(2)), JoinSet::new());
    for _ in 1..=8 {
        let permit = limit.clone().acquire_owned().await?;
        let fetch = gauge.clone().fetch();
        tasks.spawn(async move {
            let _ = permit; // binds nothing, so that nothing is moved here
            fetch.await;
        });
    }
    tasks.join_all().await;
    Ok(gauge.peak())
}
// ANCHOR_END: underscore

// ANCHOR: right
/// How many of eight fetches ran at a time.
pub async fn right() -> Result<usize, AcquireError> {
    let (gauge, limit, mut tasks) = (Gauge::default(), Arc::new(Semaphore::new(2)), JoinSet::new());
    for number in 1..=8 {
        let permit = limit.clone().acquire_owned().await?;
        let fetch = gauge.clone().fetch();
        let task = async move {
            let _permit = permit;
            fetch.await;
        };
        tasks.spawn(task.lane(format!("fetch {number}")));
    }
    tasks.join_all().await;
    Ok(gauge.peak())
}
// ANCHOR_END: right

// ANCHOR: recipe
/// How many of eight fetches ran at a time. The permit has no name that could be lost.
pub async fn recipe() -> usize {
    let (gauge, limit) =
        (Gauge::default(), ConcurrencyLimit::new(const { std::num::NonZeroUsize::new(2).unwrap() }));
    let mut tasks = JoinSet::new();
    for _ in 1..=8 {
        let (gauge, limit) = (gauge.clone(), limit.clone());
        tasks.spawn(async move { limit.run(|| gauge.fetch()).await });
    }
    tasks.join_all().await;
    gauge.peak()
}
// ANCHOR_END: recipe

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = PictureArgs::parse();
    let (peak, left) = record("not moved", wrong()).await;
    println!("wrong: {} fetches at a time under a limit of 2", peak?);
    println!("wrong: {} with `let _ = permit;` in the task", underscore().await?);
    let (peak, right) = record("moved", right()).await;
    println!("right: {} fetches at a time", peak?);
    println!("right: {} with `ConcurrencyLimit::run` in the task", recipe().await);
    args.show(&left.beside(right))?;
    Ok(())
}
