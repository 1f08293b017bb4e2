//! Download slow bodies with a limit for each wait and one for the whole: a slow one passes, a stalled one does not.
//!
//! The picture varies with the machine's load: how the bytes come together in chunks is the network's.
//!
//! ```console
//! cargo run --example stall_guard
//! cargo run --example stall_guard -- https://example.org --idle 1000 --total 30000
//! ```

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use futures::{Stream, StreamExt, stream};
use reqwest::{Client, Response, Url};
use streams::StallGuard;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};

/// Download with a limit for the wait for each piece, and one for the whole.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all downloaded, or the local server's, of which two stall; 1 one of your URLs failed, \
                  2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// What to download (http or https). Without any, three bodies of a local server
    urls: Vec<Url>,
    /// How many milliseconds to wait for the next piece
    #[arg(long, default_value = "150", value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,
    /// How many milliseconds a whole body may take
    #[arg(long, default_value = "700", value_parser = clap::value_parser!(u64).range(1..))]
    total: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let mut downloads: Vec<_> = args.urls.iter().map(|url| (url.to_string(), url.to_string())).collect();
    if downloads.is_empty() {
        let bodies = [("slow", "60,20"), ("stalled", "300,600"), ("dripping", "10,50")];
        let url = |slow| api.url(&format!("/items?per_page=20&slow={slow}"));
        downloads = bodies.map(|(name, slow)| (name.to_string(), url(slow))).into();
    }

    let (results, picture) = record("stall_guard", async {
        let (client, args) = (&client, &args);
        let all = join_all(downloads.iter().map(|(name, url)| {
            let download = async move {
                let start = Instant::now();
                let result = download(client, url, args).await;
                let elapsed = start.elapsed().as_millis();
                match &result {
                    Ok(bytes) => println!("{elapsed:>6} ms  {name}: {bytes} bytes"),
                    Err(error) => println!("{elapsed:>6} ms  {name}: {error:#}"),
                }
                result
            };
            download.try_lane(name)
        }));
        tokio::select! {
            results = all => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(match results {
        None => ExitCode::from(130),
        Some(results) => {
            ExitCode::from(u8::from(!args.urls.is_empty() && results.iter().any(Result::is_err)))
        }
    })
}

/// The size of the body in bytes.
async fn download(client: &Client, url: &str, args: &Args) -> anyhow::Result<usize> {
    let response = client.get(url).send().await.and_then(Response::error_for_status);
    let pieces = pin!(pieces(response.map_err(reqwest::Error::without_url)?));
    let pieces = StallGuard::new(pieces, Duration::from_millis(args.idle));
    let mut pieces = pieces.total(Duration::from_millis(args.total));
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        bytes += piece??;
    }
    Ok(bytes)
}

/// The sizes of the body's pieces, as they come.
fn pieces(response: Response) -> impl Stream<Item = reqwest::Result<usize>> {
    stream::try_unfold(response, async |mut response| {
        let piece = response.chunk().await.map_err(reqwest::Error::without_url)?;
        Ok(piece.map(|piece| (piece.len(), response)))
    })
}
