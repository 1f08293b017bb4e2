//! Read log files as streams of lines: merged as the lines come, merged by time, and shared between an archive and a screen.
//!
//! ```console
//! cargo run --example streams
//! cargo run --example streams -- web.log db.log
//! sort -s -k1,1 all.log | cargo run --example streams -- - web.log
//! ```
//!
//! A line's time is its first word. Reading takes virtual time: the n-th file is the n-th slowest.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::future::{join, join_all, ready};
use futures::{Stream, StreamExt};
use streams::{
    Event, FanOut, OrderedMergeError, Receiver, WhenFull, by_hand, chunks, merge, ordered_merge, sample,
};
use support::lanes::{LaneExt, Picture, PictureArgs, record, waiting};
use tokio::fs::File;
use tokio::io::{self, AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

/// What is read when no file is given.
const LOGS: [(&str, &str); 3] = [
    (
        "web.log",
        "09:00:01 started\n09:00:04 GET /\n09:00:05 GET /login\n09:00:09 GET /cart\n09:00:12 GET /pay\n",
    ),
    ("db.log", "09:00:02 connected\n09:00:06 slow query\n09:00:07 slow query\n09:00:13 checkpoint\n"),
    ("mail.log", "09:00:03 queue is empty\n09:00:14 sent a receipt\n"),
];

/// How long reading two lines of a file takes, in milliseconds, by the file's place. Later ones take as long as the last.
const READ: [u64; 3] = [5, 7, 31];

/// Read log files as streams of lines: merged as they come, merged by time, shared between an archive and a screen.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all read, 1 a file could not be read or is not sorted, 2 bad arguments."
)]
struct Args {
    /// Files whose lines begin with a time; `-` reads standard input. Without any, three short logs
    files: Vec<PathBuf>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// A log that can be read more than once.
struct Log {
    name: String,
    content: Content,
    read: Duration,
}

enum Content {
    File(PathBuf),
    Text(String),
}

impl Log {
    fn new(place: usize, name: String, content: Content) -> Log {
        Log { name, content, read: Duration::from_millis(READ[place.min(READ.len() - 1)]) }
    }

    // ANCHOR: lines
    /// Its lines, read two at a time.
    async fn lines(&self) -> io::Result<impl Stream<Item = io::Result<String>> + use<>> {
        let reader: Pin<Box<dyn AsyncBufRead>> = match &self.content {
            Content::File(path) => Box::pin(BufReader::new(File::open(path).await?)),
            Content::Text(text) => Box::pin(Cursor::new(text.clone())),
        };
        let read_time = self.read;
        Ok(by_hand(reader.lines(), move |mut lines| async move {
            sleep(read_time).await;
            let mut batch = Vec::new();
            while let Some(line) = lines.next_line().await? {
                batch.push(line);
                if batch.len() == 2 {
                    break;
                }
            }
            Ok((!batch.is_empty()).then_some((batch, lines)))
        }))
    }
    // ANCHOR_END: lines
}

type Lines = ReceiverStream<io::Result<String>>;

/// Reads each log in a lane of its own, one line ahead of `consume`, which gets a stream for each.
async fn section<T>(
    title: &'static str,
    logs: &[Log],
    consume: impl AsyncFnOnce(Vec<Lines>) -> anyhow::Result<T>,
) -> anyhow::Result<Picture> {
    println!("{title}:");
    let (mut sources, mut readers) = (Vec::new(), Vec::new());
    for log in logs {
        let lines = log.lines().await.with_context(|| format!("cannot open {}", log.name))?;
        let (sender, receiver) = mpsc::channel(1);
        sources.push(ReceiverStream::new(receiver));
        readers.push((&log.name, lines, sender));
    }
    let (result, picture) = record(title, async {
        let reading = readers.into_iter().map(|(name, mut lines, sender)| {
            let read = async move {
                while let Some(line) = lines.next().await {
                    if waiting("queue", sender.send(line)).await.is_err() {
                        break;
                    }
                }
            };
            read.lane(name)
        });
        join(join_all(reading), consume(sources).try_lane("consumer")).await.1
    })
    .await;
    result.map(|_| picture)
}

// ANCHOR: merge
/// Every line as it comes.
async fn as_they_come(logs: &[Log], sources: Vec<Lines>) -> anyhow::Result<()> {
    let names = logs.iter().map(|log| &log.name);
    let mut lines = merge(names.zip(sources));
    while let Some((name, line)) = waiting("queue", lines.next()).await {
        println!("  {name:<9} {}", line.with_context(|| format!("cannot read {name}"))?);
    }
    Ok(())
}
// ANCHOR_END: merge

// ANCHOR: ordered_merge
/// Every line when it is its turn.
async fn by_time(logs: &[Log], sources: Vec<Lines>) -> anyhow::Result<()> {
    let time = |line: &String| line.split_whitespace().next().unwrap_or_default().to_string();
    let mut lines = ordered_merge(sources, time);
    while let Some(line) = waiting("queue", lines.next()).await {
        match line {
            Ok((index, line)) => println!("  {:<9} {line}", logs[index].name),
            Err(OrderedMergeError::Failed { index, error }) => {
                return Err(error).with_context(|| format!("cannot read {}", logs[index].name));
            }
            Err(OrderedMergeError::Unsorted { index, item }) => {
                anyhow::bail!("{} is not sorted: this line comes too late: {item}", logs[index].name);
            }
        }
    }
    Ok(())
}
// ANCHOR_END: ordered_merge

// ANCHOR: shared
/// Every line goes to an archive, which writes them in chunks, and to a screen, which shows the latest now and then.
async fn shared(logs: &[Log], sources: Vec<Lines>) -> anyhow::Result<()> {
    const ROOM: NonZeroUsize = NonZeroUsize::new(8).unwrap();
    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();
    let fan_out = FanOut::new();
    // The archive may make the others wait. The screen loses what it is too slow for.
    let archive = items(fan_out.subscribe_blocking(ROOM, Duration::from_secs(1)));
    let screen = items(fan_out.subscribe(ROOM, WhenFull::DropOldest));
    let write = async {
        let mut lines = chunks(archive, FOUR, Duration::from_millis(10));
        while let Some(chunk) = waiting("queue", lines.next()).await {
            waiting("io", sleep(Duration::from_millis(3))).await;
            println!("  archive   {} lines, the last at {}", chunk.len(), chunk[chunk.len() - 1]);
        }
    };
    let show = async {
        let mut lines = sample(screen, Duration::from_millis(20));
        while let Some(line) = waiting("timer", lines.next()).await {
            println!("  screen    {line}");
        }
    };
    let publish = async move {
        let names = logs.iter().map(|log| &log.name);
        let mut lines = merge(names.zip(sources));
        while let Some((name, line)) = waiting("queue", lines.next()).await {
            fan_out.publish(line.with_context(|| format!("cannot read {name}"))?).await;
        }
        // With `fan_out` the streams of its subscribers end.
        anyhow::Ok(())
    };
    let all = tokio::join!(publish.try_lane("publish"), write.lane("archive"), show.lane("screen"));
    all.0
}

/// The items alone. What was lost is of interest to neither.
fn items<T>(receiver: Receiver<T>) -> impl Stream<Item = T> + Unpin {
    receiver.filter_map(|event| ready(if let Event::Item(item) = event { Some(item) } else { None }))
}
// ANCHOR_END: shared

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut logs = Vec::new();
    for (place, path) in args.files.into_iter().enumerate() {
        let name = path.display().to_string();
        let content = if name == "-" {
            let text = std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?;
            Content::Text(text)
        } else {
            Content::File(path)
        };
        logs.push(Log::new(place, name, content));
    }
    if logs.is_empty() {
        for (place, (name, text)) in LOGS.into_iter().enumerate() {
            let path = folder.path().join(name);
            tokio::fs::write(&path, text).await.context("cannot write a temporary file")?;
            logs.push(Log::new(place, name.to_string(), Content::File(path)));
        }
    }

    // A section for each recipe.
    let merged = section("merge", &logs, async |sources| as_they_come(&logs, sources).await).await?;
    let ordered = section("ordered_merge", &logs, async |sources| by_time(&logs, sources).await).await?;
    let shared = section("shared", &logs, async |sources| shared(&logs, sources).await).await?;
    args.picture.show(&merged.beside(ordered).beside(shared)).context("cannot write the picture")
}
