//! Download pages with slow bodies under a limit that lasts to the end of each body, and let the server confirm it.
//!
//! ```console
//! cargo run --example concurrency_limit
//! cargo run --example concurrency_limit -- https://example.org https://example.com --limit 1
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use reqwest::{Client, Response};
use semaphores::ConcurrencyLimit;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};

/// Download URLs under a limit that holds to the end of each body, and draw the run.
#[derive(Parser)]
struct Args {
    /// What to download (http or https). Without any, eight pages of a local server that sends them slowly
    urls: Vec<String>,
    /// How many downloads may run at a time
    #[arg(long, default_value = "3")]
    limit: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let local = args.urls.is_empty();
    let urls = if local {
        (1..=8).map(|id| api.url(&format!("/users/{id}?latency=10..40&slow=6,8"))).collect()
    } else {
        args.urls
    };

    let limit = ConcurrencyLimit::new(args.limit);
    let in_use = || level("permits", args.limit.get().saturating_sub(limit.free()));
    let download = async |url: &String| {
        let send = || async {
            in_use();
            waiting("io", client.get(url).send()).await.and_then(Response::error_for_status)
        };
        let mut page = waiting("permit", limit.hold(send)).await?;
        let mut length = 0;
        while let Some(chunk) = page.chunk().await? {
            length += chunk.len();
        }
        drop(page); // and with it the permit
        in_use();
        reqwest::Result::Ok(length)
    };
    let downloads =
        urls.iter().zip(1..).map(|(url, number)| download(url).try_lane(format!("download {number}")));
    let (results, picture) = record("concurrency_limit", async {
        tokio::select! {
            results = join_all(downloads) => Some(results),
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    let results = results.context("stopped by Ctrl-C")?;

    let failed = results.iter().filter(|result| result.is_err()).count();
    for (url, result) in urls.iter().zip(results) {
        match result {
            Ok(length) => println!("{length:>9} bytes  {url}"),
            Err(error) => println!("{:>15}  {url}: {:#}", "failed", anyhow::Error::from(error.without_url())),
        }
    }
    if local {
        println!("the server saw at most {} requests at a time", api.gauge().peak());
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(failed == 0, "{failed} of {} downloads failed", urls.len());
    Ok(())
}
