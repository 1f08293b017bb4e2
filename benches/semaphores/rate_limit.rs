//! `rate_limit`, `window_limit`.

use std::convert::Infallible;
use std::fs;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use benches::{Bench, Flavour, Measure, Table, figure, stopwatch, time};
use futures::future::{BoxFuture, join_all, ready};
use futures::{FutureExt, poll};
use governor::{DefaultDirectRateLimiter, Quota};
use leaky_bucket::RateLimiter;
use semaphores::{Rate, RateLimit, WindowLimit};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{Service, ServiceBuilder, ServiceExt};

pub(crate) fn tables(bench: &mut Bench) {
    rate_limit_tables(bench);
    window_limit_tables(bench);
}

const SECOND: Duration = Duration::from_secs(1);

/// A limit of so many tokens a second, and a burst.
#[derive(Clone, Copy)]
struct Quick {
    rate: u32,
    burst: u32,
}

/// What a caller waits for its tokens on.
trait Limit: Send + Sync + 'static {
    fn acquire(&self, tokens: u32) -> BoxFuture<'_, ()>;
}

impl Limit for RateLimit {
    fn acquire(&self, tokens: u32) -> BoxFuture<'_, ()> {
        async move { self.acquire(tokens as usize).await.expect("no more than the burst") }.boxed()
    }
}

impl Limit for DefaultDirectRateLimiter {
    fn acquire(&self, tokens: u32) -> BoxFuture<'_, ()> {
        let tokens = NonZeroU32::new(tokens).expect("one or more");
        async move { self.until_n_ready(tokens).await.expect("no more than the burst") }.boxed()
    }
}

impl Limit for RateLimiter {
    fn acquire(&self, tokens: u32) -> BoxFuture<'_, ()> {
        self.acquire(tokens as usize).boxed()
    }
}

type Nothing = fn(()) -> std::future::Ready<Result<(), Infallible>>;
type Tower = Mutex<tower::limit::RateLimit<tower::util::ServiceFn<Nothing>>>;

impl Limit for Tower {
    fn acquire(&self, tokens: u32) -> BoxFuture<'_, ()> {
        let calls = async move {
            for _ in 0..tokens {
                let mut service = self.lock().await;
                let Ok(ready) = service.ready().await;
                let Ok(()) = ready.call(()).await;
            }
        };
        calls.boxed()
    }
}

/// One timer for each waiter, which has reserved its moment.
struct Timers(Quick, Instant, AtomicUsize);

impl Limit for Timers {
    fn acquire(&self, _: u32) -> BoxFuture<'_, ()> {
        let place = self.2.fetch_add(1, Relaxed).saturating_sub(self.0.burst as usize) as u32;
        sleep_until(self.1 + SECOND * place / self.0.rate).boxed()
    }
}

fn not_zero(number: u32) -> NonZeroUsize {
    NonZeroUsize::new(number as usize).expect("one or more")
}

fn ours(quick: Quick) -> Arc<dyn Limit> {
    let Quick { rate, burst } = quick;
    Arc::new(RateLimit::new(Rate { tokens: not_zero(rate), per: SECOND, burst: not_zero(burst) }))
}

fn by_governor(quick: Quick) -> Arc<dyn Limit> {
    let [rate, burst] = [quick.rate, quick.burst].map(|n| NonZeroU32::new(n).expect("one or more"));
    Arc::new(governor::RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)))
}

fn by_leaky_bucket(quick: Quick, fair: bool) -> Arc<dyn Limit> {
    let Quick { rate, burst } = quick;
    let mut builder = RateLimiter::builder();
    let builder = builder.initial(burst as usize).max(burst as usize).refill(rate.div_ceil(1000) as usize);
    Arc::new(builder.interval(SECOND * rate.div_ceil(1000) / rate).fair(fair).build())
}

fn leaky_fair(quick: Quick) -> Arc<dyn Limit> {
    by_leaky_bucket(quick, true)
}

fn leaky_unfair(quick: Quick) -> Arc<dyn Limit> {
    by_leaky_bucket(quick, false)
}

/// In each window as many calls as the burst.
fn by_tower(quick: Quick) -> Arc<dyn Limit> {
    let service = ServiceBuilder::new().rate_limit(quick.burst.into(), SECOND * quick.burst / quick.rate);
    Arc::new(Mutex::new(service.service_fn((|()| std::future::ready(Ok(()))) as Nothing)))
}

fn by_timers(quick: Quick) -> Arc<dyn Limit> {
    Arc::new(Timers(quick, Instant::now(), AtomicUsize::new(0)))
}

/// The processor time of all threads so far. Linux counts it; elsewhere it is zero.
fn processor_time() -> Duration {
    let nanos = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(threads.filter_map(nanos).sum())
}

/// `n` callers come at once, one task each.
async fn callers(limit: &Arc<dyn Limit>, n: usize) -> bool {
    let order = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..n)
        .map(|place| {
            let (limit, order) = (limit.clone(), order.clone());
            tokio::spawn(async move {
                limit.acquire(1).await;
                order.fetch_add(1, Relaxed) == place
            })
        })
        .collect();
    join_all(tasks).await.into_iter().all(|in_order| in_order.is_ok_and(|in_order| in_order))
}

/// Processor time for each waiter, in microseconds.
fn waiting(quick: Quick, n: usize, make: fn(Quick) -> Arc<dyn Limit>) -> Measure {
    figure(move || async move {
        let (limit, start, before) = (make(quick), Instant::now(), processor_time());
        let in_order = callers(&limit, n).await;
        let (took, used) = (start.elapsed(), processor_time() - before);
        let ideal = (n as f64 - f64::from(quick.burst)) / f64::from(quick.rate);
        let order = if in_order { "in order" } else { "not in order" };
        let note = format!("{:.2} × the ideal time, {order}", took.as_secs_f64() / ideal.max(1e-3));
        (used.as_secs_f64() * 1e6 / n as f64, note)
    })
}

/// How long ten at once take beside eight callers that take one after the other, in milliseconds.
fn large(make: fn(Quick) -> Arc<dyn Limit>) -> Measure {
    const PATIENCE: Duration = Duration::from_millis(500);
    figure(move || async move {
        let limit = make(Quick { rate: 1_000, burst: 10 });
        limit.acquire(10).await;
        let greedy: Vec<_> = (0..8)
            .map(|_| {
                let limit = limit.clone();
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    let begin = Instant::now();
                    while begin.elapsed() < PATIENCE {
                        let start = Instant::now();
                        if timeout(PATIENCE, limit.acquire(1)).await.is_ok() {
                            waits.push(start.elapsed());
                        }
                    }
                    waits
                })
            })
            .collect();
        yield_now().await;
        let start = Instant::now();
        let served = timeout(PATIENCE, limit.acquire(10)).await.is_ok();
        let took = start.elapsed();
        let mut waits: Vec<_> = join_all(greedy).await.into_iter().flatten().flatten().collect();
        waits.sort();
        let millis = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
        let (median, longest) = (millis(waits.get(waits.len() / 2)), millis(waits.last()));
        let end = if served { "served" } else { "gave up" };
        let note = format!("{end}; small ones: median {median:.1} ms, longest {longest:.0} ms");
        (took.as_secs_f64() * 1e3, note)
    })
}

/// From the abort of `n` waiters until the last of them is gone.
fn full_stop(quick: Quick, n: usize, make: fn(Quick) -> Arc<dyn Limit>) -> Measure {
    stopwatch(move || async move {
        let limit = make(quick);
        let mut waiters: Vec<_> = (0..n).map(|_| limit.acquire(1)).collect();
        for waiter in &mut waiters {
            let _ = poll!(waiter);
        }
        let start = std::time::Instant::now();
        drop(waiters);
        start.elapsed()
    })
}

/// Every other one of the callers is aborted when it waits.
fn storm(quick: Quick, n: usize, make: fn(Quick) -> Arc<dyn Limit>) -> Measure {
    time(move || async move {
        let limit = make(quick);
        let callers: Vec<_> = (0..n)
            .map(|_| {
                let limit = limit.clone();
                tokio::spawn(async move { limit.acquire(1).await })
            })
            .collect();
        yield_now().await;
        callers.iter().step_by(2).for_each(JoinHandle::abort);
        join_all(callers).await.into_iter().filter(Result::is_ok).count()
    })
}

fn rate_limit_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let quick = Quick { rate: 20_000, burst: 400 };
    let title = format!("processor time of {n} callers waiting, 20 k a second");
    let table = Table::new("rate_limit", title, "µs CPU/waiter", Flavour::CurrentThread, n)
        .recipe("rate_limit", waiting(quick, n, ours))
        .peer("governor until_ready", waiting(quick, n, by_governor))
        .peer("leaky-bucket", waiting(quick, n, leaky_fair))
        .peer("tower RateLimit behind a mutex", waiting(quick, n, by_tower))
        .floor("a timer for each", waiting(quick, n, by_timers))
        .python("by hand", &format!("rate_limit {n} 20000 400"));
    bench.measure(table);

    for n in [1_000, 10_000, 100_000].map(|n| bench.size(n)) {
        let quick = Quick { rate: 100_000, burst: 1_000 };
        let title = |n: usize| format!("{n} callers waiting, 100 k a second");
        let run = move |make: fn(Quick) -> Arc<dyn Limit>| {
            time(move || async move { callers(&make(quick), n).await })
        };
        let table = Table::new("rate_limit", title(n), "ns/waiter", Flavour::Paused, n)
            .grown_from(title(bench.size(10_000)))
            .recipe("rate_limit", run(ours))
            .peer("leaky-bucket", run(leaky_fair))
            .floor("a timer for each", run(by_timers));
        bench.measure(table);
    }

    let n = bench.size(1_000);
    let quick = Quick { rate: 1_000, burst: 1_000_000_000 };
    let run = |make: fn(Quick) -> Arc<dyn Limit>| {
        let limit = std::sync::OnceLock::new();
        let limit = Arc::new(limit);
        time(move || {
            let limit = limit.clone();
            async move {
                let limit: &Arc<dyn Limit> = limit.get_or_init(|| make(quick));
                for _ in 0..n {
                    limit.acquire(1).await;
                }
            }
        })
    };
    let mutex = Arc::new(Mutex::new(Instant::now()));
    let floor = time(move || {
        let mutex = mutex.clone();
        async move {
            for _ in 0..n {
                async { *mutex.lock().await = Instant::now() }.boxed().await;
            }
        }
    });
    let table =
        Table::new("rate_limit", "a token that is there".into(), "ns/call", Flavour::CurrentThread, n)
            .recipe("rate_limit", run(ours))
            .peer("governor until_ready", run(by_governor))
            .peer("leaky-bucket", run(leaky_fair))
            .peer("tower RateLimit behind a mutex", run(by_tower))
            .floor("a mutex and a look at the clock", floor)
            .python("by hand", &format!("rate_limit_there {n}"));
    bench.measure(table);

    let title = "ten at once beside 8 greedy callers, 1000 a second".to_string();
    let table = Table::new("rate_limit", title, "ms", Flavour::CurrentThread, 1)
        .recipe("rate_limit", large(ours))
        .peer("governor until_n_ready", large(by_governor))
        .peer("leaky-bucket, as it comes", large(leaky_fair))
        .peer("leaky-bucket, fair(false)", large(leaky_unfair))
        .peer("tower RateLimit, ten one by one", large(by_tower))
        .floor("8 and 10 tokens", figure(|| ready((18.0, String::new()))));
    bench.measure(table);

    let n = bench.size(10_000);
    let quick = Quick { rate: 1_000, burst: 10 };
    let title = format!("from the drop of {n} waiters to their end");
    let table = Table::new("rate_limit", title, "ns/waiter", Flavour::Paused, n)
        .recipe("rate_limit", full_stop(quick, n, ours))
        .peer("leaky-bucket", full_stop(quick, n, leaky_fair))
        .peer("tower RateLimit behind a mutex", full_stop(quick, n, by_tower))
        .floor("a timer for each", full_stop(quick, n, by_timers));
    bench.measure(table);
    let n = bench.size(1_000);
    let title = format!("{n} callers, every other one cancelled");
    let table = Table::new("rate_limit", title, "ns/call that ends", Flavour::Paused, n / 2)
        .recipe("rate_limit", storm(quick, n, ours))
        .peer("leaky-bucket", storm(quick, n, leaky_fair))
        .peer("tower RateLimit behind a mutex", storm(quick, n, by_tower))
        .floor("a timer for each", storm(quick, n, by_timers));
    bench.measure(table);
}

impl Limit for WindowLimit {
    fn acquire(&self, _: u32) -> BoxFuture<'_, ()> {
        async move { drop(self.acquire().await) }.boxed()
    }
}

fn by_window(quick: Quick) -> Arc<dyn Limit> {
    Arc::new(WindowLimit::new(not_zero(quick.rate), SECOND))
}

/// The most calls in any second: one, and two hundred towards the end of its second.
fn busiest(make: fn(Quick) -> Arc<dyn Limit>) -> Measure {
    figure(move || async move {
        let limit = make(Quick { rate: 100, burst: 100 });
        let mut starts = Vec::new();
        for call in 0..200 {
            limit.acquire(1).await;
            starts.push(Instant::now());
            if call == 0 {
                tokio::time::sleep(Duration::from_millis(990)).await;
            }
        }
        let within = |first: usize| {
            let inside = starts[first..].iter().take_while(|start| **start < starts[first] + SECOND);
            inside.count()
        };
        let most = (0..starts.len()).map(within).max().unwrap_or(0);
        (most as f64, String::new())
    })
}

fn window_limit_tables(bench: &mut Bench) {
    let title = "calls in the busiest second, of 100 a second".to_string();
    let table = Table::new("window_limit", title, "calls", Flavour::Paused, 1)
        .recipe("window_limit", busiest(by_window))
        .recipe("rate_limit, burst 100", busiest(ours))
        .peer("leaky-bucket, max 100", busiest(leaky_fair))
        .peer("tower RateLimit", busiest(by_tower))
        .floor("the limit", figure(|| ready((100.0, String::new()))));
    bench.measure(table);

    for n in [1_000, 10_000, 100_000].map(|n| bench.size(n)) {
        let title = |n: usize| format!("{n} callers waiting, n/10 in a window");
        let run = move |make: fn(Quick) -> Arc<dyn Limit>| {
            let rate = (n / 10) as u32;
            time(move || async move { callers(&make(Quick { rate, burst: rate }), n).await })
        };
        let table = Table::new("window_limit", title(n), "ns/waiter", Flavour::Paused, n)
            .grown_from(title(bench.size(10_000)))
            .recipe("window_limit", run(by_window))
            .peer("tower RateLimit behind a mutex", run(by_tower))
            .floor("a timer for each", run(by_timers));
        bench.measure(table);
    }
    let n = bench.size(1_000);
    let there = time(move || async move {
        let limit = WindowLimit::new(not_zero(2_000), SECOND);
        for _ in 0..n {
            drop(limit.acquire().await);
        }
    });
    let floor = time(move || async move {
        let log = Mutex::new(std::collections::VecDeque::new());
        for _ in 0..n {
            log.lock().await.push_back(Instant::now());
        }
    });
    let table =
        Table::new("window_limit", "a place that is there".into(), "ns/call", Flavour::CurrentThread, n)
            .recipe("window_limit", there)
            .floor("a mutex and a log", floor)
            .python("by hand", &format!("window_limit_there {n}"));
    bench.measure(table);
}
