//! Fetch many URLs together, show each answer as it comes, and draw what happened.
//!
//! ```console
//! cargo run --example gather
//! cargo run --example gather -- https://example.org https://example.com --limit 1
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gather::gather;
use reqwest::{Client, Url};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use support::telemetry;
use tokio::sync::Semaphore;

/// Fetch URLs concurrently over HTTP, print each answer as it comes, and draw the run.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all fetched, 1 a fetch failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// What to fetch (http or https); `-` reads one URL a line from standard input. Without any, a local server's pages
    urls: Vec<String>,
    /// How many fetches may run at a time
    #[arg(long, default_value = "4")]
    limit: NonZeroUsize,
    /// Seconds after which one fetch is given up
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // reqwest leaves the choice of a cryptography provider to us; an error here means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(args.timeout)).build()?;
    let mut urls = args.urls.clone();
    if urls.iter().any(|url| url == "-") {
        let input = std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?;
        urls.retain(|url| url != "-");
        urls.extend(input.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from));
        ensure!(!urls.is_empty(), "no URL to fetch: standard input was empty");
    }
    let api = Api::start().await.context("cannot start the local server")?;
    if urls.is_empty() {
        urls = (1..=8).map(|id| api.url(&format!("/users/{id}?latency=40..120"))).collect();
    }
    let urls = urls.iter().map(|url| parse(url)).collect::<anyhow::Result<Vec<Url>>>()?;

    let limit = Semaphore::new(args.limit.get());
    let start = Instant::now();
    let (client, limit) = (&client, &limit);
    let fetch_all = gather(urls.iter().enumerate().map(|(number, url)| {
        let fetch = async move {
            let _permit =
                waiting("permit", limit.acquire()).await.context("the semaphore is never closed")?;
            let result = fetch(client, url).await;
            let elapsed = start.elapsed().as_millis();
            match &result {
                Ok(bytes) => println!("{elapsed:>6} ms  {bytes:>9} bytes  {url}"),
                Err(error) => println!("{elapsed:>6} ms  {:>15}  {url}: {error:#}", "failed"),
            }
            result
        };
        fetch.try_lane(format!("fetch {number}"))
    }));
    let (results, picture) = record("gather", async {
        tokio::select! {
            results = fetch_all => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(match results {
        None => ExitCode::from(130),
        Some(results) => ExitCode::from(u8::from(results.iter().any(Result::is_err))),
    })
}

fn parse(url: &str) -> anyhow::Result<Url> {
    let parsed = Url::parse(url).with_context(|| format!("`{url}` is not a URL (http://host/path)"))?;
    ensure!(matches!(parsed.scheme(), "http" | "https"), "`{url}`: only http and https can be fetched");
    Ok(parsed)
}

/// The size of the page in bytes. An error status is an error.
async fn fetch(client: &Client, url: &Url) -> anyhow::Result<usize> {
    // The address stands in front of the message already.
    let response = client.get(url.clone()).send().await.map_err(reqwest::Error::without_url)?;
    let response = response.error_for_status().map_err(reqwest::Error::without_url)?;
    Ok(response.bytes().await.map_err(reqwest::Error::without_url)?.len())
}
