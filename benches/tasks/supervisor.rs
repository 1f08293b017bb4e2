//! `supervisor`, `periodic`, `context`.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use benches::{Bench, Flavour, Table, figure, time};
use futures::FutureExt;
use tasks::{MissedTickBehavior, Periodic, Restarts, in_context, supervise};
use tokio::task::yield_now;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tracing::Instrument;

pub(crate) fn tables(bench: &mut Bench) {
    supervisor_tables(bench);
    periodic_tables(bench);
    context_tables(bench);
}

const TICK: Duration = Duration::from_nanos(1);
const PERIOD: Duration = Duration::from_millis(10);

/// Fails in each run but the last.
async fn failing(run: u64, runs: usize) -> Result<(), &'static str> {
    yield_now().await;
    if run < runs as u64 { Err("no") } else { Ok(()) }
}

async fn polled(times: usize) -> Result<(), Infallible> {
    for _ in 0..times {
        yield_now().await;
    }
    Ok(())
}

fn restarts() -> Restarts {
    // One failure is kept at a time, as in a task that fails now and then.
    Restarts { limit: usize::MAX, within: Duration::ZERO, pause: Duration::ZERO, ..Restarts::default() }
}

fn supervisor_tables(bench: &mut Bench) {
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{n} runs that fail, no pause");
        let table = Table::new("supervisor", title(n), "ns/run", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("supervise", time(move || supervise(restarts(), move |run| failing(run, n), |_| ())))
            .peer(
                "a task for each run",
                time(move || async move {
                    let mut run = 1;
                    while !matches!(tokio::spawn(failing(run, n)).await, Ok(Ok(()))) {
                        run += 1;
                    }
                }),
            )
            .peer(
                "a loop with catch_unwind",
                time(move || async move {
                    let mut run = 1;
                    while !matches!(AssertUnwindSafe(failing(run, n)).catch_unwind().await, Ok(Ok(()))) {
                        run += 1;
                    }
                }),
            )
            .floor(
                "a loop",
                time(move || async move {
                    let mut run = 1;
                    while failing(run, n).await.is_err() {
                        run += 1;
                    }
                }),
            )
            .python("try and except", &format!("supervise {n}"));
        bench.measure(table);
    }
    let n = bench.size(10_000);
    let table = Table::new("supervisor", "a run that works".into(), "ns/poll", Flavour::CurrentThread, n)
        .recipe("supervise", time(move || supervise(restarts(), move |_| polled(n), |_| ())))
        .peer("a task", time(move || tokio::spawn(polled(n))))
        .floor("await", time(move || polled(n)));
    bench.measure(table);
}

/// How late the last of `n` runs of 3 ms begins, by a way to wait for it.
async fn late(n: usize, mut wait: impl AsyncFnMut()) -> (f64, String) {
    let start = Instant::now();
    for run in 0..n {
        if run > 0 {
            wait().await;
        }
        if run < n - 1 {
            sleep(Duration::from_millis(3)).await;
        }
    }
    let late = start.elapsed().saturating_sub(PERIOD * (n as u32 - 1));
    (late.as_secs_f64() * 1e3, "virtual time".into())
}

fn periodic_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let title = "ticks that are due already".to_string();
    let table = Table::new("periodic", title, "ns/tick", Flavour::CurrentThread, n)
        .recipe(
            "Periodic",
            time(move || async move {
                let mut periodic = Periodic::new(TICK, MissedTickBehavior::Burst).expect("not zero");
                for _ in 0..n {
                    periodic.tick().await;
                }
            }),
        )
        .recipe(
            "Periodic, with jitter",
            time(move || async move {
                let periodic = Periodic::new(TICK, MissedTickBehavior::Burst).expect("not zero");
                let mut periodic = periodic.with_jitter(TICK);
                for _ in 0..n {
                    periodic.tick().await;
                }
            }),
        )
        .peer(
            "tokio interval",
            time(move || async move {
                let mut interval = interval(TICK);
                for _ in 0..n {
                    interval.tick().await;
                }
            }),
        )
        .floor(
            "sleep_until",
            time(move || async move {
                let mut due = Instant::now();
                for _ in 0..n {
                    sleep_until(due).await;
                    due += TICK;
                }
            }),
        )
        .python("asyncio.sleep until the due time", &format!("ticks {n}"));
    bench.measure(table);

    let n = bench.size(1_000);
    let title = format!("how late run {n} of 3 ms begins, every 10 ms");
    let table = Table::new("periodic", title, "ms late", Flavour::Paused, 1)
        .recipe(
            "Periodic",
            figure(move || async move {
                let mut periodic = Periodic::new(PERIOD, MissedTickBehavior::Skip).expect("not zero");
                periodic.tick().await;
                late(n, async move || _ = periodic.tick().await).await
            }),
        )
        .peer(
            "tokio interval",
            figure(move || async move {
                let mut interval = interval(PERIOD);
                interval.tick().await;
                late(n, async move || _ = interval.tick().await).await
            }),
        )
        .peer("a loop with sleep", figure(move || late(n, async || sleep(PERIOD).await)));
    bench.measure(table);
}

tokio::task_local! {
    static REQUEST: u64;
}

#[expect(clippy::unused_async, reason = "it is the body of a task")]
async fn request() -> u64 {
    REQUEST.try_get().unwrap_or_default()
}

fn context_tables(bench: &mut Bench) {
    let n = bench.size(1_000);
    let title = "a task that asks for the request".to_string();
    let table = Table::new("context", title, "ns/task", Flavour::CurrentThread, n)
        .recipe(
            "in_context",
            time(move || {
                REQUEST.scope(7, async move {
                    for _ in 0..n {
                        assert_eq!(tokio::spawn(in_context(&REQUEST, request())).await.ok(), Some(7));
                    }
                })
            }),
        )
        .peer(
            "scope by hand, no span",
            time(move || {
                REQUEST.scope(7, async move {
                    for _ in 0..n {
                        let id = REQUEST.get();
                        assert_eq!(tokio::spawn(REQUEST.scope(id, request())).await.ok(), Some(7));
                    }
                })
            }),
        )
        .peer(
            "in_current_span, no value",
            time(move || async move {
                for _ in 0..n {
                    assert_eq!(tokio::spawn(request().in_current_span()).await.ok(), Some(0));
                }
            }),
        )
        .floor(
            "spawn without a context",
            time(move || async move {
                for _ in 0..n {
                    assert_eq!(tokio::spawn(request()).await.ok(), Some(0));
                }
            }),
        )
        .python("create_task", &format!("context {n}"));
    bench.measure(table);
}
