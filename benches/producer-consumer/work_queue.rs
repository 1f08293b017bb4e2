//! `work_queue`, `worker_pool`, `pipeline`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::producer_consumer::{WorkQueue, feed, stage, stage_in_order, worker_pool};
use benches::{Bench, Flavour, Measure, Table, figure, short, stopwatch, time};
use futures::future::join_all;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, yield_now};
use tokio::try_join;

pub(crate) fn tables(bench: &mut Bench) {
    work_queue_tables(bench);
    worker_pool_tables(bench);
    pipeline_tables(bench);
}

const CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const BATCH: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Runs the tasks and waits for all of them.
async fn all<F: Future<Output = ()> + Send + 'static>(tasks: impl IntoIterator<Item = F>) {
    tasks.into_iter().collect::<JoinSet<()>>().join_all().await;
}

/// So many producers and consumers, which share `n` items.
async fn queue_by_item(n: usize, sides: usize) {
    let queue = Arc::new(WorkQueue::<usize>::new(CAPACITY));
    let consumers = (0..sides).map(|_| {
        let queue = queue.clone();
        async move { while queue.take().await.map(|lease| lease.done()).is_some() {} }
    });
    let consumers: JoinSet<()> = consumers.collect();
    let produce = |_| {
        let queue = queue.clone();
        async move {
            for item in 0..n / sides {
                // Nobody closes it before.
                let _ = queue.put(item).await;
            }
        }
    };
    all((0..sides).map(produce)).await;
    queue.close();
    consumers.join_all().await;
}

async fn queue_by_batch(n: usize, sides: usize) {
    let queue = Arc::new(WorkQueue::<usize>::new(CAPACITY));
    let consumers = (0..sides).map(|_| {
        let queue = queue.clone();
        async move { while queue.take_many(BATCH).await.map(|batch| batch.done().count()).is_some() {} }
    });
    let consumers: JoinSet<()> = consumers.collect();
    let produce = |_| {
        let queue = queue.clone();
        async move {
            let mut batch = VecDeque::with_capacity(BATCH.get());
            for item in 0..n / sides {
                batch.push_back(item);
                if batch.len() == BATCH.get() {
                    let _ = queue.put_all(&mut batch).await;
                }
            }
            let _ = queue.put_all(&mut batch).await;
        }
    };
    all((0..sides).map(produce)).await;
    queue.close();
    consumers.join_all().await;
}

/// The same with a channel: `$sender` and `$receiver` are cloned for each task, and a receiver ends with the last sender.
macro_rules! channel {
    ($n:expr, $sides:expr, $make:expr, |$sender:ident, $item:ident| $send:expr, |$receiver:ident| $receive:expr) => {{
        let (n, sides) = ($n, $sides);
        move || async move {
            let (sender, receiver) = $make;
            let consumers = (0..sides).map(|_| {
                let $receiver = receiver.clone();
                async move { while $receive.await.is_ok() {} }
            });
            let consumers: JoinSet<()> = consumers.collect();
            let produce = |_| {
                let $sender = sender.clone();
                async move {
                    for $item in 0..n / sides {
                        let _ = $send.await;
                    }
                }
            };
            all((0..sides).map(produce)).await;
            drop((sender, receiver));
            consumers.join_all().await;
        }
    }};
}

async fn tokio_by_item(n: usize) {
    let (sender, mut receiver) = mpsc::channel(CAPACITY.get());
    let produce = async move {
        for item in 0..n {
            let _ = sender.send(item).await;
        }
    };
    let consume = async move { while receiver.recv().await.is_some() {} };
    all([produce.boxed(), consume.boxed()]).await;
}

async fn tokio_recv_many(n: usize) {
    let (sender, mut receiver) = mpsc::channel(CAPACITY.get());
    let produce = async move {
        for item in 0..n {
            let _ = sender.send(item).await;
        }
    };
    let consume = async move {
        let mut items = Vec::with_capacity(BATCH.get());
        while receiver.recv_many(&mut items, BATCH.get()).await > 0 {
            items.clear();
        }
    };
    all([produce.boxed(), consume.boxed()]).await;
}

async fn tokio_batches(n: usize) {
    let (sender, mut receiver) = mpsc::channel(CAPACITY.get() / BATCH.get());
    let produce = async move {
        for start in (0..n).step_by(BATCH.get()) {
            let batch: Vec<usize> = (start..n.min(start + BATCH.get())).collect();
            let _ = sender.send(batch).await;
        }
    };
    let consume = async move { while receiver.recv().await.is_some() {} };
    all([produce.boxed(), consume.boxed()]).await;
}

async fn tokio_shared(n: usize, sides: usize) {
    let (sender, receiver) = mpsc::channel(CAPACITY.get());
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let consumers = (0..sides).map(|_| {
        let receiver = receiver.clone();
        async move { while receiver.lock().await.recv().await.is_some() {} }
    });
    let consumers: JoinSet<()> = consumers.collect();
    let produce = |_| {
        let sender = sender.clone();
        async move {
            for item in 0..n / sides {
                let _ = sender.send(item).await;
            }
        }
    };
    all((0..sides).map(produce)).await;
    drop(sender);
    consumers.join_all().await;
}

fn work_queue_tables(bench: &mut Bench) {
    for n in [10_000, 1_000_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} small items, 1 producer and 1 consumer", short(n));
        let table = Table::new("work_queue", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10_000))
            .recipe("take", time(move || queue_by_item(n, 1)))
            .recipe("put_all and take_many, 64", time(move || queue_by_batch(n, 1)))
            .peer("tokio mpsc", time(move || tokio_by_item(n)))
            .peer("tokio mpsc, recv_many", time(move || tokio_recv_many(n)))
            .peer(
                "async-channel",
                time(channel!(
                    n,
                    1,
                    async_channel::bounded(CAPACITY.get()),
                    |sender, item| sender.send(item),
                    |receiver| receiver.recv()
                )),
            )
            .peer(
                "flume",
                time(channel!(
                    n,
                    1,
                    flume::bounded(CAPACITY.get()),
                    |sender, item| sender.send_async(item),
                    |receiver| receiver.recv_async()
                )),
            )
            .peer(
                "kanal, loses items on cancel",
                time(channel!(
                    n,
                    1,
                    kanal::bounded_async(CAPACITY.get()),
                    |sender, item| sender.send(item),
                    |receiver| receiver.recv()
                )),
            )
            .peer(
                "crossfire",
                time(channel!(
                    n,
                    1,
                    crossfire::mpmc::bounded_async(CAPACITY.get()),
                    |sender, item| sender.send(item),
                    |receiver| receiver.recv()
                )),
            )
            .floor("tokio mpsc, a Vec of 64 each", time(move || tokio_batches(n)));
        let job = format!("queue {n} 1");
        bench.measure(if n > 10_000 { table } else { table.python("asyncio.Queue", &job) });
    }
    let n = bench.size(100_000);
    let title = format!("{} small items, 4 producers and 4 consumers", short(n));
    let table = Table::new("work_queue", title, "ns/item", Flavour::MultiThread, n)
        .recipe("take", time(move || queue_by_item(n, 4)))
        .recipe("put_all and take_many, 64", time(move || queue_by_batch(n, 4)))
        .peer("tokio mpsc, receiver in a Mutex", time(move || tokio_shared(n, 4)))
        .peer(
            "async-channel",
            time(channel!(
                n,
                4,
                async_channel::bounded(CAPACITY.get()),
                |sender, item| sender.send(item),
                |receiver| receiver.recv()
            )),
        )
        .peer(
            "flume",
            time(channel!(
                n,
                4,
                flume::bounded(CAPACITY.get()),
                |sender, item| sender.send_async(item),
                |receiver| receiver.recv_async()
            )),
        )
        .python("asyncio.Queue", &format!("queue {n} 4"));
    bench.measure(table);
    neighbour(bench);
    storm(bench);
}

/// How long another task waits for its turn while a producer and a consumer are at work.
fn longest_wait<F: Future<Output = ()> + Send + 'static>(
    work: impl Fn() -> F + Copy + Send + 'static,
) -> Measure {
    figure(move || async move {
        let work = tokio::spawn(work());
        let mut waits = Vec::new();
        while !work.is_finished() {
            let start = Instant::now();
            yield_now().await;
            waits.push(start.elapsed());
        }
        let longest = waits.iter().max().copied().unwrap_or_default();
        (longest.as_secs_f64() * 1e3, format!("{} turns", waits.len()))
    })
}

fn neighbour(bench: &mut Bench) {
    let n = bench.size(100_000);
    let title = format!("longest wait of another task during {} items", short(n));
    let table = Table::new("work_queue", title, "ms", Flavour::CurrentThread, 1)
        .recipe("take", longest_wait(move || queue_by_item(n, 1)))
        .peer("tokio mpsc", longest_wait(move || tokio_by_item(n)))
        .peer(
            "async-channel",
            longest_wait(channel!(
                n,
                1,
                async_channel::bounded(CAPACITY.get()),
                |sender, item| sender.send(item),
                |receiver| receiver.recv()
            )),
        )
        .peer(
            "kanal, loses items on cancel",
            longest_wait(channel!(
                n,
                1,
                kanal::bounded_async(CAPACITY.get()),
                |sender, item| sender.send(item),
                |receiver| receiver.recv()
            )),
        );
    bench.measure(table);
}

/// A thousand callers wait and give up; then so many others are served.
fn storm(bench: &mut Bench) {
    const CALLERS: usize = 1_000;
    fn give_up<F: Future + Send>(waits: impl Fn() -> F) {
        let mut waiting: Vec<_> = (0..CALLERS).map(|_| Box::pin(waits())).collect();
        let _ = join_all(waiting.iter_mut()).now_or_never();
    }
    let title = format!("{} waits for an item, given up", short(CALLERS));
    let table = Table::new("work_queue", title, "ns/wait", Flavour::CurrentThread, CALLERS)
        .recipe(
            "take",
            time(|| async {
                let queue = WorkQueue::<usize>::new(CAPACITY);
                give_up(|| queue.take().map(|lease| lease.is_some()));
            }),
        )
        .peer(
            "async-channel",
            time(|| async {
                let (_sender, receiver) = async_channel::bounded::<usize>(CAPACITY.get());
                give_up(|| receiver.recv());
            }),
        )
        .floor(
            "tokio Semaphore",
            time(|| async {
                let semaphore = Semaphore::new(0);
                give_up(|| semaphore.acquire());
            }),
        );
    bench.measure(table);
}

/// A tree in which each job below `n` leads to two.
fn halves(n: usize, job: usize) -> impl Iterator<Item = usize> + Send {
    [2 * job, 2 * job + 1].into_iter().filter(move |child| *child < n)
}

fn worker_pool_tables(bench: &mut Bench) {
    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();
    const THOUSAND: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
    for (n, flavour) in
        [(1_000, Flavour::CurrentThread), (100_000, Flavour::CurrentThread), (100_000, Flavour::MultiThread)]
    {
        let n = bench.size(n);
        let title = |n| format!("a tree of {} jobs, 4 workers", short(n));
        let work = move |job: usize| async move {
            yield_now().await;
            Ok::<_, Infallible>(halves(n, job))
        };
        let channel = move || async move {
            let (sender, receiver) = async_channel::unbounded::<usize>();
            let left = Arc::new(AtomicUsize::new(1));
            let _ = sender.send(1).await;
            let worker = |_| {
                let (sender, receiver, left) = (sender.clone(), receiver.clone(), left.clone());
                async move {
                    while let Ok(job) = receiver.recv().await {
                        yield_now().await;
                        for child in halves(n, job) {
                            left.fetch_add(1, Relaxed);
                            let _ = sender.send(child).await;
                        }
                        if left.fetch_sub(1, Relaxed) == 1 {
                            sender.close();
                        }
                    }
                }
            };
            all((0..4).map(worker)).await;
        };
        let spawned = move || async move {
            let mut tasks = JoinSet::new();
            for job in 1..n {
                if tasks.len() == 4 {
                    tasks.join_next().await;
                }
                tasks.spawn(async move {
                    yield_now().await;
                    job
                });
            }
            tasks.join_all().await;
        };
        let table = Table::new("worker_pool", title(n), "ns/job", flavour, n)
            .recipe("worker_pool", time(move || worker_pool([1], FOUR, FOUR, work)))
            .peer("async-channel without a bound, and a count", time(channel))
            .floor("JoinSet, the jobs known beforehand", time(spawned));
        let table = if flavour == Flavour::CurrentThread { table.grown_from(title(1_000)) } else { table };
        bench.measure(table.python("asyncio.Queue", &format!("worker_pool {n} 4")));
    }
    let stop = || async {
        let pending = |_: usize| std::future::pending::<Result<[usize; 0], Infallible>>();
        let call = worker_pool(0.., THOUSAND, FOUR, pending);
        let call = tokio::spawn(call.map(|_| ()));
        // Its own budget makes it start them in several turns.
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() < 1_002 {
            yield_now().await;
        }
        let start = Instant::now();
        call.abort();
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 1 {
            yield_now().await;
        }
        start.elapsed()
    };
    let title = "from the drop of the call to the end of its 1000 jobs".to_string();
    let table = Table::new("worker_pool", title, "ns/job", Flavour::CurrentThread, 1_000)
        .recipe("worker_pool", stopwatch(stop))
        .floor(
            "JoinSet",
            stopwatch(|| async {
                let tasks: JoinSet<()> = (0..1_000).map(|_| std::future::pending()).collect();
                yield_now().await;
                let start = Instant::now();
                drop(tasks);
                while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 1 {
                    yield_now().await;
                }
                start.elapsed()
            }),
        );
    bench.measure(table);
}

async fn count_all(mut output: mpsc::Receiver<usize>) -> Result<usize, Infallible> {
    let mut count = 0;
    while output.recv().await.is_some() {
        count += 1;
    }
    Ok(count)
}

fn pipeline_tables(bench: &mut Bench) {
    const WIDTH: NonZeroUsize = NonZeroUsize::new(16).unwrap();
    async fn work(item: usize) -> usize {
        yield_now().await;
        item
    }
    let step = |item| async move { Ok::<_, Infallible>(work(item).await) };
    for n in [1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} items through two stages of width 16, each pending once", short(n));
        let any_order = move || async move {
            let ((first, input), (middle, next), (last, output)) =
                (mpsc::channel(16), mpsc::channel(16), mpsc::channel(16));
            let stages = (stage(input, WIDTH, step, middle), stage(next, WIDTH, step, last));
            try_join!(feed(0..n, first), stages.0, stages.1, count_all(output))
        };
        let in_order = move || async move {
            let ((first, input), (middle, next), (last, output)) =
                (mpsc::channel(16), mpsc::channel(16), mpsc::channel(16));
            let stages =
                (stage_in_order(input, WIDTH, step, middle), stage_in_order(next, WIDTH, step, last));
            try_join!(feed(0..n, first), stages.0, stages.1, count_all(output))
        };
        let table = Table::new("pipeline", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("stage", time(any_order))
            .recipe("stage_in_order", time(in_order))
            .peer(
                "futures buffer_unordered",
                time(move || {
                    stream::iter(0..n).map(work).buffer_unordered(16).map(work).buffer_unordered(16).count()
                }),
            )
            .peer(
                "futures buffered",
                time(move || stream::iter(0..n).map(work).buffered(16).map(work).buffered(16).count()),
            )
            .python("asyncio.Queue and TaskGroup", &format!("pipeline {n} 16"));
        bench.measure(table);
    }
    slow_end(bench, WIDTH);
    in_flight(bench, WIDTH);
}

/// Work in the stage takes 10 ms, in four parts; whoever takes the results needs 5 ms for each.
fn slow_end(bench: &mut Bench, width: NonZeroUsize) {
    const MS: Duration = Duration::from_millis(1);
    async fn longest(item: usize) -> Duration {
        let start = tokio::time::Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(2 * MS + MS / 2 * (item % 2) as u32).await;
        }
        start.elapsed()
    }
    let figures = |longest: Duration| (longest.as_secs_f64() * 1e3, String::new());
    let title =
        "longest time of a job of 8 to 12 ms while the consumer takes 5 ms for each result".to_string();
    let table = Table::new("pipeline", title, "virtual ms", Flavour::Paused, 1)
        .recipe(
            "stage_in_order",
            figure(move || async move {
                let ((first, input), (last, mut output)) = (mpsc::channel(1), mpsc::channel(1));
                let work = |item| async move { Ok::<_, Infallible>(longest(item).await) };
                let take = async {
                    let mut most = Duration::ZERO;
                    while let Some(took) = output.recv().await {
                        tokio::time::sleep(5 * MS).await;
                        most = most.max(took);
                    }
                    Ok(most)
                };
                let ended = try_join!(feed(0..200, first), stage_in_order(input, width, work, last), take);
                let Ok(((), (), most)) = ended;
                figures(most)
            }),
        )
        .peer(
            "futures buffered",
            figure(move || async move {
                let mut results = stream::iter(0..200).map(longest).buffered(width.get());
                let mut most = Duration::ZERO;
                while let Some(took) = results.next().await {
                    tokio::time::sleep(5 * MS).await;
                    most = most.max(took);
                }
                figures(most)
            }),
        )
        .floor("the job alone", figure(move || ready((12.0, String::new()))));
    bench.measure(table);
}

/// How many items are between the input and the consumer at the peak.
fn in_flight(bench: &mut Bench, width: NonZeroUsize) {
    let n = bench.size(100_000);
    let title = "items in flight at the peak, two stages of width 16, channels of 16".to_string();
    let peak = move |n: usize| {
        figure(move || async move {
            let (now, most) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
            let ((first, input), (middle, next), (last, mut output)) =
                (mpsc::channel(16), mpsc::channel(16), mpsc::channel(16));
            let items = (0..n).inspect(|_| _ = most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed));
            let step = |item: usize| async move { Ok::<_, Infallible>(work(item).await) };
            async fn work(item: usize) -> usize {
                yield_now().await;
                item
            }
            let take = async {
                while output.recv().await.is_some() {
                    now.fetch_sub(1, Relaxed);
                    yield_now().await;
                }
                Ok(())
            };
            let stages = (stage_in_order(input, width, step, middle), stage(next, width, step, last));
            let Ok(_) = try_join!(feed(items, first), stages.0, stages.1, take);
            (most.load(Relaxed) as f64, format!("{} items", short(n)))
        })
    };
    let table = Table::new("pipeline", title, "items", Flavour::CurrentThread, 1)
        .recipe("1 k items", peak(1_000.min(n)))
        .recipe("100 k items", peak(n))
        .floor("3 channels, 18 and 16 at work", figure(|| ready((82.0, String::new()))));
    bench.measure(table);
}
