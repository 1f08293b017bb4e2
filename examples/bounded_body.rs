//! Read bodies within one budget of memory: those that are too long or of a wrong type are not read at all.
//!
//! The picture varies with the machine's load: how the bytes come together in chunks is the network's.
//!
//! ```console
//! cargo run --example bounded_body
//! cargo run --example bounded_body -- https://example.org --cap 500
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use reqwest::Client;
use scraping::{AddressGuard, BodyBudget, HttpClient, Limits, is_public};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, level, record};

/// Read bodies within one budget of memory, each up to a cap.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all read, or the local server's; 1 one of your URLs failed, 2 bad arguments, \
                  130 stopped by Ctrl-C."
)]
struct Args {
    /// What to fetch (http or https, ports 80 and 443). Without any, bodies of a local server
    urls: Vec<String>,
    /// How many bytes a body may have
    #[arg(long, default_value = "3000")]
    cap: NonZeroUsize,
    /// How many bytes all bodies may have together
    #[arg(long, default_value = "6000")]
    budget: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::start().await.context("cannot start the local server")?;
    let mut guard = AddressGuard::default();
    let mut fetches: Vec<(String, String)> = args.urls.iter().map(|url| (url.clone(), url.clone())).collect();
    let mut types = Vec::new();
    if fetches.is_empty() {
        // The local server's address, and no other private one.
        guard.address = |address: IpAddr| is_public(address) || address == Ipv4Addr::LOCALHOST;
        guard.ports.push(api.address().port());
        types.push("application/json");
        let bodies = (1..=5)
            .map(|page| (format!("page {page}"), format!("/items?per_page=40&page={page}&slow=100,5")));
        let others = [("text", "/?latency=10"), ("long", "/items?per_page=100&latency=10")];
        let others = others.map(|(name, path)| (name.to_string(), path.to_string()));
        fetches.extend(bodies.chain(others).map(|(name, path)| (name, api.url(&path))));
    }
    let http =
        HttpClient::new(Client::builder(), guard, Limits::default()).context("cannot make the client")?;
    let budget = BodyBudget::new(args.budget, args.cap, &types).context("--cap is above --budget")?;

    let (results, picture) = record("bounded_body", async {
        let start = Instant::now();
        let (http, budget) = (&http, &budget);
        let note = || level("bytes taken", args.budget.get() - budget.free());
        let all = join_all(fetches.iter().map(|(name, url)| {
            let fetch = async move {
                let result = async {
                    let mut reading = std::pin::pin!(budget.read(http.get(url).await?));
                    // The share is taken in the first poll, or in one that follows a wait for it.
                    let body = std::future::poll_fn(|context| {
                        let poll = reading.as_mut().poll(context);
                        note();
                        poll
                    });
                    anyhow::Ok(body.await?.len())
                };
                let result = result.await;
                note();
                let elapsed = start.elapsed().as_millis();
                match &result {
                    Ok(bytes) => println!("{elapsed:>4} ms  {name}: {bytes} bytes"),
                    // The address varies from run to run.
                    Err(error) => println!("{elapsed:>4} ms  {name}: {}", without(url, error)),
                }
                result
            };
            fetch.try_lane(name)
        }));
        tokio::select! {
            results = all => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    let Some(results) = results else { return Ok(ExitCode::from(130)) };
    Ok(ExitCode::from(u8::from(!args.urls.is_empty() && results.iter().any(Result::is_err))))
}

fn without(url: &str, error: &anyhow::Error) -> String {
    error.to_string().replace(&format!("{url}: "), "")
}
