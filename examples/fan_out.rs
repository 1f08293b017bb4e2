//! Give the lines of a file to four consumers of different speed, each with a policy of its own, and count what each lost.
//!
//! The clock is virtual: lines come at a steady pace and consumers take their time, but the run ends at once.
//!
//! ```console
//! cargo run --example fan_out
//! journalctl -n 40 | cargo run --example fan_out -- - --every 5
//! ```

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::StreamExt;
use streams::{Event, FanOut, Receiver, WhenFull};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{Instant, sleep, sleep_until};

/// Give lines to an archive, a dashboard, an index and a webhook, none of which is as fast as the next.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all published, 1 no input, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// The file to read; `-` reads standard input. Without one, 20 lines of an invented access log
    file: Option<PathBuf>,
    /// Milliseconds between two lines
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    every: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let lines = lines(&args)?;
    let lines: Vec<&str> = lines.lines().collect();
    ensure!(!lines.is_empty(), "no lines to publish: the input is empty");

    let (result, picture) = record("fan_out", async {
        let fan_out = FanOut::new();
        let archive = fan_out.subscribe_blocking(items(2), ms(200));
        let dashboard = fan_out.subscribe(items(1), WhenFull::DropOldest);
        let index = fan_out.subscribe(items(4), WhenFull::DropNewest);
        let webhook = fan_out.subscribe(items(3), WhenFull::Disconnect);
        let publish = async {
            let start = Instant::now();
            for (number, line) in (0..).zip(&lines) {
                waiting("timer", sleep_until(start + ms(args.every) * number)).await;
                waiting("queue", fan_out.publish(*line)).await;
            }
            drop(fan_out);
        };
        // The archive stops once to open its next file.
        let archive = consume("archive", archive, |number| if number == 6 { ms(60) } else { ms(4) });
        let dashboard = consume("dashboard", dashboard, |_| ms(25));
        let index = consume("index", index, |_| ms(15));
        let webhook = consume("webhook", webhook, |_| ms(50));
        let all = async {
            tokio::join!(
                publish.lane("publisher"),
                archive.try_lane("archive"),
                dashboard.try_lane("dashboard"),
                index.try_lane("index"),
                webhook.try_lane("webhook"),
            )
        };
        tokio::select! {
            all = all => Some(all),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(if result.is_some() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

/// Reads until the end, and says what it got.
async fn consume(
    name: &str,
    mut lines: Receiver<&str>,
    takes: impl Fn(usize) -> Duration,
) -> anyhow::Result<()> {
    let (mut got, mut lost, mut last) = (0, 0, "");
    let mut cut_off = false;
    while let Some(event) = waiting("queue", lines.next()).await {
        match event {
            Event::Item(line) => {
                (got, last) = (got + 1, line);
                waiting("io", sleep(takes(got))).await;
            }
            Event::Lost(count) => lost += count,
            Event::Disconnected => cut_off = true,
        }
    }
    let end = if cut_off { "disconnected after" } else { "ended with" };
    println!("{name:9} {got:>3} lines, {lost:>3} lost, {end} `{last}`");
    if cut_off {
        bail!("disconnected");
    }
    Ok(())
}

fn lines(args: &Args) -> anyhow::Result<String> {
    match &args.file {
        None => {
            let mut log = String::new();
            for number in 1..=20 {
                writeln!(log, "GET /users/{number} 200").context("a string is never full")?;
            }
            Ok(log)
        }
        Some(file) if file.as_os_str() == "-" => {
            std::io::read_to_string(std::io::stdin()).context("cannot read standard input")
        }
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        }
    }
}

fn items(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("all capacities here are above zero")
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
