//! Ask four mirrors for the same page and take the first answer, then the first two that agree to answer.
//!
//! ```console
//! cargo run --example race
//! ```

use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use gather::{quorum, race};
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};

/// Ask four mirrors for the same page: the first answer wins, then the first two.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    picture: PictureArgs,
}

const MIRRORS: [&str; 4] = ["latency=20&status=503", "latency=90", "latency=50", "latency=300"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let ask = |round: &str| {
        let urls = MIRRORS.map(|fault| api.url(&format!("/users/7?{fault}")));
        let mut number = 0;
        urls.map(|url| {
            number += 1;
            fetch(client.clone(), url).try_lane(format!("{round} {number}"))
        })
    };

    let (result, picture) = record("race", async {
        let first = race(ask("race")).await?;
        println!("race: mirror {} wins with {}", first.index + 1, first.output);
        let two = quorum(ask("quorum"), NonZeroUsize::new(2).context("two is not zero")?).await?;
        let mirrors: Vec<usize> = two.iter().map(|won| won.index + 1).collect();
        println!("quorum: mirrors {mirrors:?} have answered");
        anyhow::Ok(())
    })
    .await;
    result?;

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: Client, url: String) -> reqwest::Result<String> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    response.map_err(reqwest::Error::without_url)?.text().await
}
