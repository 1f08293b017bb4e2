//! Walk a directory tree with a few workers: reading a directory leads to the directories in it.
//!
//! ```console
//! cargo run --example worker_pool
//! cargo run --example worker_pool -- /usr/share --workers 8
//! ```

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use clap::Parser;
use producer_consumer::worker_pool;
use support::lanes::{LaneExt, PictureArgs, record};
use support::telemetry;
use tokio::fs;

/// Add up the sizes below some folders: each directory that is read leads to the directories in it.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all read, 1 a directory could not be read, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// The folders; the sources of this cookbook, and one that does not exist, if none is given
    folders: Vec<PathBuf>,
    /// How many directories may be read at a time
    #[arg(long, default_value = "3")]
    workers: NonZeroUsize,
    /// How often a directory that cannot be read is tried
    #[arg(long, default_value = "2")]
    tries: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

#[derive(Default)]
struct Seen {
    directories: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    telemetry::init();
    let crates =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().context("the sources are gone")?;
    let shown = args.folders.is_empty();
    let folders = if shown {
        ["support", "no-such-folder", "xtask"].map(|name| crates.join(name)).to_vec()
    } else {
        args.folders
    };

    let seen = Arc::new(Seen::default());
    let counters = seen.clone();
    let work = move |directory: PathBuf| {
        let name = directory.file_name().map_or("/".into(), |name| name.to_string_lossy().into_owned());
        read(directory, counters.clone()).try_lane(name)
    };
    let (dead, picture) = record("worker_pool", async {
        tokio::select! {
            dead = worker_pool(folders, args.workers, args.tries, work) => Some(dead),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    let Some(dead) = dead else { return Ok(ExitCode::from(130)) };

    let Seen { directories, files, bytes } = &*seen;
    println!(
        "{} directories, {} files, {} kB",
        directories.load(Relaxed),
        files.load(Relaxed),
        bytes.load(Relaxed) / 1000
    );
    for letter in &dead {
        let directory = letter.job.strip_prefix(&crates).unwrap_or(&letter.job);
        println!("given up after {} tries: {}: {}", letter.tries, directory.display(), letter.failure);
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    // The folder that does not exist belongs to what is shown.
    Ok(ExitCode::from(u8::from(!shown && !dead.is_empty())))
}

/// Counts what is in the directory, and returns the directories in it.
async fn read(directory: PathBuf, seen: Arc<Seen>) -> std::io::Result<Vec<PathBuf>> {
    let (mut directories, mut files, mut bytes) = (Vec::new(), 0, 0);
    let mut entries = fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_type().await?.is_dir() {
            directories.push(entry.path());
        } else {
            files += 1;
            bytes += entry.metadata().await?.len();
        }
    }
    // Only when all of it is read: a second try would count it twice.
    seen.directories.fetch_add(1, Relaxed);
    seen.files.fetch_add(files, Relaxed);
    seen.bytes.fetch_add(bytes, Relaxed);
    directories.sort();
    Ok(directories)
}
