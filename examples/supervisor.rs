//! A worker reads users one after another from a server that fails; it is restarted where it was, and given up in the end.
//!
//! ```console
//! cargo run --example supervisor
//! cargo run --example supervisor -- --limit 1
//! ```

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, try_record};
use tasks::{Failure, Restarts, supervise};

/// A worker meets an error, a bug and a server that stays away; it is restarted with growing pauses, then given up.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 the run is over, 1 the local server fails, 2 bad arguments, 130 Ctrl-C."
)]
struct Args {
    /// How many restarts are allowed within the time
    #[arg(long, default_value = "4")]
    limit: usize,
    /// For how many milliseconds a failure counts
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    within: u64,
    /// Milliseconds before the first restart; each further pause is twice as long, at most 500 ms
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(0..=500))]
    pause: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What becomes of the requests for each user, in order.
const USERS: [&str; 6] = [
    "/users/2?latency=30",
    "/users/3?latency=30&status=503&first=1",
    "/users/4?latency=30",
    // The first answer says 200 and has no user in it, which the worker does not expect.
    "/users/5?latency=30&status=200&first=1",
    "/users/6?latency=30",
    "/users/7?latency=30&reset=before",
];

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    // The report tells of panics. The default hook would print them a second time, with a backtrace that takes a while.
    std::panic::set_hook(Box::new(|_| ()));
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let restarts = Restarts {
        limit: args.limit,
        within: Duration::from_millis(args.within),
        pause: Duration::from_millis(args.pause),
        longest_pause: Duration::from_millis(500),
        ..Restarts::default()
    };

    // Outside of the worker, so that the next run goes on where the last one ended.
    let done = AtomicUsize::new(0);
    let worker = |run| {
        let (api, client, done) = (&api, &client, &done);
        let work = async move {
            while let Some(path) = USERS.get(done.load(Ordering::Relaxed)) {
                let name = user(client, &api.url(path)).await?;
                println!("run {run}: {name}");
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        work.try_lane(format!("run {run}"))
    };
    let report = |failure: &Failure<reqwest::Error>| match failure.pause {
        Some(pause) => println!("{}; restart in {} ms", shown(failure), pause.as_millis()),
        None => println!("{}", shown(failure)),
    };
    let supervised = supervise(restarts, worker, report);
    let (ended, picture) = try_record("supervise", async {
        tokio::select! {
            ended = supervised => ended.map(Some),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
        }
    })
    .await;

    match &ended {
        Ok(Some(())) => println!("all users are read"),
        Ok(None) => println!("stopped"),
        Err(gave_up) => {
            println!("gave up, after {} restarts within {:?}; the causes:", gave_up.limit, gave_up.within);
            for failure in &gave_up.failures {
                println!("  {}", shown(failure));
            }
        }
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(if matches!(ended, Ok(None)) { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

/// Without the duration, which is another one each time.
fn shown(failure: &Failure<reqwest::Error>) -> String {
    format!("run {} ended: {}", failure.run, failure.cause)
}

async fn user(client: &Client, url: &str) -> reqwest::Result<String> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let body = response.map_err(reqwest::Error::without_url)?.text().await?;
    let (_, name) = body.split_once("\"name\":\"").expect("every user has a name");
    Ok(name.trim_end_matches("\"}").to_string())
}
