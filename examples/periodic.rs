//! Poll a server at a steady rate; one answer is late, and three ways to catch up are shown side by side.
//!
//! ```console
//! cargo run --example periodic
//! cargo run --example periodic -- http://localhost:8080/health --period 500 --jitter 100
//! ```

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, try_record, waiting};
use tasks::{MissedTickBehavior, Periodic};
use tokio::time::Instant;

/// Poll a server at a steady rate, in three ways to catch up after an answer that is late.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all polls answered, 1 a poll failed, 2 bad arguments.")]
struct Args {
    /// What to poll. Without it, a local server whose third answer is 3.5 periods late
    url: Option<String>,
    /// Milliseconds from one poll to the next
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    period: u64,
    /// The longest random delay of a poll, in milliseconds
    #[arg(long, default_value = "0")]
    jitter: u64,
    /// How many polls
    #[arg(long, default_value = "8")]
    polls: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = &Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;

    let (result, picture) = try_record("periodic", async {
        let poll = |name, catch_up| {
            let local = |poll| {
                let latency = if poll == 3 { args.period * 7 / 2 } else { args.period / 5 };
                api.url(&format!("/users/7?latency={latency}"))
            };
            let url = move |poll| args.url.clone().unwrap_or_else(|| local(poll));
            poll(&client, args, url, catch_up).try_lane(name)
        };
        tokio::try_join!(
            poll("burst", MissedTickBehavior::Burst),
            poll("skip", MissedTickBehavior::Skip),
            poll("delay", MissedTickBehavior::Delay),
        )
    })
    .await;
    let (burst, skip, delay) = result?;
    println!("polls begin, in ms:");
    println!("burst {burst}\nskip  {skip}\ndelay {delay}");
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

/// Polls so many times and says when, and how many were left out.
async fn poll(
    client: &Client,
    args: &Args,
    url: impl Fn(u64) -> String,
    catch_up: MissedTickBehavior,
) -> anyhow::Result<String> {
    let start = Instant::now();
    let periodic = Periodic::new(Duration::from_millis(args.period), catch_up)?;
    let mut periodic = periodic.with_jitter(Duration::from_millis(args.jitter));
    let (mut begun, mut missed) = (String::new(), 0);
    for _ in 0..args.polls {
        let tick = waiting("timer", periodic.tick()).await;
        begun += &format!("{:>5}", start.elapsed().as_millis());
        missed += tick.missed;
        client.get(url(tick.number)).send().await?.error_for_status()?.bytes().await?;
    }
    Ok(format!("{begun}  missed {missed}"))
}
