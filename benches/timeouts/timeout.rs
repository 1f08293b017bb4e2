//! `timeout`, `deadline`, `circuit_breaker`, `poll_until`.

use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ::timeouts::{BreakerRules, CircuitBreaker, Deadline, Limit, Polling, poll_until, timeout};
use benches::{Bench, Flavour, Table, time};
use futures::future::join_all;
use tokio::task::yield_now;
use tower::{Service, ServiceExt};

pub(crate) fn tables(bench: &mut Bench) {
    timeout_tables(bench);
    deadline_tables(bench);
    circuit_breaker_tables(bench);
    poll_until_tables(bench);
}

const MINUTE: Duration = Duration::from_secs(60);
/// Calls in one measured body, so that the body's own cost does not count.
const CALLS: usize = 1_000;

/// Awaits what `call` makes, again and again.
async fn repeat<F: Future>(call: impl Fn(usize) -> F) {
    for i in 0..CALLS {
        std::hint::black_box(call(std::hint::black_box(i)).await);
    }
}

async fn pending_once(value: usize) -> usize {
    yield_now().await;
    value
}

fn timeout_tables(bench: &mut Bench) {
    let tower = || async {
        let mut service = tower::timeout::Timeout::new(
            tower::service_fn(|i| ready(Ok::<usize, tower::BoxError>(i))),
            MINUTE,
        );
        for i in 0..CALLS {
            let _ = std::hint::black_box(match service.ready().await {
                Ok(service) => service.call(i).await,
                Err(error) => Err(error),
            });
        }
    };
    let title = "a call that is ready at once".to_string();
    let table = Table::new("timeout", title, "ns/call", Flavour::CurrentThread, CALLS)
        .recipe("timeout", time(|| repeat(|i| timeout("call", MINUTE, ready(i)))))
        .recipe("Limit::run", time(|| repeat(async |i| Limit::new("call", MINUTE).run(ready(i)).await)))
        .peer("tokio::time::timeout", time(|| repeat(|i| tokio::time::timeout(MINUTE, ready(i)))))
        .peer("tower Timeout", time(tower))
        .floor("the call alone", time(|| repeat(ready)))
        .python("asyncio.wait_for", &format!("timeout_ready {CALLS}"));
    bench.measure(table);
    let title = "a call that is pending once".to_string();
    let table = Table::new("timeout", title, "ns/call", Flavour::CurrentThread, CALLS)
        .recipe("timeout", time(|| repeat(|i| timeout("call", MINUTE, pending_once(i)))))
        .recipe(
            "Limit::run",
            time(|| repeat(async |i| Limit::new("call", MINUTE).run(pending_once(i)).await)),
        )
        .peer("tokio::time::timeout", time(|| repeat(|i| tokio::time::timeout(MINUTE, pending_once(i)))))
        .floor("the call alone", time(|| repeat(pending_once)))
        .python("asyncio.wait_for", &format!("timeout_pending {CALLS}"));
    bench.measure(table);
}

fn deadline_tables(bench: &mut Bench) {
    for n in [10, 1_000, 100_000].map(|n| bench.size(n)) {
        let title = |n| format!("{n} calls together, each pending once");
        let table = Table::new("deadline", title(n), "ns/call", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe(
                "run_all, one timer",
                time(move || async move {
                    Deadline::after("all", MINUTE).run_all((0..n).map(pending_once)).await
                }),
            )
            .peer(
                "tokio::time::timeout each",
                time(move || join_all((0..n).map(|i| tokio::time::timeout(MINUTE, pending_once(i))))),
            )
            .floor("join_all alone", time(move || join_all((0..n).map(pending_once))))
            .floor("gather alone", time(move || gather::gather((0..n).map(pending_once))))
            .python("asyncio.wait", &format!("deadline {n}"));
        bench.measure(table);
    }
}

fn circuit_breaker_tables(bench: &mut Bench) {
    let rules = BreakerRules { failures: NonZeroUsize::MAX, pause: MINUTE, probes: NonZeroUsize::MIN };
    let closed = Arc::new(CircuitBreaker::new("api", rules));
    let open = Arc::new(CircuitBreaker::new(
        "api",
        BreakerRules { failures: NonZeroUsize::MIN, pause: Duration::MAX, ..rules },
    ));
    let title = "a call that is ready at once".to_string();
    let table = Table::new("circuit_breaker", title, "ns/call", Flavour::CurrentThread, CALLS)
        .recipe(
            "closed",
            time(move || {
                let breaker = closed.clone();
                async move { repeat(|i| breaker.call(ready(Ok::<usize, usize>(i)))).await }
            }),
        )
        .recipe(
            "open",
            time(move || {
                let breaker = open.clone();
                async move { repeat(|i| breaker.call(ready(Err::<usize, usize>(i)))).await }
            }),
        )
        .floor("the call alone", time(|| repeat(|i| ready(Ok::<usize, usize>(i)))))
        .python("by hand", &format!("circuit_breaker {CALLS}"));
    bench.measure(table);
}

fn poll_until_tables(bench: &mut Bench) {
    let rules = || Polling { limit: MINUTE, pause: Duration::ZERO..=Duration::ZERO };
    let title = "met at the first poll".to_string();
    let table = Table::new("poll_until", title, "ns/call", Flavour::CurrentThread, CALLS)
        .recipe(
            "poll_until",
            time(move || repeat(move |i| poll_until("call", rules(), move || ready(i), |_| true))),
        )
        .floor("the poll alone", time(|| repeat(ready)))
        .python("loop under asyncio.timeout", &format!("poll_until {CALLS}"));
    bench.measure(table);
}
