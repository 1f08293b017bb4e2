//! The gather family beside its peers: see `benches/lib.rs` for how to run it.

use std::future::{Future, pending, ready};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::gather::{
    Rules, TaskGroup, batches, gather, map_concurrent, map_ordered, map_ordered_window, race, settle,
    try_gather,
};
use benches::{Bench, Flavour, Measure, Table, figure, once, short, stopwatch, time};
use futures::future::{BoxFuture, join_all, select_ok, try_join_all};
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt, TryFutureExt, poll};
use futures_buffered::BufferedStreamExt;
use futures_concurrency::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Sleep, sleep};

fn main() {
    let mut bench = Bench::new("gather", &["futures", "futures-buffered", "futures-concurrency", "tokio"]);
    gather_tables(&mut bench);
    map_tables(&mut bench);
    task_tables(&mut bench);
    outcome_tables(&mut bench);
    cancel_tables(&mut bench);
    bench.finish();
}

const LIMIT: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Pending at its first poll, and woken at once.
#[derive(Clone, Copy)]
struct PendingOnce {
    value: usize,
    polled: bool,
}

impl Future for PendingOnce {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<usize> {
        if self.polled {
            return Poll::Ready(self.value);
        }
        self.polled = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn pending_once(value: usize) -> PendingOnce {
    PendingOnce { value, polled: false }
}

fn timer(_: usize) -> Sleep {
    sleep(Duration::from_millis(1))
}

fn handle(value: usize) -> JoinHandle<usize> {
    tokio::spawn(ready(value))
}

/// The rows that join `n` futures, each of which `make` makes.
fn joins<F>(table: Table, n: usize, slow: bool, make: fn(usize) -> F) -> Table
where
    F: Future<Output: Send + 'static> + Send + Sync + 'static,
{
    table
        .recipe("gather", time(move || gather((0..n).map(make))))
        .peer("futures join_all", time_or_once(slow, move || join_all((0..n).map(make))))
        .peer("futures-buffered join_all", time(move || futures_buffered::join_all((0..n).map(make))))
        .peer(
            "FuturesUnordered, any order",
            time_or_once(slow, move || (0..n).map(make).collect::<FuturesUnordered<_>>().collect::<Vec<_>>()),
        )
        .peer(
            "futures-concurrency Join",
            time_or_once(slow, move || (0..n).map(make).collect::<Vec<_>>().join()),
        )
}

/// Some peers take seconds for many futures that contend for tokio's budget.
fn time_or_once<F: Future + Send>(slow: bool, body: impl Fn() -> F + Send + Sync + 'static) -> Measure {
    if slow { once(body) } else { time(body) }
}

async fn one_after_another<F: Future>(n: usize, make: fn(usize) -> F) -> Vec<F::Output> {
    let mut outputs = Vec::with_capacity(n);
    for i in 0..n {
        outputs.push(make(i).await);
    }
    outputs
}

async fn join_set<F>(n: usize, make: fn(usize) -> F) -> usize
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut tasks: JoinSet<_> = (0..n).map(make).collect();
    let mut joined = 0;
    while tasks.join_next().await.is_some() {
        joined += 1;
    }
    joined
}

fn gather_tables(bench: &mut Bench) {
    let unit = "ns/future";
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} futures, ready at once", short(n));
        let table = Table::new("gather", title(n), unit, Flavour::CurrentThread, n).grown_from(title(1_000));
        let table = joins(table, n, false, ready)
            .peer("JoinSet, any order", time(move || join_set(n, ready)))
            .floor("await one after another", time(move || one_after_another(n, ready)))
            .python("asyncio.gather", &format!("gather_ready {n}"));
        bench.measure(table);
    }
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} futures, each pending once", short(n));
        let table = Table::new("gather", title(n), unit, Flavour::CurrentThread, n).grown_from(title(1_000));
        let table = joins(table, n, false, pending_once)
            .peer("JoinSet, any order", time(move || join_set(n, pending_once)))
            .floor("await one after another", time(move || one_after_another(n, pending_once)))
            .python("asyncio.gather", &format!("gather_pending {n}"));
        bench.measure(table);
    }
    for n in [10_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} timers of 1 ms", short(n));
        let table = Table::new("gather", title(n), unit, Flavour::Paused, n).grown_from(title(10_000));
        let table = joins(table, n, n > 10_000, timer)
            .peer("JoinSet, any order", time(move || join_set(n, timer)))
            .python("asyncio.gather", &format!("gather_timers {n}"));
        bench.measure(table);
    }
    for (n, flavour) in
        [(10_000, Flavour::CurrentThread), (100_000, Flavour::CurrentThread), (10_000, Flavour::MultiThread)]
    {
        let n = bench.size(n);
        let title = |n| format!("{} handles of spawned tasks", short(n));
        let table = Table::new("gather", title(n), unit, flavour, n).grown_from(title(10_000));
        let spawned_first = move || {
            let handles: Vec<_> = (0..n).map(handle).collect();
            async move {
                let mut outputs = Vec::with_capacity(n);
                for handle in handles {
                    outputs.push(handle.await);
                }
                outputs
            }
        };
        let table = joins(table, n, n > 10_000, handle)
            .peer("JoinSet, any order", time(move || join_set(n, ready)))
            .floor("await one after another", time(spawned_first));
        bench.measure(table);
    }
    polls(bench);
    neighbour(bench);
}

/// Counts the polls of a future.
struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Relaxed);
        self.future.as_mut().poll(context)
    }
}

fn polls(bench: &mut Bench) {
    let n = bench.size(10_000);
    let count = move |join: fn(Vec<Counted<Sleep>>) -> Joined| {
        figure(move || async move {
            let polls = Arc::new(AtomicUsize::new(0));
            let futures = (0..n).map(|i| Counted { future: Box::pin(timer(i)), polls: polls.clone() });
            join(futures.collect()).await;
            (polls.load(Relaxed) as f64 / n as f64, String::new())
        })
    };
    let title = format!("polls of each of {} timers of 1 ms", short(n));
    let table = Table::new("gather", title, "polls/future", Flavour::Paused, n)
        .recipe("gather", count(|futures| gather(futures).map(drop).boxed()))
        .peer("futures join_all", count(|futures| join_all(futures).map(drop).boxed()))
        .peer(
            "futures-buffered join_all",
            count(|futures| futures_buffered::join_all(futures).map(drop).boxed()),
        )
        .peer(
            "FuturesUnordered, any order",
            count(|futures| {
                futures.into_iter().collect::<FuturesUnordered<_>>().for_each(async |()| ()).boxed()
            }),
        )
        .peer("futures-concurrency Join", count(|futures| futures.join().map(drop).boxed()))
        .floor("once to start, once when woken", figure(|| ready((2.0, String::new()))));
    bench.measure(table);
}

type Joined = BoxFuture<'static, ()>;

/// How long another task waits for its turn while `call` runs.
fn longest_wait<F: Future + Send>(call: impl Fn() -> F + Copy + Send + 'static) -> Measure {
    figure(move || async move {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let neighbour = tokio::spawn(async move {
            let mut waits = Vec::new();
            while !stopped.load(Relaxed) {
                let start = Instant::now();
                yield_now().await;
                waits.push(start.elapsed());
            }
            waits
        });
        yield_now().await;
        call().await;
        stop.store(true, Relaxed);
        let mut waits = neighbour.await.unwrap_or_default();
        waits.sort();
        let millis = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
        let median = millis(waits.get(waits.len() / 2));
        (millis(waits.last()), format!("{} turns, median {:.1} µs", waits.len(), median * 1e3))
    })
}

fn neighbour(bench: &mut Bench) {
    let n = bench.size(100_000);
    let title = format!("longest wait of another task during {} timers of 1 ms", short(n));
    let table = Table::new("gather", title, "ms", Flavour::CurrentThread, 1)
        .recipe("gather", longest_wait(move || gather((0..n).map(timer))))
        .peer(
            "futures-buffered join_all",
            longest_wait(move || futures_buffered::join_all((0..n).map(timer))),
        )
        .peer("JoinSet, any order", longest_wait(move || join_set(n, timer)));
    bench.measure(table);
}

/// The rows that work on `n` items in lanes, one call of `make` an item.
fn map_tables(bench: &mut Bench) {
    for n in [10_000, 100_000].map(|n| bench.size(n)) {
        map_table(bench, n, "ready at once", ready);
        map_table(bench, n, "each pending once", pending_once);
    }
    slow_heads(bench);
}

fn map_table<F>(bench: &mut Bench, n: usize, kind: &str, work: fn(usize) -> F)
where
    F: Future<Output = usize> + Send + Sync + 'static,
{
    let title = |n| format!("{} items, {LIMIT} at a time, {kind}", short(n));
    let job = if kind == "ready at once" { "ready" } else { "pending" };
    let job = |recipe| format!("{recipe}_{job} {n} {LIMIT}");
    let unit = "ns/item";
    let limit = LIMIT.get();
    let table = Table::new("map_ordered", title(n), unit, Flavour::CurrentThread, n)
        .grown_from(title(10_000))
        .recipe("map_ordered", time(move || map_ordered(0..n, LIMIT, work)))
        .recipe(
            "map_ordered_window, window 128",
            time(move || {
                let window = LIMIT.saturating_add(64);
                map_ordered_window(0..n, LIMIT, window, work, async move |mut results| {
                    let mut all = Vec::with_capacity(n);
                    while let Some(result) = results.next().await {
                        all.push(result);
                    }
                    all
                })
            }),
        )
        .peer(
            "futures buffered",
            time(move || stream::iter(0..n).map(work).buffered(limit).collect::<Vec<_>>()),
        )
        .peer(
            "futures-buffered, ordered",
            time(move || stream::iter(0..n).map(work).buffered_ordered(limit).collect::<Vec<_>>()),
        )
        .peer("JoinSet and Semaphore", time(move || join_set_limited(n, work)))
        .floor("one after another", time(move || one_after_another(n, work)))
        .python("gather and Semaphore", &job("map_ordered"));
    bench.measure(table);
    let mut table = Table::new("map_concurrent", title(n), unit, Flavour::CurrentThread, n)
        .grown_from(title(10_000))
        .recipe(
            "map_concurrent",
            time(move || {
                map_concurrent(0..n, LIMIT, work, async move |mut results| {
                    let mut all = Vec::with_capacity(n);
                    while let Some(result) = results.recv().await {
                        all.push(result);
                    }
                    all
                })
            }),
        )
        .peer(
            "futures buffer_unordered",
            time(move || stream::iter(0..n).map(work).buffer_unordered(limit).collect::<Vec<_>>()),
        )
        .peer(
            "futures-buffered, unordered",
            time(move || stream::iter(0..n).map(work).buffered_unordered(limit).collect::<Vec<_>>()),
        );
    // Its cost grows with the square of n.
    table = table.peer(
        "futures-concurrency limit",
        time_or_once(n > 10_000, move || async move {
            let items: Vec<usize> = (0..n).collect();
            items.into_co_stream().limit(Some(LIMIT)).map(work).collect::<Vec<_>>().await
        }),
    );
    let table = table
        .peer("JoinSet and Semaphore", time(move || join_set_limited(n, work)))
        .floor("one after another", time(move || one_after_another(n, work)))
        .python("as_completed and Semaphore", &job("map_concurrent"));
    bench.measure(table);
}

/// A task for each item, started when there is a permit for it, and the results in input order.
async fn join_set_limited<F>(n: usize, work: fn(usize) -> F) -> Vec<Option<usize>>
where
    F: Future<Output = usize> + Send + 'static,
{
    let limit = Arc::new(Semaphore::new(LIMIT.get()));
    let mut tasks = JoinSet::new();
    let mut results = vec![None; n];
    for i in 0..n {
        let permit = limit.clone().acquire_owned().await;
        tasks.spawn(async move {
            let result = work(i).await;
            drop(permit);
            (i, result)
        });
        while let Some(Ok((index, result))) = tasks.try_join_next() {
            results[index] = Some(result);
        }
    }
    while let Some(Ok((index, result))) = tasks.join_next().await {
        results[index] = Some(result);
    }
    results
}

type Job = Pin<Box<dyn Future<Output = usize> + Send + Sync>>;

/// How many results have come and were not taken yet.
#[derive(Clone, Default)]
struct Held {
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Held {
    /// Every 10th job takes 100 ms, the others 1 ms.
    async fn job(self, i: usize) -> usize {
        sleep(Duration::from_millis(if i.is_multiple_of(10) { 100 } else { 1 })).await;
        self.peak.fetch_max(self.now.fetch_add(1, Relaxed) + 1, Relaxed);
        i
    }

    fn jobs(&self) -> impl Fn(usize) -> Job + Send + Sync + 'static {
        let held = self.clone();
        move |i| Box::pin(held.clone().job(i))
    }

    fn taken(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// The virtual milliseconds of a run over jobs.
fn virtual_time(run: impl Fn(Held) -> Joined + Copy + Send + 'static) -> Measure {
    figure(move || async move {
        let (start, held) = (tokio::time::Instant::now(), Held::default());
        run(held.clone()).await;
        let peak = held.peak.load(Relaxed);
        (start.elapsed().as_secs_f64() * 1e3, format!("{peak} results held at the peak"))
    })
}

async fn take_all(results: impl Stream<Item = usize>, held: &Held) {
    let mut results = std::pin::pin!(results);
    while results.next().await.is_some() {
        held.taken();
    }
}

fn slow_heads(bench: &mut Bench) {
    const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();
    const WINDOW: NonZeroUsize = NonZeroUsize::new(32).unwrap();
    let title = "1000 jobs, every 10th takes 100 ms, the others 1 ms, 4 at a time".to_string();
    let table = Table::new("map_ordered", title, "virtual ms", Flavour::Paused, 1)
        .recipe(
            "map_ordered_window, window 32",
            virtual_time(|held| {
                let call =
                    map_ordered_window(0..1_000, FOUR, WINDOW, held.jobs(), async move |mut results| {
                        while results.next().await.is_some() {
                            held.taken();
                        }
                    });
                call.boxed()
            }),
        )
        .recipe(
            "map_ordered, a list",
            virtual_time(|held| async move { drop(map_ordered(0..1_000, FOUR, held.jobs()).await) }.boxed()),
        )
        .peer(
            "futures buffered",
            virtual_time(|held| {
                async move { take_all(stream::iter(0..1_000).map(held.jobs()).buffered(4), &held).await }
                    .boxed()
            }),
        )
        .peer(
            "futures-buffered, ordered",
            virtual_time(|held| {
                let work = async move {
                    take_all(stream::iter(0..1_000).map(held.jobs()).buffered_ordered(4), &held).await;
                };
                work.boxed()
            }),
        )
        .peer(
            "buffer_unordered, any order",
            virtual_time(|held| {
                let work = async move {
                    take_all(stream::iter(0..1_000).map(held.jobs()).buffer_unordered(4), &held).await;
                };
                work.boxed()
            }),
        )
        .floor("all work shared by 4", figure(|| ready(((100.0 * 100.0 + 900.0) / 4.0, String::new()))));
    bench.measure(table);

    const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();
    let title = "1000 jobs, one of 10 in a batch takes 100 ms, the others 1 ms".to_string();
    let table = Table::new("batches", title, "virtual ms", Flavour::Paused, 1)
        .recipe(
            "batches of 10",
            virtual_time(|held| async move { drop(batches(0..1_000, TEN, held.jobs(), drop).await) }.boxed()),
        )
        .recipe(
            "map_ordered, 10 at a time",
            virtual_time(|held| async move { drop(map_ordered(0..1_000, TEN, held.jobs()).await) }.boxed()),
        )
        .peer(
            "chunks and join_all",
            virtual_time(|held| {
                let work = async move {
                    for chunk in (0..1_000).collect::<Vec<_>>().chunks(10) {
                        join_all(chunk.iter().copied().map(held.jobs())).await;
                    }
                };
                work.boxed()
            }),
        )
        .floor("all work shared by 10", figure(|| ready(((100.0 * 100.0 + 900.0) / 10.0, String::new()))));
    bench.measure(table);
}

async fn succeed(value: usize) -> Result<usize, ()> {
    Ok(pending_once(value).await)
}

async fn group<F: Future<Output = Result<(), ()>> + Send + 'static>(n: usize, task: fn(usize) -> F) {
    let group = TaskGroup::new(Rules::default());
    for i in 0..n {
        // A group that stops starts no further task.
        let _ = group.spawn("task", |_| task(i)).await;
    }
    let _ = group.wait().await;
}

fn task_tables(bench: &mut Bench) {
    for (n, flavour) in
        [(10_000, Flavour::CurrentThread), (100_000, Flavour::CurrentThread), (10_000, Flavour::MultiThread)]
    {
        let n = bench.size(n);
        let title = |n| format!("{} tasks, each pending once", short(n));
        let peers = |table: Table| {
            let handles = move || async move {
                let handles: Vec<_> = (0..n).map(|i| tokio::spawn(succeed(i))).collect();
                let mut outputs = Vec::with_capacity(n);
                for handle in handles {
                    outputs.push(handle.await);
                }
                outputs
            };
            table
                .peer("JoinSet, any order", time(move || join_set(n, succeed)))
                .floor("spawn, then await each handle", time(handles))
                .python("asyncio.TaskGroup", &format!("task_group {n}"))
        };
        let table = Table::new("try_gather", title(n), "ns/task", flavour, n).grown_from(title(10_000));
        let table = table.recipe("try_gather", time(move || try_gather((0..n).map(succeed)))).peer(
            "futures try_join_all of handles",
            time_or_once(n > 10_000, move || try_join_all((0..n).map(|i| tokio::spawn(succeed(i))))),
        );
        bench.measure(peers(table));
        let table = Table::new("task_group", title(n), "ns/task", flavour, n).grown_from(title(10_000));
        let table = table.recipe("task_group", time(move || group(n, |i| succeed(i).map_ok(drop))));
        bench.measure(peers(table));
    }
    for n in [10, 1_000] {
        let title = format!("{} contenders, the last one wins, the others wait", short(n));
        let contender = move |i| async move { if i + 1 == n { succeed(i).await } else { pending().await } };
        let by_hand = move || async move {
            let mut tasks: JoinSet<_> = (0..n).map(contender).collect();
            let won = tasks.join_next().await;
            tasks.shutdown().await;
            won
        };
        let select = move || select_ok((0..n).map(|i| contender(i).boxed()));
        let floor = move || async move { tokio::spawn(succeed(n)).await };
        let table = Table::new("race", title, "ns/contender", Flavour::CurrentThread, n)
            .recipe("race", time(move || race((0..n).map(contender))))
            .peer("futures select_ok, no tasks", time(select))
            .peer("JoinSet, shut down by hand", time(by_hand))
            .floor("the winner alone", time(floor))
            .python("asyncio.wait", &format!("race {n}"));
        bench.measure(table);
    }
}

fn outcome_tables(bench: &mut Bench) {
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} futures, each pending once", short(n));
        let table = Table::new("settle", title(n), "ns/future", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("settle", time(move || settle((0..n).map(succeed))))
            .peer("join_all of catch_unwind", time(move || join_all((0..n).map(caught))))
            .peer(
                "futures-buffered of catch_unwind",
                time(move || futures_buffered::join_all((0..n).map(caught))),
            )
            .peer("JoinSet, any order", time(move || join_set(n, succeed)))
            .floor("catch_unwind one after another", time(move || one_after_another(n, caught)))
            .python("gather(return_exceptions=True)", &format!("settle {n}"));
        bench.measure(table);
    }
}

async fn caught(i: usize) -> std::thread::Result<Result<usize, ()>> {
    AssertUnwindSafe(succeed(i)).catch_unwind().await
}

/// How many futures have been polled, and how many are gone.
#[derive(Default)]
struct Lives {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

struct Life(Arc<Lives>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

async fn live(lives: Arc<Lives>) -> Result<(), ()> {
    lives.begun.fetch_add(1, Relaxed);
    let _life = Life(lives);
    pending().await
}

/// From the drop of a call until the last of its `n` futures is gone.
fn full_stop<F>(n: usize, call: impl Fn(Arc<Lives>) -> F + Copy + Send + Sync + 'static) -> Measure
where
    F: Future + Send,
{
    stopwatch(move || async move {
        let lives = Arc::new(Lives::default());
        let mut call = Box::pin(call(lives.clone()));
        while lives.begun.load(Relaxed) < n {
            let _ = poll!(&mut call);
            yield_now().await;
        }
        let start = Instant::now();
        drop(call);
        while lives.ended.load(Relaxed) < n {
            yield_now().await;
        }
        start.elapsed()
    })
}

const CALLERS: usize = 1_000;

/// Many callers, every other one aborted when it has begun.
fn storm<F>(call: impl Fn() -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output: Send> + Send + 'static,
{
    let call = Arc::new(call);
    time(move || {
        let call = call.clone();
        async move {
            let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(call())).collect();
            yield_now().await;
            callers.iter().step_by(2).for_each(JoinHandle::abort);
            join_all(callers).await.into_iter().filter(Result::is_ok).count()
        }
    })
}

/// Pending three times.
async fn item(value: usize) -> Result<usize, ()> {
    for _ in 0..3 {
        pending_once(value).await;
    }
    Ok(value)
}

fn cancel_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let title = format!("from the drop of the call to the end of {} waiting futures", short(n));
    let table = Table::new("gather", title.clone(), "ns/future", Flavour::CurrentThread, n)
        .recipe("gather", full_stop(n, move |lives| gather((0..n).map(move |_| live(lives.clone())))))
        .peer(
            "futures join_all",
            full_stop(n, move |lives| join_all((0..n).map(move |_| live(lives.clone())))),
        )
        .peer(
            "futures-buffered join_all",
            full_stop(n, move |lives| futures_buffered::join_all((0..n).map(move |_| live(lives.clone())))),
        );
    bench.measure(table);
    let table = Table::new("task_group", title, "ns/future", Flavour::CurrentThread, n)
        .recipe("task_group", full_stop(n, move |lives| live_group(n, lives)))
        .recipe("try_gather", full_stop(n, move |lives| try_gather((0..n).map(move |_| live(lives.clone())))))
        .peer("JoinSet", full_stop(n, move |lives| live_set(n, lives)))
        .python("TaskGroup, cancelled", &format!("cancel {n}"));
    bench.measure(table);

    const EIGHT: NonZeroUsize = NonZeroUsize::new(8).unwrap();
    let title = format!("{CALLERS} callers with 32 items each, every other one cancelled");
    let in_order = || stream::iter(0..32).map(item).buffered(8).collect::<Vec<_>>();
    let table = Table::new("map_ordered", title, "ns/call that ends", Flavour::CurrentThread, CALLERS / 2)
        .recipe("gather, all at once", storm(|| gather((0..32).map(item))))
        .recipe("map_ordered, 8 at a time", storm(|| map_ordered(0..32, EIGHT, item)))
        .recipe("try_gather, tasks", storm(|| try_gather((0..32).map(item))))
        .recipe("task_group, tasks", storm(|| group(32, |i| item(i).map_ok(drop))))
        .peer("futures join_all, all at once", storm(|| join_all((0..32).map(item))))
        .peer("futures-buffered join_all", storm(|| futures_buffered::join_all((0..32).map(item))))
        .peer("futures buffered, 8 at a time", storm(in_order))
        .peer("JoinSet, tasks", storm(|| join_set(32, item)))
        .floor("one after another", storm(|| one_after_another(32, item)));
    bench.measure(table);
}

async fn live_group(n: usize, lives: Arc<Lives>) {
    let group = TaskGroup::new(Rules::default());
    for _ in 0..n {
        let lives = lives.clone();
        let _ = group.spawn("task", |_| live(lives)).await;
    }
    let _ = group.wait().await;
}

async fn live_set(n: usize, lives: Arc<Lives>) {
    let mut tasks: JoinSet<_> = (0..n).map(|_| live(lives.clone())).collect();
    while tasks.join_next().await.is_some() {}
}
