//! The life of tasks: start them with a name, await, abort, detach, monitor, and stop a tree of them with a reason: `background`
//! and `cancellation`.
//!
//! ```console
//! cargo run --example tasks
//! ```

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tasks::{Cancellation, background};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// Start, await, abort, detach and monitor tasks, and stop a tree of them with a reason. The clock is virtual.
#[derive(Parser)]
struct Args {
    /// Milliseconds of grace for tasks that are asked to stop
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    grace: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

const MS: Duration = Duration::from_millis(1);

async fn io(milliseconds: u32) -> u32 {
    waiting("io", sleep(milliseconds * MS)).await;
    milliseconds
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (result, picture) = record("tasks", run(args.grace)).await;
    result?;
    args.picture.show(&picture).context("cannot write the picture")
}

async fn run(grace: u64) -> anyhow::Result<()> {
    // Await: a wait that is given up loses nothing.
    let mut report = background("report", io(30).lane("report"));
    if timeout(10 * MS, &mut report).await.is_err() {
        println!("{} is not ready after 10 ms", report.name());
    }
    println!("report: {}", (&mut report).await?);

    // A panic comes back with the task's name. (Not `panic!`, which would print it a second time.)
    let bad = async {
        io(5).await;
        std::panic::resume_unwind(Box::new("disk full"))
    };
    match background("import", bad.lane("import")).await {
        Ok(()) => println!("import: done"),
        Err(error) => println!("{error}"),
    }

    // Abort, and wait until nothing of it runs.
    let poll = background("poll", io(60_000).lane("poll"));
    sleep(10 * MS).await;
    poll.abort();
    if let Err(aborted) = poll.await {
        println!("{aborted}");
    }

    // Detach: the owner waits for it, and hears how it ended.
    let owner = TaskTracker::new();
    background("mail", io(40).lane("mail"))
        .detach(&owner, |result| println!("mail: {}", if result.is_ok() { "sent" } else { "lost" }));

    // A tree: the reason goes down, and each has some grace for its cleanup.
    let deploy = Cancellation::new();
    let stopped = ["polite", "stubborn"].map(|name| {
        let stop = deploy.child();
        let task = async move {
            let work = async {
                if name == "polite" {
                    let stopped = stop.run(io(60_000)).await;
                    waiting("cleanup", sleep(10 * MS)).await;
                    stopped.map_or_else(|stopped| stopped.to_string(), |_| "finished".into())
                } else {
                    io(60_000).await.to_string()
                }
            };
            let grace = Duration::from_millis(grace);
            stop.run_with_grace(grace, work.lane(name)).await.unwrap_or_else(|error| error.to_string())
        };
        background(name, task)
    });
    sleep(10 * MS).await;
    println!("alive: {} tasks", Handle::current().metrics().num_alive_tasks());
    deploy.cancel("deploy of version 7");
    for task in stopped {
        let name = task.name().to_string();
        println!("{name}: {}", task.await?);
    }
    owner.close();
    owner.wait().await;
    println!("alive: {} tasks", Handle::current().metrics().num_alive_tasks());
    Ok(())
}
