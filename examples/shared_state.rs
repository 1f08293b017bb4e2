//! Download pages and count them in four ways, each where it is right: atomic, `Shared`, tokio's mutex, an actor.
//!
//! ```console
//! cargo run --example shared_state
//! cargo run --example shared_state -- --pages 12 --changes 1000
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use locks::{Shared, update};
use reqwest::{Client, Response};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Download pages of a local server, count them in four ways, and measure what each way costs.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all counts agree, 1 they do not or a download failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// Pages to download at once
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u64).range(1..=100))]
    pages: u64,
    /// Changes by each of 64 tasks in each of ten rounds, when the cost is measured
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    changes: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What belongs together: nobody sees the one without the other.
#[derive(Clone, Copy, Default)]
struct Totals {
    pages: u64,
    bytes: usize,
}

/// What the actor is asked.
enum Message {
    Line(String),
    Count(oneshot::Sender<u64>),
}

/// Owns the log. Nobody else touches it, so that it needs no lock.
async fn actor(mut inbox: mpsc::Receiver<Message>) {
    let mut lines = 0;
    while let Some(message) = waiting("queue", inbox.recv()).await {
        match message {
            Message::Line(line) => {
                lines += 1;
                println!("{lines}. {line}");
            }
            // Whoever asked may be gone.
            Message::Count(reply) => _ = reply.send(lines),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let storage = api.url("/echo?latency=10");

    let started = AtomicU64::new(0);
    let totals = Shared::new(Totals::default());
    let stored = Mutex::new(0);
    let (log, inbox) = mpsc::channel(8);

    let download = async |page: u64| {
        let (client, storage, log) = (&client, &storage, log.clone());
        started.fetch_add(1, Ordering::Relaxed);
        let url = api.url(&format!("/users/{page}?latency=20..60"));
        let answer = client.get(url).send().await.and_then(Response::error_for_status)?;
        let bytes = answer.bytes().await?.len();
        let now = totals.with(|totals| {
            totals.pages += 1;
            totals.bytes += bytes;
            *totals
        })?;
        // A request inside the step: the number counts only if the server has it.
        let store = |stored| async move {
            let sent = client.post(storage).body(now.bytes.to_string()).send();
            waiting("io", sent).await?.error_for_status()?;
            reqwest::Result::Ok(stored + 1)
        };
        waiting("lock", update(&stored, store)).await?;
        let line = format!("page {page}: {bytes} bytes, {} so far", now.pages);
        waiting("queue", log.send(Message::Line(line))).await.context("the actor is gone")
    };
    let (result, picture) = record("shared_state", async {
        let actor = tokio::spawn(actor(inbox).lane("actor"));
        let downloads = (1..=args.pages).map(|page| download(page).try_lane(format!("download {page}")));
        let all = async {
            try_join_all(downloads).await?;
            let (reply, count) = oneshot::channel();
            log.send(Message::Count(reply)).await.context("the actor is gone")?;
            let lines = count.await.context("the actor is gone")?;
            anyhow::Ok(lines)
        };
        let result = tokio::select! {
            result = all => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        };
        actor.abort();
        result
    })
    .await;
    let Some(lines) = result else {
        args.picture.show(&picture).context("cannot write the picture")?;
        return Ok(ExitCode::from(130));
    };

    let (lines, stored) = (lines?, *stored.lock().await);
    let counts = [started.into_inner(), totals.with(|totals| totals.pages)?, stored, lines];
    println!("atomic {}, Shared {}, tokio's mutex {}, actor {}", counts[0], counts[1], counts[2], counts[3]);
    ensure!(counts.iter().all(|count| *count == args.pages), "the counts differ");
    costs(args.changes).await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// What a change by each way costs, when 64 tasks make them.
async fn costs(changes: u64) {
    let build = if cfg!(debug_assertions) { ", in an unoptimised build" } else { "" };
    println!("64 tasks, {changes} changes each, on one thread{build}:");
    let count = |count: Arc<AtomicU64>| async move { _ = count.fetch_add(1, Ordering::Relaxed) };
    tell("atomic", "one number", time(AtomicU64::new(0), changes, count).await);
    let count = |count: Arc<Shared<u64>>| async move { _ = count.with(|count| *count += 1) };
    tell("Shared", "values that belong together, no await", time(Shared::new(0), changes, count).await);
    let count = |count: Arc<Mutex<u64>>| async move { *count.lock().await += 1 };
    tell("tokio's mutex", "a change that must await", time(Mutex::new(0), changes, count).await);
    let (sender, mut inbox) = mpsc::channel::<u64>(64);
    let actor = tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    let count = |sender: Arc<mpsc::Sender<u64>>| async move { _ = sender.send(1).await };
    tell("actor", "state with a life of its own", time(sender, changes, count).await);
    // The last sender is gone. It was neither aborted, nor did it panic.
    let _ = actor.await;
}

/// Nanoseconds for each change, in the quickest of ten rounds.
async fn time<S, F>(state: S, changes: u64, change: fn(Arc<S>) -> F) -> u128
where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let state = Arc::new(state);
    let task = |state: Arc<S>| async move {
        for _ in 0..changes {
            change(state.clone()).await;
        }
    };
    let mut quickest = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        let tasks: Vec<_> = (0..64).map(|_| tokio::spawn(task(state.clone()))).collect();
        futures::future::join_all(tasks).await;
        quickest = quickest.min(start.elapsed());
    }
    quickest.as_nanos() / u128::from(64 * changes)
}

fn tell(way: &str, when: &str, nanos: u128) {
    println!("{way:14} {nanos:>5} ns  right for {when}");
}
