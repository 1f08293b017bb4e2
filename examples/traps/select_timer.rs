//! The mistake: `select!` between the next item and a timer that is made anew at each turn.
//!
//! Symptom: while items come faster than the delay, nothing is ever flushed by time: the first waits for the last.
//! Cause: an item that arrives drops the running `sleep`, and the next turn starts another one from zero.
//! Fix: one deadline for the batch, made when its first item comes: `Batcher`.
//!
//! ```console
//! cargo run --example trap_select_timer
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use producer_consumer::Batcher;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep};

const DELAY: Duration = Duration::from_millis(50);

/// An event every 30 ms, 20 in all.
async fn events(sender: Sender<Instant>) {
    for _ in 0..20 {
        waiting("timer", sleep(Duration::from_millis(30))).await;
        if sender.send(Instant::now()).await.is_err() {
            return;
        }
    }
}

/// Writes a batch, and says how long its first event has waited.
async fn flush(batch: Vec<Instant>) -> Duration {
    let waited = batch.first().map_or(Duration::ZERO, Instant::elapsed);
    waiting("io", sleep(Duration::from_millis(2))).lane(format!("flush {}", batch.len())).await;
    waited
}

// ANCHOR: wrong
/// How long an event waited at most, with a delay of 50 ms.
async fn collect_wrong(mut receiver: Receiver<Instant>) -> Duration {
    let (mut batch, mut longest) = (Vec::new(), Duration::ZERO);
    loop {
        tokio::select! {
            item = receiver.recv() => match item {
                Some(item) => batch.push(item),
                None => break,
            },
            // A new timer at each turn: it never gets to its end.
            () = sleep(DELAY), if !batch.is_empty() => {
                longest = longest.max(flush(std::mem::take(&mut batch)).await);
            }
        }
    }
    longest.max(flush(batch).await)
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How long an event waited at most, with a delay of 50 ms.
async fn collect_right(receiver: Receiver<Instant>) -> Duration {
    let mut batches = Batcher::new(receiver, NonZeroUsize::MAX, DELAY);
    let mut longest = Duration::ZERO;
    while let Some(batch) = batches.next().await {
        longest = longest.max(flush(batch).await);
    }
    longest
}
// ANCHOR_END: right

/// How long an event waited at most for the batch of the naive loop.
pub async fn wrong() -> Duration {
    let (sender, receiver) = mpsc::channel(64);
    tokio::join!(events(sender).lane("events"), collect_wrong(receiver)).1
}

/// How long an event waited at most for the batch of a `Batcher`.
pub async fn right() -> Duration {
    let (sender, receiver) = mpsc::channel(64);
    tokio::join!(events(sender).lane("events"), collect_right(receiver)).1
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (waited, left) = record("select! and sleep", wrong()).await;
    println!("wrong: with a delay of 50 ms an event waited {} ms", waited.as_millis());
    let (waited, right) = record("Batcher", right()).await;
    println!("right: with a delay of 50 ms an event waited {} ms", waited.as_millis());
    args.show(&left.beside(right))
}
