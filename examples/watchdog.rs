//! A service in which one task blocks its worker thread; the watchdog says which, and for how long.
//!
//! The picture varies: it shows real computing.
//!
//! ```console
//! cargo run --example watchdog
//! cargo run --example watchdog -- --limit 200
//! ```

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use blocking::Watchdog;
use clap::Parser;
use sha2::{Digest, Sha256};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// Run four named tasks on two worker threads. One of them hashes without a pause, and the watchdog names it.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 ended, 1 an error, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// Milliseconds that one poll may take
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    limit: u64,
    /// Milliseconds for which `thumbnail` hashes
    #[arg(long, default_value = "80", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    blocks: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let watchdog = Watchdog::new(Duration::from_millis(args.limit));
    let start = Instant::now();
    let mut checks = watchdog.start(move |stall| say(start, stall)).context("cannot start the watchdog")?;
    let (ended, picture) = record("service", async {
        let polite = ["mail", "report", "poll"].map(|name| {
            let task = async {
                for _ in 0..12 {
                    waiting("io", sleep(Duration::from_millis(10))).await;
                }
            };
            tokio::spawn(watchdog.watch(name, task).lane(name))
        });
        let blocks = Duration::from_millis(args.blocks);
        let rude = async move {
            waiting("io", sleep(Duration::from_millis(20))).await;
            compute(blocks);
            waiting("io", sleep(Duration::from_millis(20))).await;
        };
        let rude = tokio::spawn(watchdog.watch("thumbnail", rude).lane("thumbnail"));
        let all = async {
            for task in polite.into_iter().chain([rude]) {
                task.await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = all => Some(ended),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    if checks.stop().is_err() {
        anyhow::bail!("a report panicked");
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    ended.map_or(Ok(ExitCode::from(130)), |ended| ended.map(|()| ExitCode::SUCCESS))
}

fn say(start: Instant, stall: impl fmt::Display) {
    println!("{:>4} ms  {stall}", start.elapsed().as_millis());
}

/// What must not be done in a task: computes for so long, without a pause.
fn compute(time: Duration) {
    let (start, mut hash) = (Instant::now(), Sha256::digest("thumbnail"));
    while start.elapsed() < time {
        hash = Sha256::digest(hash);
    }
}
