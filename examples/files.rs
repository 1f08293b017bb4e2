//! Replace a word in many files, each at one stroke: nobody ever reads a file that is half written.
//!
//! The picture varies: it shows real files.
//!
//! ```console
//! cargo run --example files
//! cargo run --example files -- --from colour --to color notes/*.txt
//! ```

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use blocking::{Offload, read_file, replace_file};
use clap::Parser;
use futures::future::join_all;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tempfile::TempDir;

/// Replace a word in many files, so many at a time; each file changes entirely or not at all.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all done, 1 a file could not be changed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// Which files, of at most 64 MiB; without any, eight new ones in a temporary folder
    files: Vec<PathBuf>,
    /// The word to be replaced
    #[arg(long, default_value = "colour", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    from: String,
    /// What to put in its place
    #[arg(long, default_value = "color")]
    to: String,
    /// How many files may be in work at a time
    #[arg(long, default_value = "3")]
    limit: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

const LARGEST: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: Args) -> anyhow::Result<ExitCode> {
    let offload = Offload::new(args.limit);
    let folder = TempDir::new().context("cannot make a temporary folder")?;
    if args.files.is_empty() {
        for number in 1..=8_usize {
            let path = folder.path().join(format!("page {number}"));
            replace_file(&offload, &path, "a colour, ".repeat(number * 300)).await?;
            args.files.push(path);
        }
    }
    let (results, picture) = record("files", async {
        let change = |path: &PathBuf| {
            let (offload, from, to, path) = (&offload, &args.from, &args.to, path.clone());
            let name = name(&path);
            async move { change(offload, &path, from, to).await }.try_lane(name)
        };
        tokio::select! {
            results = join_all(args.files.iter().map(change)) => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    // What runs on its own thread ends before the folder is deleted.
    if offload.drain().await.is_err() {
        anyhow::bail!("a replacement panicked");
    }
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some(results) = results else { return Ok(ExitCode::from(130)) };
    for (path, result) in args.files.iter().zip(&results) {
        match result {
            Ok(0) => println!("{}: unchanged", name(path)),
            Ok(count) => println!("{}: {count} replaced", name(path)),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
    Ok(ExitCode::from(u8::from(results.iter().any(Result::is_err))))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// How often the word was replaced. A file without it is not written.
async fn change(offload: &Offload, path: &Path, from: &str, to: &str) -> anyhow::Result<usize> {
    let contents = waiting("io", read_file(offload, path, LARGEST)).await?;
    let (from, to) = (from.to_string(), to.to_string());
    // Searching a large file would keep the other tasks waiting.
    let search = offload.run(move |_| {
        let text = String::from_utf8(contents)?;
        Ok::<_, std::string::FromUtf8Error>((text.matches(&from).count(), text.replace(&from, &to)))
    });
    let searched = waiting("join", search).await?;
    let (count, text) = searched.with_context(|| format!("{} is no text", path.display()))?;
    if count > 0 {
        waiting("io", replace_file(offload, path, text)).await?;
    }
    Ok(count)
}
