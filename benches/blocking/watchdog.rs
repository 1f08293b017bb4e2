//! `watchdog`.

use std::future::{Future, pending, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Measure, Table, stopwatch};
use blocking::Watchdog;

pub(crate) fn tables(bench: &mut Bench) {
    let n = bench.size(100_000);
    let title = "one poll of a future that waits".to_string();
    let watchdog = Watchdog::new(Duration::from_millis(100));
    let watched = watchdog.clone();
    let checks = watchdog.start(|_| ()).expect("a thread can be had");
    let table = Table::new("watchdog", title, "ns/poll", Flavour::CurrentThread, n)
        .recipe("watchdog", polls(n, move || watched.watch("bench", waits())))
        .peer("Instant::now before and after each poll", polls(n, || timed(waits())))
        .floor("not watched", polls(n, waits));
    bench.measure(table);
    drop(checks);

    let title = "naming, one poll and forgetting".to_string();
    let table = Table::new("watchdog", title, "ns", Flavour::CurrentThread, 1)
        .recipe("watchdog", benches::time(move || watchdog.watch("bench", std::future::ready(7))))
        .floor("not watched", benches::time(|| std::future::ready(7)));
    bench.measure(table);

    for n in [100, 10_000, 100_000].map(|n| bench.size(n)) {
        let title = |n: usize| format!("one check of {n} watched futures");
        let watchdog = Watchdog::new(Duration::from_millis(100));
        let watched: Vec<_> = (0..n).map(|_| watchdog.watch("waits", pending::<()>())).collect();
        let check = stopwatch(move || {
            let start = Instant::now();
            black_box((watchdog.check(start), &watched));
            std::future::ready(start.elapsed())
        });
        let table = Table::new("watchdog", title(n), "ns/future", Flavour::CurrentThread, n)
            .grown_from(title(100))
            .recipe("watchdog", check);
        bench.measure(table);
    }
}

async fn waits() {
    pending::<()>().await;
}

/// The obvious way to know how long a poll takes.
async fn timed(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut longest = Duration::ZERO;
    poll_fn(|context| {
        let start = Instant::now();
        let polled = future.as_mut().poll(context);
        longest = longest.max(start.elapsed());
        black_box(longest);
        polled
    })
    .await;
}

fn polls<F: Future<Output = ()> + Send>(n: usize, make: impl Fn() -> F + Send + Sync + 'static) -> Measure {
    stopwatch(move || {
        let future = make();
        async move {
            let mut future = pin!(future);
            let mut context = Context::from_waker(Waker::noop());
            let start = Instant::now();
            for _ in 0..n {
                if black_box(future.as_mut().poll(&mut context)) == Poll::Ready(()) {
                    break;
                }
            }
            start.elapsed()
        }
    })
}
