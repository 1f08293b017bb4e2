//! Keep to so many requests in any window of time, and let the server count the busiest window it has seen.
//!
//! ```console
//! cargo run --example window_limit
//! cargo run --example window_limit -- --calls 10 --window 500 --requests 30
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use reqwest::Client;
use semaphores::WindowLimit;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};

/// Keep to so many requests in any window of time. The server confirms it.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 the limit was kept, 1 it was not or a request failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// Requests that a window may hold
    #[arg(long, default_value = "3")]
    calls: NonZeroUsize,
    /// Length of the window in milliseconds
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    window: u64,
    /// How many requests to send
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u32).range(1..=1_000))]
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
    let window = Duration::from_millis(args.window);
    let limit = WindowLimit::new(args.calls, window);

    let requests = (1..=args.requests).map(|id| {
        let (limit, client, url) = (&limit, &client, api.url(&format!("/users/{id}?latency=10..40")));
        let request = async move {
            let _permit = waiting("permit", limit.acquire()).await;
            let response = client.get(url).send().await?.error_for_status()?;
            println!("{}", response.text().await?);
            anyhow::Ok(())
        };
        request.try_lane(format!("request {id}"))
    });
    let (result, picture) = record("window_limit", async { try_join_all(requests).await }).await;
    result?;
    let busiest = api.gauge().busiest_window(window);
    println!("the server's busiest {} ms: {busiest} requests of {} allowed", args.window, args.calls);
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(busiest <= args.calls.get(), "the server saw more than the limit allows");
    Ok(())
}
