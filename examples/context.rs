//! A request's id follows its HTTP calls into spawned tasks, as a header and as a span, without being passed on.
//!
//! ```console
//! cargo run --example context
//! RUST_LOG=context=info cargo run --example context
//! ```

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use reqwest::Client;
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, try_record};
use support::telemetry;
use tasks::in_context;
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span};

/// Serve a few requests; each asks three services in tasks of its own, one of them started without the context.
#[derive(Parser)]
#[command(
    after_help = "RUST_LOG=context=info shows each call with its span. Exit codes: 0 done, 1 failed, 2 bad arguments."
)]
struct Args {
    /// How many requests, at the same time
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    requests: u32,
    #[command(flatten)]
    picture: PictureArgs,
}

tokio::task_local! {
    /// The request that is being served.
    static REQUEST: u32;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let services = Services {
        client: Client::builder().timeout(Duration::from_secs(10)).build()?,
        api: api.url("/echo"),
    };

    let (result, picture) = try_record("context", async {
        let mut requests = JoinSet::new();
        for id in 1..=args.requests {
            let request = handle(services.clone()).instrument(info_span!("request", id));
            requests.spawn(REQUEST.scope(id, request).try_lane(format!("request {id}")));
        }
        let mut answers = Vec::new();
        while let Some(answer) = requests.join_next().await {
            answers.push(answer??);
        }
        answers.sort();
        anyhow::Ok(answers)
    })
    .await;
    for (id, headers) in result? {
        println!("request {id}: {}", headers.join(", "));
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(())
}

#[derive(Clone)]
struct Services {
    client: Client,
    api: String,
}

/// Asks three services together, and returns what each of them was told about the request.
async fn handle(services: Services) -> anyhow::Result<(u32, Vec<String>)> {
    let call = |name| {
        let services = services.clone();
        async move { services.call(name).await.map(|told| format!("{name} {told}")) }.try_lane(name)
    };
    let stock = tokio::spawn(in_context(&REQUEST, call("stock")));
    let price = tokio::spawn(in_context(&REQUEST, call("price")));
    let forgotten = tokio::spawn(call("forgotten"));
    let headers = vec![stock.await??, price.await??, forgotten.await??];
    ensure!(headers[2].ends_with("none"), "a task without the context has it");
    Ok((REQUEST.get(), headers))
}

impl Services {
    /// Deep below the handler: nobody has passed the id on.
    async fn call(&self, name: &str) -> reqwest::Result<String> {
        let mut request = self.client.get(format!("{}?latency=40&id={name}", self.api));
        if let Ok(id) = REQUEST.try_get() {
            request = request.header("x-request-id", id);
        }
        let echo = request.send().await?.error_for_status()?.text().await?;
        let told = echo.split("[\"x-request-id\",\"").nth(1).and_then(|rest| rest.split('"').next());
        let told = told.unwrap_or("none").to_string();
        info!(service = name, "the service was told {told}");
        Ok(told)
    }
}
