//! Fetch URLs that fail for a moment: each is retried within one deadline, and `Retry-After` is honoured.
//!
//! ```console
//! cargo run --example retry
//! cargo run --example retry -- https://example.org --deadline 5000
//! ```

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use timeouts::{Retry, Verdict, retry};

/// Fetch URLs that fail for a moment, each within one deadline.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all fetched, 1 a fetch was given up, 2 bad arguments.")]
struct Args {
    /// What to fetch. Without any, pages of a local server that fail in different ways
    urls: Vec<String>,
    /// Milliseconds for each URL, attempts and waits together
    #[arg(long, default_value = "1500", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    deadline: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

// ANCHOR: judge
/// What is worth another attempt: a server that is busy, and a connection that broke.
fn judge(error: &Error) -> Verdict {
    match error {
        Error::Status { retry_after: Some(asked), .. } => Verdict::After(*asked),
        Error::Status { status, .. } if status.is_server_error() => Verdict::Transient,
        Error::Http(error) if !error.is_builder() => Verdict::Transient,
        _ => Verdict::Permanent,
    }
}
// ANCHOR_END: judge

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let mut urls = args.urls.clone();
    if urls.is_empty() {
        client.get(api.url("/limited?rate=2&burst=1")).send().await?;
        let ways =
            ["/users/7?first=2", "/users/8?first=1&reset=before", "/limited?rate=2&burst=1", "/users/0"];
        urls = ways.map(|path| api.url(path)).to_vec();
    }
    let policy = Retry { deadline: Duration::from_millis(args.deadline), ..Retry::default() };

    let (fetched, picture) = record("retry", async {
        let fetches = urls.iter().enumerate().map(|(index, url)| {
            let attempt = |number| fetch(&client, url).try_lane(format!("attempt {number}"));
            let call = retry(&policy, judge, attempt);
            call.try_lane(format!("fetch {}", index + 1))
        });
        join_all(fetches).await
    })
    .await;
    for (url, result) in urls.iter().zip(&fetched) {
        match result {
            Ok(bytes) => println!("{bytes:>4} bytes  {url}"),
            Err(gave_up) => {
                println!("    failed  {url}");
                println!("            {gave_up}");
                for failed in &gave_up.failures {
                    let error = failed.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                    println!("            {failed}{error}");
                }
            }
        }
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    // The local server refuses one page for good, so that an error can be seen.
    let failed = fetched.iter().filter(|result| result.is_err()).count();
    Ok(ExitCode::from(u8::from(failed > usize::from(args.urls.is_empty()))))
}

/// The size of the page in bytes.
async fn fetch(client: &Client, url: &str) -> Result<usize, Error> {
    let response = client.get(url).send().await.map_err(reqwest::Error::without_url)?;
    if !response.status().is_success() {
        return Err(Error::Status { status: response.status(), retry_after: retry_after(&response) });
    }
    Ok(response.bytes().await.map_err(reqwest::Error::without_url)?.len())
}

// ANCHOR: retry_after
/// `Retry-After` is a number of seconds or a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}
// ANCHOR_END: retry_after
