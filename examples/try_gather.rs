//! Load three parts of a page as tasks; one fails, and the others are stopped before the error is returned.
//!
//! ```console
//! cargo run --example try_gather
//! ```

use anyhow::Context;
use clap::Parser;
use gather::{Failed, try_gather};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, try_record};

/// Load three parts of a page as tasks: the first failure stops the others.
#[derive(Parser)]
struct Args {
    /// Let every part succeed
    #[arg(long)]
    healthy: bool,
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
    let orders = if args.healthy { "/items?latency=60" } else { "/items?latency=60&status=503" };
    let parts = [("user", "/users/7?latency=30"), ("orders", orders), ("profile", "/users/8?latency=400")];

    let (page, picture) = try_record("try_gather", async {
        try_gather(parts.map(|(name, path)| fetch(client.clone(), api.url(path)).try_lane(name))).await
    })
    .await;

    match page {
        Ok(sizes) => println!("the page is complete: {sizes:?} bytes"),
        Err(Failed::Error { index, error }) => println!("no page: {} failed with {error}", parts[index].0),
        Err(aborted) => return Err(aborted.into()),
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: Client, url: String) -> reqwest::Result<usize> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    Ok(response.map_err(reqwest::Error::without_url)?.bytes().await?.len())
}
