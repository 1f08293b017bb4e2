//! Ask a server for a job's result until it is there, and for another one that never comes.
//!
//! The picture varies with the machine's load: a poll may end before it is cut off.
//!
//! ```console
//! cargo run --example poll_until
//! ```

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use reqwest::{Client, StatusCode};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Polling, poll_until};

/// Ask a server for a job's result until it is there, or the time is up.
#[derive(Parser)]
struct Args {
    /// Milliseconds after which a job is given up
    #[arg(long, default_value = "400", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;
    let ms = Duration::from_millis;

    let (result, picture) = record("poll_until", async {
        let rules = Polling { limit: ms(args.limit), pause: ms(20)..=ms(40) };
        let job = api.url("/users/7?latency=5&first=3");
        let poll = || status(client.clone(), job.clone()).lane("poll job");
        let done = |state: &Result<StatusCode, String>| *state == Ok(StatusCode::OK);
        let state = poll_until("job", rules, poll, done).await?;
        println!("job: {state:?}");

        let rules = Polling { limit: ms(100), pause: ms(20)..=ms(40) };
        let stuck = api.url("/users/8?latency=5&status=503");
        let poll = || status(client.clone(), stuck.clone()).lane("poll stuck job");
        if let Err(unmet) = poll_until("stuck job", rules, poll, done).await {
            println!("stuck job: not there after {:?}, the last state was {:?}", unmet.limit, unmet.last);
        }
        anyhow::Ok(())
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    result
}

async fn status(client: Client, url: String) -> Result<StatusCode, String> {
    let response = client.get(url).send().await;
    response.map(|response| response.status()).map_err(|error| error.without_url().to_string())
}
