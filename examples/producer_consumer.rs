//! Count the words of a folder's text files in a pipeline: read, count, add up, with a bound everywhere.
//!
//! The picture varies with the files that are counted.
//!
//! ```console
//! cargo run --example producer_consumer
//! cargo run --example producer_consumer -- ~/notes --extension txt
//! ```

use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use indicatif::ProgressBar;
use producer_consumer::{feed, stage, stage_in_order};
use support::lanes::{LaneExt, PictureArgs, level, try_record, waiting};
use support::telemetry;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::spawn_blocking;
use tokio::{fs, try_join};
use walkdir::WalkDir;

/// Count the words of a folder's text files: readers, counters and one that adds up, with a bound everywhere.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 counted, 1 something could not be read, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// The folder; the sources of this book if none is given
    folder: Option<PathBuf>,
    /// Which files to read
    #[arg(long, default_value = "md")]
    extension: String,
    /// How many files may be read at a time
    #[arg(long, default_value = "4")]
    readers: NonZeroUsize,
    /// How many texts may be counted at a time
    #[arg(long, default_value = "2")]
    counters: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

type Counts = HashMap<String, u64>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init();
    match run(&args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folder = args.folder.as_ref().unwrap_or(&book);
    ensure!(folder.is_dir(), "{} is not a folder", folder.display());
    // Drawn only where standard error is a terminal.
    let progress = ProgressBar::new_spinner().with_message("files counted");
    let (counted, picture) = try_record("producer_consumer", async {
        tokio::select! {
            counted = pipeline(args, folder, &progress) => counted.map(Some),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
        }
    })
    .await;
    progress.finish_and_clear();
    let Some((files, counts)) = counted? else { return Ok(ExitCode::from(130)) };
    let words: u64 = counts.values().sum();
    println!("{files} files, {words} words, {} different", counts.len());
    let mut frequent: Vec<_> = counts.iter().map(|(word, count)| (std::cmp::Reverse(count), word)).collect();
    frequent.sort();
    for (std::cmp::Reverse(count), word) in frequent.iter().take(5) {
        println!("{count:>8}  {word}");
    }
    let (folder, extension) = (folder.clone(), args.extension.clone());
    let sequential = spawn_blocking(move || one_by_one(&folder, &extension)).await??;
    ensure!(
        sequential == counts,
        "counting one file after the other gives {} words",
        sequential.values().sum::<u64>()
    );
    println!("the same as one file after the other");
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(ExitCode::SUCCESS)
}

async fn pipeline(args: &Args, folder: &Path, progress: &ProgressBar) -> anyhow::Result<(u64, Counts)> {
    let ((paths, to_read), (texts, to_count), (counts, to_add)) = (channel(4), channel(2), channel(2));
    let in_flight = &Cell::new(0);
    let change = move |by: isize| {
        in_flight.set(in_flight.get() + by);
        level("files in flight", in_flight.get().unsigned_abs());
    };
    let number = &Cell::new(0);
    let read = |path: anyhow::Result<PathBuf>| {
        change(1);
        number.set(number.get() + 1);
        let read = async move {
            let path = path?;
            let bytes = fs::read(&path).await.with_context(|| format!("cannot read {}", path.display()))?;
            Ok((path, String::from_utf8_lossy(&bytes).into_owned()))
        };
        read.try_lane(format!("read {}", number.get()))
    };
    let count = |(_path, text): (PathBuf, String)| {
        // Counting computes, so it leaves the threads that run tasks.
        let count = async move { Ok(waiting("compute", spawn_blocking(move || words(&text))).await?) };
        count.try_lane("count")
    };
    let add = async |mut counts: Receiver<Counts>| {
        let (mut files, mut all) = (0, Counts::new());
        while let Some(counts) = waiting("queue", counts.recv()).await {
            counts.into_iter().for_each(|(word, count)| *all.entry(word).or_default() += count);
            files += 1;
            change(-1);
            progress.inc(1);
        }
        anyhow::Ok((files, all))
    };
    let stages = async {
        try_join!(
            feed(files(folder, &args.extension), paths),
            stage_in_order(to_read, args.readers, read, texts),
            stage(to_count, args.counters, count, counts),
            add(to_add).try_lane("add up"),
        )
    };
    stages.await.map(|((), (), (), counted)| counted)
}

/// The files of the folder, found one by one as they are asked for.
fn files(folder: &Path, extension: &str) -> impl Iterator<Item = anyhow::Result<PathBuf>> + use<> {
    let (folder, extension) = (folder.to_path_buf(), extension.to_string());
    WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(move |entry| match entry {
        Ok(entry) => {
            let wanted = entry.file_type().is_file()
                && entry.path().extension().is_some_and(|found| found == extension.as_str());
            wanted.then(|| Ok(entry.into_path()))
        }
        Err(error) => Some(Err(error.into())),
    })
}

fn words(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

fn one_by_one(folder: &Path, extension: &str) -> anyhow::Result<Counts> {
    let mut all = Counts::new();
    for path in files(folder, extension) {
        let text = String::from_utf8_lossy(&std::fs::read(path?)?).into_owned();
        words(&text).into_iter().for_each(|(word, count)| *all.entry(word).or_default() += count);
    }
    Ok(all)
}
