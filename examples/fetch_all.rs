//! Fetch many URLs by a deadline and say of each what became of it: a page, an error of a kind, or no time.
//!
//! The picture varies: it shows real connections.
//!
//! ```console
//! cargo run --example fetch_all
//! cargo run --example fetch_all -- https://example.org http://10.0.0.1 oops --limit 2 --seconds 20
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::ProgressBar;
use reqwest::Client;
use scraping::{
    AddressGuard, BodyBudget, FetchError, HttpClient, Limits, Missing, Page, fetch_all, fetch_page, is_public,
};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::Deadline;

/// Fetch many URLs by a deadline, and print the outcome of each.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all fetched, or the local server's; 1 one of your URLs failed, 2 bad arguments, \
                  130 stopped by Ctrl-C."
)]
struct Args {
    /// What to fetch (http or https, ports 80 and 443). Without any, a local server's pages and faults
    urls: Vec<String>,
    /// How many fetches may run at a time
    #[arg(long, default_value = "4")]
    limit: NonZeroUsize,
    /// Seconds after which the whole ends with what there is; without URLs, half a second
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

/// The longest body, and what all bodies may have together.
const CAP: NonZeroUsize = NonZeroUsize::new(4 << 20).expect("4 MiB is not zero");
const BUDGET: NonZeroUsize = NonZeroUsize::new(16 << 20).expect("16 MiB is not zero");

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::start().await.context("cannot start the local server")?;
    let (mut guard, mut limits) = (AddressGuard::default(), Limits::default());
    let mut deadline = Duration::from_secs(args.seconds);
    let yours = !args.urls.is_empty();
    if !yours {
        // The local server's address, and no other private one.
        guard.address = |address: IpAddr| is_public(address) || address == Ipv4Addr::LOCALHOST;
        guard.ports.push(api.address().port());
        limits.header = Duration::from_millis(250);
        deadline = Duration::from_millis(500);
        let faults = [
            "latency=60",
            "latency=120",
            "status=503",
            "latency=80",
            "reset=10",
            "latency=800",
            "latency=90",
            "truncate=10",
            "slow=1,40",
            "latency=100",
        ];
        let urls = faults.iter().enumerate();
        args.urls = urls.map(|(id, fault)| api.url(&format!("/users/{}?{fault}", id + 1))).collect();
        args.urls.insert(3, "http:/".into());
        args.urls.insert(5, "http://192.168.1.1/".into());
    }
    let http = HttpClient::new(Client::builder(), guard, limits).context("cannot make the client")?;
    let budget = BodyBudget::new(BUDGET, CAP, &[])?;
    // Drawn only where standard error is a terminal.
    let progress = ProgressBar::new(args.urls.len() as u64);

    let (outcomes, picture) = record("fetch_all", async {
        let deadline = Deadline::after("fetch_all", deadline);
        let fetch = |url: &'_ String| {
            let (http, budget, url) = (&http, &budget, url.clone());
            let name = name(&url, &api);
            async move { fetch_page(http, budget, &url, |_| ()).await }.try_lane(name)
        };
        tokio::select! {
            outcomes = fetch_all(&args.urls, args.limit, &deadline, fetch, |_, _| progress.inc(1)) => Some(outcomes),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    progress.finish_and_clear();
    if let Some(outcomes) = &outcomes {
        let mut counts = BTreeMap::new();
        for (url, outcome) in args.urls.iter().zip(outcomes) {
            let (kind, text) = told(outcome);
            *counts.entry(kind).or_insert(0) += 1;
            println!("{:<24} {kind:<13} {}", name(url, &api), text.replace(&api.url(""), ""));
        }
        let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        println!("{}", counts.join(", "));
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    let Some(outcomes) = outcomes else { return Ok(ExitCode::from(130)) };
    Ok(ExitCode::from(u8::from(yours && outcomes.iter().any(Result::is_err))))
}

/// Without the local server's address, which is another one each time.
fn name(url: &str, api: &Api) -> String {
    url.strip_prefix(&api.url("")).unwrap_or(url).into()
}

/// The kind of an outcome, and the rest of it.
fn told(outcome: &Result<Page<()>, Missing<FetchError>>) -> (&'static str, String) {
    match outcome {
        Ok(page) => ("fetched", format!("status {}, {} bytes", page.status.as_u16(), page.length)),
        Err(Missing::Error(error)) => {
            // reqwest leaves the cause to the errors behind its own.
            let chain = successors(Some(error as &dyn Error), |error| (*error).source());
            let last = chain.last().map_or_else(String::new, ToString::to_string);
            (error.kind(), last)
        }
        Err(Missing::Panic(_)) => ("panicked", String::new()),
        Err(missing @ Missing::CutOff(_)) => ("cut off", missing.to_string()),
        Err(missing @ Missing::NotStarted(_)) => ("not started", missing.to_string()),
    }
}
