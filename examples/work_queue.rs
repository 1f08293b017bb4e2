//! Fetch users with three consumers from a bounded queue; a fetch that fails hands its item back.
//!
//! ```console
//! cargo run --example work_queue
//! ```

use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use producer_consumer::WorkQueue;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::join;

/// Fetch users with three consumers from a bounded queue; a fetch that fails hands its item back.
#[derive(Parser)]
struct Args {
    /// How many items may wait
    #[arg(long, default_value = "2")]
    capacity: NonZeroUsize,
    /// How often an item is tried
    #[arg(long, default_value = "3")]
    tries: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let queue = WorkQueue::new(args.capacity);

    let produce = async {
        for id in 1..=9 {
            // Each user's page of 4 and 7 fails once.
            let first = u8::from(id == 4 || id == 7);
            let url = api.url(&format!("/users/{id}?latency=30..60&status=503&first={first}"));
            let url = if first == 0 { api.url(&format!("/users/{id}?latency=30..60")) } else { url };
            waiting("queue", queue.put((id, url))).await.context("nobody closes it before")?;
        }
        queue.close();
        queue.join().await;
        println!("all done");
        anyhow::Ok(())
    };
    let consume = async || {
        while let Some(lease) = waiting("queue", queue.take()).await {
            let (id, url) = &*lease;
            match fetch(&client, url).await {
                Ok(bytes) => {
                    println!("user {id}: {bytes} bytes");
                    lease.done();
                }
                Err(error) if lease.handed_back() + 1 < args.tries.get() => {
                    println!("user {id}: {error}; back to the queue");
                    drop(lease);
                }
                Err(error) => {
                    println!("user {id}: {error}; given up");
                    lease.done();
                }
            }
        }
    };
    let (result, picture) = record("work_queue", async {
        let (one, two, three) = (consume(), consume(), consume());
        join!(
            produce.lane("producer"),
            one.lane("consumer 1"),
            two.lane("consumer 2"),
            three.lane("consumer 3")
        )
        .0
    })
    .await;
    result?;

    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

async fn fetch(client: &Client, url: &str) -> reqwest::Result<usize> {
    let response = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    Ok(response.map_err(reqwest::Error::without_url)?.bytes().await?.len())
}
