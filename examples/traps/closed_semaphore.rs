//! The mistake: dropping a handle of a semaphore to tell those who wait for it that there will be no more permits.
//!
//! Symptom: the waiters wait for ever, and shutdown with them.
//! Cause: each waiter has a clone of the `Arc`, so the semaphore lives on; and its drop would tell nobody.
//! Fix: `close`, which refuses everyone who waits and everyone who comes later. Permits that are out stay good.
//!
//! ```console
//! cargo run --example trap_closed_semaphore
//! ```

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::future::join_all;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// Waits for a connection; returns what became of it.
async fn worker(connections: Arc<Semaphore>) -> &'static str {
    match waiting("permit", connections.acquire()).await {
        Ok(_permit) => "works",
        Err(_closed) => "told to end",
    }
}

/// Starts three workers. After 10 ms the server turns out to be away, and `give_up` is called with the only handle that is
/// not a worker's.
async fn outcomes(give_up: impl FnOnce(Arc<Semaphore>)) -> Vec<&'static str> {
    // A permit would be added for each connection that is made.
    let connections = Arc::new(Semaphore::new(0));
    let workers = (1..=3).map(|number| {
        let worker = timeout(Duration::from_millis(100), worker(connections.clone()));
        worker.try_lane(format!("worker {number}"))
    });
    let workers = join_all(workers.collect::<Vec<_>>());
    let connect = async {
        sleep(Duration::from_millis(10)).await;
        give_up(connections);
    };
    let (outcomes, ()) = tokio::join!(workers, connect);
    outcomes.into_iter().map(|outcome| outcome.unwrap_or("still waits")).collect()
}

// ANCHOR: wrong
/// What has become of three workers after 100 ms.
pub async fn wrong() -> Vec<&'static str> {
    outcomes(drop).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// What has become of three workers after 100 ms.
pub async fn right() -> Vec<&'static str> {
    outcomes(|connections| connections.close()).await
}
// ANCHOR_END: right

// ANCHOR: channel
/// A channel tells by a drop, but only by that of the last clone. What came before is still received.
pub async fn channel() -> (bool, Option<u8>, Option<u8>) {
    let (sender, mut receiver) = mpsc::channel(4);
    let clone = sender.clone();
    let _ = sender.send(7).await;
    drop(sender);
    let first = receiver.recv().await;
    let open = timeout(Duration::from_millis(100), receiver.recv()).await.is_err();
    drop(clone);
    (open, first, receiver.recv().await)
}
// ANCHOR_END: channel

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (outcomes, left) = record("dropped", wrong()).await;
    println!("wrong: {}", outcomes.join(", "));
    let (outcomes, right) = record("closed", right()).await;
    println!("right: {}", outcomes.join(", "));
    let (open, first, end) = channel().await;
    println!("a channel with a clone of the sender alive is open: {open}; then {first:?}, and {end:?}");
    args.show(&left.beside(right))
}
