//! A thousand callers ask for the same page at once. The server is asked once, though the first caller leaves midway.
//!
//! The picture varies with the time that it takes to start them all.
//!
//! ```console
//! cargo run --example single_flight
//! cargo run --example single_flight -- --callers 20
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use locks::SingleFlight;
use reqwest::{Client, Response};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::timeout;

/// Ask for the same page many times at once, let the first caller leave midway, and count what the server sees.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all answered, 1 not, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// How many callers there are
    #[arg(long, default_value = "1000")]
    callers: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// An error that all callers can have.
type Page = Result<String, Arc<reqwest::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (client, url) = (Client::new(), api.url("/users/7?latency=100"));

    let flights = SingleFlight::new();
    let ask = async |patience: Duration| {
        let (client, url) = (client.clone(), url.clone());
        let work = async move { fetch(client, url).lane("request").await };
        timeout(patience, waiting("answer", flights.run("/users/7", work))).await
    };
    let (answers, picture) = record("single_flight", async {
        // The first to come starts the work, and leaves before its end.
        let shown = (1..=args.callers.get().min(4)).map(|number| {
            let patience = Duration::from_millis(if number == 1 { 40 } else { 10_000 });
            ask(patience).try_lane(format!("caller {number}"))
        });
        let crowd = (5..=args.callers.get()).map(|_| ask(Duration::from_secs(10)));
        let callers = async {
            let (mut answers, others) = tokio::join!(join_all(shown), join_all(crowd).lane("all the others"));
            answers.extend(others);
            answers
        };
        tokio::select! {
            answers = callers => Some(answers),
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;

    let stopped = answers.is_none();
    let answers: Vec<Page> =
        answers.into_iter().flatten().flatten().collect::<Result<_, _>>().context("the request was lost")?;
    let pages = answers.into_iter().collect::<Result<Vec<String>, _>>().context("the request failed")?;
    println!("callers that stayed: {}", pages.len());
    if let Some(page) = pages.first() {
        ensure!(pages.iter().all(|other| other == page), "the answers differ");
        println!("they all got:        {}", page.trim());
    }
    println!("requests served:     {}", api.gauge().total());
    args.picture.show(&picture).context("cannot write the picture")?;
    if stopped {
        return Ok(ExitCode::from(130));
    }
    ensure!(pages.len() == args.callers.get() - 1, "an answer is missing");
    ensure!(api.gauge().total() <= 1, "the server was asked more than once");
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: Client, url: String) -> Page {
    let page = client.get(url).send().await.and_then(Response::error_for_status);
    Ok(page.map_err(reqwest::Error::without_url)?.text().await?)
}
