//! `background`, `cancellation`, `shutdown`.

use std::future::{pending, ready};
use std::time::{Duration, Instant};

use ::tasks::{Cancellation, Shutdown, background};
use benches::{Bench, Flavour, Measure, Table, figure, short, stopwatch, time};
use futures::stream;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(crate) fn tables(bench: &mut Bench) {
    background_tables(bench);
    cancellation_tables(bench);
    shutdown_tables(bench);
}

fn background_tables(bench: &mut Bench) {
    for n in [1_000, 10_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} tasks started, then awaited", short(n));
        let table =
            Table::new("background", title(n), "ns/task", Flavour::CurrentThread, n).grown_from(title(1_000));
        let table = table
            .recipe(
                "background",
                time(move || async move {
                    let tasks: Vec<_> = (0..n).map(|i| background("task", ready(i))).collect();
                    for task in tasks {
                        let _ = task.await;
                    }
                }),
            )
            .peer(
                "tokio-util AbortOnDropHandle",
                time(move || async move {
                    let tasks: Vec<_> =
                        (0..n).map(|i| AbortOnDropHandle::new(tokio::spawn(ready(i)))).collect();
                    for task in tasks {
                        let _ = task.await;
                    }
                }),
            )
            .peer(
                "JoinSet, any order",
                time(move || async move {
                    let mut tasks: JoinSet<_> = (0..n).map(ready).collect();
                    while tasks.join_next().await.is_some() {}
                }),
            )
            .floor(
                "tokio::spawn",
                time(move || async move {
                    let tasks: Vec<_> = (0..n).map(|i| tokio::spawn(ready(i))).collect();
                    for task in tasks {
                        let _ = task.await;
                    }
                }),
            )
            .python("create_task", &format!("tasks {n}"));
        bench.measure(table);
    }
    let n = bench.size(10_000);
    let title = format!("{} tasks, each awaited before the next", short(n));
    let table = Table::new("background", title, "µs/task", Flavour::MultiThread, 1)
        .recipe("from a spawned task", one_by_one(n, true))
        .recipe("from block_on, as in main", one_by_one(n, false));
    bench.measure(table);
}

/// Microseconds for each task, on a runtime of its own with two workers.
fn one_by_one(n: usize, spawned: bool) -> Measure {
    let work = move || async move {
        let start = Instant::now();
        for i in 0..n {
            let _ = background("task", ready(i)).await;
        }
        start.elapsed().as_secs_f64() * 1e6 / n as f64
    };
    figure(move || async move {
        let runtime = Builder::new_multi_thread().worker_threads(2).build();
        let run = std::thread::spawn(move || {
            let runtime = runtime.expect("a runtime needs two threads");
            if spawned {
                runtime.block_on(async { tokio::spawn(work()).await.unwrap_or_default() })
            } else {
                runtime.block_on(work())
            }
        });
        (run.join().unwrap_or_default(), String::new())
    })
}

fn cancellation_tables(bench: &mut Bench) {
    let n = bench.size(100_000);
    for (kind, waits) in [("ready at once", false), ("pending once", true)] {
        let call = move |i: usize| async move {
            if waits {
                yield_now().await;
            }
            i
        };
        let title = format!("{} calls that can be cancelled, each {kind}", short(n));
        let table = Table::new("cancellation", title, "ns/call", Flavour::CurrentThread, n)
            .recipe(
                "Cancellation::run",
                time(move || async move {
                    let stop = Cancellation::<&str>::new();
                    for i in 0..n {
                        let _ = stop.run(call(i)).await;
                    }
                }),
            )
            .peer(
                "tokio-util run_until_cancelled",
                time(move || async move {
                    let stop = CancellationToken::new();
                    for i in 0..n {
                        let _ = stop.run_until_cancelled(call(i)).await;
                    }
                }),
            )
            .floor(
                "the bare call",
                time(move || async move {
                    for i in 0..n {
                        std::hint::black_box(call(i).await);
                    }
                }),
            );
        bench.measure(table);
    }
    for n in [1_000, 10_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} waiting tasks, from the request to the end of the last", short(n));
        let table = Table::new("cancellation", title(n), "ns/task", Flavour::CurrentThread, n)
            .grown_from(title(1_000));
        let table = table
            .recipe(
                "Cancellation, a child each",
                stopwatch(move || async move {
                    let stop = Cancellation::new();
                    let tasks = (0..n).map(|_| {
                        let stop = stop.child();
                        async move { stop.run(pending::<()>()).await.is_ok() }
                    });
                    stopped(tasks.collect(), |_| _ = stop.cancel("stop")).await
                }),
            )
            .peer(
                "tokio-util, a child token each",
                stopwatch(move || async move {
                    let stop = CancellationToken::new();
                    let tasks = (0..n).map(|_| {
                        let stop = stop.child_token();
                        async move { stop.run_until_cancelled(pending::<()>()).await.is_some() }
                    });
                    stopped(tasks.collect(), |_| stop.cancel()).await
                }),
            )
            .floor(
                "JoinSet::abort_all",
                stopwatch(move || async move {
                    stopped((0..n).map(|_| pending::<bool>()).collect(), JoinSet::abort_all).await
                }),
            )
            .python("Task.cancel", &format!("cancel {n}"));
        bench.measure(table);
    }
}

/// How long the tasks take to end after `stop`.
async fn stopped(mut tasks: JoinSet<bool>, stop: impl FnOnce(&mut JoinSet<bool>)) -> Duration {
    yield_now().await;
    yield_now().await;
    let start = Instant::now();
    stop(&mut tasks);
    while tasks.join_next().await.is_some() {}
    start.elapsed()
}

fn shutdown_tables(bench: &mut Bench) {
    for n in [1_000, 10_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} tasks started, asked to stop, and gone", short(n));
        let table =
            Table::new("shutdown", title(n), "ns/task", Flavour::CurrentThread, n).grown_from(title(1_000));
        let table = table
            .recipe(
                "shutdown, one phase",
                time(move || async move {
                    let mut shutdown = Shutdown::default();
                    let phase = shutdown.phase("phase", Duration::from_secs(60));
                    for _ in 0..n {
                        let stop = phase.stopping();
                        let _ = phase.spawn("task", async move { stop.cancelled().await });
                    }
                    let report = shutdown.run(stream::iter([()])).await;
                    assert!(report.left.is_empty());
                }),
            )
            .peer(
                "tokio-util TaskTracker and CancellationToken",
                time(move || async move {
                    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
                    for _ in 0..n {
                        let stop = stop.child_token();
                        tracker.spawn(async move { stop.cancelled().await });
                    }
                    stop.cancel();
                    tracker.close();
                    tracker.wait().await;
                }),
            )
            .floor(
                "JoinSet::shutdown, which asks nobody",
                time(move || async move {
                    let mut tasks: JoinSet<()> = (0..n).map(|_| pending()).collect();
                    tasks.shutdown().await;
                }),
            );
        bench.measure(table);
    }
}
