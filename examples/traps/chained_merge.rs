//! The mistake: merging more than two streams by chaining `merge`.
//!
//! Symptom: of four sources that always have an item, the last one gets half of the turns, and the first two an eighth each.
//! Cause: each `merge` takes turns between its two sides, however many sources stand behind a side.
//! Fix: one merge over all of them: `merge` here, `select_all` of futures, `merge` of futures-concurrency.
//!
//! ```console
//! cargo run --example trap_chained_merge
//! ```

use std::time::Duration;

use clap::Parser;
use futures::{Stream, StreamExt, stream};
use streams::merge;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

/// What each of the four sources has in the picture.
const ITEMS: usize = 16;

// ANCHOR: wrong
/// The items of four sources, the chained way.
pub fn wrong<S: Stream<Item = usize>>([a, b, c, d]: [S; 4]) -> impl Stream<Item = usize> {
    use tokio_stream::StreamExt;
    a.merge(b).merge(c).merge(d)
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The items of four sources, each having its turn.
pub fn right<S: Stream<Item = usize>>(sources: [S; 4]) -> impl Stream<Item = usize> {
    merge(sources.into_iter().enumerate()).map(|(_, item)| item)
}
// ANCHOR_END: right

/// Four sources that always have an item: the source's own number.
pub fn always_ready() -> [stream::Repeat<usize>; 4] {
    [0, 1, 2, 3].map(stream::repeat)
}

/// How many of the first 1600 items came from each source.
pub async fn shares(merged: impl Stream<Item = usize>) -> [usize; 4] {
    let mut shares = [0; 4];
    let mut first = std::pin::pin!(merged.take(1600));
    while let Some(source) = first.next().await {
        shares[source] += 1;
    }
    shares
}

/// Four sources with a lane each, and a consumer that takes 1 ms for an item.
async fn run<M: Stream<Item = usize>>(merged: impl FnOnce([ReceiverStream<usize>; 4]) -> M) {
    let channels = [(); 4].map(|()| mpsc::channel(1));
    let (sources, sending): (Vec<_>, Vec<_>) = channels
        .into_iter()
        .enumerate()
        .map(|(number, (sender, receiver))| {
            let send = async move {
                for _ in 0..ITEMS {
                    // The consumer takes everything before it drops the receiver.
                    let _ = waiting("queue", sender.send(number)).await;
                }
            };
            (ReceiverStream::new(receiver), send.lane(format!("source {}", ['a', 'b', 'c', 'd'][number])))
        })
        .unzip();
    let Ok(sources) = sources.try_into() else { return };
    let consume = merged(sources).for_each(async |_| waiting("timer", sleep(Duration::from_millis(1))).await);
    futures::future::join(futures::future::join_all(sending), consume.lane("consumer")).await;
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let ((), left) = record("chained merge", run(wrong)).await;
    let ((), beside) = record("merge", run(right)).await;
    let print =
        |title, [a, b, c, d]: [usize; 4]| println!("{title}: of 1600 items a {a}, b {b}, c {c}, d {d}");
    print("wrong", shares(wrong(always_ready())).await);
    print("right", shares(right(always_ready())).await);
    args.show(&left.beside(beside))
}
