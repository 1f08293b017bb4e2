//! A sensor is faster than whoever stores its readings: what is lost, in each of three ways.
//!
//! ```console
//! cargo run --example lossy_queue
//! cargo run --example lossy_queue -- --capacity 1
//! ```
//!
//! The picture varies with the moments at which the requests end.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use producer_consumer::{LossyReceiver, LossySender, Overflow, latest_queue, lossy_queue};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, Picture, PictureArgs, record, waiting};
use tokio::join;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Ten readings of two sensors go through a small queue to a slow store: which are lost, in three ways to lose them.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 the readings are stored or lost, 1 a request failed, 2 bad arguments, 130 Ctrl-C."
)]
struct Args {
    /// How many readings may wait
    #[arg(long, default_value = "2")]
    capacity: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

struct Reading {
    sensor: char,
    number: u64,
    /// Dropped unsent when the reading is lost.
    arrived: oneshot::Sender<()>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (client, url) = (Client::new(), api.url("/echo?latency=35"));
    let store = async |reading: String| {
        let stored =
            client.post(&url).body(reading).send().await.and_then(reqwest::Response::error_for_status);
        stored.map(|_| ()).map_err(reqwest::Error::without_url)
    };
    let by_sensor = |reading: &Reading| reading.sensor;

    let oldest = lossy_queue(args.capacity, Overflow::DropOldest);
    let (mut picture, mut stopped) = run("drop the oldest", oldest, &store).await?;
    if !stopped {
        let newest = lossy_queue(args.capacity, Overflow::DropNewest);
        let (second, stop) = run("drop the newest", newest, &store).await?;
        (picture, stopped) = (picture.beside(second), stop);
    }
    if !stopped {
        let latest = latest_queue(args.capacity, Overflow::DropOldest, by_sensor);
        let (third, stop) = run("keep the latest", latest, &store).await?;
        (picture, stopped) = (picture.beside(third), stop);
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(if stopped { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

/// A reading every 10 milliseconds, of the sensors in turn; each is a lane that ends when it arrives or is lost. Also says
/// whether it was stopped by Ctrl-C.
async fn run<K: std::hash::Hash + Eq + Clone>(
    name: &'static str,
    (sender, mut receiver): (LossySender<Reading, K>, LossyReceiver<Reading, K>),
    store: &impl AsyncFn(String) -> reqwest::Result<()>,
) -> anyhow::Result<(Picture, bool)> {
    let reading = async |sender: LossySender<Reading, K>, sensor, number| {
        waiting("timer", sleep(Duration::from_millis(10 * number))).await;
        let (arrived, arrives) = oneshot::channel();
        // What is lost for this reading is returned, and dropped here.
        drop(sender.send(Reading { sensor, number, arrived }));
        drop(sender);
        waiting("queue", arrives).await.map_err(|_| "lost")
    };
    let storing = async {
        let mut stored = Vec::new();
        while let Some(received) = waiting("queue", receiver.recv()).await {
            let Reading { sensor, number, arrived } = received.item;
            let _ = arrived.send(());
            let lost = if received.lost > 0 { format!("({} lost) ", received.lost) } else { String::new() };
            stored.push(format!("{lost}{sensor}{number}"));
            store(format!("{sensor}{number}")).await?;
        }
        println!("{name}: {}; {} lost in all", stored.join(", "), receiver.lost());
        anyhow::Ok(())
    };
    let (result, picture) = record(name, async {
        let readings = (0..10).zip(['a', 'a', 'a', 'b'].into_iter().cycle()).map(|(number, sensor)| {
            reading(sender.clone(), sensor, number).try_lane(format!("{sensor}{number}"))
        });
        let readings = join_all(readings.collect::<Vec<_>>());
        drop(sender);
        let both = async { join!(readings, storing.try_lane("store")).1 };
        tokio::select! {
            stored = both => stored.map(|()| false),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(true),
        }
    })
    .await;
    Ok((picture, result?))
}
