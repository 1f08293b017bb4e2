//! Send events to a server in batches: at most so many, and none waits longer than the delay.
//!
//! ```console
//! cargo run --example batcher
//! cargo run --example batcher -- --items 50 --delay 20
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use producer_consumer::Batcher;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::sleep;

/// Send events to a local server in batches: a burst fills them, a trickle waits for the delay.
#[derive(Parser)]
struct Args {
    /// How many events a batch may have
    #[arg(long, default_value = "8")]
    items: NonZeroUsize,
    /// How many milliseconds an event may wait for others
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u64).range(1..=500))]
    delay: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let url = api.url("/echo?latency=15");

    let (result, picture) = record("batcher", async {
        let (sender, receiver) = mpsc::channel(64);
        let mut batches = Batcher::new(receiver, args.items, Duration::from_millis(args.delay));
        let send = async {
            let (mut sent, mut number) = (0, 0);
            while let Some(batch) = waiting("queue", batches.next()).await {
                (sent, number) = (sent + batch.len(), number + 1);
                let why = if batch.len() == args.items.get() { "full" } else { "in time" };
                println!("batch {number}: {:>2} events, {why}", batch.len());
                let request = client.post(&url).body(batch.join("\n")).send();
                let request = request.try_lane(format!("request {number}"));
                request.await?.error_for_status()?;
            }
            anyhow::Ok(sent)
        };
        tokio::join!(events(sender).lane("events"), send.try_lane("sender")).1
    })
    .await;
    ensure!(result? == EVENTS, "events were lost");
    println!("{EVENTS} events, {} requests", api.gauge().route("/echo").total);

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

const EVENTS: usize = 26;

/// A burst, a trickle, and another burst.
async fn events(sender: Sender<String>) {
    for number in 0..EVENTS {
        if (10..16).contains(&number) {
            waiting("timer", sleep(Duration::from_millis(25))).await;
        }
        if sender.send(format!("event {number}")).await.is_err() {
            return;
        }
    }
}
