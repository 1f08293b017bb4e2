//! Ask a server with a quota: without a limit, and with one that waits for its tokens. The server counts what it refuses.
//!
//! ```console
//! cargo run --example rate_limit
//! cargo run --example rate_limit -- --rate 100 --burst 10 --requests 60
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use reqwest::{Client, StatusCode};
use semaphores::{Rate, RateLimit};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::Instant;

/// Ask a local server with a quota: first without a limit, then within the rate.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all asked, 1 a request failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// Requests a second that the server allows
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Requests at once that the limit allows; the server allows one more, because latency varies
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    burst: u32,
    /// How many requests to send
    #[arg(long, default_value = "12", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    requests: u32,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    tokio::select! {
        // An error means that signals cannot be caught: then there is nothing to wait for.
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        result = run(args) => result.map(|()| ExitCode::SUCCESS),
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let [tokens, burst] = [args.rate, args.burst].map(|n| NonZeroUsize::new(n as usize).expect("1 or more"));
    let quota = |key| {
        let (rate, burst) = (args.rate, args.burst + 1);
        api.url(&format!("/limited?rate={rate}&burst={burst}&key={key}&latency=15"))
    };

    let url = quota("without");
    let asked = try_join_all((0..args.requests).map(|_| ask(&client, &url))).await?;
    println!("without a limit: {} of {} requests refused", refused(&asked), asked.len());

    let (limit, url) = (RateLimit::new(Rate { tokens, per: Duration::from_secs(1), burst }), quota("within"));
    api.gauge().reset();
    let start = Instant::now();
    let requests = (1..=args.requests).map(|number| {
        let (limit, client, url) = (&limit, &client, &url);
        let request = async move {
            waiting("permit", limit.acquire(1)).await?;
            let status = ask(client, url).await?;
            println!("{:>5} ms  request {number}: {status}", start.elapsed().as_millis());
            anyhow::Ok(status)
        };
        request.try_lane(format!("request {number}"))
    });
    let (asked, picture) = record("rate_limit", async { try_join_all(requests).await }).await;
    let asked = asked?;
    println!("within the rate: {} of {} requests refused", refused(&asked), asked.len());
    let busiest = api.gauge().busiest_window(Duration::from_millis(200));
    let allowed = f64::from(args.burst) + f64::from(args.rate) / 5.0;
    println!("the server's busiest 200 ms: {busiest} requests; burst and rate make {allowed}");
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

/// The answer's status. Anything but leave or refusal is an error.
async fn ask(client: &Client, url: &str) -> anyhow::Result<StatusCode> {
    let response = client.get(url).send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    // Reading to the end gives the connection back.
    response.bytes().await.map_err(reqwest::Error::without_url)?;
    ensure!(status.is_success() || status == StatusCode::TOO_MANY_REQUESTS, "the server answered {status}");
    Ok(status)
}

fn refused(asked: &[StatusCode]) -> usize {
    asked.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count()
}
