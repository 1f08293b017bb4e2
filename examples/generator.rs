//! Read a file as a stream of lines, written as three different generators; then stop one of them early.
//!
//! ```console
//! cargo run --example generator
//! cargo run --example generator -- /etc/services --stop-after 500
//! ```

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::{Stream, StreamExt, TryStreamExt};
use streams::{by_hand, by_macro, by_unfold};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::time::{sleep, timeout};

/// What is read when no file is given.
const RHYME: &str = "one two\nbuckle my shoe\nthree four\nknock at the door\nfive six\npick up sticks\n\
                     seven eight\nlay them straight\n";

/// Read a file as a stream of lines, by three generators.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all read, 1 the file could not be read, 2 bad arguments.")]
struct Args {
    /// The file. Without one, a short rhyme
    file: Option<PathBuf>,
    /// Milliseconds after which the last generator is dropped, in virtual time
    #[arg(long, default_value = "70", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    stop_after: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

/// An open file. Its destructor runs however the stream ends.
struct Source<'a> {
    lines: Lines<BufReader<File>>,
    reads: usize,
    open: &'a Cell<usize>,
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

async fn open<'a>(path: &Path, open: &'a Cell<usize>) -> io::Result<Source<'a>> {
    let lines = BufReader::new(File::open(path).await?).lines();
    open.set(open.get() + 1);
    Ok(Source { lines, reads: 0, open })
}

// ANCHOR: read
/// The next three lines, which take 15 ms; `None` at the end of the file.
async fn read(mut source: Source<'_>) -> io::Result<Option<(Vec<String>, Source<'_>)>> {
    source.reads += 1;
    let name = format!("read {}", source.reads);
    let read = async move {
        let mut batch = Vec::new();
        while let Some(line) = source.lines.next_line().await? {
            batch.push(line);
            if batch.len() == 3 {
                break;
            }
        }
        sleep(Duration::from_millis(15)).await;
        Ok((!batch.is_empty()).then_some((batch, source)))
    };
    read.try_lane(name).await
}
// ANCHOR_END: read

/// Uses the lines, 5 ms each.
async fn consume(lines: impl Stream<Item = io::Result<String>>) -> io::Result<()> {
    let mut lines = pin!(lines);
    while let Some(line) = waiting("queue", lines.next()).await {
        println!("  {}", line?);
        waiting("timer", sleep(Duration::from_millis(5))).await;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let rhyme = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let path = args.file.as_deref().unwrap_or(rhyme.path());
    let written = tokio::fs::write(rhyme.path(), RHYME).await;
    written.context("cannot write a temporary file")?;

    let files = Cell::new(0);
    let source = async || open(path, &files).await.with_context(|| format!("cannot open {}", path.display()));
    let by_macro: Vec<_> = by_macro(source().await?, read).try_collect().await?;
    let by_unfold: Vec<_> = by_unfold(source().await?, read).try_collect().await?;
    let hand_made: Vec<_> = by_hand(source().await?, read).try_collect().await?;
    anyhow::ensure!(by_macro == by_unfold && by_unfold == hand_made, "the generators differ");
    println!("{} lines by each of three generators; the first {} ms again:", by_macro.len(), args.stop_after);

    let lines = by_hand(source().await?, read);
    let stop_after = Duration::from_millis(args.stop_after);
    let (result, picture) =
        record("generator", async { timeout(stop_after, consume(lines).try_lane("consumer")).await }).await;
    let how = if result.is_err() { "dropped" } else { "read to its end" };
    result.unwrap_or(Ok(()))?;
    println!("the stream was {how}: {} files are open", files.get());
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(ExitCode::from(u8::from(files.get() > 0)))
}
