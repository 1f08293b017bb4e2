//! `merge` and `ordered_merge`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::ready;
use std::pin::pin;

use ::streams::{merge, ordered_merge};
use benches::{Bench, Flavour, Measure, Table, figure, short, stopwatch, time};
use futures::stream::{self, BoxStream, select_all};
use futures::{Stream, StreamExt};
use futures_concurrency::stream::Merge as _;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_stream::StreamMap;
use tokio_stream::wrappers::UnboundedReceiverStream;

pub(crate) fn tables(bench: &mut Bench) {
    always_ready(bench);
    one_ready(bench);
    shares(bench);
    ordered(bench);
}

fn numbers(count: usize) -> stream::Iter<std::ops::Range<usize>> {
    stream::iter(0..count)
}

/// Goes through the stream that `make` makes of `k` sources with `each` items.
fn drain<S: Stream + Send>(
    k: usize,
    each: usize,
    make: impl Fn(Vec<stream::Iter<std::ops::Range<usize>>>) -> S + Copy + Send + Sync + 'static,
) -> Measure {
    time(move || async move {
        let taken = make((0..k).map(|_| numbers(each)).collect()).count().await;
        assert_eq!(taken, k * each);
    })
}

/// As a reader would chain them.
fn chained(sources: Vec<stream::Iter<std::ops::Range<usize>>>) -> BoxStream<'static, usize> {
    let mut sources = sources.into_iter().map(StreamExt::boxed);
    let first = sources.next().unwrap_or_else(|| stream::empty().boxed());
    sources.fold(first, |merged, source| tokio_stream::StreamExt::merge(merged, source).boxed())
}

fn always_ready(bench: &mut Bench) {
    for k in [4, 100, 10_000] {
        let k = bench.size(k);
        let n = bench.size(100_000);
        let each = n / k;
        let title = |k| format!("{} items of {} sources that are always ready", short(n), short(k));
        let mut table = Table::new("merge", title(k), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(4))
            .recipe("merge", drain(k, each, |sources| merge(sources.into_iter().enumerate())))
            .peer("futures select_all, no keys", drain(k, each, select_all))
            .peer("futures-concurrency merge, no keys", drain(k, each, |sources| sources.merge()))
            .peer(
                "tokio-stream StreamMap",
                drain(k, each, |sources| sources.into_iter().enumerate().collect::<StreamMap<_, _>>()),
            );
        if k == 4 {
            table = table.peer("tokio-stream merge, chained, no keys", drain(k, each, chained));
        }
        let table = table
            .floor("one source after the other", drain(k, each, |sources| stream::iter(sources).flatten()))
            .python("a queue and a task for each source", &format!("merge {k} {each}"));
        bench.measure(table);
    }
}

type Sources = Vec<UnboundedReceiver<usize>>;

/// Sends an item to one of `k` sources, in turn but far from each other, and takes it; 1000 times.
fn woken<S>(k: usize, items: usize, make: impl Fn(Sources) -> S + Copy + Send + Sync + 'static) -> Measure
where
    S: Stream + Send,
{
    stopwatch(move || async move {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..k).map(|_| mpsc::unbounded_channel()).unzip();
        let mut merged = pin!(make(receivers));
        assert!(futures::poll!(merged.next()).is_pending());
        let start = std::time::Instant::now();
        for item in 0..items {
            let _ = senders[item * 7919 % k].send(item);
            assert!(merged.next().await.is_some());
        }
        start.elapsed()
    })
}

fn streams_of(receivers: Sources) -> impl Iterator<Item = UnboundedReceiverStream<usize>> {
    receivers.into_iter().map(UnboundedReceiverStream::new)
}

fn one_ready(bench: &mut Bench) {
    for k in [10, 1_000, 100_000] {
        let k = bench.size(k);
        let items = bench.size(1_000);
        let title = |k| format!("one of {} sources is woken at a time", short(k));
        let mut table = Table::new("merge", title(k), "ns/item", Flavour::CurrentThread, items)
            .grown_from(title(10))
            .recipe("merge", woken(k, items, |it| merge(streams_of(it).enumerate())))
            .peer("futures select_all, no keys", woken(k, items, |it| select_all(streams_of(it))));
        // Both look at every source for each item, which takes seconds with 100 k.
        if k <= 1_000 {
            table = table
                .peer(
                    "futures-concurrency merge, no keys",
                    woken(k, items, |it| streams_of(it).collect::<Vec<_>>().merge()),
                )
                .peer(
                    "tokio-stream StreamMap",
                    woken(k, items, |it| streams_of(it).enumerate().collect::<StreamMap<_, _>>()),
                );
        }
        bench.measure(
            table.floor(
                "a single channel",
                woken(1, items, |mut it| UnboundedReceiverStream::new(it.remove(0))),
            ),
        );
    }
}

/// The largest share of 16 k items from four sources, by the smallest.
fn share<S>(make: impl Fn([stream::Repeat<usize>; 4]) -> S + Copy + Send + 'static) -> Measure
where
    S: Stream<Item = usize> + Send,
{
    figure(move || async move {
        let mut shares = [0_u32; 4];
        let mut items = pin!(make([0, 1, 2, 3].map(stream::repeat)).take(16_000));
        while let Some(source) = items.next().await {
            shares[source] += 1;
        }
        let (least, most) = (shares.iter().min(), shares.iter().max());
        let ratio = least.zip(most).map_or(0.0, |(least, most)| f64::from(*most) / f64::from(*least));
        (ratio, format!("{shares:?}"))
    })
}

fn shares(bench: &mut Bench) {
    let title = "the largest share by the smallest, of four sources that are always ready".to_string();
    let table = Table::new("merge", title, "×", Flavour::CurrentThread, 1)
        .recipe("merge", share(|sources| merge(sources.into_iter().enumerate()).map(|(_, item)| item)))
        .peer("futures select_all", share(select_all))
        .peer("futures-concurrency merge", share(|sources| sources.merge()))
        .peer(
            "tokio-stream StreamMap",
            share(|sources| {
                sources.into_iter().enumerate().collect::<StreamMap<_, _>>().map(|(_, item)| item)
            }),
        )
        .peer(
            "tokio-stream merge, chained",
            share(|[a, b, c, d]| {
                use tokio_stream::StreamExt;
                a.merge(b).merge(c).merge(d)
            }),
        )
        .floor("in turn", figure(|| ready((1.0, String::new()))));
    bench.measure(table);
}

type Sorted = stream::Iter<std::iter::StepBy<std::ops::Range<usize>>>;

/// Goes through `k` sorted sources whose items alternate.
fn sorted<S: Stream + Send>(
    k: usize,
    n: usize,
    make: impl Fn(Vec<Sorted>) -> S + Copy + Send + Sync + 'static,
) -> Measure {
    time(move || async move {
        let sources = (0..k).map(|first| stream::iter((first..n).step_by(k))).collect();
        assert_eq!(make(sources).count().await, n);
    })
}

fn ordered(bench: &mut Bench) {
    for (k, n) in [(4, 10_000), (4, 100_000), (4, 1_000_000), (1_000, 100_000)] {
        let (k, n) = (bench.size(k), bench.size(n));
        let title = |n| format!("{} items of {} sorted sources", short(n), short(k));
        let table = Table::new("ordered_merge", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10_000))
            .recipe(
                "ordered_merge",
                sorted(k, n, |sources| {
                    let sources = sources.into_iter().map(|source| source.map(Ok::<usize, ()>));
                    ordered_merge(sources, |item| *item)
                }),
            )
            .peer(
                "select_all, collect, sort",
                sorted(k, n, |sources| {
                    stream::once(async {
                        let mut all: Vec<usize> = select_all(sources).collect().await;
                        all.sort_unstable();
                        stream::iter(all)
                    })
                    .flatten()
                }),
            )
            .floor(
                "a heap of iterators, no stream",
                time(move || async move {
                    let mut sources: Vec<_> = (0..k).map(|first| (first..n).step_by(k)).collect();
                    let first = sources.iter_mut().enumerate();
                    let mut heap: BinaryHeap<_> = first
                        .filter_map(|(index, it)| it.next().map(|item| Reverse((item, index))))
                        .collect();
                    let mut taken = 0;
                    while let Some(mut top) = heap.peek_mut() {
                        let Reverse((item, index)) = *top;
                        std::hint::black_box(item);
                        taken += 1;
                        match sources[index].next() {
                            Some(item) => *top = Reverse((item, index)),
                            None => _ = std::collections::binary_heap::PeekMut::pop(top),
                        }
                    }
                    assert_eq!(taken, n);
                }),
            )
            .python("heapq.merge of ranges, not async", &format!("ordered_merge {k} {n}"));
        bench.measure(table);
    }
}
