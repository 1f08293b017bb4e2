//! Fetch pages a few at a time and store each in a slow place as it comes; the fetches go on meanwhile.
//!
//! ```console
//! cargo run --example map_concurrent
//! ```

use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use gather::map_concurrent;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::sync::mpsc::Receiver;

/// Fetch pages a few at a time and store each as it comes; the fetches go on meanwhile.
#[derive(Parser)]
struct Args {
    /// How many fetches may run at a time
    #[arg(long, default_value = "3")]
    limit: NonZeroUsize,
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
    let pages = (1..=8).map(|id| (id, api.url(&format!("/users/{id}?latency=30..90"))));
    let storage = api.url("/echo?latency=20");

    let (result, picture) = record("map_concurrent", async {
        let work = |(id, url): (u32, String)| {
            let client = &client;
            async move { fetch(client, &url).await }.try_lane(format!("fetch {id}"))
        };
        let store = |mut pages: Receiver<reqwest::Result<String>>| {
            let (client, storage) = (&client, &storage);
            let store = async move {
                while let Some(page) = pages.recv().await {
                    let page = page?;
                    client.post(storage).body(page.clone()).send().await?.error_for_status()?;
                    println!("stored {page}");
                }
                anyhow::Ok(())
            };
            store.lane("consumer")
        };
        map_concurrent(pages, args.limit, work, store).await
    })
    .await;
    result?;

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: &Client, url: &str) -> reqwest::Result<String> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    response.map_err(reqwest::Error::without_url)?.text().await
}
