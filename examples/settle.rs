//! Check eight services at once and report on each, whatever happens to the others.
//!
//! ```console
//! cargo run --example settle
//! ```

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use gather::{settle, split};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::time::timeout;

/// Check eight services at once and report on each, whatever happens to the others.
#[derive(Parser)]
struct Args {
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
    let faults = [
        "",
        "status=503",
        "latency=30",
        "reset=before",
        "latency=400",
        "bad=value",
        "latency=60",
        "truncate=3",
    ];
    let services = faults.map(|fault| api.url(&format!("/users/1?{fault}")));

    let (outcomes, picture) = record("settle", async {
        settle(services.iter().enumerate().map(|(number, url)| {
            let check = async {
                let body = timeout(Duration::from_millis(100), fetch(&client, url)).await??;
                ensure!(body.starts_with('{'), "not JSON");
                anyhow::Ok(body)
            };
            check.try_lane(format!("service {number}"))
        }))
        .await
    })
    .await;

    let (healthy, failed) = split(outcomes);
    println!("healthy: {:?}", healthy.iter().map(|(number, _)| number).collect::<Vec<_>>());
    for (number, failure) in failed {
        println!("service {number}: {failure}");
    }

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: &Client, url: &str) -> reqwest::Result<String> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    response.map_err(reqwest::Error::without_url)?.text().await
}
