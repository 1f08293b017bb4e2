//! Many callers ask for one user each, one after the other; a few requests bring all of them.
//!
//! ```console
//! cargo run --example batch_loader
//! cargo run --example batch_loader -- --keys 8 --batches 2
//! ```
//!
//! The picture varies with the moments at which the requests end.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use producer_consumer::BatchLoader;
use reqwest::Client;
use serde_json::Value;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::{sleep, timeout};

/// Many callers ask for one user each; few requests bring all of them.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all who waited were answered, 1 some were not, 2 bad arguments, 130 Ctrl-C."
)]
struct Args {
    /// How many callers there are; one comes every 2 milliseconds, and every eighth gives up after 3
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..=500))]
    callers: u32,
    /// How many users one request may ask for
    #[arg(long, default_value = "16")]
    keys: NonZeroUsize,
    /// How many requests may run at a time
    #[arg(long, default_value = "1")]
    batches: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (client, url) = (Client::new(), api.url("/echo?latency=25"));

    let request = AtomicUsize::new(0);
    let ask = move |ids: Vec<u32>| {
        let number = request.fetch_add(1, Relaxed) + 1;
        println!("request {number}: {} asked for, users {} to {}", ids.len(), ids[0], ids[ids.len() - 1]);
        ask_for(client.clone(), url.clone(), ids).try_lane(format!("request {number}"))
    };
    let call = async |loader: &BatchLoader<u32, String, reqwest::Error>, caller: u32| {
        waiting("timer", sleep(Duration::from_millis(10 + 2 * u64::from(caller)))).await;
        // Two callers after one another want the same user.
        let load = waiting("batch", loader.load(caller / 2 + 1));
        if caller % 8 == 7 { timeout(Duration::from_millis(3), load).await.ok() } else { Some(load.await) }
    };
    let (answers, picture) = record("batch_loader", async {
        let loader = BatchLoader::new(args.keys, args.batches, ask);
        let calls = (0..args.callers).map(|caller| call(&loader, caller).lane(format!("caller {caller}")));
        tokio::select! {
            answers = join_all(calls) => Some(answers),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;

    let answers = answers.as_deref().unwrap_or_default();
    let answered = answers.iter().flatten().filter(|answer| matches!(answer, Ok(Some(_)))).count();
    let failed = answers.iter().flatten().find_map(|answer| answer.as_ref().err());
    if let Some(failed) = failed {
        println!("{:#}", anyhow::Error::from(failed.clone()));
    }
    println!(
        "{} callers: {answered} answered, {} gave up; {} requests",
        args.callers,
        answers.iter().filter(|answer| answer.is_none()).count(),
        api.gauge().route("/echo").total
    );
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(match answers.len() {
        0 => ExitCode::from(130),
        _ => ExitCode::from(u8::from(failed.is_some())),
    })
}

/// The users that the server knows, by one request. The server has no such route: it repeats what it is asked.
async fn ask_for(client: Client, url: String, ids: Vec<u32>) -> reqwest::Result<HashMap<u32, String>> {
    let lines: Vec<_> = ids.iter().map(u32::to_string).collect();
    let answer = client.post(url).body(lines.join("\n")).send().await?.error_for_status()?.text().await?;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let known = answer["body"].as_str().unwrap_or_default().lines().map(|id| format!("user {id}"));
    Ok(ids.into_iter().zip(known).collect())
}
