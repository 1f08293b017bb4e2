//! Three clients query a server in rounds: an `Event` starts them, a `Barrier` holds the rounds together, and a reporter
//! takes each round's answers by a `Condition`. One client keeps losing patience at the barrier, and is not counted while it is away.
//!
//! ```console
//! cargo run --example coordination
//! cargo run --example coordination -- --clients 5 --rounds 2
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures::future::try_join_all;
use locks::{Barrier, Condition, Event};
use reqwest::{Client, Response};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::timeout;

/// Clients query a local server in rounds: started by an event, held together by a barrier, reported by a condition.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 done, 1 a request failed, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// Clients that query at the same time
    #[arg(long, default_value = "3")]
    clients: NonZeroUsize,
    /// Rounds, each of one request by each client
    #[arg(long, default_value = "3")]
    rounds: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let (clients, rounds) = (args.clients.get(), args.rounds.get());

    let (ready, barrier, answers) = (Event::new(), Barrier::new(args.clients), Condition::new(Vec::new()));
    let get = async |path: String| {
        let start = Instant::now();
        let answer = client.get(api.url(&path)).send().await.and_then(Response::error_for_status)?;
        answer.bytes().await?;
        reqwest::Result::Ok(start.elapsed())
    };
    let prepare = async {
        waiting("io", get("/users/1?latency=30".into())).await?;
        println!("the server is ready");
        ready.set();
        anyhow::Ok(())
    };
    let query = async |number: usize| {
        waiting("event", ready.wait()).await;
        let mut gave_up = 0;
        for round in 1..=rounds {
            let path = format!("/users/{}?latency=20..90", number * 100 + round);
            let took = waiting("io", get(path)).await?;
            answers.change(|answers| answers.push(took))?;
            let full = loop {
                // The last client gives up after 10 ms and comes again: its place is free meanwhile, and taken once.
                let patience = Duration::from_millis(if number == clients { 10 } else { 10_000 });
                match timeout(patience, waiting("barrier", barrier.wait())).await {
                    Ok(full) => break full,
                    Err(_) => gave_up += 1,
                }
            };
            if full.leads {
                println!("round {}: client {number} came last", full.number + 1);
            }
        }
        if gave_up > 0 {
            println!("client {number} gave up {gave_up} times, and came again");
        }
        anyhow::Ok(())
    };
    let report = async {
        for round in 1..=rounds {
            let full = answers.when(|answers| answers.len() >= clients, std::mem::take);
            let answers = waiting("condition", full).await?;
            let slowest = answers.iter().max().map_or(0, Duration::as_millis);
            println!("round {round}: {} answers, the slowest after {slowest} ms", answers.len());
        }
        anyhow::Ok(())
    };
    let (result, picture) = record("coordination", async {
        let queries = (1..=clients).map(|number| query(number).try_lane(format!("client {number}")));
        let (prepare, report) = (prepare.try_lane("prepare"), report.try_lane("reporter"));
        let all = async { tokio::try_join!(prepare, try_join_all(queries), report) };
        tokio::select! {
            result = all => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some(result) = result else { return Ok(ExitCode::from(130)) };
    result?;
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}
