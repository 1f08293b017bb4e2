//! The mistake: keeping a sender where the receiver is drained.
//!
//! Symptom: every item is printed, and then the program hangs. Nothing fails.
//! Cause: `recv` returns `None` when all senders are dropped, and one of them lives in the function that waits.
//! Fix: move the sender into what sends. Or close the queue, which does not depend on who still holds what.
//!
//! ```console
//! cargo run --example trap_sender_kept_alive
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use producer_consumer::WorkQueue;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::join;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const MOMENT: Duration = Duration::from_millis(10);

// ANCHOR: wrong
/// How many items were received, and whether the receiver saw the end within 100 ms.
pub async fn wrong() -> (u32, bool) {
    let (sender, mut receiver) = mpsc::channel(4);
    for worker in 1..=2 {
        let sender = sender.clone();
        let work = async move {
            waiting("timer", sleep(worker * MOMENT)).await;
            // Nobody listens when the time limit below has passed.
            let _ = sender.send(worker).await;
        };
        tokio::spawn(work.lane(format!("worker {worker}")));
    }
    // `sender` itself is alive until this function returns.
    let mut received = 0;
    let receive = async {
        while waiting("queue", receiver.recv()).await.is_some() {
            received += 1;
        }
    };
    let ended = timeout(10 * MOMENT, receive).lane("receiver").await.is_ok();
    (received, ended)
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same with one line more: the function gives its own sender away.
pub async fn right() -> (u32, bool) {
    let (sender, mut receiver) = mpsc::channel(4);
    for worker in 1..=2 {
        let sender = sender.clone();
        let work = async move {
            waiting("timer", sleep(worker * MOMENT)).await;
            let _ = sender.send(worker).await;
        };
        tokio::spawn(work.lane(format!("worker {worker}")));
    }
    drop(sender);
    let mut received = 0;
    let receive = async {
        while waiting("queue", receiver.recv()).await.is_some() {
            received += 1;
        }
    };
    let ended = timeout(10 * MOMENT, receive).lane("receiver").await.is_ok();
    (received, ended)
}
// ANCHOR_END: right

// ANCHOR: close
/// With a queue whose end is a call and not a count of handles.
pub async fn close() -> (u32, bool) {
    let queue = WorkQueue::new(NonZeroUsize::MIN);
    let work = async |worker: u32| {
        sleep(worker * MOMENT).await;
        // An error means that the queue was closed before.
        let _ = queue.put(worker).await;
    };
    let produce = async {
        join!(work(1), work(2));
        queue.close();
    };
    let mut received = 0;
    let receive = async {
        while let Some(lease) = queue.take().await {
            lease.done();
            received += 1;
        }
    };
    let ended = timeout(10 * MOMENT, async { join!(produce, receive) }).await.is_ok();
    (received, ended)
}
// ANCHOR_END: close

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let show = |ended| if ended { "ended" } else { "still waits after 100 ms" };
    let ((received, ended), left) = record("sender kept", wrong()).await;
    println!("wrong: {received} of 2 received, and the receiver {}", show(ended));
    let ((received, ended), right) = record("sender dropped", right()).await;
    println!("right: {received} of 2 received, and the receiver {}", show(ended));
    let (received, ended) = close().await;
    println!("closed: {received} of 2 received, and the receiver {}", show(ended));
    args.show(&left.beside(right))
}
