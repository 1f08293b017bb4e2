//! Reload a configuration file while requests are served: each request sees one whole version, and a bad file changes nothing.
//!
//! ```console
//! cargo run --example snapshot
//! cargo run --example snapshot -- --workers 8
//! ```

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use locks::{Shared, Snapshot};
use reqwest::{Client, Response};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::fs;
use tokio::time::{interval, sleep};

/// Reload a configuration file while workers send requests, and count by which version each was served.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 done, 1 something failed, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// Workers that send requests
    #[arg(long, default_value = "3")]
    workers: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// The last version that the editor writes.
const LAST: u64 = 3;

/// The path and the latency of a request belong together: both name the version.
#[derive(Debug)]
struct Config {
    version: u64,
    path: String,
    latency: u64,
}

/// A file of three words: version, path, latency.
fn parse(text: &str) -> anyhow::Result<Config> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [version, path, latency] = words[..] else { anyhow::bail!("{} words instead of 3", words.len()) };
    let number = |word: &str| word.parse().with_context(|| format!("`{word}` is not a number"));
    Ok(Config { version: number(version)?, path: path.into(), latency: number(latency)? })
}

/// Writes a file beside it and renames that: a reader sees the old text or the new one.
async fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, text).await?;
    fs::rename(&beside, file).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join("service.conf");
    write(&file, "1 /users/1 15").await?;
    let config = Snapshot::new(parse(&fs::read_to_string(&file).await?)?);

    let edit = async {
        for text in ["2 /users/2 10", "none of your business", "3 /users/3 5"] {
            waiting("timer", sleep(Duration::from_millis(80))).await;
            waiting("io", write(&file, text)).await?;
        }
        anyhow::Ok(())
    };
    let reload = async {
        let (mut last, mut ticks) = (fs::read_to_string(&file).await?, interval(Duration::from_millis(10)));
        while config.get().version < LAST {
            waiting("timer", ticks.tick()).await;
            let text = waiting("io", fs::read_to_string(&file)).await?;
            if text == last {
                continue;
            }
            match parse(&text) {
                Ok(new) => level("version", config.write().await.publish(new).version as usize),
                Err(error) => println!("not loaded: {error:#}"),
            }
            last = text;
        }
        anyhow::Ok(())
    };
    let follow = async {
        let mut seen = config.get();
        while seen.version < LAST {
            seen = waiting("change", config.changed(&seen)).await;
            println!("version {}: {} within {} ms", seen.version, seen.path, seen.latency);
        }
        anyhow::Ok(())
    };
    let served = Shared::new([0_usize; LAST as usize + 1]);
    let work = async || {
        loop {
            // One version for the whole request, whatever is loaded meanwhile.
            let config = config.get();
            let url = api.url(&format!("{}?latency={}", config.path, config.latency));
            let answer = client.get(url).send().await.and_then(Response::error_for_status)?;
            ensure!(answer.text().await?.contains(&format!("\"id\":{}", config.version)), "a torn version");
            served.with(|served| served[config.version as usize] += 1)?;
            if config.version == LAST {
                return anyhow::Ok(());
            }
        }
    };
    let (result, picture) = record("snapshot", async {
        level("version", config.get().version as usize);
        let workers = (1..=args.workers.get()).map(|number| work().try_lane(format!("worker {number}")));
        let (edit, reload) = (edit.try_lane("editor"), reload.try_lane("reloader"));
        let all =
            async { tokio::try_join!(edit, reload, follow.try_lane("follower"), try_join_all(workers)) };
        tokio::select! {
            result = all => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    for (version, served) in served.with(|served| *served)?.into_iter().enumerate().skip(1) {
        println!("{served:>4} requests by version {version}");
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some(result) = result else { return Ok(ExitCode::from(130)) };
    result?;
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}
