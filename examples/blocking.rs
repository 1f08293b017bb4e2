//! Hash files four ways while a heartbeat tells how late the runtime is: in the task, `offload`, `cpu_pool`, `block_in_place`.
//!
//! The picture varies: it shows real computing.
//!
//! ```console
//! cargo run --example blocking
//! cargo run --example blocking -- Cargo.lock README.md
//! ```

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use blocking::{CpuPool, Offload, cpu_pool, read_file};
use clap::Parser;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use support::lanes::{LaneExt, Picture, PictureArgs, level, record, waiting};
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep};

/// Hash files in the task, with `offload`, with `cpu_pool` and with `block_in_place`, on a runtime with one worker thread,
/// while a heartbeat measures how late that thread gets to other tasks.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all hashed, 1 a file cannot be read, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// Which files; without any, six new ones in a temporary folder
    files: Vec<PathBuf>,
    /// How many threads may hash at a time
    #[arg(long, default_value = "2", value_parser = threads)]
    threads: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= 256);
    threads.ok_or_else(|| "a number from 1 to 256".into())
}

/// A file is read into memory before it is hashed.
const LARGEST: usize = 64 << 20;
const BEAT: Duration = Duration::from_millis(2);

#[tokio::main(worker_threads = 1)]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Contents = Arc<Vec<(String, Vec<u8>)>>;

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let offload = Offload::new(args.threads);
    let pool = cpu_pool(args.threads, args.threads).context("cannot start the threads")?;
    let contents: Contents = Arc::new(read(args.files.clone(), &offload).await?);

    let expected = hashes(&contents);
    let [task, work, cores, place] = [(); 4].map(|()| contents.clone());
    let ways: [(&str, BoxFuture<'static, anyhow::Result<Vec<Hash>>>); 4] = [
        ("in the task", async move { Ok(in_the_task(&task).await) }.boxed()),
        ("offload", async move { offloaded(&work, &offload).await }.boxed()),
        ("cpu_pool", async move { on_the_pool(&cores, &pool).await }.boxed()),
        ("block_in_place", async move { Ok(block_in_place(|| hashes(&place))) }.boxed()),
    ];
    let mut pictures = Vec::new();
    for (name, way) in ways {
        let (hashed, picture) = look(name, way).await;
        let Some(hashed) = hashed else {
            args.picture.show(&picture).context("cannot write the picture")?;
            return Ok(ExitCode::from(130));
        };
        ensure!(hashed? == expected, "{name}: not the same hashes");
        pictures.push(picture);
    }
    let mut pictures = pictures.into_iter();
    if let Some((in_the_task, offloaded)) = pictures.next().zip(pictures.next()) {
        args.picture.show(&in_the_task.beside(offloaded)).context("cannot write the picture")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files' names and contents.
async fn read(mut files: Vec<PathBuf>, offload: &Offload) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let folder = TempDir::new().context("cannot make a temporary folder")?;
    if files.is_empty() {
        for number in 1..=6_u8 {
            let path = folder.path().join(format!("file {number}"));
            blocking::replace_file(offload, &path, vec![number; 120_000 * usize::from(1 + number % 2)])
                .await?;
            files.push(path);
        }
    }
    let read = files.into_iter().map(async |path| {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        read_file(offload, path, LARGEST).await.map(|contents| (name, contents))
    });
    Ok(try_join_all(read).await?)
}

type Hash = [u8; 32];

fn hash(contents: &[u8]) -> Hash {
    Sha256::digest(contents).into()
}

fn hashes(contents: &Contents) -> Vec<Hash> {
    contents.iter().map(|(_, contents)| hash(contents)).collect()
}

/// No other task runs while one file is hashed; between two files they may.
async fn in_the_task(contents: &Contents) -> Vec<Hash> {
    let mut hashes = Vec::new();
    for (name, contents) in contents.iter() {
        hashes.push(async { hash(contents) }.lane(name).await);
        tokio::task::yield_now().await;
    }
    hashes
}

async fn offloaded(contents: &Contents, offload: &Offload) -> anyhow::Result<Vec<Hash>> {
    let hash = |number: usize| {
        let (offload, files) = (offload.clone(), contents.clone());
        let hash = async move { offload.run(move |_| hash(&files[number].1)).await };
        waiting("join", hash).try_lane(&contents[number].0)
    };
    Ok(try_join_all((0..contents.len()).map(hash)).await?)
}

async fn on_the_pool(contents: &Contents, pool: &CpuPool) -> anyhow::Result<Vec<Hash>> {
    let files = contents.clone();
    Ok(pool.run(move |_| files.par_iter().map(|(_, contents)| hash(contents)).collect()).await?)
}

/// Runs one way as a task beside a heartbeat, and prints what came of it. `None` after Ctrl-C.
async fn look(
    name: &str,
    way: BoxFuture<'static, anyhow::Result<Vec<Hash>>>,
) -> (Option<anyhow::Result<Vec<Hash>>>, Picture) {
    record(name, async {
        let latest = Arc::new(AtomicU64::new(0));
        let heart: JoinHandle<()> = tokio::spawn(heartbeat(latest.clone()).lane("heartbeat"));
        sleep(3 * BEAT).await;
        let start = Instant::now();
        let mut way = tokio::spawn(way);
        let hashed = tokio::select! {
            hashed = &mut way => Some(hashed.context("the way panicked").and_then(|hashes| hashes)),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => {
                way.abort();
                None
            }
        };
        let took = start.elapsed().as_millis();
        // One more beat, which is late if the worker was busy.
        sleep(3 * BEAT).await;
        heart.abort();
        let _ = heart.await;
        let latest = latest.load(Ordering::Relaxed);
        println!("{name:>14}: all hashed after {took:>4} ms, another task waited up to {latest:>4} ms");
        hashed
    })
    .await
}

async fn heartbeat(latest: Arc<AtomicU64>) {
    loop {
        let due = Instant::now() + BEAT;
        waiting("timer", sleep(BEAT)).await;
        let late = due.elapsed().as_millis() as u64;
        latest.fetch_max(late, Ordering::Relaxed);
        level("ms late", late as usize);
    }
}
