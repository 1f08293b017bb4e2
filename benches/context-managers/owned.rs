//! `shield`, `bracket`, `exit_stack`.

use std::future::ready;
use std::time::Instant;

use benches::{Bench, Flavour, Measure, Table, stopwatch, time};
use context_managers::{ExitStack, Owner, bracket, shield};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio_util::task::TaskTracker;

pub(crate) fn tables(bench: &mut Bench) {
    shield_tables(bench);
    bracket_tables(bench);
    exit_stack_tables(bench);
}

type Ended = Result<(), &'static str>;

/// Waits once, unless it is ready at once.
async fn step(waits: bool) -> Ended {
    if waits {
        yield_now().await;
    }
    Ok(())
}

fn shield_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let title = format!("{n} sections one after the other, each pending once");
    let table = Table::new("shield", title, "ns/section", Flavour::CurrentThread, n)
        .recipe(
            "shield",
            time(move || async move {
                let owner = Owner::new(Handle::current());
                for _ in 0..n {
                    let _ = shield(&owner, step(true)).await;
                }
            }),
        )
        .peer(
            "TaskTracker::spawn, awaited",
            time(move || async move {
                let tracker = TaskTracker::new();
                for _ in 0..n {
                    let _ = tracker.spawn(step(true)).await;
                }
            }),
        )
        .floor(
            "the bare section",
            time(move || async move {
                for _ in 0..n {
                    let _ = step(true).await;
                }
            }),
        )
        .python("asyncio.shield", &format!("shield {n}"));
    bench.measure(table);

    let title = format!("{n} sections given up after their first poll, until the last has ended");
    let table = Table::new("shield", title, "ns/section", Flavour::CurrentThread, n)
        .recipe(
            "shield and finish",
            stopwatch(move || async move {
                let owner = Owner::new(Handle::current());
                let mut begun: Vec<_> = (0..n).map(|_| Box::pin(shield(&owner, step(true)))).collect();
                assert!(begun.iter_mut().all(|section| section.now_or_never().is_none()));
                let start = Instant::now();
                drop(begun);
                assert_eq!(owner.finish().await.finished, n);
                start.elapsed()
            }),
        )
        .peer(
            "TaskTracker::spawn and wait",
            stopwatch(move || async move {
                let (tracker, start) = (TaskTracker::new(), Instant::now());
                for _ in 0..n {
                    drop(tracker.spawn(step(true)));
                }
                tracker.close();
                tracker.wait().await;
                start.elapsed()
            }),
        );
    bench.measure(table);
}

/// As many brackets as that one after the other.
fn brackets(n: usize, waits: bool) -> Measure {
    time(move || async move {
        let owner = Owner::new(Handle::current());
        for number in 0..n {
            let acquire = async { step(waits).await.map(|()| number) };
            let body = async |_: &mut usize| step(waits).await;
            let _ = bracket(&owner, acquire, body, move |_| step(waits)).await;
        }
    })
}

fn bracket_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    for (kind, waits) in [("pending once", true), ("ready at once", false)] {
        let title = format!("{n} times acquire, use, release, each {kind}");
        let table = Table::new("bracket", title, "ns/bracket", Flavour::CurrentThread, n)
            .recipe("bracket", brackets(n, waits))
            .peer(
                "release always spawned, and awaited",
                time(move || async move {
                    let tracker = TaskTracker::new();
                    for _ in 0..n {
                        let _ = step(waits).await;
                        let _ = step(waits).await;
                        let _ = tracker.spawn(step(waits)).await;
                    }
                }),
            )
            .floor(
                "by hand: lost when dropped",
                time(move || async move {
                    for _ in 0..n {
                        let _ = step(waits).await;
                        let _ = step(waits).await;
                        let _ = step(waits).await;
                    }
                }),
            );
        let job = format!("bracket {n} {}", usize::from(waits));
        bench.measure(table.python("async with", &job));
    }

    for n in [1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n: usize| format!("{n} callers dropped in the body, until the last release");
        let table = Table::new("bracket", title(n), "ns/caller", Flavour::CurrentThread, n)
            .grown_from(title(bench.size(1_000)))
            .recipe(
                "bracket",
                stopwatch(move || async move {
                    let owner = Owner::new(Handle::current());
                    let call = |_| {
                        let body = async |_: &mut ()| std::future::pending::<Ended>().await;
                        Box::pin(bracket(&owner, ready(Ok(())), body, |()| step(true)))
                    };
                    let mut calls: Vec<_> = (0..n).map(call).collect();
                    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
                    let start = Instant::now();
                    drop(calls);
                    assert_eq!(owner.finish().await.finished, n);
                    start.elapsed()
                }),
            )
            .peer(
                "tokio::spawn in Drop, by a tracker",
                stopwatch(move || async move {
                    let tracker = TaskTracker::new();
                    let start = Instant::now();
                    for _ in 0..n {
                        drop(tracker.spawn(step(true)));
                    }
                    tracker.close();
                    tracker.wait().await;
                    start.elapsed()
                }),
            )
            .peer(
                "one task that runs one after the other",
                stopwatch(move || async move {
                    let (sender, mut cleanups) = mpsc::unbounded_channel::<BoxFuture<'static, Ended>>();
                    let reaper = tokio::spawn(async move {
                        while let Some(cleanup) = cleanups.recv().await {
                            let _ = cleanup.await;
                        }
                    });
                    let start = Instant::now();
                    for _ in 0..n {
                        let _ = sender.send(step(true).boxed());
                    }
                    drop(sender);
                    let _ = reaper.await;
                    start.elapsed()
                }),
            );
        bench.measure(table);
    }
}

fn exit_stack_tables(bench: &mut Bench) {
    for n in [10, 10_000].map(|n| bench.size(n)) {
        let title = |n: usize| format!("{n} cleanups pushed and run, each pending once");
        let table = Table::new("exit_stack", title(n), "ns/cleanup", Flavour::CurrentThread, n)
            .grown_from(title(10))
            .recipe(
                "ExitStack",
                time(move || async move {
                    let owner = Owner::new(Handle::current());
                    let mut stack = ExitStack::new(&owner);
                    for _ in 0..n {
                        stack.push("cleanup", step(true));
                    }
                    stack.close().await.is_ok()
                }),
            )
            .floor(
                "a Vec of boxed futures: lost when dropped",
                time(move || async move {
                    let mut cleanups: Vec<BoxFuture<'static, Ended>> = Vec::new();
                    for _ in 0..n {
                        cleanups.push(step(true).boxed());
                    }
                    while let Some(cleanup) = cleanups.pop() {
                        let _ = cleanup.await;
                    }
                }),
            )
            .python("AsyncExitStack", &format!("exit_stack {n}"));
        bench.measure(table);
    }
}
