//! The mistake: the guard of a `std::sync::Mutex` held across an await.
//!
//! Symptom: the thread stands still, and every task on it. With one thread, for ever.
//! Cause: the second task waits for the lock by keeping the thread, which the first needs to go on and free it.
//! Fix: a closure that cannot await, `Shared::with`. Do the slow part before it or after it.
//!
//! ```console
//! cargo run --example trap_mutex_across_await
//! ```

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use clap::Parser;
use locks::{Shared, Unusable};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// `lock()` would wait for ever.
const PATIENCE: Duration = Duration::from_millis(100);

/// The lock was not free in time.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("still locked after 100 ms")]
pub struct StillLocked;

/// Waits for the lock by keeping the thread, as `lock()` does, but gives up at last.
fn lock(counter: &Mutex<u32>) -> Result<MutexGuard<'_, u32>, StillLocked> {
    let start = Instant::now();
    loop {
        match counter.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(_) if start.elapsed() > PATIENCE => return Err(StillLocked),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Saves the new count, which takes 10 ms.
async fn save(_count: u32) {
    waiting("io", sleep(Duration::from_millis(10))).await;
}

// ANCHOR: wrong
#[expect(clippy::await_holding_lock, reason = "the mistake: this lint names it")]
async fn count_wrong(counter: &Mutex<u32>) -> Result<(), StillLocked> {
    let mut count = lock(counter)?;
    *count += 1;
    save(*count).await; // the lock is held
    Ok(())
}
// ANCHOR_END: wrong

// ANCHOR: right
async fn count_right(counter: &Shared<u32>) -> Result<(), Unusable> {
    let count = counter.with(|count| {
        *count += 1;
        *count
    })?;
    save(count).await; // the lock is free
    Ok(())
}
// ANCHOR_END: right

/// How two calls on one thread end.
pub async fn wrong() -> [Result<(), StillLocked>; 2] {
    let counter = Mutex::new(0);
    let (first, second) =
        tokio::join!(count_wrong(&counter).try_lane("count 1"), count_wrong(&counter).try_lane("count 2"),);
    [first, second]
}

/// How two calls on one thread end.
pub async fn right() -> [Result<(), Unusable>; 2] {
    let counter = Shared::new(0);
    let (first, second) =
        tokio::join!(count_right(&counter).try_lane("count 1"), count_right(&counter).try_lane("count 2"),);
    [first, second]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (calls, left) = record("std::sync::Mutex", wrong()).await;
    tell("wrong", calls);
    let (calls, right) = record("Shared", right()).await;
    tell("right", calls);
    args.show(&left.beside(right))
}

fn tell<E: std::fmt::Display>(way: &str, calls: [Result<(), E>; 2]) {
    for (call, number) in calls.into_iter().zip(1..) {
        match call {
            Ok(()) => println!("{way}: call {number} has counted and saved"),
            Err(error) => println!("{way}: call {number}: {error}"),
        }
    }
}
