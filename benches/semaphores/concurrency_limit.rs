//! `concurrency_limit`, `weighted_limit`, `keyed_limit`, `adaptive_limit`.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use benches::{Bench, Flavour, Measure, Table, figure, time};
use futures::future::join_all;
use semaphores::{AdaptiveLimit, ConcurrencyLimit, Held, KeyedLimit, Rules, Verdict, WeightedLimit};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimit as TowerLimit;
use tower::{Service, ServiceExt, service_fn};

pub(crate) fn tables(bench: &mut Bench) {
    concurrency_limit_tables(bench);
    weighted_limit_tables(bench);
    keyed_limit_tables(bench);
    adaptive_limit_tables(bench);
}

const TASKS: usize = 64;
/// Calls of each task.
const CALLS: usize = 100;
const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Each of the tasks calls again and again.
fn tasks<S, F>(state: impl Fn() -> S + Send + Sync + 'static, call: fn(S, usize) -> F) -> Measure
where
    S: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time(move || {
        let state = state();
        async move {
            let task = |number| {
                let state = state.clone();
                tokio::spawn(call(state, number))
            };
            join_all((0..TASKS).map(task)).await
        }
    })
}

fn concurrency_limit_tables(bench: &mut Bench) {
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let title = format!("{TASKS} tasks, 4 at a time, each call pending once");
        let tokio_owned = tasks(
            || Arc::new(Semaphore::new(4)),
            |limit, _| async move {
                for _ in 0..CALLS {
                    let _permit = limit.clone().acquire_owned().await;
                    yield_now().await;
                }
            },
        );
        let tokio = tasks(
            || Arc::new(Semaphore::new(4)),
            |limit, _| async move {
                for _ in 0..CALLS {
                    let _permit = limit.acquire().await;
                    yield_now().await;
                }
            },
        );
        let run = tasks(
            || ConcurrencyLimit::new(FOUR),
            |limit, _| async move {
                for _ in 0..CALLS {
                    limit.run(yield_now).await;
                }
            },
        );
        let hold = tasks(
            || ConcurrencyLimit::new(FOUR),
            |limit, _| async move {
                for _ in 0..CALLS {
                    let held = limit.hold(async || Ok::<_, ()>(())).await;
                    yield_now().await;
                    let _ = held.map(Held::release);
                }
            },
        );
        let service = || {
            TowerLimit::new(
                service_fn(async |()| {
                    yield_now().await;
                    Ok::<_, ()>(())
                }),
                4,
            )
        };
        let tower = tasks(service, |mut limit, _| async move {
            for _ in 0..CALLS {
                if let Ok(ready) = limit.ready().await {
                    let _ = ready.call(()).await;
                }
            }
        });
        let lanes = time(|| gather::map_ordered(0..TASKS * CALLS, FOUR, async |_| yield_now().await));
        let table = Table::new("concurrency_limit", title, "ns/call", flavour, TASKS * CALLS)
            .recipe("run", run)
            .recipe("hold", hold)
            .peer("tokio Semaphore, borrowed", tokio)
            .peer("tokio Semaphore, owned", tokio_owned)
            .peer("tower ConcurrencyLimit", tower)
            .floor("map_ordered, 4 lanes and no semaphore", lanes);
        let job = format!("concurrency_limit {TASKS} {CALLS}");
        bench.measure(if flavour == Flavour::CurrentThread {
            table.python("Semaphore", &job)
        } else {
            table
        });
    }
    let title = "1000 callers, 4 at a time, every other one cancelled".to_string();
    let table = Table::new("concurrency_limit", title, "ns/call that ends", Flavour::CurrentThread, 500)
        .recipe(
            "run",
            storm(|| ConcurrencyLimit::new(FOUR), |limit| async move { limit.run(pending_thrice).await }),
        )
        .peer(
            "tokio Semaphore, borrowed",
            storm(
                || Arc::new(Semaphore::new(4)),
                |limit| async move {
                    let _permit = limit.acquire().await;
                    pending_thrice().await;
                },
            ),
        );
    bench.measure(table);
}

async fn pending_thrice() {
    for _ in 0..3 {
        yield_now().await;
    }
}

/// Many callers, every other one aborted when it has begun.
fn storm<S, F>(state: impl Fn() -> S + Send + Sync + 'static, call: fn(S) -> F) -> Measure
where
    S: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time(move || {
        let state = state();
        async move {
            let callers: Vec<_> = (0..1000).map(|_| tokio::spawn(call(state.clone()))).collect();
            yield_now().await;
            callers.iter().step_by(2).for_each(JoinHandle::abort);
            join_all(callers).await.into_iter().filter(Result::is_ok).count()
        }
    })
}

/// The least that one writes without a queue: try, and wait for a change.
struct TryAgain {
    permits: Semaphore,
    changed: Notify,
}

fn weighted_limit_tables(bench: &mut Bench) {
    let title = format!("{TASKS} tasks, weights 1 to 8 of a budget of 16, each call pending once");
    let budget = || WeightedLimit::new(FOUR.saturating_mul(FOUR));
    let recipe = tasks(budget, |limit, number| async move {
        for _ in 0..CALLS {
            let _share = limit.acquire(1 + number % 8).await;
            yield_now().await;
        }
    });
    let tokio = tasks(
        || Arc::new(Semaphore::new(16)),
        |limit, number| async move {
            for _ in 0..CALLS {
                let _permit = limit.clone().acquire_many_owned(1 + number as u32 % 8).await;
                yield_now().await;
            }
        },
    );
    let table = Table::new("weighted_limit", title, "ns/call", Flavour::CurrentThread, TASKS * CALLS)
        .recipe("weighted_limit", recipe)
        .peer("tokio Semaphore, acquire_many_owned", tokio)
        .python("Condition", &format!("weighted_limit {TASKS} {CALLS}"));
    bench.measure(table);

    let title = "8 greedy callers of 1, and one that needs all 10: its longest wait in 10 s".to_string();
    let table = Table::new("weighted_limit", title, "ms", Flavour::Paused, 1)
        .recipe(
            "weighted_limit",
            waits(
                || WeightedLimit::new(NonZeroUsize::new(10).expect("10")),
                |limit: WeightedLimit, weight| async move { limit.acquire(weight as usize).await },
            ),
        )
        .peer(
            "tokio Semaphore, acquire_many_owned",
            waits(
                || Arc::new(Semaphore::new(10)),
                |limit: Arc<Semaphore>, weight| async move { limit.acquire_many_owned(weight).await },
            ),
        )
        .peer(
            "try_acquire_many and Notify",
            waits(
                || Arc::new(TryAgain { permits: Semaphore::new(10), changed: Notify::new() }),
                |limit: Arc<TryAgain>, weight| limit.take(weight),
            ),
        );
    bench.measure(table);
}

impl TryAgain {
    async fn take(self: Arc<Self>, weight: u32) -> Taken {
        loop {
            let changed = self.changed.notified();
            if let Ok(permit) = self.permits.try_acquire_many(weight) {
                permit.forget();
                return Taken(self.clone(), weight);
            }
            changed.await;
        }
    }
}

struct Taken(Arc<TryAgain>, u32);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.permits.add_permits(self.1 as usize);
        self.0.changed.notify_waiters();
    }
}

/// The longest wait of the one that needs everything, beside the median wait of those that need little.
fn waits<S, F, P>(state: fn() -> S, acquire: fn(S, u32) -> F) -> Measure
where
    S: Clone + Send + Sync + 'static,
    F: Future<Output = P> + Send + 'static,
    P: Send + 'static,
{
    figure(move || async move {
        let (limit, start) = (state(), Instant::now());
        let caller = move |weight, works: u64| {
            let limit = limit.clone();
            async move {
                let mut waits = Vec::new();
                while start.elapsed() < Duration::from_secs(10) {
                    let asked = Instant::now();
                    let permit = acquire(limit.clone(), weight).await;
                    waits.push(asked.elapsed());
                    sleep(Duration::from_millis(works)).await;
                    drop(permit);
                }
                waits
            }
        };
        let greedy: Vec<_> = (0..8).map(|number| tokio::spawn(caller(1, 10 + number))).collect();
        sleep(Duration::from_millis(5)).await;
        let large = tokio::spawn(caller(10, 10)).await.unwrap_or_default();
        let mut small: Vec<_> =
            join_all(greedy).await.into_iter().flat_map(Result::unwrap_or_default).collect();
        small.sort();
        let millis = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
        let note = format!(
            "served {} times; the others wait {} ms, median",
            large.len(),
            millis(small.get(small.len() / 2))
        );
        (millis(large.iter().max()), note)
    })
}

type Semaphores = Arc<Mutex<HashMap<usize, Arc<Semaphore>>>>;

fn keyed_limit_tables(bench: &mut Bench) {
    for keys in [10, 1_000, 100_000].map(|keys| bench.size(keys)) {
        let title = |keys: usize| {
            format!("10 k calls over {keys} keys, 1 for each and 64 in all, each call pending once")
        };
        let calls = bench.size(10_000);
        let limit = || KeyedLimit::new(NonZeroUsize::MIN, NonZeroUsize::new(TASKS).expect("64"));
        let recipe = time(move || {
            let limit = limit();
            async move {
                let call = async |number: usize| {
                    let _permit = limit.acquire(number % keys).await;
                    yield_now().await;
                };
                gather::gather((0..calls).map(call)).await
            }
        });
        let never_emptied = time(move || {
            let (overall, semaphores) = (Arc::new(Semaphore::new(TASKS)), Semaphores::default());
            async move {
                let call = async |number: usize| {
                    let permits = {
                        let mut semaphores = semaphores.lock().expect("nobody panics");
                        let new = || Arc::new(Semaphore::new(1));
                        semaphores.entry(number % keys).or_insert_with(new).clone()
                    };
                    let _of_key = permits.acquire_owned().await;
                    let _of_all = overall.clone().acquire_owned().await;
                    yield_now().await;
                };
                gather::gather((0..calls).map(call)).await
            }
        });
        let one = time(move || {
            let limit = Semaphore::new(TASKS);
            async move {
                let call = async |_| {
                    let _permit = limit.acquire().await;
                    yield_now().await;
                };
                gather::gather((0..calls).map(call)).await
            }
        });
        let table = Table::new("keyed_limit", title(keys), "ns/call", Flavour::CurrentThread, calls)
            .grown_from(title(10))
            .recipe("keyed_limit", recipe)
            .peer("a map of semaphores that is never emptied", never_emptied)
            .floor("one semaphore, no keys", one)
            .python("Semaphores in a dict", &format!("keyed_limit {calls} {keys} {TASKS}"));
        bench.measure(table);
    }
}

fn adaptive_limit_tables(bench: &mut Bench) {
    let title = format!("{TASKS} tasks, 4 at a time, each call pending once");
    let bounds = || {
        let rules = Rules { least: FOUR, most: FOUR, target: Duration::from_secs(1) };
        AdaptiveLimit::new(rules)
    };
    let recipe = tasks(bounds, |limit, _| async move {
        for _ in 0..CALLS {
            limit.run(yield_now, |()| Verdict::Fine).await;
        }
    });
    let fixed = tasks(
        || ConcurrencyLimit::new(FOUR),
        |limit, _| async move {
            for _ in 0..CALLS {
                limit.run(yield_now).await;
            }
        },
    );
    let table = Table::new("adaptive_limit", title, "ns/call", Flavour::CurrentThread, TASKS * CALLS)
        .recipe("adaptive_limit", recipe)
        .floor("concurrency_limit, which learns nothing", fixed);
    bench.measure(table);

    let title =
        "a simulated server with room for 20, 100 clients, 10 s: time for each call that met its 15 ms"
            .to_string();
    let fixed = |limit: usize| {
        let limit = NonZeroUsize::new(limit).expect("above zero");
        simulated(move || AdaptiveLimit::new(Rules { least: limit, most: limit, target: Duration::MAX }))
    };
    let adaptive = || {
        let [least, most] = [NonZeroUsize::MIN, NonZeroUsize::MAX];
        AdaptiveLimit::new(Rules { least, most, target: Duration::from_millis(15) })
    };
    let table = Table::new("adaptive_limit", title, "ms", Flavour::Paused, 1)
        .recipe("adaptive_limit, from 1", simulated(adaptive))
        .peer("a fixed limit of 5: too low", fixed(5))
        .peer("a fixed limit of 64: too high", fixed(64))
        .floor("a fixed limit of 20: known beforehand", fixed(20));
    bench.measure(table);
}

/// Time for each call that was answered within 15 ms, when the server slows down with its load.
fn simulated(limit: impl Fn() -> AdaptiveLimit + 'static) -> Measure {
    figure(move || {
        let limit = limit();
        async move {
            let (running, good, all) = (Mutex::new(0_u32), Mutex::new(0_u32), Mutex::new(0_u32));
            let start = Instant::now();
            let call = async || {
                let load = {
                    let mut running = running.lock().expect("nobody panics");
                    *running += 1;
                    f64::from(*running) / 20.0
                };
                let took = Duration::from_millis(10).mul_f64(load.max(1.0).powi(2));
                sleep(took).await;
                *running.lock().expect("nobody panics") -= 1;
                *all.lock().expect("nobody panics") += 1;
                *good.lock().expect("nobody panics") += u32::from(took <= Duration::from_millis(15));
            };
            let client = async |_| {
                while start.elapsed() < Duration::from_secs(10) {
                    limit.run(&call, |()| Verdict::Fine).await;
                }
            };
            gather::gather((0..100).map(client)).await;
            let (good, all) = (*good.lock().expect("nobody panics"), *all.lock().expect("nobody panics"));
            let note = format!("{good} of {all} calls in time; the limit is {} at the end", limit.limit());
            (start.elapsed().as_secs_f64() * 1e3 / f64::from(good.max(1)), note)
        }
    })
}
