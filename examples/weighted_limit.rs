//! Download pages of different sizes with a budget for the bytes of all bodies in memory at a time.
//!
//! ```console
//! cargo run --example weighted_limit
//! cargo run --example weighted_limit -- --budget 2000
//! ```

use std::cell::Cell;
use std::num::NonZeroUsize;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use reqwest::Client;
use semaphores::{TooHeavy, WeightedLimit};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};

/// Download pages of different sizes under a budget of bytes in memory; a page above the whole budget is refused.
#[derive(Parser)]
struct Args {
    /// How many bytes of bodies may be in memory at a time
    #[arg(long, default_value = "4000")]
    budget: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let budget = WeightedLimit::new(args.budget);

    let (in_memory, most) = (Cell::new(0), Cell::new(0));
    let count = |bytes: usize| {
        in_memory.set(bytes);
        most.set(most.get().max(bytes));
        level("bytes", bytes);
    };
    let download = async |items: usize| {
        let url = api.url(&format!("/items?per_page={items}&page={}&latency=10", 1000 / items));
        let head = client.head(&url).send().await?.error_for_status()?;
        let length = head.headers().get("content-length").context("the server does not tell the length")?;
        let length = length.to_str()?.parse()?;
        let mut share = waiting("permit", budget.acquire(length)).await?;
        count(in_memory.get() + length);
        let mut page = client.get(format!("{url}&slow=400,8")).send().await?.error_for_status()?;
        let mut sum: u32 = 0;
        while let Some(chunk) = page.chunk().await? {
            sum = chunk.iter().fold(sum, |sum, byte| sum.rotate_left(1) ^ u32::from(*byte));
            ensure!(chunk.len() <= share.weight(), "the body is longer than the server had said");
            // This piece is worked up and leaves the memory.
            share.give_back(chunk.len());
            count(in_memory.get() - chunk.len());
        }
        anyhow::Ok((length, sum))
    };
    let sizes = [25, 25, 50, 10, 10, 10, 100];
    let (results, picture) = record("weighted_limit", async {
        let downloads = sizes.iter().zip(1..);
        join_all(downloads.map(|(items, number)| download(*items).try_lane(format!("download {number}"))))
            .await
    })
    .await;

    // That one is larger than the whole budget is what the example shows.
    let failed = results.iter().any(|result| result.as_ref().is_err_and(|error| !error.is::<TooHeavy>()));
    for (result, number) in results.into_iter().zip(1..) {
        match result {
            Ok((length, sum)) => println!("download {number}: {length:>4} bytes, checksum {sum:08x}"),
            Err(error) => println!("download {number}: {error:#}"),
        }
    }
    println!("at most {} of {} bytes in memory at a time", most.get(), args.budget);
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    ensure!(!failed, "a download failed");
    Ok(())
}
