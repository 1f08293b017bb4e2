//! The mistake: a heartbeat made of a loop with `sleep`, or of tokio's `interval` as it comes.
//!
//! Symptom: the loop falls behind by the length of every run; after a stall the interval sends five without a pause.
//! Cause: the sleep begins when the run has ended; `MissedTickBehavior::Burst`, the default, makes up for what was missed.
//! Fix: `Periodic` (or `interval` with the behaviour set): due times that do not depend on the runs, and a chosen way.
//!
//! ```console
//! cargo run --example trap_sleep_drift
//! ```

use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tasks::{MissedTickBehavior, Periodic};
use tokio::time::{Instant, interval, sleep};

const PERIOD: Duration = Duration::from_millis(10);

/// Sends a heartbeat, which takes 2 ms, but the third one takes 45 ms. Returns when it began.
async fn beat(start: Instant, number: usize) -> u128 {
    let begun = start.elapsed().as_millis();
    let took = if number == 3 { 45 } else { 2 };
    waiting("io", sleep(Duration::from_millis(took))).lane(format!("beat {number}")).await;
    begun
}

// ANCHOR: drift
/// When ten heartbeats begin, in ms.
pub async fn drifting() -> Vec<u128> {
    let (start, mut begun) = (Instant::now(), Vec::new());
    for number in 1..=10 {
        begun.push(beat(start, number).await);
        waiting("timer", sleep(PERIOD)).await;
    }
    begun
}
// ANCHOR_END: drift

// ANCHOR: burst
/// When ten heartbeats begin, in ms.
pub async fn bursting() -> Vec<u128> {
    let (start, mut begun) = (Instant::now(), Vec::new());
    let mut interval = interval(PERIOD);
    for number in 1..=10 {
        waiting("timer", interval.tick()).await;
        begun.push(beat(start, number).await);
    }
    begun
}
// ANCHOR_END: burst

// ANCHOR: right
/// When ten heartbeats begin, in ms.
pub async fn right() -> Vec<u128> {
    let (start, mut begun) = (Instant::now(), Vec::new());
    let mut periodic = Periodic::new(PERIOD, MissedTickBehavior::Skip).expect("10 ms are not zero");
    for number in 1..=10 {
        waiting("timer", periodic.tick()).await;
        begun.push(beat(start, number).await);
    }
    begun
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (drifting, left) = record("sleep", drifting()).await;
    println!("wrong, sleep:    {drifting:?}");
    let (bursting, middle) = record("interval", bursting()).await;
    println!("wrong, interval: {bursting:?}");
    let (right, last) = record("Periodic", right()).await;
    println!("right:           {right:?}");
    args.show(&left.beside(middle).beside(last))
}
