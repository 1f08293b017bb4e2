//! The first program: what a future, a task and the runtime are, in one screen.
//!
//! ```console
//! cargo run --example hello
//! ```

use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// An `async fn` returns a future: a value that describes work. Calling it runs nothing yet.
async fn greet(name: &str, after: u64) -> String {
    // At each `.await` the future may be suspended, and the thread is free for others.
    waiting("timer", sleep(Duration::from_millis(after))).await;
    println!("{after:>3} ms  hello from {name}");
    format!("{name} has greeted")
}

/// The first program: what a future, a task and the runtime are, in one screen.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    picture: PictureArgs,
}

/// The runtime is what polls futures. This one has a single thread, and a clock that jumps over waiting times.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let (outcome, picture) = record("hello", async {
        let future = greet("a future", 30).lane("future");
        println!("  0 ms  the future is made; it has not started");

        // A task is a future that the runtime polls by itself, beside us.
        let task = tokio::spawn(greet("a task", 20).lane("task"));

        // `join!` polls two futures in turn on this very task: both wait at the same time.
        let both = tokio::join!(future, greet("another future", 40).lane("other"));
        (both, task.await)
    })
    .await;
    let ((future, other), task) = outcome;
    println!("{future}; {other}; {}", task.expect("the task neither panics nor is aborted"));
    args.picture.show(&picture)
}
