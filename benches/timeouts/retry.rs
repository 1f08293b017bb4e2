//! `retry`, `retry_budget`, `hedge`.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ::timeouts::{Latencies, Retry, RetryBudget, Verdict, hedge, retry};
use backon::{ExponentialBuilder, Retryable};
use benches::{Bench, Flavour, Measure, Table, figure, time};
use futures::FutureExt;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower::hedge::{Hedge, Policy};
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Service, ServiceExt, service_fn};

pub(crate) fn tables(bench: &mut Bench) {
    retry_tables(bench);
    retry_budget_tables(bench);
    hedge_tables(bench);
}

const THOUSAND: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

type Answer = Result<usize, usize>;

async fn pending_once() -> Answer {
    yield_now().await;
    Ok(1)
}

/// Fails so often, and then succeeds.
fn failing(times: usize) -> impl FnMut() -> std::future::Ready<Answer> {
    let mut number = 0;
    move || {
        number += 1;
        ready(if number > times { Ok(number) } else { Err(number) })
    }
}

fn transient(_: &usize) -> Verdict {
    Verdict::Transient
}

async fn by_hand<F: Future<Output = Answer>>(mut attempt: impl FnMut() -> F) -> Answer {
    let mut backoff = Duration::from_millis(1);
    for _ in 0..3 {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(_) => sleep(backoff).await,
        }
        backoff *= 2;
    }
    attempt().await
}

/// The row of `n` calls one after another.
fn calls<F: Future + Send>(n: usize, call: impl Fn() -> F + Copy + Send + Sync + 'static) -> Measure {
    time(move || async move {
        for _ in 0..n {
            black_box(call().await);
        }
    })
}

static BUDGET: RetryBudget = RetryBudget::new(10, THOUSAND);
static PLAIN: LazyLock<Retry<'static>> =
    LazyLock::new(|| Retry { base: Duration::from_millis(1), ..Retry::default() });
static BUDGETED: LazyLock<Retry<'static>> = LazyLock::new(|| Retry { budget: Some(&BUDGET), ..*PLAIN });

fn retry_tables(bench: &mut Bench) {
    let n = bench.size(1_000);
    let plan = ExponentialBuilder::new().with_min_delay(Duration::from_millis(1)).with_jitter();
    let table = Table::new("retry", "succeeds at once".into(), "ns/call", Flavour::CurrentThread, n)
        .recipe("retry", calls(n, || retry(&PLAIN, transient, |_| ready(Answer::Ok(1)))))
        .recipe("retry, with a budget", calls(n, || retry(&BUDGETED, transient, |_| ready(Answer::Ok(1)))))
        .peer("backon", calls(n, move || (|| ready(Answer::Ok(1))).retry(plan)))
        .floor("loop by hand, no limits", calls(n, || by_hand(|| ready(Answer::Ok(1)))))
        .python("asyncio.timeout in a loop", &format!("retry_ready {n}"));
    bench.measure(table);
    let table = Table::new("retry", "pending once".into(), "ns/call", Flavour::CurrentThread, n)
        .recipe("retry", calls(n, || retry(&PLAIN, transient, |_| pending_once())))
        .peer("backon, no limit for attempts", calls(n, move || pending_once.retry(plan)))
        .peer(
            "backon in tokio timeout",
            calls(n, move || tokio::time::timeout(Duration::from_secs(30), pending_once.retry(plan))),
        )
        .floor("loop by hand, no limits", calls(n, || by_hand(pending_once)))
        .python("asyncio.timeout in a loop", &format!("retry_pending {n}"));
    bench.measure(table);
    let table = Table::new("retry", "succeeds at the third attempt".into(), "ns/call", Flavour::Paused, n)
        .recipe(
            "retry",
            calls(n, || {
                let mut attempt = failing(2);
                retry(&PLAIN, transient, move |_| attempt())
            }),
        )
        .peer("backon", calls(n, move || failing(2).retry(plan)))
        .floor("loop by hand, no limits", calls(n, || by_hand(failing(2))));
    bench.measure(table);
}

static SHARED: RetryBudget = RetryBudget::new(100, THOUSAND);

fn retry_budget_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let table = Table::new("retry_budget", "a call and a retry".into(), "ns/call", Flavour::CurrentThread, n)
        .recipe(
            "retry_budget",
            time(move || async move {
                for _ in 0..n {
                    SHARED.deposit();
                    if let Some(extra) = black_box(SHARED.withdraw()) {
                        extra.start();
                    }
                }
            }),
        )
        .peer(
            "tower TpsBudget",
            time({
                let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 1.0));
                move || {
                    let budget = budget.clone();
                    async move {
                        for _ in 0..n {
                            budget.deposit();
                            black_box(budget.withdraw());
                        }
                    }
                }
            }),
        )
        .floor(
            "two atomic additions",
            time(move || async move {
                let counter = AtomicUsize::new(0);
                for _ in 0..n {
                    black_box(&counter).fetch_add(1, Relaxed);
                    black_box(&counter).fetch_sub(1, Relaxed);
                }
            }),
        )
        .python("two integers", &format!("budget {n}"));
    bench.measure(table);
}

#[derive(Clone)]
struct Always;

impl Policy<()> for Always {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}

static LATENCIES: LazyLock<Latencies> =
    LazyLock::new(|| Latencies::new(0.95, THOUSAND).expect("0.95 is a quantile"));

fn hedge_tables(bench: &mut Bench) {
    let n = bench.size(10_000);
    let table = Table::new("hedge", "pending once".into(), "ns/call", Flavour::CurrentThread, n)
        .recipe("hedge", calls(n, || hedge(&LATENCIES, &BUDGET, |_| pending_once())))
        .peer(
            "tower Hedge",
            time(move || async move {
                let service = service_fn(|()| pending_once().map(|_| Ok::<_, Infallible>(1)));
                let period = Duration::from_secs(60);
                let mut hedged =
                    Hedge::new_with_mock_latencies(service, Always, 10, 0.95, period, &[50; 100]);
                for _ in 0..n {
                    if let Ok(ready) = hedged.ready().await {
                        let _ = black_box(ready.call(()).await);
                    }
                }
            }),
        )
        .floor("no hedge", calls(n, pending_once))
        .python("asyncio.wait", &format!("hedge_pending {n}"));
    bench.measure(table);
    let title = "hedged calls at 0.95, exponential latencies";
    let table = Table::new("hedge", title.into(), "%", Flavour::Paused, 1)
        .recipe("hedge", hedged_share(n, true))
        .peer("tower Hedge", hedged_share(n, false))
        .floor("the share that the quantile means", figure(|| ready((5.0, String::new()))));
    bench.measure(table);
}

/// How many of `n` calls are hedged after 2,000 to warm up, in per cent.
fn hedged_share(n: usize, recipe: bool) -> Measure {
    figure(move || async move {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(7)));
        let copies = Arc::new(AtomicUsize::new(0));
        let counted = copies.clone();
        let copy = move || {
            counted.fetch_add(1, Relaxed);
            let uniform = random.lock().map_or(0.5, |mut random| random.f64());
            sleep(Duration::from_secs_f64(-0.1 * (1.0 - uniform).ln())).map(|()| Ok::<_, Infallible>(()))
        };
        let latencies = Latencies::new(0.95, THOUSAND).expect("0.95 is a quantile");
        let budget = RetryBudget::new(100, THOUSAND);
        let service = copy.clone();
        let mut tower =
            Hedge::new(service_fn(move |()| service()), Always, 500, 0.95, Duration::from_secs(100));
        for call in 0..n + 2_000 {
            if call == 2_000 {
                copies.store(0, Relaxed);
            }
            if recipe {
                let _ = hedge(&latencies, &budget, |_| copy()).await;
            } else if let Ok(ready) = tower.ready().await {
                let _ = ready.call(()).await;
            }
        }
        ((copies.load(Relaxed) as f64 / n as f64 - 1.0) * 100.0, String::new())
    })
}
