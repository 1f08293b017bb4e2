//! Reports and clicks share one worker: clicks overtake reports, but only so many.
//!
//! ```console
//! cargo run --example priority_queue
//! cargo run --example priority_queue -- --stride 1000
//! ```
//!
//! The picture varies with the moments at which the requests end.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use producer_consumer::PriorityQueue;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::join;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Four patient reports and twelve urgent clicks, which keep a worker busy all the time.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all were served, 1 a request failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// How many clicks may overtake a report
    #[arg(long, default_value = "4")]
    stride: u32,
    /// How many requests may wait
    #[arg(long, default_value = "16")]
    capacity: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// A request of somebody, who wants to know when it begins and how it ends.
#[derive(Debug)]
struct Job {
    url: String,
    begun: oneshot::Sender<()>,
    done: oneshot::Sender<reqwest::Result<()>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let queue = PriorityQueue::new(args.capacity, args.stride);
    let served = Mutex::new(Vec::new());

    let ask = async |name: String, priority: u8, after: u64| {
        waiting("timer", sleep(Duration::from_millis(after))).await;
        let ((begun, begins), (done, ends)) = (oneshot::channel(), oneshot::channel());
        let url = api.url("/users/1?latency=20");
        waiting("queue", queue.send(priority, Job { url, begun, done })).await.context("closed")?;
        waiting("queue", begins).await.context("never begun")?;
        served.lock().expect("nobody panics with it").push(name);
        ends.await.context("never done")?.map_err(anyhow::Error::from)
    };
    let work = async {
        while let Some(job) = waiting("queue", queue.recv()).await {
            let _ = job.begun.send(());
            let answer = client.get(&job.url).send().await.and_then(reqwest::Response::error_for_status);
            // Whoever has gone wants no answer.
            let _ = job.done.send(answer.map(|_| ()).map_err(reqwest::Error::without_url));
        }
    };
    let (results, picture) = record("priority_queue", async {
        let reports = (1..=4).map(|number| (format!("report {number}"), 1, 0));
        let clicks = (1..=12).map(|number| (format!("click {number}"), 0, 20 * (number - 1) + 15));
        let asked = reports
            .chain(clicks)
            .map(|(name, priority, after)| ask(name.clone(), priority, after).try_lane(name));
        let all = async {
            let results = join_all(asked).await;
            queue.close();
            results
        };
        tokio::select! {
            results = async { join!(all, work.lane("worker")).0 } => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;

    let served = served.into_inner().expect("nobody panics with it");
    println!("served: {}", served.join(", "));
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    let Some(results) = results else { return Ok(ExitCode::from(130)) };
    if let Some(Err(error)) = results.iter().find(|result| result.is_err()) {
        eprintln!("error: {error:#}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
