//! `pool`.

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use benches::{Bench, Flavour, Measure, Table, figure, time};
use context_managers::{Manage, Pool, Rules};
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};

/// Of one checkout after the other.
const CHECKOUTS: usize = 1000;
const TASKS: usize = 64;
const CALLS: usize = 100;
const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// A resource that costs nothing.
struct Nothing;

impl Manage for Nothing {
    type Resource = [u64; 8];
    type Error = Infallible;

    async fn create(&self) -> Result<[u64; 8], Infallible> {
        Ok([0; 8])
    }
}

impl deadpool::managed::Manager for Nothing {
    type Type = [u64; 8];
    type Error = Infallible;

    async fn create(&self) -> Result<[u64; 8], Infallible> {
        Ok([0; 8])
    }

    async fn recycle(
        &self,
        _: &mut [u64; 8],
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl bb8::ManageConnection for Nothing {
    type Connection = [u64; 8];
    type Error = Infallible;

    async fn connect(&self) -> Result<[u64; 8], Infallible> {
        Ok([0; 8])
    }

    async fn is_valid(&self, _: &mut [u64; 8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut [u64; 8]) -> bool {
        false
    }
}

fn recipe() -> Arc<Pool<Nothing>> {
    Pool::new(Nothing, Rules { size: FOUR, ..Rules::default() })
}

fn with_times() -> Arc<Pool<Nothing>> {
    let hour = Some(Duration::from_secs(3600));
    Pool::new(Nothing, Rules { size: FOUR, max_idle: hour, max_lifetime: hour })
}

fn deadpool() -> deadpool::managed::Pool<Nothing> {
    deadpool::managed::Pool::builder(Nothing).max_size(4).build().expect("it needs no runtime")
}

fn bb8() -> bb8::Pool<Nothing> {
    // Its default lifetimes start a task, which needs the runtime: `time` makes the pool outside of it.
    bb8::Pool::builder().max_size(4).max_lifetime(None).idle_timeout(None).build_unchecked(Nothing)
}

/// The least that keeps a bound: a semaphore, and a stack under a mutex.
type Bare = Arc<(Semaphore, Mutex<Vec<[u64; 8]>>)>;

fn bare() -> Bare {
    Arc::new((Semaphore::new(4), Mutex::default()))
}

async fn use_recipe(pool: &Arc<Pool<Nothing>>, work: impl Future<Output = ()>) {
    if let Ok(mut resource) = pool.checkout().await {
        resource[0] += 1;
        work.await;
        resource.put_back();
    }
}

async fn use_deadpool(pool: &deadpool::managed::Pool<Nothing>, work: impl Future<Output = ()>) {
    if let Ok(mut resource) = pool.get().await {
        resource[0] += 1;
        work.await;
    }
}

async fn use_bb8(pool: &bb8::Pool<Nothing>, work: impl Future<Output = ()>) {
    if let Ok(mut resource) = pool.get().await {
        resource[0] += 1;
        work.await;
    }
}

async fn use_bare(pool: &Bare, work: impl Future<Output = ()>) {
    let _permit = pool.0.acquire().await;
    let idle = pool.1.lock().expect("nobody panics").pop();
    let mut resource = idle.unwrap_or([0; 8]);
    resource[0] += 1;
    work.await;
    pool.1.lock().expect("nobody panics").push(resource);
}

/// One after the other, without anybody else.
macro_rules! alone {
    ($make:expr, $call:ident) => {
        time(move || async move {
            let pool = $make();
            for _ in 0..CHECKOUTS {
                $call(&pool, async {}).await;
            }
        })
    };
}

/// Many tasks, each again and again; pending once while it holds the resource.
macro_rules! shared {
    ($make:expr, $call:ident) => {
        time(move || async move {
            let pool = $make();
            let task = |_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for _ in 0..CALLS {
                        $call(&pool, yield_now()).await;
                    }
                })
            };
            join_all((0..TASKS).map(task)).await
        })
    };
}

/// Many callers, every other one aborted when it has begun.
macro_rules! storm {
    ($make:expr, $call:ident) => {
        time(move || async move {
            let pool = $make();
            let caller = |_| {
                let pool = pool.clone();
                tokio::spawn(async move { $call(&pool, pending_thrice()).await })
            };
            let callers: Vec<_> = (0..1000).map(caller).collect();
            yield_now().await;
            callers.iter().step_by(2).for_each(JoinHandle::abort);
            join_all(callers).await.into_iter().filter(Result::is_ok).count()
        })
    };
}

/// The longest wait of many callers beside the median wait.
macro_rules! fairness {
    ($make:expr, $call:ident) => {{
        let measure: Measure = figure(move || async move {
            let pool = $make();
            let caller = |_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    for _ in 0..50 {
                        let (asked, mut waited) = (Instant::now(), Duration::ZERO);
                        let work = async {
                            waited = asked.elapsed();
                            sleep(Duration::from_millis(3)).await;
                        };
                        $call(&pool, work).await;
                        waits.push(waited);
                    }
                    waits
                })
            };
            let waits = join_all((0..20).map(caller)).await;
            let mut waits: Vec<_> = waits.into_iter().flat_map(Result::unwrap_or_default).collect();
            waits.sort();
            let millis = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
            (millis(waits.last()), format!("the median wait is {} ms", millis(waits.get(waits.len() / 2))))
        });
        measure
    }};
}

async fn pending_thrice() {
    for _ in 0..3 {
        yield_now().await;
    }
}

pub(crate) fn tables(bench: &mut Bench) {
    let title = "checked out and put back again and again, nobody waits".to_string();
    let table = Table::new("pool", title, "ns/checkout", Flavour::CurrentThread, CHECKOUTS)
        .recipe("pool", alone!(recipe, use_recipe))
        .recipe("pool with max_idle and max_lifetime", alone!(with_times, use_recipe))
        .peer("deadpool", alone!(deadpool, use_deadpool))
        .peer("bb8", alone!(bb8, use_bb8))
        .floor("semaphore and Vec", alone!(bare, use_bare))
        .python("Queue", &format!("pool_alone {CHECKOUTS}"));
    bench.measure(table);
    for flavour in [Flavour::CurrentThread, Flavour::MultiThread] {
        let title = format!("{TASKS} tasks share 4 resources, each call pending once");
        let table = Table::new("pool", title, "ns/call", flavour, TASKS * CALLS)
            .recipe("pool", shared!(recipe, use_recipe))
            .peer("deadpool", shared!(deadpool, use_deadpool))
            .peer("bb8", shared!(bb8, use_bb8))
            .floor("semaphore and Vec", shared!(bare, use_bare));
        let job = format!("pool_shared {TASKS} {CALLS}");
        bench.measure(if flavour == Flavour::CurrentThread { table.python("Queue", &job) } else { table });
    }
    let title = "1000 callers for 4 resources, every other one cancelled".to_string();
    let table = Table::new("pool", title, "ns/call that ends", Flavour::CurrentThread, 500)
        .recipe("pool", storm!(recipe, use_recipe))
        .peer("deadpool", storm!(deadpool, use_deadpool))
        .peer("bb8", storm!(bb8, use_bb8))
        .floor("semaphore and Vec", storm!(bare, use_bare));
    bench.measure(table);
    let title = "20 callers for 4 resources, 3 ms each: the longest wait of 1000".to_string();
    let table = Table::new("pool", title, "ms", Flavour::Paused, 1)
        .recipe("pool", fairness!(recipe, use_recipe))
        .peer("deadpool", fairness!(deadpool, use_deadpool))
        .peer("bb8", fairness!(bb8, use_bb8));
    bench.measure(table);
}
