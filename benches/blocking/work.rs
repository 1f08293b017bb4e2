//! `offload` and `cpu_pool`.

use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Measure, Table, figure, time};
use blocking::{CpuPool, Offload, cpu_pool};
use futures::future::join_all;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, block_in_place, spawn_blocking, yield_now};
use tokio::time::sleep;

pub(crate) fn tables(bench: &mut Bench) {
    offload_tables(bench);
    heartbeat_table(bench);
    cpu_pool_tables(bench);
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

fn offload_tables(bench: &mut Bench) {
    let n = bench.size(1_000);
    let title = format!("{n} calls at once of work that does nothing, 4 at a time");
    let recipe = time(move || {
        let offload = Offload::new(FOUR);
        async move { join_all((0..n).map(|i| offload.run(move |_| i))).await }
    });
    let semaphore = time(move || {
        let limit = Arc::new(Semaphore::new(4));
        let call = move |i| {
            let limit = limit.clone();
            async move {
                let permit = limit.acquire_owned().await;
                let work = move || {
                    let _permit = permit;
                    i
                };
                spawn_blocking(work).await
            }
        };
        join_all((0..n).map(call))
    });
    let unbounded = time(move || join_all((0..n).map(|i| spawn_blocking(move || i))));
    let one = time(move || spawn_blocking(move || (0..n).map(black_box).collect::<Vec<_>>()));
    let table = Table::new("offload", title, "ns/call", Flavour::CurrentThread, n)
        .recipe("offload", recipe)
        .peer("spawn_blocking, permit in the closure", semaphore)
        .peer("spawn_blocking, unbounded", unbounded)
        .floor("one spawn_blocking for all", one)
        .python("to_thread and Semaphore", &format!("offload {n}"));
    bench.measure(table);

    let title = format!("{n} calls at once, 4 at a time, every other one cancelled");
    let recipe = time(move || {
        let offload = Offload::new(FOUR);
        async move {
            let call = |i| {
                let offload = offload.clone();
                tokio::spawn(async move { offload.run(move |_| i).await })
            };
            let calls: Vec<_> = (0..n).map(call).collect();
            yield_now().await;
            calls.iter().step_by(2).for_each(JoinHandle::abort);
            let ended = join_all(calls).await.len();
            (ended, offload.drain().await.is_ok())
        }
    });
    bench.measure(
        Table::new("offload", title, "ns/call that ends", Flavour::CurrentThread, n.div_ceil(2))
            .recipe("offload, and drain", recipe),
    );
}

/// The longest delay of a heartbeat of 1 ms on the only worker thread, while a way of hashing runs; the note says how long it ran.
fn delay<F>(way: impl Fn(Arc<Vec<Vec<u8>>>) -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output = ()> + Send + 'static,
{
    let contents = Arc::new(vec![vec![7; 256 << 10]; 40]);
    figure(move || {
        let way = way(contents.clone());
        async move {
            // Two threads, as `tokio::main` gives on this machine, would each be blocked by a task of its own.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
            let runtime = runtime.expect("a thread can be had");
            let (stop, latest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (stopped, noted) = (stop.clone(), latest.clone());
            let heart = runtime.spawn(async move {
                while !stopped.load(Relaxed) {
                    let start = Instant::now();
                    sleep(Duration::from_millis(1)).await;
                    noted.fetch_max(start.elapsed().as_micros() as u64, Relaxed);
                }
            });
            let work = async move {
                sleep(Duration::from_millis(5)).await;
                let start = Instant::now();
                way.await;
                let took = start.elapsed();
                sleep(Duration::from_millis(5)).await;
                took
            };
            let took = runtime.spawn(work).await.unwrap_or_default();
            stop.store(true, Relaxed);
            let _ = heart.await;
            runtime.shutdown_background();
            let note = format!("all hashed after {:.1} ms", took.as_secs_f64() * 1e3);
            (latest.load(Relaxed) as f64 / 1e3 - 1.0, note)
        }
    })
}

fn hash(contents: &[u8]) -> u8 {
    Sha256::digest(contents)[0]
}

fn heartbeat_table(bench: &mut Bench) {
    let title = "hashing 40 files of 256 KiB: longest delay of another task, one worker thread".to_string();
    let in_the_task = delay(|files| async move {
        black_box(files.iter().map(|file| hash(file)).max());
    });
    let with_yields = delay(|files| async move {
        for file in files.iter() {
            black_box(hash(file));
            yield_now().await;
        }
    });
    let in_place = delay(|files| async move {
        block_in_place(|| black_box(files.iter().map(|file| hash(file)).max()));
    });
    let offload = delay(|files| {
        let offload = Offload::new(TWO);
        async move {
            let files = &files;
            let each = (0..files.len()).map(|i| {
                let files = files.clone();
                offload.run(move |_| hash(&files[i]))
            });
            black_box(join_all(each).await);
        }
    });
    let pool = cpu_pool(TWO, TWO).expect("threads can be had");
    let on_the_pool = delay(move |files| {
        let pool = pool.clone();
        async move { _ = pool.run(move |_| files.par_iter().map(|file| hash(file)).max()).await }
    });
    let table = Table::new("offload", title, "ms", Flavour::CurrentThread, 1)
        .recipe("offload, 2 at a time", offload)
        .recipe("cpu_pool, 2 threads", on_the_pool)
        .peer("block_in_place", in_place)
        .peer("in the task, yielding after each file", with_yields)
        .peer("in the task", in_the_task);
    bench.measure(table);
}

/// About 10 µs of computing. The sum of many results fits too.
fn compute(seed: usize) -> u64 {
    let computed = (0..ROUNDS.load(Relaxed)).fold(seed as u64, |state, i| {
        black_box(state).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i)
    });
    computed >> 32
}

/// Set once, so that `compute` takes 10 µs on this machine.
static ROUNDS: AtomicU64 = AtomicU64::new(1_000);

fn calibrate() {
    let fastest = (0..200).map(|_| {
        let start = Instant::now();
        black_box(compute(1));
        start.elapsed()
    });
    let fastest = fastest.min().unwrap_or(Duration::from_micros(1)).as_secs_f64();
    ROUNDS.store((1_000.0 * 10e-6 / fastest) as u64, Relaxed);
}

async fn in_one_call(pool: CpuPool, n: usize) -> u64 {
    pool.run(move |_| (0..n).into_par_iter().map(compute).sum()).await.unwrap_or_default()
}

fn cpu_pool_tables(bench: &mut Bench) {
    calibrate();
    let n = bench.size(10_000);
    let title = format!("{n} jobs of 10 µs, 2 threads");
    let pool = |limit| {
        let limit = NonZeroUsize::new(limit).expect("above zero");
        cpu_pool(TWO, limit).expect("threads can be had")
    };
    let (one_call, many_calls, bare) = (pool(4), pool(4), pool(1));
    let recipe = time(move || in_one_call(one_call.clone(), n));
    let each = time(move || {
        let pool = many_calls.clone();
        async move { join_all((0..n).map(|i| pool.run(move |_| compute(i)))).await.len() }
    });
    let spawned = time(move || join_all((0..n).map(|i| spawn_blocking(move || compute(i)))));
    let chunks = time(move || {
        let chunk =
            |start: usize| spawn_blocking(move || (start..n.min(start + 32)).map(compute).sum::<u64>());
        join_all((0..n).step_by(32).map(chunk))
    });
    let rayon = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be had"));
    let (spawner, floor) = (rayon.clone(), rayon);
    let rayon_each = time(move || {
        let calls = (0..n).map(|i| {
            let (sender, receiver) = oneshot::channel();
            spawner.spawn(move || _ = sender.send(compute(i)));
            receiver
        });
        join_all(calls.collect::<Vec<_>>())
    });
    let floor = time(move || {
        let sum: u64 = floor.install(|| (0..n).into_par_iter().map(compute).sum());
        std::future::ready(sum)
    });
    let table = Table::new("cpu_pool", title, "ns/job", Flavour::CurrentThread, n)
        .recipe("cpu_pool, one call with par_iter", recipe)
        .recipe("cpu_pool, a call for each job", each)
        .peer("spawn_blocking, chunks of 32", chunks)
        .peer("spawn_blocking for each job", spawned)
        .peer("rayon spawn and oneshot, unbounded", rayon_each)
        .floor("par_iter, which blocks the runtime", floor)
        .python("ProcessPoolExecutor, chunks of 32", &format!("cpu_pool {n}"));
    bench.measure(table);

    let title = "one job that does nothing, there and back".to_string();
    let there = time(move || {
        let pool = bare.clone();
        async move { pool.run(|_| 7).await }
    });
    let offload = time(|| {
        let offload = Offload::new(TWO);
        async move { offload.run(|_| 7).await }
    });
    let table = Table::new("cpu_pool", title, "ns", Flavour::CurrentThread, 1)
        .recipe("cpu_pool", there)
        .recipe("offload", offload)
        .peer("spawn_blocking", time(|| spawn_blocking(|| 7)));
    bench.measure(table);
}
