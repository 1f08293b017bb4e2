//! The mistake: a future in `tokio::select!` that holds a message when the other branch wins.
//!
//! Symptom: now and then a message is missing. No error, no panic.
//! Cause: `select!` drops the branches that lost, and what they held goes with them.
//! Fix: wait with something that holds nothing (`reserve`), or keep what is held outside of the loop.
//!
//! ```console
//! cargo run --example trap_select_message_lost
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use producer_consumer::WorkQueue;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, duplex};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{interval, sleep};

const MESSAGES: u32 = 10;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Takes a message every 25 ms, and counts.
async fn slow_consumer(mut messages: mpsc::Receiver<u32>) -> u32 {
    let mut received = 0;
    while waiting("queue", messages.recv()).await.is_some() {
        received += 1;
        waiting("timer", sleep(ms(25))).await;
    }
    received
}

// ANCHOR: wrong
/// Sends ten messages and beats a heart every 10 ms. Returns how many messages arrived.
pub async fn wrong() -> u32 {
    let (sender, messages) = mpsc::channel(1);
    let produce = async move {
        let mut heart = interval(ms(10));
        for message in 0..MESSAGES {
            // When the heart beats first, `send` is dropped, and the message is in it.
            tokio::select! {
                _ = waiting("queue", sender.send(message)) => {}
                _ = heart.tick() => {}
            }
        }
    };
    tokio::join!(produce.lane("producer"), slow_consumer(messages).lane("consumer")).1
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same, but it waits for a place, and the message stays where it is until there is one.
pub async fn right() -> u32 {
    let (sender, messages) = mpsc::channel(1);
    let produce = async move {
        let (mut heart, mut message) = (interval(ms(10)), 0);
        while message < MESSAGES {
            tokio::select! {
                Ok(permit) = waiting("queue", sender.reserve()) => {
                    permit.send(message);
                    message += 1;
                }
                _ = heart.tick() => {}
            }
        }
    };
    tokio::join!(produce.lane("producer"), slow_consumer(messages).lane("consumer")).1
}
// ANCHOR_END: right

// ANCHOR: kanal
/// kanal hands a message over to whoever waits. Drop the wait before it is polled again, and the message is gone.
/// Returns how many of ten were received.
pub async fn kanal_receive() -> u32 {
    let (sender, receiver) = kanal::bounded_async::<u64>(1);
    let mut received = 0;
    for message in 0..u64::from(MESSAGES) {
        tokio::select! {
            biased;
            // Polled first, so it wins whenever it is ready; here the message comes in the same turn, after that poll.
            Ok(_) = receiver.recv() => received += 1,
            Ok(()) = sender.send(message) => {}
        }
        // What is still in the channel is counted too.
        while let Ok(Some(_)) = receiver.try_recv() {
            received += 1;
        }
    }
    received
}

/// The same with a work queue.
pub async fn queue_take() -> u32 {
    let queue = WorkQueue::new(NonZeroUsize::MIN);
    let mut received = 0;
    for message in 0..u64::from(MESSAGES) {
        tokio::select! {
            biased;
            Some(lease) = queue.take() => {
                lease.done();
                received += 1;
            }
            Ok(()) = queue.put(message) => {}
        }
        if queue.take().await.map(|lease| lease.done()).is_some() {
            received += 1;
        }
    }
    received
}
// ANCHOR_END: kanal

// ANCHOR: line
/// Reads a line that comes in two halves while a heart beats, with a buffer of its own in each turn, or with one for all.
pub async fn line(kept: bool) -> String {
    let (mut writer, reader) = duplex(64);
    let write = async move {
        for half in ["half a ", "line\n"] {
            // An error means that the reader is gone, which has what it wants then.
            let _ = writer.write_all(half.as_bytes()).await;
            sleep(ms(15)).await;
        }
    };
    let read = async {
        let (mut reader, mut heart) = (BufReader::new(reader), interval(ms(10)));
        let mut buffer = Vec::new();
        loop {
            if !kept {
                buffer = Vec::new();
            }
            tokio::select! {
                // Dropped in the middle of a line, it leaves in the buffer what it has read.
                _ = reader.read_until(b'\n', &mut buffer) => break String::from_utf8_lossy(&buffer).into_owned(),
                _ = heart.tick() => yield_now().await,
            }
        }
    };
    tokio::join!(write, read).1
}
// ANCHOR_END: line

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (received, left) = record("send", wrong()).await;
    println!("wrong: send in select!: {received} of {MESSAGES} messages arrived");
    let (received, right) = record("reserve", right()).await;
    println!("right: reserve in select!: {received} of {MESSAGES} messages arrived");
    println!("wrong: kanal's recv in select!: {} of {MESSAGES}", kanal_receive().await);
    println!("right: the work queue's take in select!: {} of {MESSAGES}", queue_take().await);
    println!("wrong: a buffer in each turn: {:?}", line(false).await);
    println!("right: a buffer for all turns: {:?}", line(true).await);
    args.show(&left.beside(right))
}
