//! Ask a server of which 5 % of the answers are slow, with and without hedging, and count what it costs.
//!
//! The picture varies with the machine's load: how slow a copy must be to be hedged is measured.
//!
//! ```console
//! cargo run --example hedge
//! cargo run --example hedge -- --quantile 0.99
//! ```

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Latencies, RetryBudget, hedge};

const AT_A_TIME: usize = 16;
const WINDOW: NonZeroUsize = NonZeroUsize::new(200).expect("200 is not zero");

/// Ask a server of which 5 % of the answers are slow, with and without hedging.
#[derive(Parser)]
struct Args {
    /// How many calls are measured
    #[arg(long, default_value = "400", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    calls: u16,
    /// Which calls are slow enough for a second copy: 0.9 hedges the slowest tenth
    #[arg(long, default_value = "0.9")]
    quantile: f64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let latencies = Latencies::new(args.quantile, WINDOW)?;
    let budget = RetryBudget::new(20, NonZeroUsize::MIN.saturating_add(9));
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let url = api.url("/users/7?latency=2..12&tail=5,300");
    let plain = async |_| get(&client, &url).await;
    let hedged = async |_| hedge(&latencies, &budget, async |_| get(&client, &url).await).await;

    let before = api.gauge().total();
    let p99 = percentile(args.calls, plain).await?;
    println!("without: p99 {:>3} ms, {} requests", p99.as_millis(), api.gauge().total() - before);
    // As many calls as the window holds go unhedged.
    percentile(WINDOW.get() as u16, hedged).await?;
    let before = api.gauge().total();
    let p99 = percentile(args.calls, hedged).await?;
    println!("hedged:  p99 {:>3} ms, {} requests", p99.as_millis(), api.gauge().total() - before);

    let url = api.url("/users/8?latency=2..12&tail=25,300");
    let (calls, picture) = record("hedge", async {
        let calls = (1..=8).map(|call| {
            let copy = |copy| get(&client, &url).try_lane(format!("copy {copy}"));
            hedge(&latencies, &budget, copy).try_lane(format!("call {call}"))
        });
        stream::iter(calls).buffer_unordered(2).try_for_each(|()| async { Ok(()) }).await
    })
    .await;
    calls?;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

/// The 99th percentile of the time that `call` takes, over so many calls.
async fn percentile<E>(calls: u16, call: impl AsyncFn(u16) -> Result<(), E>) -> Result<Duration, E> {
    let timed = async |number| {
        let start = Instant::now();
        call(number).await?;
        Ok(start.elapsed())
    };
    let mut times: Vec<_> =
        stream::iter(0..calls).map(timed).buffer_unordered(AT_A_TIME).try_collect().await?;
    times.sort();
    Ok(times[(times.len() - 1) * 99 / 100])
}

async fn get(client: &Client, url: &str) -> reqwest::Result<()> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}
