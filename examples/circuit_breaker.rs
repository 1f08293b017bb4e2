//! A server goes down and comes back. The breaker keeps calls away from it meanwhile; the server's own count proves it.
//!
//! ```console
//! cargo run --example circuit_breaker
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use reqwest::Client;
use support::api::{Api, Fault};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use timeouts::{BreakerError, BreakerRules, CircuitBreaker};
use tokio::time::sleep;

/// A server goes down and comes back. See how few calls reach it meanwhile.
#[derive(Parser)]
struct Args {
    /// Failures in a row that open the breaker
    #[arg(long, default_value = "3")]
    failures: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;
    let probes = NonZeroUsize::MIN.saturating_add(1);
    let breaker =
        CircuitBreaker::new("users", BreakerRules { failures: args.failures, pause: PAUSE, probes });
    let (mut calls, mut started) = (0, 0);

    let ((), picture) = record("circuit_breaker", async {
        let mut round = async |name: &str, count: usize| {
            for _ in 0..count {
                calls += 1;
                let call = fetch(client.clone(), api.url("/users/7?latency=5")).try_lane(name);
                let told = match breaker.call(call).await {
                    Ok(bytes) => format!("{bytes} bytes"),
                    Err(BreakerError::Failed(error)) => {
                        format!("failed: {}", error.status().unwrap_or_default())
                    }
                    Err(BreakerError::Rejected { breaker, .. }) => format!("rejected: {breaker} is open"),
                };
                started += usize::from(!told.starts_with("rejected"));
                println!("{name:6} {told}");
            }
        };
        api.fault("/users", Fault::new().status(503));
        round("down", args.failures.get().min(100) + 3).await;
        waiting("timer", sleep(PAUSE)).await;
        round("probe", 2).await;
        api.fault("/users", Fault::new());
        waiting("timer", sleep(PAUSE)).await;
        round("probe", 2).await;
        round("up", 2).await;
    })
    .await;
    let reached = api.gauge().route("/users").total;
    println!("{calls} calls, {reached} of them reached the server; now {:?}", breaker.state());
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(reached == started, "{started} calls were let through, and {reached} reached the server");
    Ok(())
}

async fn fetch(client: Client, url: String) -> reqwest::Result<usize> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    Ok(response.map_err(reqwest::Error::without_url)?.bytes().await?.len())
}
