//! Fetch with a client that refuses private addresses and limits every wait, and see which rule stopped what.
//!
//! The picture varies with the machine's load: how the bytes come together in chunks is the network's.
//!
//! ```console
//! cargo run --example http_client
//! cargo run --example http_client -- https://example.org http://2130706433/admin
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use reqwest::Client;
use scraping::{AddressGuard, HttpClient, HttpError, Limits, is_public};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};

/// Fetch with one client that refuses private addresses and limits every wait.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all fetched, or the local server's; 1 one of your URLs failed, 2 bad arguments, \
                  130 stopped by Ctrl-C."
)]
struct Args {
    /// What to fetch (http or https, ports 80 and 443). Without any, a local server's pages and what is refused
    urls: Vec<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::start().await.context("cannot start the local server")?;
    let (mut guard, mut limits) = (AddressGuard::default(), Limits::default());
    let mut fetches: Vec<(String, String)> = args.urls.iter().map(|url| (url.clone(), url.clone())).collect();
    if fetches.is_empty() {
        // The local server's address, and no other private one.
        guard.address = |address: IpAddr| is_public(address) || address == Ipv4Addr::LOCALHOST;
        guard.ports.push(api.address().port());
        let ms = Duration::from_millis;
        limits = Limits { header: ms(200), idle: ms(150), total: ms(500), ..limits };
        let pages = [
            ("page", "latency=40"),
            ("silent", "latency=900"),
            ("stops", "slow=20,900"),
            ("drips", "slow=1,40"),
        ];
        fetches = pages.map(|(name, fault)| (name.into(), api.url(&format!("/users/7?{fault}")))).into();
        let private = ["http://169.254.169.254/latest", "http://0x7f.2/", "http://[::1]/"];
        fetches.extend(private.map(|url| (url.into(), url.into())));
    }
    let http = HttpClient::new(Client::builder(), guard, limits).context("cannot make the client")?;

    let (results, picture) = record("http_client", async {
        let start = Instant::now();
        let http = &http;
        let all = join_all(fetches.iter().map(|(name, url)| {
            let fetch = async move {
                let result = fetch(http, url).await;
                let elapsed = start.elapsed().as_millis();
                match &result {
                    Ok((status, bytes)) => {
                        println!("{elapsed:>4} ms  {name}: status {status}, {bytes} bytes")
                    }
                    Err(error) => println!("{elapsed:>4} ms  {name}: {error}"),
                }
                result
            };
            fetch.try_lane(name.trim_start_matches("http://"))
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
    let Some(results) = results else { return Ok(ExitCode::from(130)) };
    Ok(ExitCode::from(u8::from(!args.urls.is_empty() && results.iter().any(Result::is_err))))
}

/// The status, and the size of the body in bytes.
async fn fetch(http: &HttpClient, url: &str) -> Result<(u16, usize), HttpError> {
    let mut response = http.get(url).await?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len();
    }
    Ok((response.status().as_u16(), bytes))
}
