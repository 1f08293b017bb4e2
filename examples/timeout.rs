//! Call a slow server with limits: cut off, handed to an owner, and nested under one deadline.
//!
//! ```console
//! cargo run --example timeout
//! ```

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use timeouts::{Deadline, timeout, timeout_or_detach};
use tokio::task::JoinSet;

/// Call a slow server with limits, and draw what was cut off and what went on.
#[derive(Parser)]
struct Args {
    /// Milliseconds after which a single call is given up
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let limit = Duration::from_millis(args.limit);
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;
    let url = |path: &str| api.url(path);

    let (result, picture) = record("timeout", async {
        let fetch = fetch(client.clone(), url("/users/7?latency=5")).try_lane("fetch");
        println!("fetch: {}", told(timeout("fetch", limit, fetch).await));
        let slow = self::fetch(client.clone(), url("/users/8?latency=3000")).try_lane("slow route");
        println!("slow route: {}", told(timeout("slow route", limit, slow).await));

        let mut owner = JoinSet::new();
        let report = self::fetch(client.clone(), url("/echo?latency=120")).try_lane("report");
        let report = timeout_or_detach("report", limit, report, |work| drop(owner.spawn(work))).await;
        println!("report: {}", told(report));

        let request = Deadline::after("request", limit);
        let orders = request.within("orders", Duration::from_secs(2));
        let part = self::fetch(client.clone(), url("/items?latency=3000")).try_lane("orders");
        if let Err(expired) = orders.run(part).await {
            println!("orders: {}ms of {} ran out", expired.limit.as_millis(), expired.owner);
        }

        let kept = owner.len();
        while let Some(report) = waiting("join", owner.join_next()).await {
            println!("the owner of {kept} has the report: {} bytes", report??);
        }
        anyhow::Ok(())
    })
    .await;
    result?;
    let reports = api.gauge().route("/echo").total;
    println!("requests for the report: {reports}");
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(reports == 1, "the report was asked for {reports} times");
    Ok(())
}

/// The error without the time it took, which differs from run to run.
fn told(result: Result<reqwest::Result<usize>, timeouts::TimedOut>) -> String {
    match result {
        Ok(Ok(bytes)) => format!("{bytes} bytes"),
        Ok(Err(error)) => format!("failed: {error}"),
        Err(timed_out) => format!("{} not there after {:?}", timed_out.operation, timed_out.limit),
    }
}

async fn fetch(client: Client, url: String) -> reqwest::Result<usize> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    Ok(response.map_err(reqwest::Error::without_url)?.bytes().await?.len())
}
