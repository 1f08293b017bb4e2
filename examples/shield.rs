//! Save pages that must not be half saved: written, renamed and entered in an index, although callers give up on the way.
//!
//! ```console
//! cargo run --example shield
//! cargo run --example shield -- --patience 35
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use context_managers::{Owner, shield};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Save four pages one after the other, each given up after a while: bare, then shielded. The files are real, the clock is
/// virtual.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 nothing shielded is torn, 1 something is, 2 bad arguments.")]
struct Args {
    /// Milliseconds after which the first caller gives up; each further one waits 10 longer. Saving takes 30
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    patience: u32,
    #[command(flatten)]
    picture: PictureArgs,
}

const MS: Duration = Duration::from_millis(1);
const PAGES: [&str; 4] = ["home", "about", "contact", "imprint"];

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let (bare, shielded) = (tempfile::tempdir(), tempfile::tempdir());
    let (bare, shielded) = (bare.context("no room for files")?, shielded.context("no room for files")?);
    let owner = Owner::new(Handle::current());

    let save_bare = async |page: &'static str| save(bare.path().into(), page).try_lane(page).await;
    let (_, left) = record("bare", give_up(args.patience, save_bare)).await;
    let torn = torn(bare.path()).context("cannot read the folder")?;
    println!("bare: torn {torn:?}");

    let save_shielded =
        async |page: &'static str| shield(&owner, save(shielded.path().into(), page).try_lane(page)).await;
    let ((), right) = record("shielded", async {
        give_up(args.patience, save_shielded).await;
        let report = owner.finish().await;
        println!("shielded: {} finished by the owner, failures {:?}", report.finished, report.failures);
    })
    .await;
    let torn = self::torn(shielded.path()).context("cannot read the folder")?;
    println!("shielded: torn {torn:?}");
    args.picture.show(&left.beside(right)).context("cannot write the picture")?;
    Ok(ExitCode::from(u8::from(!torn.is_empty())))
}

/// One caller after the other; each waits 10 ms longer than the one before.
async fn give_up(patience: u32, save: impl AsyncFn(&'static str) -> io::Result<()>) {
    for (number, page) in (0..).zip(PAGES) {
        let patience = (patience + 10 * number) * MS;
        match timeout(patience, save(page)).await {
            Ok(Ok(())) => println!("  {page}: saved"),
            Ok(Err(error)) => println!("  {page}: {error}"),
            Err(_) => println!("  {page}: given up after {} ms", patience.as_millis()),
        }
    }
}

/// Writes a page beside its place, renames it, and enters it in the index, with 10 ms of other work between the steps.
async fn save(folder: PathBuf, page: &'static str) -> io::Result<()> {
    let draft = folder.join(format!("{page}.draft"));
    fs::write(&draft, format!("<h1>{page}</h1>")).await?;
    waiting("io", sleep(10 * MS)).await;
    fs::rename(draft, folder.join(page)).await?;
    waiting("io", sleep(10 * MS)).await;
    let mut index = fs::OpenOptions::new().append(true).create(true).open(folder.join("index")).await?;
    index.write_all(format!("{page}\n").as_bytes()).await?;
    index.flush().await?;
    waiting("io", sleep(10 * MS)).await;
    fs::write(folder.join(format!("{page}.ready")), "").await
}

/// The pages that are there in part: a draft, a page that is in no index, a page that is not ready.
fn torn(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut torn = BTreeSet::new();
    for page in PAGES {
        let index = std::fs::read_to_string(folder.join("index")).unwrap_or_default();
        let exists = |name: String| folder.join(name).try_exists();
        let steps = [
            exists(page.to_string())? && !exists(format!("{page}.draft"))?,
            index.lines().any(|line| line == page),
            exists(format!("{page}.ready"))?,
        ];
        let begun = steps.contains(&true) || exists(format!("{page}.draft"))?;
        if begun && steps.contains(&false) {
            torn.insert(page.to_string());
        }
    }
    Ok(torn)
}
