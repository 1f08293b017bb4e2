//! Fetch pages a few at a time and print them in order, as soon as each one's turn has come.
//!
//! ```console
//! cargo run --example map_ordered
//! ```

use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use gather::{InOrder, map_ordered_window};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};

/// Fetch pages a few at a time and print them in order.
#[derive(Parser)]
struct Args {
    /// How many fetches may run at a time
    #[arg(long, default_value = "3")]
    limit: NonZeroUsize,
    /// How many pages may be under way or wait for their turn
    #[arg(long, default_value = "6")]
    window: NonZeroUsize,
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
    // The first page is slow. The others go on until six are under way or waiting for their turn.
    let pages = (1..=12).map(|id| {
        let latency = if id == 1 { "latency=150" } else { "latency=20..60" };
        (id, api.url(&format!("/users/{id}?{latency}")))
    });

    let (result, picture) = record("map_ordered", async {
        let work = |(id, url): (u32, String)| {
            let client = &client;
            async move { fetch(client, &url).await }.try_lane(format!("page {id}"))
        };
        let print = |mut pages: InOrder<reqwest::Result<String>>| async move {
            while let Some(page) = pages.next().await {
                println!("{}", page?);
            }
            anyhow::Ok(())
        };
        map_ordered_window(pages, args.limit, args.window, work, print).await
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
