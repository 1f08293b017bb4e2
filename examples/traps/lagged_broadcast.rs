//! The mistake: `while let Ok(event) = receiver.recv().await` on a tokio broadcast channel.
//!
//! Symptom: a receiver that was slow once has stopped for good, without a message, while events go on.
//! Cause: the error of `recv` is not the end: it also says that events were lost (`Lagged`), and then more follow.
//! Fix: handle `Lagged` and go on; or a channel in which a loss is an item and the end is the end: `FanOut`.
//!
//! ```console
//! cargo run --example trap_lagged_broadcast
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures::StreamExt;
use streams::{Event, FanOut, WhenFull};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::broadcast;
use tokio::time::sleep;

/// How many events there are.
pub const EVENTS: u64 = 20;
const QUEUE: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not zero");

/// What a receiver had of the 20 events.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    /// How many it handled.
    pub handled: u64,
    /// How many it was told as lost.
    pub lost: u64,
}

/// An event every 10 ms.
async fn events(mut send: impl AsyncFnMut(u64)) {
    for event in 0..EVENTS {
        waiting("timer", sleep(Duration::from_millis(10))).await;
        send(event).await;
    }
}

/// The fourth event takes long.
async fn handle(event: u64) {
    let takes = if event == 3 { 80 } else { 5 };
    waiting("io", sleep(Duration::from_millis(takes))).await;
}

// ANCHOR: wrong
/// What was handled until the loop ended.
pub async fn wrong() -> Seen {
    let (sender, mut receiver) = broadcast::channel(QUEUE.get());
    let receive = async {
        let mut seen = Seen::default();
        while let Ok(event) = waiting("queue", receiver.recv()).await {
            handle(event).await;
            seen.handled += 1;
        }
        seen
    };
    let send = events(async |event| _ = sender.send(event));
    tokio::join!(send.lane("events"), receive.lane("receiver")).1
}
// ANCHOR_END: wrong

// ANCHOR: right
/// What was handled and lost until the loop ended.
pub async fn right() -> Seen {
    let fan_out = FanOut::new();
    let mut receiver = fan_out.subscribe(QUEUE, WhenFull::DropOldest);
    let receive = async {
        let mut seen = Seen::default();
        while let Some(event) = waiting("queue", receiver.next()).await {
            match event {
                Event::Item(event) => {
                    handle(event).await;
                    seen.handled += 1;
                }
                Event::Lost(count) => seen.lost += count,
                Event::Disconnected => break,
            }
        }
        seen
    };
    let send = async {
        events(async |event| _ = fan_out.publish(event).await).await;
        drop(fan_out);
    };
    tokio::join!(send.lane("events"), receive.lane("receiver")).1
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (Seen { handled, .. }, left) = record("broadcast", wrong()).await;
    println!("wrong: {handled} of {EVENTS} events handled, and nobody was told of the others");
    let (Seen { handled, lost }, right) = record("FanOut", right()).await;
    println!("right: {handled} of {EVENTS} events handled, {lost} told as lost");
    args.show(&left.beside(right))
}
