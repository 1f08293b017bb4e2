//! Copy a paginated source into a file, pages ahead of the copying, and go on where a killed run left off.
//!
//! Without `--state` it shows the whole story: a first run, in a process of its own, dies in the middle; the second one
//! goes on from the cursor that the first one left behind; then every item is counted.
//!
//! ```console
//! cargo run --example paginate
//! cargo run --example paginate -- --state copy     # Ctrl-C, then the same again
//! ```
//!
//! The picture varies: it is drawn from real requests.

use std::io::SeekFrom;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::StreamExt;
use reqwest::Client;
use serde_json::Value;
use streams::{Page, Position, paginate};
use support::api::{Api, Fault};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use timeouts::{GaveUp, Retry, Verdict, retry};
use tokio::fs::{self, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// So many items are stored together.
const BATCH: usize = 25;

/// Copy a paginated source into a file, and go on where a killed run left off.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all copied, 1 it failed, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// The folder of the copy and its cursor: run again to go on. Without it, a story with a process that dies
    #[arg(long)]
    state: Option<PathBuf>,
    /// How many pages may be fetched ahead
    #[arg(long, default_value = "2")]
    ahead: NonZeroUsize,
    /// Items on a page
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100))]
    per_page: u32,
    /// Die in the middle, when so many items were stored
    #[arg(long)]
    die_after: Option<usize>,
    /// A server that runs already: `http://127.0.0.1:PORT`
    #[arg(long, hide = true)]
    server: Option<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] GaveUp<reqwest::Error>),
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("it has no items with an id")]
    Items,
}

// ANCHOR: fetch
/// A page of `server`; a fetch that fails for a moment is tried again here.
async fn fetch(client: Client, server: String, path: String) -> Result<Page<String, u64>, FetchError> {
    let number = path.split("page=").last().unwrap_or_default().to_string();
    let attempt = |attempt| {
        let name =
            if attempt == 1 { format!("page {number}") } else { format!("page {number}, attempt {attempt}") };
        let get = async {
            let response = client.get(format!("{server}{path}")).send().await?.error_for_status()?;
            response.bytes().await
        };
        get.try_lane(name)
    };
    let bytes = retry(&Retry::default(), |_| Verdict::Transient, attempt).await?;
    let page: Value = serde_json::from_slice(&bytes)?;
    let items =
        page["items"].as_array().and_then(|items| items.iter().map(|item| item["id"].as_u64()).collect());
    Ok(Page { items: items.ok_or(FetchError::Items)?, next: page["next"].as_str().map(String::from) })
}
// ANCHOR_END: fetch

// ANCHOR: copy
/// The copy so far: where to go on, and how many bytes of the file are worth keeping.
async fn load(folder: &Path, first: String) -> anyhow::Result<(Option<Position<String>>, u64)> {
    let Ok(text) = fs::read_to_string(folder.join("cursor")).await else {
        return Ok((Some(Position::start(first)), 0));
    };
    let mut lines = text.lines();
    let mut line = || lines.next().context("the cursor file is damaged");
    let (bytes, taken, page) = (line()?.parse()?, line()?.parse()?, line()?.to_string());
    Ok(((!page.is_empty()).then_some(Position { page, taken }), bytes))
}

/// In place of the old cursor at once or not at all: a rename.
async fn save(folder: &Path, position: Option<Position<String>>, bytes: u64) -> anyhow::Result<()> {
    let Position { page, taken } = position.unwrap_or(Position::start(String::new()));
    fs::write(folder.join("cursor.new"), format!("{bytes}\n{taken}\n{page}\n")).await?;
    Ok(fs::rename(folder.join("cursor.new"), folder.join("cursor")).await?)
}

/// Copies from where the last run left off. Returns how many items this run has copied.
async fn copy(args: &Args, folder: &Path, server: &str) -> anyhow::Result<usize> {
    let first = format!("/items?per_page={}&latency=25&page=1", args.per_page);
    let (position, mut bytes) = load(folder, first).await.context("cannot read the cursor")?;
    let Some(position) = position else { return Ok(0) };
    println!(
        "from {}, item {}",
        position.page.split('&').next_back().unwrap_or_default(),
        position.taken + 1
    );
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(false).open(folder.join("items")).await?;
    // What the cursor does not know of comes again.
    file.set_len(bytes).await?;
    file.seek(SeekFrom::End(0)).await?;

    let client = Client::new();
    let (fetching, at) = (client.clone(), server.to_string());
    let mut items = paginate(position, args.ahead, move |path| fetch(fetching.clone(), at.clone(), path));
    let mut copied = 0;
    loop {
        let batch: Vec<_> = waiting("queue", items.by_ref().take(BATCH).collect()).await;
        if batch.is_empty() {
            return Ok(copied);
        }
        let batch = batch.into_iter().collect::<Result<Vec<u64>, _>>()?;
        let text: String = batch.iter().map(|id| format!("{id}\n")).collect();
        client
            .post(format!("{server}/echo?latency=10"))
            .body(text.clone())
            .send()
            .await?
            .error_for_status()?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await?;
        copied += batch.len();
        if args.die_after.is_some_and(|after| copied >= after) {
            std::process::abort();
        }
        bytes += text.len() as u64;
        save(folder, items.position(), bytes).await?;
    }
}
// ANCHOR_END: copy

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = args.state.as_deref().unwrap_or(temporary.path());
    fs::create_dir_all(folder).await.with_context(|| format!("cannot make {}", folder.display()))?;
    if let Some(server) = &args.server {
        copy(&args, folder, server).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let api = Api::start().await.context("cannot start the local server")?;
    api.fault("/items", Fault::new().status(503).every(4));
    let server = api.url("");
    let (copied, picture) = record("paginate", async {
        let story = async {
            if args.state.is_none() {
                die(&args, folder, &server).await?;
            }
            copy(&args, folder, &server).try_lane("consumer").await
        };
        tokio::select! {
            biased;
            result = story => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    let Some(copied) = copied.transpose()? else { return Ok(ExitCode::from(130)) };

    let text = fs::read_to_string(folder.join("items")).await.context("cannot read the copy")?;
    let ids = text.lines().map(str::parse).collect::<Result<Vec<u64>, _>>().context("the copy is damaged")?;
    ensure!(
        ids.iter().copied().eq(1..=1000),
        "the copy has {} lines, and not 1 to 1000 once each",
        ids.len()
    );
    println!("{copied} items in this run; {} in the copy, each once", ids.len());
    Ok(ExitCode::SUCCESS)
}

/// The first run, in a process of its own, which dies between storing items and writing down its position.
async fn die(args: &Args, folder: &Path, server: &str) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["--server", server, "--die-after", "430"]).arg("--state").arg(folder);
    command.args(["--ahead", &args.ahead.to_string(), "--per-page", &args.per_page.to_string()]);
    let status = command.kill_on_drop(true).status().await.context("cannot start the first run")?;
    if status.success() {
        bail!("the first run was to die, and did not");
    }
    let lines = fs::read_to_string(folder.join("items")).await.unwrap_or_default().lines().count();
    println!("the first run died with {lines} items in the copy");
    Ok(())
}
