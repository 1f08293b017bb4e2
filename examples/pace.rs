//! Type into a search field: what debounce, throttle, sample and chunks make of the same keys.
//!
//! The clock is virtual: a key every 40 ms and 200 ms between words, but the run ends at once.
//!
//! ```console
//! cargo run --example pace
//! cargo run --example pace -- "structured concurrency" --period 150
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures::{Stream, StreamExt};
use streams::{chunks, debounce, sample, throttle};
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

/// Search as somebody types, with three ways to leave keys out, and write all keys down in chunks.
#[derive(Parser)]
struct Args {
    /// What is typed
    #[arg(default_value = "tokio rust", value_parser = text)]
    text: String,
    /// Milliseconds of quiet, of a period and of a chunk
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    period: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

fn text(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if (1..=100).contains(&length) { Ok(text.into()) } else { Err("1 to 100 characters".into()) }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (text, period) = (args.text.as_str(), Duration::from_millis(args.period));

    let ((), picture) = record("pace", async {
        let (typist, keys) = (0..4).map(|_| mpsc::channel(8)).unzip::<_, _, Vec<_>, Vec<_>>();
        let [debounced, throttled, sampled, written] =
            keys.into_iter().map(ReceiverStream::new).collect::<Vec<_>>().try_into().expect("there are four");
        let four = NonZeroUsize::new(4).expect("4 is not zero");
        let written = chunks(written, four, period).map(|keys: Vec<&str>| {
            let last_keys = keys.iter().filter_map(|typed| typed.chars().last());
            last_keys.collect::<String>()
        });
        tokio::join!(
            keyboard(text, typist).lane("keyboard"),
            answer("debounce", debounce(debounced, period)).lane("debounce"),
            answer("throttle", throttle(throttled, period)).lane("throttle"),
            answer("sample", sample(sampled, period)).lane("sample"),
            answer("chunks", written).lane("chunks"),
        );
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")
}

/// Sends what is typed so far, at each key, to everybody.
async fn keyboard<'a>(text: &'a str, everybody: Vec<mpsc::Sender<&'a str>>) {
    for (number, (at, key)) in (1..).zip(text.char_indices()) {
        let pause = if key == ' ' { 200 } else { 40 };
        waiting("timer", sleep(Duration::from_millis(pause))).await;
        level("keys", number);
        for sender in &everybody {
            // Whoever reads does so until the end.
            let _ = sender.send(&text[..at + key.len_utf8()]).await;
        }
    }
}

/// Searches for, or writes, each item of `stream`, and says what it was.
async fn answer(name: &str, stream: impl Stream<Item = impl AsRef<str>>) {
    let (mut stream, mut all) = (std::pin::pin!(stream), Vec::new());
    while let Some(text) = waiting("queue", stream.next()).await {
        let text = text.as_ref();
        waiting("io", sleep(Duration::from_millis(15))).lane(format!("`{text}`")).await;
        all.push(format!("`{text}`"));
    }
    println!("{name:8} {:>2}: {}", all.len(), all.join(" "));
}
