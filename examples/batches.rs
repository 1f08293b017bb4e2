//! Fetch pages in batches of four; each batch waits for its slowest page.
//!
//! ```console
//! cargo run --example batches
//! ```

use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use gather::batches;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};

/// Fetch pages in batches; each batch waits for its slowest page.
#[derive(Parser)]
struct Args {
    /// How many pages make a batch
    #[arg(long, default_value = "4")]
    size: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let pages: Vec<_> = (1..=10).map(|id| (id, api.url(&format!("/users/{id}?latency=20..80")))).collect();
    let total = pages.len();

    let (pages, picture) = record("batches", async {
        let work = |(id, url): (u32, String)| {
            let client = &client;
            async move { fetch(client, &url).await }.try_lane(format!("page {id}"))
        };
        batches(pages, args.size, work, |done| println!("{done} of {total} pages")).await
    })
    .await;
    let bytes: usize = pages.into_iter().collect::<Result<Vec<_>, _>>()?.iter().map(String::len).sum();
    println!("{bytes} bytes in all");

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: &Client, url: &str) -> reqwest::Result<String> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    response.map_err(reqwest::Error::without_url)?.text().await
}
