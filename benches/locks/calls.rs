//! `keyed_mutex`, `single_flight`, `actor`.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use benches::{Bench, Flavour, Measure, Table, figure, time};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, join_all};
use locks::{Actor, KeyedMutex, Request, SingleFlight};
use semaphores::KeyedLimit;
use tokio::sync::{Mutex as TokioMutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::task::yield_now;

pub(crate) fn tables(bench: &mut Bench) {
    keyed_mutex_tables(bench);
    single_flight_tables(bench);
    actor_tables(bench);
}

const TASKS: usize = 64;
/// Calls of each task.
const CALLS: usize = 100;

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

/// What is written by hand most often: it keeps every key.
type Mutexes = Arc<Mutex<HashMap<usize, Arc<TokioMutex<()>>>>>;

async fn lock(mutexes: &Mutexes, key: usize) -> OwnedMutexGuard<()> {
    let mutex = mutexes.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    mutex.lock_owned().await
}

fn keyed_mutex_tables(bench: &mut Bench) {
    let one = || KeyedLimit::<usize>::new(NonZeroUsize::MIN, NonZeroUsize::MAX);
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let title = format!("{TASKS} tasks, each with a key of its own");
        let recipe = tasks(KeyedMutex::new, |mutex, key| async move {
            for _ in 0..CALLS {
                drop(mutex.lock(key).await);
            }
        });
        let limit = tasks(one, |limit, key| async move {
            for _ in 0..CALLS {
                drop(limit.acquire(key).await);
            }
        });
        let map = tasks(Mutexes::default, |mutexes, key| async move {
            for _ in 0..CALLS {
                drop(lock(&mutexes, key).await);
            }
        });
        let floor = tasks(
            || (),
            |(), _| async move {
                let mutex = TokioMutex::new(());
                for _ in 0..CALLS {
                    drop(mutex.lock().await);
                }
            },
        );
        let table = Table::new("keyed_mutex", title, "ns/lock", flavour, TASKS * CALLS)
            .recipe("lock", recipe)
            .peer("map of tokio Mutexes that keeps every key", map)
            .peer("keyed_limit of one", limit)
            .floor("a tokio Mutex each, no map", floor);
        let job = format!("keyed_mutex {TASKS} {CALLS} {TASKS}");
        bench.measure(if flavour == Flavour::CurrentThread {
            table.python("Lock by key, counted by hand", &job)
        } else {
            table
        });

        let title = format!("{TASKS} tasks, one key, pending once while it is held");
        let recipe = tasks(KeyedMutex::new, |mutex, _| async move {
            for _ in 0..CALLS {
                let _guard = mutex.lock(0).await;
                yield_now().await;
            }
        });
        let limit = tasks(one, |limit, _| async move {
            for _ in 0..CALLS {
                let _permit = limit.acquire(0).await;
                yield_now().await;
            }
        });
        let map = tasks(Mutexes::default, |mutexes, _| async move {
            for _ in 0..CALLS {
                let _guard = lock(&mutexes, 0).await;
                yield_now().await;
            }
        });
        let floor = tasks(
            || Arc::new(TokioMutex::new(())),
            |mutex, _| async move {
                for _ in 0..CALLS {
                    let _guard = mutex.lock().await;
                    yield_now().await;
                }
            },
        );
        let table = Table::new("keyed_mutex", title, "ns/lock", flavour, TASKS * CALLS)
            .recipe("lock", recipe)
            .peer("map of tokio Mutexes that keeps every key", map)
            .peer("keyed_limit of one", limit)
            .floor("one tokio Mutex, no map", floor);
        let job = format!("keyed_mutex {TASKS} {CALLS} 1");
        bench.measure(if flavour == Flavour::CurrentThread {
            table.python("Lock by key, counted by hand", &job)
        } else {
            table
        });
    }
    let mut smaller = None;
    for size in [10, 1_000, 100_000] {
        let size = bench.size(size);
        let title = format!("{size} keys held at once, then released");
        let recipe = time(move || async move {
            let mutex = KeyedMutex::new();
            let mut guards = Vec::new();
            for key in 0..size {
                guards.push(mutex.lock(key).await);
            }
            guards
        });
        let map = time(move || async move {
            let mutexes = Mutexes::default();
            let mut guards = Vec::new();
            for key in 0..size {
                guards.push(lock(&mutexes, key).await);
            }
            (guards, mutexes)
        });
        let table = Table::new("keyed_mutex", title.clone(), "ns/lock", Flavour::CurrentThread, size)
            .recipe("lock", recipe)
            .peer("map of tokio Mutexes that keeps every key", map);
        bench.measure(match smaller.replace(title) {
            Some(smaller) => table.grown_from(smaller),
            None => table,
        });
    }
    let title = "keys left after 100000 keys, one after the other".to_string();
    let recipe = figure(|| async {
        let mutex = KeyedMutex::new();
        for key in 0..100_000 {
            drop(mutex.lock(key).await);
        }
        (mutex.keys_in_use() as f64, String::new())
    });
    let map = figure(|| async {
        let mutexes = Mutexes::default();
        for key in 0..100_000 {
            drop(lock(&mutexes, key).await);
        }
        (mutexes.lock().unwrap_or_else(PoisonError::into_inner).len() as f64, String::new())
    });
    let table = Table::new("keyed_mutex", title, "keys", Flavour::CurrentThread, 1)
        .recipe("lock", recipe)
        .peer("map of tokio Mutexes that keeps every key", map);
    bench.measure(table);
}

/// What is written by hand: the callers poll the shared future, and whoever sees its end removes it.
type Futures = Arc<Mutex<HashMap<usize, Shared<BoxFuture<'static, usize>>>>>;

async fn shared(futures: Futures, key: usize, work: impl Future<Output = usize> + Send + 'static) -> usize {
    let future = {
        let mut map = futures.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(key).or_insert_with(|| work.boxed().shared()).clone()
    };
    let output = future.clone().await;
    let mut map = futures.lock().unwrap_or_else(PoisonError::into_inner);
    if map.get(&key).is_some_and(|other| other.ptr_eq(&future)) {
        map.remove(&key);
    }
    output
}

async fn work() -> usize {
    yield_now().await;
    yield_now().await;
    7
}

/// Callers of one key, as tasks. Of `leave` of them one gives up after its first poll.
fn callers<S, F>(state: fn() -> S, call: fn(S) -> F, size: usize, leave: usize) -> Measure
where
    S: Clone + Send + 'static,
    F: Future<Output = usize> + Send + 'static,
{
    time(move || {
        let state = state();
        async move {
            let task = |number: usize| {
                let call = call(state.clone());
                tokio::spawn(async move {
                    if (number + 1).is_multiple_of(leave) {
                        call.now_or_never().unwrap_or(0)
                    } else {
                        call.await
                    }
                })
            };
            let tasks: Vec<_> = (0..size).map(task).collect();
            for task in tasks {
                let _ = task.await;
            }
        }
    })
}

fn single_flight_tables(bench: &mut Bench) {
    let recipe =
        |flights: SingleFlight<usize, usize>| async move { flights.run(0, work()).await.unwrap_or(0) };
    let peer = |futures: Futures| shared(futures, 0, work());
    let floor = |number: watch::Receiver<usize>| async move {
        let mut number = number;
        number.wait_for(|number| *number == 7).await.map_or(0, |number| *number)
    };
    let watch = || {
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(async move { sender.send(work().await) });
        receiver
    };
    let mut smaller = None;
    for size in [10, 1_000, 100_000] {
        let size = bench.size(size);
        let title = format!("{size} callers of one key, work pending twice");
        let table = Table::new("single_flight", title.clone(), "ns/caller", Flavour::CurrentThread, size)
            .recipe("run", callers(SingleFlight::new, recipe, size, usize::MAX))
            .peer("map of futures::Shared, by hand", callers(Futures::default, peer, size, usize::MAX))
            .floor("receivers of a watch channel", callers(watch, floor, size, usize::MAX));
        let table = match smaller.replace(title) {
            Some(smaller) => table.grown_from(smaller),
            None => table,
        };
        bench.measure(if size == 1_000 {
            table.python("dict of tasks, shielded", "single_flight 1000")
        } else {
            table
        });
    }
    let title = "1000 callers of one key, every other one leaves".to_string();
    let table = Table::new("single_flight", title, "ns/caller", Flavour::MultiThread, 1_000)
        .recipe("run", callers(SingleFlight::new, recipe, 1_000, 2))
        .peer("map of futures::Shared, by hand", callers(Futures::default, peer, 1_000, 2))
        .floor("receivers of a watch channel", callers(watch, floor, 1_000, 2));
    bench.measure(table);

    let title = "one caller after the other: nothing to share".to_string();
    let calls = 1_000;
    let recipe = time(move || async move {
        let flights = SingleFlight::new();
        for key in 0..calls {
            let _ = flights.run(key, work()).await;
        }
    });
    let peer = time(move || async move {
        let futures = Futures::default();
        for key in 0..calls {
            shared(futures.clone(), key, work()).await;
        }
    });
    let task = time(move || async move {
        for _ in 0..calls {
            let _ = tokio::spawn(work()).await;
        }
    });
    let floor = time(move || async move {
        for _ in 0..calls {
            work().await;
        }
    });
    let table = Table::new("single_flight", title, "ns/call", Flavour::CurrentThread, calls)
        .recipe("run", recipe)
        .peer("map of futures::Shared, by hand", peer)
        .peer("spawn and await, not shared", task)
        .floor("the call itself", floor);
    bench.measure(table);
}

struct Add(u64);

impl Request<u64> for Add {
    type Reply = u64;

    async fn handle(self, sum: &mut u64) -> u64 {
        *sum += self.0;
        *sum
    }
}

struct AddLater(u64);

impl Request<u64> for AddLater {
    type Reply = u64;

    async fn handle(self, sum: &mut u64) -> u64 {
        yield_now().await;
        *sum += self.0;
        *sum
    }
}

const ROOM: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// An actor, and callers that ask it again and again.
fn actors<R: Request<u64>>(request: fn(u64) -> R) -> Measure {
    time(move || async move {
        let actor = Actor::start(0, ROOM);
        let caller = |_| {
            let address = actor.address();
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let _ = address.ask(request(1)).await;
                }
            })
        };
        let callers: Vec<_> = (0..TASKS).map(caller).collect();
        join_all(callers).await;
        actor.stop(Duration::MAX).await.ok()
    })
}

/// The same with a channel and one kind of message.
fn by_hand(pending: bool) -> Measure {
    time(move || async move {
        let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(ROOM.get());
        let actor = tokio::spawn(async move {
            let mut sum = 0;
            while let Some((amount, reply)) = receiver.recv().await {
                if pending {
                    yield_now().await;
                }
                sum += amount;
                let _ = reply.send(sum);
            }
            sum
        });
        let caller = |_| {
            let sender = sender.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let (reply, answer) = oneshot::channel();
                    let _ = sender.send((1, reply)).await;
                    let _ = answer.await;
                }
            })
        };
        let callers: Vec<_> = (0..TASKS).map(caller).collect();
        join_all(callers).await;
        drop(sender);
        actor.await.ok()
    })
}

fn actor_tables(bench: &mut Bench) {
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let std = tasks(
            || Arc::new(Mutex::new(0_u64)),
            |sum, _| async move {
                for _ in 0..CALLS {
                    *sum.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
            },
        );
        let tokio = tasks(
            || Arc::new(TokioMutex::new(0_u64)),
            |sum, _| async move {
                for _ in 0..CALLS {
                    *sum.lock().await += 1;
                }
            },
        );
        let table = Table::new(
            "actor",
            format!("{TASKS} callers, a change that never waits"),
            "ns/call",
            flavour,
            TASKS * CALLS,
        )
        .recipe("ask", actors(Add))
        .peer("channel and oneshot by hand", by_hand(false))
        .peer("tokio Mutex", tokio)
        .floor("std Mutex", std);
        let job = format!("actor {TASKS} {CALLS} 0");
        bench.measure(if flavour == Flavour::CurrentThread {
            table.python("Queue and futures", &job)
        } else {
            table
        });

        let tokio = tasks(
            || Arc::new(TokioMutex::new(0_u64)),
            |sum, _| async move {
                for _ in 0..CALLS {
                    let mut sum = sum.lock().await;
                    yield_now().await;
                    *sum += 1;
                }
            },
        );
        let table = Table::new(
            "actor",
            format!("{TASKS} callers, a change that is pending once"),
            "ns/call",
            flavour,
            TASKS * CALLS,
        )
        .recipe("ask", actors(AddLater))
        .peer("channel and oneshot by hand", by_hand(true))
        .peer("tokio Mutex", tokio);
        let job = format!("actor {TASKS} {CALLS} 1");
        bench.measure(if flavour == Flavour::CurrentThread {
            table.python("Queue and futures", &job)
        } else {
            table
        });
    }
    let title = "start, one request, and a full stop".to_string();
    let recipe = time(|| async {
        let actor = Actor::start(0, ROOM);
        let sum = actor.address().ask(Add(1)).await;
        (sum, actor.stop(Duration::from_secs(60)).await)
    });
    let floor = time(|| async {
        let task = tokio::spawn(async { yield_now().await });
        task.await
    });
    let table = Table::new("actor", title, "ns/actor", Flavour::CurrentThread, 1)
        .recipe("Actor", recipe)
        .floor("spawn and await", floor);
    bench.measure(table);
}
