//! `shared_state`, `snapshot`.

use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use benches::{Bench, Flavour, Measure, Table, time};
use futures::future::join_all;
use locks::{Shared, Snapshot, update};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::yield_now;

pub(crate) fn tables(bench: &mut Bench) {
    shared_state_tables(bench);
    snapshot_tables(bench);
}

const TASKS: usize = 64;
/// Changes or reads of each task.
const CALLS: usize = 100;

/// So many tasks, each of which calls again and again.
fn tasks<S, F>(
    tasks: usize,
    state: impl Fn() -> S + Send + Sync + 'static,
    call: fn(Arc<S>, usize) -> F,
) -> Measure
where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    time(move || {
        let state = Arc::new(state());
        async move { join_all((0..tasks).map(|number| tokio::spawn(call(state.clone(), number)))).await }
    })
}

/// A counter that a task owns.
fn actor() -> mpsc::Sender<u64> {
    let (sender, mut inbox) = mpsc::channel(TASKS);
    tokio::spawn(async move {
        let mut sum = 0;
        while let Some(more) = inbox.recv().await {
            sum += more;
        }
        sum
    });
    sender
}

fn shared_state_tables(bench: &mut Bench) {
    for (n, flavour) in
        [(TASKS, Flavour::CurrentThread), (TASKS, Flavour::MultiThread), (1, Flavour::CurrentThread)]
    {
        let title = if n == 1 {
            format!("a counter, one task, {CALLS} changes")
        } else {
            format!("a counter, {n} tasks, {CALLS} changes each")
        };
        let shared = tasks(
            n,
            || Shared::new(0_u64),
            |count, _| async move {
                for _ in 0..CALLS {
                    let _ = count.with(|count| *count += 1);
                }
            },
        );
        let updated = tasks(
            n,
            || Mutex::new(0_u64),
            |count, _| async move {
                for _ in 0..CALLS {
                    let _ = update(&*count, |count| ready(Ok::<_, ()>(count + 1))).await;
                }
            },
        );
        let std = tasks(
            n,
            || std::sync::Mutex::new(0_u64),
            |count, _| async move {
                for _ in 0..CALLS {
                    *count.lock().expect("nobody panics") += 1;
                }
            },
        );
        let tokio = tasks(
            n,
            || Mutex::new(0_u64),
            |count, _| async move {
                for _ in 0..CALLS {
                    *count.lock().await += 1;
                }
            },
        );
        let actor = tasks(n, actor, |count, _| async move {
            for _ in 0..CALLS {
                let _ = count.send(1).await;
            }
        });
        let atomic = tasks(
            n,
            || AtomicU64::new(0),
            |count, _| async move {
                for _ in 0..CALLS {
                    count.fetch_add(1, Relaxed);
                }
            },
        );
        let mut table = Table::new("shared_state", title, "ns/change", flavour, n * CALLS)
            .recipe("Shared", shared)
            .recipe("update", updated)
            .peer("std Mutex", std)
            .peer("tokio Mutex", tokio)
            .peer("a task that owns it, and a channel", actor)
            .floor("atomic", atomic);
        if flavour == Flavour::CurrentThread {
            table = table.python("Lock", &format!("shared_state {n} {CALLS}"));
        }
        bench.measure(table);
    }
}

type Config = [u64; 8];

fn snapshot_tables(bench: &mut Bench) {
    for (writes, flavour) in
        [(false, Flavour::CurrentThread), (false, Flavour::MultiThread), (true, Flavour::MultiThread)]
    {
        let title = if writes {
            format!("{TASKS} tasks, {CALLS} reads each; one task in 8 writes once")
        } else {
            format!("{TASKS} tasks, {CALLS} reads each")
        };
        let table = Table::new("snapshot", title, "ns/read", flavour, TASKS * CALLS);
        let table = if writes { reads::<true>(table) } else { reads::<false>(table) };
        bench.measure(table);
    }
}

fn reads<const WRITES: bool>(table: Table) -> Table {
    let snapshot = tasks(
        TASKS,
        || Snapshot::new(Config::default()),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                sum += config.get()[7];
            }
            if WRITES && number.is_multiple_of(8) {
                config.write().await.publish([sum; 8]);
            }
        },
    );
    let by_watch = tasks(
        TASKS,
        || watch::Sender::new(Arc::new(Config::default())),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                let config = config.borrow().clone();
                sum += config[7];
            }
            if WRITES && number.is_multiple_of(8) {
                config.send_replace(Arc::new([sum; 8]));
            }
        },
    );
    let by_lock = tasks(
        TASKS,
        || RwLock::new(Arc::new(Config::default())),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                let config = config.read().expect("nobody panics").clone();
                sum += config[7];
            }
            if WRITES && number.is_multiple_of(8) {
                *config.write().expect("nobody panics") = Arc::new([sum; 8]);
            }
        },
    );
    let by_tokio = tasks(
        TASKS,
        || tokio::sync::RwLock::new(Arc::new(Config::default())),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                let config = config.read().await.clone();
                sum += config[7];
            }
            if WRITES && number.is_multiple_of(8) {
                *config.write().await = Arc::new([sum; 8]);
            }
        },
    );
    let borrowed = tasks(
        TASKS,
        || ArcSwap::from_pointee(Config::default()),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                sum += config.load()[7];
            }
            if WRITES && number.is_multiple_of(8) {
                config.store(Arc::new([sum; 8]));
            }
        },
    );
    let fixed = tasks(
        TASKS,
        || Arc::new(Config::default()),
        |config, number| async move {
            let mut sum = 0;
            for _ in 0..CALLS {
                let config = Arc::clone(&config);
                sum += config[7];
            }
            if WRITES && number.is_multiple_of(8) && sum > 0 {
                yield_now().await;
            }
        },
    );
    table
        .recipe("snapshot", snapshot)
        .peer("arc-swap, borrowed for a moment", borrowed)
        .peer("tokio watch, borrow and clone", by_watch)
        .peer("std RwLock of an Arc", by_lock)
        .peer("tokio RwLock of an Arc", by_tokio)
        .floor("a clone of an Arc that never changes", fixed)
}
