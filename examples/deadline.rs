//! Build a page within one budget: one part after the other, and of many shards what has answered in time.
//!
//! ```console
//! cargo run --example deadline
//! ```

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::Deadline;

/// Build a page within one budget, from a user and from the shards that answer in time.
#[derive(Parser)]
struct Args {
    /// Milliseconds for everything
    #[arg(long, default_value = "120", value_parser = clap::value_parser!(u64).range(1..=1000))]
    budget: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;

    let (results, picture) = record("page", async {
        let page = Deadline::after("page", Duration::from_millis(args.budget));
        let user = page.within("user", Duration::from_millis(50));
        let user = user.run(fetch(client.clone(), api.url("/users/7?latency=5")).try_lane("user")).await;
        println!("user: {}", user.map_or_else(|expired| expired.owner.into_owned(), |_| "ok".into()));
        let shards = page.within("shards", Duration::from_millis(300));
        let urls = [20, 2000, 10, 3000].map(|latency| api.url(&format!("/items?latency={latency}")));
        let mut number = 0;
        let calls = urls.map(|url| {
            number += 1;
            fetch(client.clone(), url).try_lane(format!("shard {number}"))
        });
        shards.run_all(calls).await
    })
    .await;
    for (number, result) in (1..).zip(&results) {
        match result {
            Ok(Ok(bytes)) => println!("shard {number}: {bytes} bytes"),
            Ok(Err(error)) => println!("shard {number}: failed: {error}"),
            Err(expired) => println!("shard {number}: the {:?} of {} ran out", expired.limit, expired.owner),
        }
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(results.iter().flatten().all(Result::is_ok), "a shard failed");
    Ok(())
}

async fn fetch(client: Client, url: String) -> reqwest::Result<usize> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    Ok(response.map_err(reqwest::Error::without_url)?.bytes().await?.len())
}
