//! The mistake: futures made first and awaited later, or awaited in a loop, in the belief that they run meanwhile.
//!
//! Symptom: the wall time is the sum of all waits, 140 ms instead of 70 ms.
//! Cause: a future does nothing until it is polled, and `.await` polls one future to its end.
//! Fix: `tokio::join!` for a few futures of different types, `gather` for many of one type.
//!
//! ```console
//! cargo run --example trap_sequential
//! ```

use std::time::Duration;

use clap::Parser;
use gather::gather;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::join;
use tokio::time::{Instant, sleep};

async fn fetch(milliseconds: u64) -> u64 {
    waiting("io", sleep(Duration::from_millis(milliseconds))).await;
    milliseconds
}

// ANCHOR: wrong
/// How long five fetches take.
pub async fn wrong() -> Duration {
    let start = Instant::now();
    // Nothing runs yet: these are two descriptions of work.
    let user = fetch(30).lane("fetch user");
    let orders = fetch(50).lane("fetch orders");
    let _page = (user.await, orders.await);

    let mut reviews = Vec::new();
    for id in 1..=3 {
        reviews.push(fetch(20).lane(format!("fetch review {id}")).await);
    }
    start.elapsed()
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How long five fetches take.
pub async fn right() -> Duration {
    let start = Instant::now();
    let user = fetch(30).lane("fetch user");
    let orders = fetch(50).lane("fetch orders");
    let _page = join!(user, orders);

    let reviews = (1..=3).map(|id| fetch(20).lane(format!("fetch review {id}")));
    let _reviews = gather(reviews).await;
    start.elapsed()
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (took, left) = record("one by one", wrong()).await;
    println!("wrong: five fetches took {} ms, the sum of their times", took.as_millis());
    let (took, right) = record("together", right()).await;
    println!("right: five fetches took {} ms", took.as_millis());
    args.show(&left.beside(right))
}
