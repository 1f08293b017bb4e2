//! Six words of asyncio and what they are here: runtime, future, task, oneshot, guard, stream.
//!
//! ```console
//! cargo run --example concepts
//! ```

use std::time::Duration;

use clap::Parser;
use futures::{Stream, StreamExt, stream};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep};

/// Six words of asyncio and what they are here: runtime, future, task, oneshot, guard, stream.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    picture: PictureArgs,
}

// ANCHOR: runtime
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (result, picture) = record("concepts", concepts()).await;
    result?;
    args.picture.show(&picture)?;
    Ok(())
}
// ANCHOR_END: runtime

async fn concepts() -> anyhow::Result<()> {
    // ANCHOR: future
    let start = Instant::now();
    let future = brew("coffee").lane("future"); // nothing runs yet
    sleep(Duration::from_millis(10)).await;
    println!("future: {} after {:?}", future.await, start.elapsed());
    // ANCHOR_END: future

    // ANCHOR: task
    let start = Instant::now();
    let task = tokio::spawn(brew("tea").lane("task")); // runs from here on
    sleep(Duration::from_millis(10)).await;
    println!("task: {} after {:?}", task.await?, start.elapsed());
    // ANCHOR_END: task

    // ANCHOR: oneshot
    let (sender, receiver) = oneshot::channel();
    let producer = tokio::spawn(async move { sender.send(brew("cocoa").await) }.lane("producer"));
    println!("oneshot: {}", waiting("queue", receiver).lane("consumer").await?);
    // The send succeeded: its value has been received.
    let _ = producer.await?;
    // ANCHOR_END: oneshot

    // ANCHOR: guard
    let machine = Mutex::new(0);
    let use_machine = async |name: &str| {
        let mut cups = waiting("lock", machine.lock()).await;
        brew(name).await;
        *cups += 1;
    }; // the guard `cups` is dropped here, also on an early return or when the future is dropped
    tokio::join!(use_machine("mocha").lane("guard 0"), use_machine("latte").lane("guard 1"));
    println!("guard: {} cups", machine.into_inner());
    // ANCHOR_END: guard

    // ANCHOR: stream
    let sizes = async {
        let mut cups = std::pin::pin!(cups(3));
        let mut sizes = Vec::new();
        while let Some(size) = cups.next().await {
            sizes.push(size);
        }
        sizes
    };
    println!("stream: {:?}", sizes.lane("stream").await);
    // ANCHOR_END: stream
    Ok(())
}

async fn brew(what: &str) -> String {
    waiting("timer", sleep(Duration::from_millis(20))).await;
    format!("a cup of {what}")
}

// ANCHOR: make_stream
fn cups(n: u32) -> impl Stream<Item = u32> {
    stream::iter(1..=n).then(async |size| {
        waiting("timer", sleep(Duration::from_millis(10))).await;
        size
    })
}
// ANCHOR_END: make_stream
