//! Crawl pages of two sites by their robots.txt: one site forbids a part of it, the other cannot say what it forbids.
//!
//! ```console
//! cargo run --example robots
//! cargo run --example robots -- https://example.org/ https://example.org/search
//! ```

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::join_all;
use reqwest::{Client, Response, Url, redirect::Policy};
use scraping::{Fetched, ROBOTS_BYTES, Robots};
use support::api::{Api, Fault};
use support::lanes::{LaneExt, PictureArgs, record, waiting};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum Without {
    #[error("forbidden: {0}")]
    Forbidden(String),
    #[error("failed: {0}")]
    Failed(reqwest::Error),
}

/// Fetch the pages that their sites' robots.txt allows, all at once, and draw the run.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all allowed pages fetched, 1 a fetch failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// What to fetch. Without any: pages of two local servers, one of which is broken
    urls: Vec<Url>,
    /// The crawler's name, as a robots.txt would call it
    #[arg(long, default_value = "ExampleBot")]
    agent: String,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (site, broken) = (Api::start().await, Api::start().await);
    let (site, broken) = (site.context("cannot start a server")?, broken.context("cannot start a server")?);
    let latency =
        |millis| Fault::new().latency(Duration::from_millis(millis)..Duration::from_millis(millis + 1));
    site.fault("/robots.txt", latency(60));
    broken.fault("/robots.txt", latency(30).status(503));
    let mut pages: Vec<(String, Url)> = args.urls.iter().map(|url| (url.to_string(), url.clone())).collect();
    if pages.is_empty() {
        for path in ["/users/1?latency=40", "/users/2?latency=50", "/limited"] {
            pages.push((format!("site{path}"), site.url(path).parse()?));
        }
        for path in ["/users/1", "/users/2"] {
            pages.push((format!("broken{path}"), broken.url(path).parse()?));
        }
    }

    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().timeout(Duration::from_secs(10)).user_agent(&args.agent);
    // The rules follow redirects themselves.
    let (client, asking) = (builder.build()?, Client::builder().timeout(Duration::from_secs(10)));
    let asking = asking.user_agent(&args.agent).redirect(Policy::none()).build()?;
    let fetch = move |url| robots_txt(asking.clone(), url).try_lane("robots.txt");
    let robots = Robots::new(&args.agent, NonZeroUsize::MAX, fetch);
    let visits = pages.iter().map(|(name, url)| {
        let (robots, client) = (&robots, &client);
        let visit = async move {
            let access = waiting("robots.txt", robots.access(url)).await;
            if !access.allowed {
                return Err(Without::Forbidden(access.unknown.unwrap_or("by its robots.txt".into())));
            }
            let failed = |error: reqwest::Error| Without::Failed(error.without_url());
            let page = client.get(url.clone()).send().await.and_then(Response::error_for_status);
            let page = page.map_err(failed)?;
            Ok(page.bytes().await.map_err(failed)?.len())
        };
        visit.try_lane(name.split('?').next().unwrap_or(name))
    });
    let (ended, picture) = record("robots", async {
        tokio::select! {
            ended = join_all(visits) => Some(ended),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;

    let ended: Option<Vec<Result<usize, Without>>> = ended;
    let mut failed = false;
    for ((name, _), page) in pages.iter().zip(ended.iter().flatten()) {
        match page {
            Ok(bytes) => println!("{name}: {bytes} bytes"),
            Err(without) => println!("{name}: {without}"),
        }
        failed |= matches!(page, Err(Without::Failed(_)));
    }
    if args.urls.is_empty() {
        let [site, broken] = [&site, &broken].map(|api| api.gauge().route("/robots.txt").total);
        println!("requests for a robots.txt: {site} to site, {broken} to broken");
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    site.stop().await;
    broken.stop().await;
    Ok(if ended.is_none() { ExitCode::from(130) } else { ExitCode::from(u8::from(failed)) })
}

/// One request for a robots.txt, of which no more is read than counts.
async fn robots_txt(client: Client, url: Url) -> reqwest::Result<Fetched> {
    let mut response = client.get(url).send().await?;
    let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(String::from);
    let (status, mut body) = (response.status().as_u16(), Vec::new());
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= ROBOTS_BYTES {
            break;
        }
    }
    Ok(Fetched { status, location, body })
}
