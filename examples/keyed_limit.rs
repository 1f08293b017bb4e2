//! Fetch from several hosts: so many at a time from each, so many in all, and a slow host holds up no other.
//!
//! ```console
//! cargo run --example keyed_limit
//! cargo run --example keyed_limit -- --per-host 1 https://example.org https://example.com
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use reqwest::{Client, Response, Url};
use semaphores::KeyedLimit;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};

/// Fetch URLs with a limit for each host and one for all, and draw the run.
#[derive(Parser)]
struct Args {
    /// What to fetch (http or https). Without any: pages of two local servers, one of which is slow
    urls: Vec<Url>,
    /// How many fetches may run at a time from one host
    #[arg(long, default_value = "2")]
    per_host: NonZeroUsize,
    /// How many fetches may run at a time in all
    #[arg(long, default_value = "3")]
    overall: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (slow, quick) = (Api::start().await, Api::start().await);
    let (slow, quick) = (slow.context("cannot start a server")?, quick.context("cannot start a server")?);
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let mut pages: Vec<_> = args.urls.iter().map(|url| ("fetch".to_string(), url.clone())).collect();
    if pages.is_empty() {
        for id in 1..=6 {
            pages.push((
                format!("slow fetch {id}"),
                slow.url(&format!("/users/{id}?latency=60..80")).parse()?,
            ));
        }
        for id in 1..=5 {
            pages.push((
                format!("quick fetch {id}"),
                quick.url(&format!("/users/{id}?latency=15..25")).parse()?,
            ));
        }
    }

    let limit = KeyedLimit::new(args.per_host, args.overall);
    let fetch = async |url: &Url| {
        let host = url.authority().to_string();
        let _permit = waiting("permit", limit.acquire(host)).await;
        let page = client.get(url.clone()).send().await.and_then(Response::error_for_status)?;
        Ok(page.bytes().await?.len())
    };
    let fetches = pages.iter().map(|(name, url)| fetch(url).try_lane(name));
    let (results, picture) = record("keyed_limit", async {
        tokio::select! {
            results = join_all(fetches) => Some(results),
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    let results: Vec<reqwest::Result<usize>> = results.context("stopped by Ctrl-C")?;

    let failed = results.iter().filter(|result| result.is_err()).count();
    for ((_, url), result) in pages.iter().zip(results) {
        if let Err(error) = result {
            println!("failed  {url}: {:#}", anyhow::Error::from(error.without_url()));
        }
    }
    if args.urls.is_empty() {
        let [slow, quick] = [&slow, &quick].map(|api| api.gauge().peak());
        println!("at most at a time: {slow} from the slow host, {quick} from the quick one");
    }
    println!("keys in use afterwards: {}", limit.keys_in_use());
    args.picture.show(&picture).context("cannot write the picture")?;
    slow.stop().await;
    quick.stop().await;
    ensure!(failed == 0, "{failed} of {} fetches failed", pages.len());
    Ok(())
}
