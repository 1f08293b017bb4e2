//! A sync program that uses an async HTTP client: an ordinary `main`, ordinary methods, ordinary threads.
//!
//! The picture varies: it shows real HTTP.
//!
//! ```console
//! cargo run --example sync_facade
//! cargo run --example sync_facade -- 7 8 9
//! ```

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use blocking::{InsideRuntime, SyncFacade};
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Fetch users from a local server with an async client, called from sync code: one after the other, then from two threads.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all fetched, 1 a fetch failed, 2 bad arguments.")]
struct Args {
    /// Which users, from 1 to 100000
    #[arg(default_values = ["1", "2"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: Vec<u32>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What a library offers to sync callers.
struct Users {
    facade: SyncFacade,
    client: Client,
    server: String,
}

impl Users {
    /// The user as JSON. Blocks for as long as it takes, 10 s at most.
    fn get(&self, user: u32, name: &str) -> anyhow::Result<String> {
        let url = format!("{}/users/{user}?latency=15", self.server);
        let fetch = async {
            let response = self.client.get(url).timeout(Duration::from_secs(10)).send();
            let response = waiting("io", response).await?.error_for_status()?;
            response.text().await
        };
        // The lane is named inside, where the runtime is.
        Ok(self.facade.call(async { fetch.try_lane(name).await })??)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let facade = SyncFacade::new().context("cannot start a runtime")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = facade.call(Api::start())?.context("cannot start the local server")?;
    let users = Users { facade, client: Client::new(), server: api.url("") };

    // The recording runs as a task between the calls, and so does a task that only counts the time.
    let (end, ended) = oneshot::channel::<()>();
    let mut recording = JoinSet::new();
    users.facade.call(async {
        recording.spawn(record("sync_facade", async {
            let ticking = async {
                loop {
                    waiting("timer", sleep(Duration::from_millis(5))).await;
                }
            };
            let ticking = tokio::spawn(ticking.lane("background task"));
            let _ = ended.await;
            ticking.abort();
        }));
    })?;

    for user in &args.users {
        println!("{}", users.get(*user, &format!("call {user}"))?);
    }
    // Two threads call at the same time.
    let [first, last] = [args.users.first(), args.users.last()].map(|user| user.copied().unwrap_or(1));
    thread::scope(|scope| {
        let other = scope.spawn(|| users.get(last, "thread 2"));
        let own = users.get(first, "thread 1");
        own.and_then(|_| other.join().unwrap_or_else(|_| anyhow::bail!("the other thread panicked")))
    })?;
    println!("both threads have theirs");
    // Inside a task such a call would stop the runtime, so it is refused.
    let nested = users.facade.call(async { users.facade.call(async { "never polled" }) })?;
    println!(
        "inside a task: {}",
        nested.err().map_or_else(String::new, |error: InsideRuntime| error.to_string())
    );

    let _ = end.send(());
    let recorded = users.facade.call(recording.join_next())?;
    let ((), picture) = recorded.context("the recording has ended")??;
    users.facade.call(api.stop())?;
    users.facade.close()?;
    args.picture.show(&picture).context("cannot write the picture")
}
