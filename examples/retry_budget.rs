//! Callers retry a server that is down, first without a budget and then with one; the server counts the requests.
//!
//! ```console
//! cargo run --example retry_budget
//! cargo run --example retry_budget -- --callers 100 --percent 50
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, Picture, PictureArgs, record};
use timeouts::{Retry, RetryBudget, Verdict, retry};

/// Callers retry a server that is down, without a budget and with one.
#[derive(Parser)]
struct Args {
    /// How many callers there are
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
    callers: u16,
    /// How many retries there may be for every 100 calls
    #[arg(long, default_value = "10")]
    percent: usize,
    /// How many retries may come at once
    #[arg(long, default_value = "2")]
    burst: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let budget = RetryBudget::new(args.percent, args.burst);
    let left = outage(&args, "without a budget", None).await?;
    let right = outage(&args, "with a budget", Some(&budget)).await?;
    args.picture.show(&left.beside(right)).context("cannot write the picture")
}

async fn outage(args: &Args, title: &str, budget: Option<&RetryBudget>) -> anyhow::Result<Picture> {
    let api = Api::start().await.context("cannot start the local server")?;
    let (client, url) = (Client::new(), api.url("/users/7?status=503&latency=15"));
    let base = Duration::from_millis(40);
    let policy = Retry { base, budget, ..Retry::default() };
    let (_, picture) = record(title, async {
        let callers = (1..=args.callers).map(|caller| {
            let attempt = |_| async { client.get(&url).send().await?.error_for_status() };
            retry(&policy, |_| Verdict::Transient, attempt).try_lane(format!("call {caller}"))
        });
        join_all(callers).await
    })
    .await;
    println!("{title}: {} calls made {} requests", args.callers, api.gauge().total());
    api.stop().await;
    Ok(picture)
}
