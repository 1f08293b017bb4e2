//! `chunks`, `pace` and `stall_guard`.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ::streams::{StallGuard, chunks, debounce, sample, throttle};
use benches::{Bench, Flavour, Measure, Table, short, time};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) fn tables(bench: &mut Bench) {
    chunks_tables(bench);
    pace_tables(bench);
    stall_guard_tables(bench);
}

const CHUNK: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const DELAY: Duration = Duration::from_millis(10);

type Source = ReceiverStream<usize>;

/// One task sends `n` items through a channel, and `take` has them as a stream.
fn sent<F>(n: usize, take: impl Fn(Source) -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output = usize> + Send + 'static,
{
    let take = Arc::new(take);
    time(move || {
        let take = take.clone();
        async move {
            let (sender, receiver) = mpsc::channel(256);
            let sending = tokio::spawn(async move {
                for item in 0..n {
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
            });
            let taken = take(ReceiverStream::new(receiver)).await;
            assert!(taken <= n);
            sending.await
        }
    })
}

/// As [`sent`], but there is room for one item only: whoever takes is woken for each.
fn trickle<F>(n: usize, take: impl Fn(Source) -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output = usize> + Send + 'static,
{
    let take = Arc::new(take);
    time(move || {
        let take = take.clone();
        async move {
            let (sender, receiver) = mpsc::channel(1);
            let taking = tokio::spawn(take(ReceiverStream::new(receiver)));
            for item in 0..n {
                let _ = sender.send(item).await;
            }
            drop(sender);
            assert!(taking.await.is_ok_and(|taken| taken <= n));
        }
    })
}

async fn count<T>(chunks: impl Stream<Item = Vec<T>> + Unpin) -> usize {
    StreamExt::fold(chunks, 0, async |taken, chunk| taken + chunk.len()).await
}

/// Chunks of a stream by hand, without a clock.
async fn by_count_alone(mut source: impl Stream<Item = usize> + Unpin) -> usize {
    let (mut taken, mut chunk) = (0, Vec::with_capacity(CHUNK.get()));
    while let Some(item) = StreamExt::next(&mut source).await {
        chunk.push(item);
        if chunk.len() == CHUNK.get() {
            taken += std::hint::black_box(&chunk).len();
            chunk = Vec::with_capacity(CHUNK.get());
        }
    }
    taken + chunk.len()
}

fn chunks_tables(bench: &mut Bench) {
    let ready = |n: usize| stream::iter(0..n);
    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items that are ready, chunks of {CHUNK} or 10 ms", short(n));
        let table = Table::new("chunks", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("chunks", time(move || count(chunks(ready(n), CHUNK, DELAY))))
            .peer(
                "tokio-stream chunks_timeout",
                time(move || count(Box::pin(ready(n).chunks_timeout(CHUNK.get(), DELAY)))),
            )
            .peer("futures ready_chunks, no clock", time(move || count(ready(n).ready_chunks(CHUNK.get()))))
            .floor("by hand, no clock", time(move || by_count_alone(ready(n))))
            .python("a task for each item", &format!("chunks {n} {CHUNK}"));
        bench.measure(table);
    }

    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let n = bench.size(10_000);
        let title = format!("{} items through a channel, chunks of {CHUNK} or 10 ms", short(n));
        let table = Table::new("chunks", title, "ns/item", flavour, n)
            .recipe("chunks", sent(n, |source| count(chunks(source, CHUNK, DELAY))))
            .peer(
                "tokio-stream chunks_timeout",
                sent(n, |source| count(Box::pin(source.chunks_timeout(CHUNK.get(), DELAY)))),
            )
            .floor("by hand, no clock", sent(n, by_count_alone));
        bench.measure(table);
    }

    let n = bench.size(10_000);
    let title = format!("{} items that come one by one, chunks of {CHUNK} or 10 ms", short(n));
    let table = Table::new("chunks", title, "ns/item", Flavour::CurrentThread, n)
        .recipe("chunks", trickle(n, |source| count(chunks(source, CHUNK, DELAY))))
        .peer(
            "tokio-stream chunks_timeout",
            trickle(n, |source| count(Box::pin(source.chunks_timeout(CHUNK.get(), DELAY)))),
        )
        .floor("by hand, no clock", trickle(n, by_count_alone));
    bench.measure(table);
}

/// The usual loop: `select!` between the next item and a timer that each item moves.
async fn debounce_by_hand(mut source: Source) -> usize {
    let mut timer = std::pin::pin!(sleep_until(Instant::now()));
    let (mut latest, mut taken) = (None, 0);
    loop {
        tokio::select! {
            biased;
            item = StreamExt::next(&mut source) => match item {
                Some(item) => {
                    latest = Some(item);
                    timer.as_mut().reset(Instant::now() + DELAY);
                }
                None => return taken + usize::from(latest.is_some()),
            },
            () = &mut timer, if latest.is_some() => {
                latest = None;
                taken += 1;
            }
        }
    }
}

fn pace_tables(bench: &mut Bench) {
    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items that come one by one", short(n));
        let table = Table::new("pace", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("debounce", trickle(n, |source| StreamExt::count(debounce(source, DELAY))))
            .recipe("throttle", trickle(n, |source| StreamExt::count(throttle(source, DELAY))))
            .recipe("sample", trickle(n, |source| StreamExt::count(sample(source, DELAY))))
            .peer("debounce by select! and reset", trickle(n, debounce_by_hand))
            .floor("the stream alone", trickle(n, StreamExt::count));
        let python = format!("debounce {n}");
        bench.measure(if n <= 10_000 { table.python("debounce by wait_for", &python) } else { table });
    }
}

async fn by_timeout_for_each(mut source: Source) -> usize {
    let mut taken = 0;
    while let Ok(Some(_)) = timeout(DELAY, StreamExt::next(&mut source)).await {
        taken += 1;
    }
    taken
}

fn stall_guard_tables(bench: &mut Bench) {
    let guard = |source| StreamExt::count(StallGuard::new(source, DELAY));
    let total = |source| StreamExt::count(StallGuard::new(source, DELAY).total(Duration::from_secs(3_600)));
    let peer = |source: Source| StreamExt::count(Box::pin(tokio_stream::StreamExt::timeout(source, DELAY)));
    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items that come one by one", short(n));
        let table = Table::new("stall_guard", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("idle", trickle(n, guard))
            .recipe("idle and total", trickle(n, total))
            .peer("tokio-stream timeout, idle alone", trickle(n, peer))
            .peer("tokio timeout for each next", trickle(n, by_timeout_for_each))
            .floor("the stream alone", trickle(n, StreamExt::count));
        let python = format!("stall_guard {n}");
        bench.measure(if n <= 10_000 {
            table.python("asyncio.timeout for each item", &python)
        } else {
            table
        });
    }
    let n = bench.size(10_000);
    let title = format!("{} items through a channel", short(n));
    let table = Table::new("stall_guard", title, "ns/item", Flavour::CurrentThread, n)
        .recipe("idle", sent(n, guard))
        .recipe("idle and total", sent(n, total))
        .peer("tokio-stream timeout, idle alone", sent(n, peer))
        .peer("tokio timeout for each next", sent(n, by_timeout_for_each))
        .floor("the stream alone", sent(n, StreamExt::count));
    bench.measure(table);
}
