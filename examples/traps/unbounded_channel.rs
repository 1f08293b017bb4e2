//! The mistake: an unbounded channel in front of a consumer that is slower than its producer.
//!
//! Symptom: memory grows for as long as the producer runs, and the last item is late by all that stands before it.
//! Cause: `send` on an unbounded channel never waits, so nothing tells the producer that it is too fast.
//! Fix: a bounded channel. Its `send` waits when the channel is full, and the producer becomes as slow as the consumer.
//!
//! ```console
//! cargo run --example trap_unbounded_channel
//! ```

use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How many lines are read, one each millisecond; a write takes four.
const LINES: usize = 100;
/// A line has one kilobyte.
const LINE: usize = 1000;

/// What was seen of a channel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The most bytes that waited in the channel.
    pub most_bytes: usize,
    /// The longest time from a line's reading to the begin of its write.
    pub longest_wait: Duration,
}

impl Seen {
    async fn write(&mut self, read: Instant, waiting_lines: usize) {
        self.most_bytes = self.most_bytes.max(waiting_lines * LINE);
        self.longest_wait = self.longest_wait.max(read.elapsed());
        waiting("io", sleep(Duration::from_millis(4))).await;
    }
}

/// Reads the next line.
async fn read() -> (Instant, Vec<u8>) {
    waiting("timer", sleep(Duration::from_millis(1))).await;
    (Instant::now(), vec![0; LINE])
}

// ANCHOR: wrong
/// Reads and writes through an unbounded channel.
pub async fn wrong() -> Seen {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let reader = async move {
        for _ in 0..LINES {
            // Never waits: the line takes memory until it is written.
            if sender.send(read().await).is_err() {
                return;
            }
        }
    };
    let writer = async move {
        let mut seen = Seen::default();
        while let Some((read, _line)) = receiver.recv().await {
            // With the line that was just taken.
            seen.write(read, receiver.len() + 1).await;
        }
        seen
    };
    tokio::join!(reader.lane("reader"), writer.lane("writer")).1
}
// ANCHOR_END: wrong

// ANCHOR: right
/// Reads and writes through a channel with room for eight lines.
pub async fn right() -> Seen {
    let (sender, mut receiver) = mpsc::channel(8);
    let reader = async move {
        for _ in 0..LINES {
            let line = read().await;
            if waiting("queue", sender.send(line)).await.is_err() {
                return;
            }
        }
    };
    let writer = async move {
        let mut seen = Seen::default();
        while let Some((read, _line)) = receiver.recv().await {
            // With the line that was just taken.
            seen.write(read, receiver.len() + 1).await;
        }
        seen
    };
    tokio::join!(reader.lane("reader"), writer.lane("writer")).1
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let show = |which, seen: Seen| {
        let (bytes, wait) = (seen.most_bytes, seen.longest_wait.as_millis());
        println!("{which}: at most {bytes:>5} bytes wait in the channel, a line waits up to {wait:>3} ms");
    };
    let (seen, left) = record("unbounded_channel", wrong()).await;
    show("wrong", seen);
    let (seen, right) = record("channel(8)", right()).await;
    show("right", seen);
    args.show(&left.beside(right))
}
