//! `batcher`.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ::producer_consumer::Batcher;
use benches::{Bench, Flavour, Measure, Table, short, stopwatch, time};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) fn tables(bench: &mut Bench) {
    batcher_tables(bench);
}

const BATCH: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const MEBIBYTE: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();
const DELAY: Duration = Duration::from_millis(10);

/// One task sends `n` items, and `take` has them in batches.
fn batched<F>(n: usize, take: impl Fn(Receiver<usize>) -> F + Send + Sync + 'static) -> Measure
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
            let taken = take(receiver).await;
            assert_eq!(taken, n);
            sending.await
        }
    })
}

async fn by_batcher(mut batches: Batcher<usize>) -> usize {
    let mut taken = 0;
    while let Some(batch) = batches.next().await {
        taken += batch.len();
    }
    taken
}

async fn by_chunks_timeout(receiver: Receiver<usize>) -> usize {
    let mut batches = std::pin::pin!(ReceiverStream::new(receiver).chunks_timeout(BATCH.get(), DELAY));
    let mut taken = 0;
    while let Some(batch) = batches.next().await {
        taken += batch.len();
    }
    taken
}

/// One item at a time, until the batch is full or its deadline is there.
async fn by_timeout_at(mut receiver: Receiver<usize>) -> usize {
    let mut taken = 0;
    while let Some(first) = receiver.recv().await {
        let (mut batch, deadline) = (vec![first], Instant::now() + DELAY);
        while batch.len() < BATCH.get() {
            match timeout_at(deadline, receiver.recv()).await {
                Ok(Some(item)) => batch.push(item),
                _ => break,
            }
        }
        taken += batch.len();
    }
    taken
}

/// Whatever is there, without a clock.
async fn by_recv_many(mut receiver: Receiver<usize>) -> usize {
    let mut taken = 0;
    loop {
        let mut batch = Vec::new();
        match receiver.recv_many(&mut batch, BATCH.get()).await {
            0 => return taken,
            count => taken += count,
        }
    }
}

fn batcher_tables(bench: &mut Bench) {
    for (n, flavour) in
        [(1_000, Flavour::CurrentThread), (100_000, Flavour::CurrentThread), (10_000, Flavour::MultiThread)]
    {
        let n = bench.size(n);
        let title = |n| format!("{} items, batches of {BATCH} or 10 ms", short(n));
        let table = Table::new("batcher", title(n), "ns/item", flavour, n)
            .grown_from(title(1_000))
            .recipe("batcher", batched(n, |receiver| by_batcher(Batcher::new(receiver, BATCH, DELAY))))
            .recipe(
                "batcher, bytes too",
                batched(n, |receiver| {
                    by_batcher(Batcher::new(receiver, BATCH, DELAY).max_bytes(MEBIBYTE, |_| 8))
                }),
            )
            .peer("tokio-stream chunks_timeout", batched(n, by_chunks_timeout))
            .peer("timeout_at for each item", batched(n, by_timeout_at))
            .floor("recv_many, no clock", batched(n, by_recv_many))
            .python("wait_for each item", &format!("batcher {n} {BATCH}"));
        bench.measure(table);
    }

    let n = bench.size(10_000);
    let title = format!("{} items that come one by one, batches of {BATCH} or 10 ms", short(n));
    let table = Table::new("batcher", title, "ns/item", Flavour::Paused, n)
        .recipe("batcher", trickle(n, |receiver| by_batcher(Batcher::new(receiver, BATCH, DELAY))))
        .peer("tokio-stream chunks_timeout", trickle(n, by_chunks_timeout))
        .peer("timeout_at for each item", trickle(n, by_timeout_at))
        .floor("recv_many, no clock", trickle(n, by_recv_many));
    bench.measure(table);
}

/// As [`batched`], but the receiver is woken for each item.
fn trickle<F>(n: usize, take: impl Fn(Receiver<usize>) -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output = usize> + Send + 'static,
{
    let take = Arc::new(take);
    stopwatch(move || {
        let take = take.clone();
        async move {
            let (sender, receiver) = mpsc::channel(256);
            let taking = tokio::spawn(take(receiver));
            let start = std::time::Instant::now();
            for item in 0..n {
                let _ = sender.send(item).await;
                tokio::task::yield_now().await;
            }
            drop(sender);
            assert_eq!(taking.await.ok(), Some(n));
            start.elapsed()
        }
    })
}
