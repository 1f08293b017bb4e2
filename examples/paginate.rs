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
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::StreamExt;
use reqwest::Client;
use serde_json::Value;
use streams::{Page, Position, paginate};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use timeouts::{GaveUp, Retry, Verdict, retry};
use tokio::fs::{self, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// So many items are stored together.
const BATCH: usize = 25;
/// A page that fails once: the local server is asked to.
const FAILING: u32 = 9;

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
    /// Die when so many items were stored in this run
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
async fn fetch(client: Client, server: String, page: u32) -> Result<Page<u32, u64>, FetchError> {
    let fault = if page == FAILING { "&status=503&first=1" } else { "" };
    let url = format!("{server}/items?per_page=100&page={page}&latency=20..60{fault}");
    let policy = Retry { base: Duration::from_millis(20), ..Retry::default() };
    let attempt = |attempt| {
        let get = async { client.get(&url).send().await?.error_for_status()?.bytes().await };
        get.try_lane(if attempt == 1 { format!("page {page}") } else { format!("page {page} again") })
    };
    let bytes = retry(&policy, |_| Verdict::Transient, attempt).await?;
    let body: Value = serde_json::from_slice(&bytes)?;
    let items = body["items"].as_array().ok_or(FetchError::Items)?;
    let ids = items.iter().map(|item| item["id"].as_u64().ok_or(FetchError::Items));
    Ok(Page { items: ids.collect::<Result<_, _>>()?, next: body["next"].is_string().then_some(page + 1) })
}
// ANCHOR_END: fetch

// ANCHOR: copy
/// Where to go on, and how many bytes of the copy are worth keeping.
async fn load(folder: &Path) -> anyhow::Result<(Option<Position<u32>>, u64)> {
    let Ok(text) = fs::read_to_string(folder.join("cursor")).await else {
        return Ok((Some(Position::start(1)), 0));
    };
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    match numbers.as_deref() {
        Ok([bytes]) => Ok((None, *bytes)),
        Ok([bytes, page, taken]) => {
            Ok((Some(Position { page: u32::try_from(*page)?, taken: usize::try_from(*taken)? }), *bytes))
        }
        _ => bail!("the cursor file is damaged"),
    }
}

/// In place of the old cursor at once or not at all: a rename.
async fn save(folder: &Path, position: Option<Position<u32>>, bytes: u64) -> anyhow::Result<()> {
    let position = position.map_or(String::new(), |at| format!("{} {}", at.page, at.taken));
    fs::write(folder.join("cursor.new"), format!("{bytes} {position}\n")).await?;
    Ok(fs::rename(folder.join("cursor.new"), folder.join("cursor")).await?)
}

/// Copies from where the last run left off. Returns how many items this run has copied.
async fn copy(args: &Args, client: &Client, folder: &Path, server: &str) -> anyhow::Result<usize> {
    let (position, mut bytes) = load(folder).await.context("cannot read the cursor")?;
    let Some(position) = position else { return Ok(0) };
    if args.server.is_none() {
        println!("from page {}, item {}", position.page, position.taken + 1);
    }
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(false).open(folder.join("items")).await?;
    // What was stored after the last word of the cursor comes again.
    file.set_len(bytes).await?;
    file.seek(SeekFrom::End(0)).await?;

    let (fetching, at) = (client.clone(), server.to_string());
    let mut items = paginate(position, args.ahead, move |page| fetch(fetching.clone(), at.clone(), page));
    let mut copied = 0;
    loop {
        let batch: Vec<_> = waiting("queue", items.by_ref().take(BATCH).collect()).await;
        if batch.is_empty() {
            return Ok(copied);
        }
        let batch = batch.into_iter().collect::<Result<Vec<u64>, _>>()?;
        let text: String = batch.iter().map(|id| format!("{id}\n")).collect();
        client
            .post(format!("{server}/echo?latency=20"))
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
    let client = Client::new();
    if let Some(server) = &args.server {
        copy(&args, &client, folder, server).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let api = Api::start().await.context("cannot start the local server")?;
    let server = api.url("");
    let died = if args.state.is_none() { Some(die(&args, folder, &server).await?) } else { None };
    let (copied, picture) = record("paginate", async {
        if let Some(items) = died {
            println!("the first run died with {items} items in the copy");
        }
        tokio::select! {
            biased;
            result = copy(&args, &client, folder, &server).try_lane("consumer") => Some(result),
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

/// The first run, in a process of its own, which dies between storing items and writing down its position. Returns how
/// many items it has stored.
async fn die(args: &Args, folder: &Path, server: &str) -> anyhow::Result<usize> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["--server", server, "--die-after", "430", "--ahead", &args.ahead.to_string()]);
    let status = command.arg("--state").arg(folder).kill_on_drop(true).status().await;
    if status.context("cannot start the first run")?.success() {
        bail!("the first run was to die, and did not");
    }
    Ok(fs::read_to_string(folder.join("items")).await.context("cannot read the copy")?.lines().count())
}
