//! `generator` and `paginate`.

use std::future::ready;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use ::streams::{Page, Position, by_hand, by_macro, by_unfold, paginate};
use async_stream::stream;
use benches::{Bench, Flavour, Measure, Table, figure, time};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

pub(crate) fn tables(bench: &mut Bench) {
    generator_tables(bench);
    paginate_tables(bench);
}

const AHEAD: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// `10000` as `10 k`.
fn short(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{} k", number / 1_000),
        _ => format!("{} M", number / 1_000_000),
    }
}

/// How long it takes to go through the stream that `make` makes, of `n` items.
fn drain<S, T>(n: usize, make: impl Fn() -> S + Copy + Send + Sync + 'static) -> Measure
where
    S: Stream<Item = T> + Send,
{
    time(move || async move {
        let mut stream = pin!(make());
        let mut taken = 0;
        while stream.next().await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, n);
    })
}

/// The batch behind the first `at` of `n` numbers, which is there at once.
fn read(n: usize, batch: usize) -> impl Fn(usize) -> Read + Copy + Send + Sync + 'static {
    move |at| ready(Ok((at < n).then(|| ((at..n.min(at + batch)).collect(), at + batch))))
}

type Read = std::future::Ready<Result<Option<(Vec<usize>, usize)>, ()>>;

/// The same through a channel, item by item.
fn channel(n: usize, batch: usize) -> ReceiverStream<usize> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut at = 0;
        while let Ok(Some((items, next))) = read(n, batch)(at).await {
            at = next;
            for item in items {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn generator_tables(bench: &mut Bench) {
    const BATCH: usize = 100;
    for n in [10_000, 100_000, 1_000_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items in batches of {BATCH} that are there at once", short(n));
        let table = Table::new("generator", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10_000))
            .recipe("by_hand", drain(n, move || by_hand(0, read(n, BATCH))))
            .recipe("by_unfold", drain(n, move || by_unfold(0, read(n, BATCH))))
            .recipe("by_macro", drain(n, move || by_macro(0, read(n, BATCH))))
            .peer("try_unfold of batches, try_flatten", drain(n, move || flattened(n, BATCH)))
            .peer("a task and a channel", drain(n, move || channel(n, BATCH)))
            .floor("a loop in a loop, no stream", loops(n, BATCH))
            .python("async def … yield", &format!("generator {n} {BATCH}"));
        bench.measure(table);
    }
}

fn flattened(n: usize, batch: usize) -> impl Stream<Item = Result<usize, ()>> + Send {
    let batches = futures::stream::try_unfold(0, read(n, batch));
    batches.map_ok(|batch| futures::stream::iter(batch).map(Ok)).try_flatten()
}

fn loops(n: usize, batch: usize) -> Measure {
    time(move || async move {
        let (mut at, mut taken) = (0, 0);
        while let Ok(Some((items, next))) = read(n, batch)(at).await {
            at = next;
            for item in items {
                std::hint::black_box(item);
                taken += 1;
            }
        }
        assert_eq!(taken, n);
    })
}

/// Pages of numbers, there at once.
fn page(
    n: usize,
    size: usize,
) -> impl Fn(usize) -> std::future::Ready<Result<Page<usize, usize>, ()>> + Copy + Send {
    move |at| {
        let end = n.min(at + size);
        ready(Ok(Page { items: (at..end).collect(), next: (end < n).then_some(end) }))
    }
}

/// What `async-stream` has in its own documentation: one page after the other.
fn by_stream(n: usize, size: usize) -> impl Stream<Item = usize> + Send {
    stream! {
        let mut next = Some(0);
        while let Some(at) = next {
            let Ok(page) = page(n, size)(at).await else { return };
            next = page.next;
            for item in page.items {
                yield item;
            }
        }
    }
}

fn paginate_tables(bench: &mut Bench) {
    for (n, size) in [(10_000, 100), (100_000, 100), (1_000_000, 100), (10_000, 1_000)] {
        let n = bench.size(n);
        let title = |n| format!("{} items on pages of {size} that are there at once", short(n));
        let table = Table::new("paginate", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10_000))
            .recipe("paginate, 2 ahead", drain(n, move || paginate(Position::start(0), AHEAD, page(n, size))))
            .peer("stream!, none ahead", drain(n, move || by_stream(n, size)))
            .peer("try_unfold of pages, try_flatten, none ahead", drain(n, move || flattened(n, size)))
            .peer("a task and a channel of items", drain(n, move || channel(n, size)))
            .floor("a loop in a loop, no stream", loops(n, size))
            .python("async def … yield, none ahead", &format!("generator {n} {size}"));
        bench.measure(table);
    }

    let title = "100 pages that take 10 ms, and 10 ms of work on each".to_string();
    let table = Table::new("paginate", title, "virtual ms", Flavour::Paused, 1)
        .recipe(
            "paginate, 1 ahead",
            worked(|| paginate(Position::start(0), NonZeroUsize::MIN, slow_page).map(Result::unwrap)),
        )
        .recipe(
            "paginate, 2 ahead",
            worked(|| paginate(Position::start(0), AHEAD, slow_page).map(Result::unwrap)),
        )
        .peer(
            "stream!, none ahead",
            worked(|| {
                stream! {
                    let mut next = Some(0);
                    while let Some(at) = next {
                        let Ok(page) = slow_page(at).await else { return };
                        next = page.next;
                        for item in page.items {
                            yield item;
                        }
                    }
                }
            }),
        )
        .floor("the pages alone", figure(|| ready((1000.0, String::new()))));
    bench.measure(table);
}

async fn slow_page(page: usize) -> Result<Page<usize, usize>, ()> {
    sleep(Duration::from_millis(10)).await;
    Ok(Page { items: vec![page; 10], next: (page < 99).then_some(page + 1) })
}

/// The virtual milliseconds of a consumer that works 10 ms on every ten items.
fn worked<S>(make: impl Fn() -> S + Copy + Send + 'static) -> Measure
where
    S: Stream<Item = usize> + Send + 'static,
{
    figure(move || worked_once(make))
}

async fn worked_once<S: Stream<Item = usize>>(make: impl Fn() -> S) -> (f64, String) {
    let start = Instant::now();
    let mut pages = pin!(make().chunks(10));
    while pages.next().await.is_some() {
        sleep(Duration::from_millis(10)).await;
    }
    (start.elapsed().as_secs_f64() * 1e3, String::new())
}
