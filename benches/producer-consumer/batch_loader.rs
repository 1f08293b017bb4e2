//! `batch_loader`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ::producer_consumer::BatchLoader;
use benches::{Bench, Flavour, Measure, Table, figure, short, time};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep};

const CALLERS: usize = 64;
const KEYS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const CALLS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

type Found = Result<HashMap<usize, usize>, Infallible>;

fn found(keys: Vec<usize>) -> Found {
    Ok(keys.into_iter().map(|key| (key, key)).collect())
}

/// A call that is pending once, as if it cost nothing.
async fn quick(keys: Vec<usize>) -> Found {
    yield_now().await;
    found(keys)
}

/// A call that takes 2 ms however many keys it is for.
async fn slow(keys: Vec<usize>) -> Found {
    sleep(Duration::from_millis(2)).await;
    found(keys)
}

/// `n` loads by 64 callers, each of which loads one key after the other.
async fn all<F: Future<Output = ()> + Send + 'static>(
    n: usize,
    load: impl Fn(usize) -> F + Clone + Send + 'static,
) {
    let callers = (0..CALLERS).map(|caller| {
        let load = load.clone();
        async move {
            for key in (caller..n).step_by(CALLERS) {
                load(key).await;
            }
        }
    });
    callers.collect::<JoinSet<()>>().join_all().await;
}

async fn by_loader<F>(n: usize, work: fn(Vec<usize>) -> F)
where
    F: Future<Output = Found> + Send + 'static,
{
    let loader = Arc::new(BatchLoader::new(KEYS, CALLS, work));
    let load = move |key| {
        let loader = loader.clone();
        async move { assert!(loader.load(key).await.is_ok_and(|value| value == Some(key))) }
    };
    all(n, load).await;
}

async fn one_call_each<F>(n: usize, work: fn(Vec<usize>) -> F)
where
    F: Future<Output = Found> + Send + 'static,
{
    let limit = Arc::new(Semaphore::new(CALLS.get()));
    let load = move |key| {
        let limit = limit.clone();
        async move {
            let _permit = limit.acquire().await;
            let Ok(found) = work(vec![key]).await;
            assert_eq!(found.get(&key), Some(&key));
        }
    };
    all(n, load).await;
}

/// The keys are known: 4 tasks take 64 at a time.
async fn by_hand<F>(n: usize, work: fn(Vec<usize>) -> F)
where
    F: Future<Output = Found> + Send + 'static,
{
    let tasks = (0..CALLS.get()).map(|task| async move {
        let step = KEYS.get() * CALLS.get();
        for start in (task * KEYS.get()..n).step_by(step) {
            let keys: Vec<usize> = (start..n.min(start + KEYS.get())).collect();
            let Ok(found) = work(keys.clone()).await;
            assert!(keys.iter().all(|key| found.get(key) == Some(key)));
        }
    });
    tasks.collect::<JoinSet<()>>().join_all().await;
}

pub(crate) fn tables(bench: &mut Bench) {
    for (n, flavour) in
        [(6_400, Flavour::CurrentThread), (100_000, Flavour::CurrentThread), (100_000, Flavour::MultiThread)]
    {
        let n = bench.size(n);
        let title = |n| format!("{} loads by 64 callers, a call is pending once", short(n));
        let table = Table::new("batch_loader", title(n), "ns/load", flavour, n)
            .recipe("batch_loader", time(move || by_loader(n, quick)))
            .peer("a call for each key", time(move || one_call_each(n, quick)))
            .floor("keys known, batches by hand", time(move || by_hand(n, quick)))
            .python("a dataloader by hand", &format!("batch_loader {n} 64"));
        let table = if flavour == Flavour::CurrentThread { table.grown_from(title(6_400)) } else { table };
        bench.measure(table);
    }

    let title = "3200 loads by 64 callers, a call takes 2 ms, 4 at a time".to_string();
    let table = Table::new("batch_loader", title, "virtual ms", Flavour::Paused, 1)
        .recipe("batch_loader", virtual_time(|| by_loader(3_200, slow)))
        .peer("a call for each key", virtual_time(|| one_call_each(3_200, slow)))
        .floor("keys known, batches by hand", virtual_time(|| by_hand(3_200, slow)));
    bench.measure(table);

    let n = bench.size(10_000);
    let title = format!("{} callers at once, every second one gives up", short(n));
    let table = Table::new("batch_loader", title, "ns/caller", Flavour::CurrentThread, n)
        .recipe("batch_loader", time(move || storm(n, true)))
        .floor("nobody gives up", time(move || storm(n, false)));
    bench.measure(table);
}

fn virtual_time<F: Future<Output = ()> + Send + 'static>(
    body: impl Fn() -> F + Copy + Send + 'static,
) -> Measure {
    figure(move || async move {
        let start = Instant::now();
        body().await;
        (start.elapsed().as_secs_f64() * 1e3, String::new())
    })
}

async fn storm(n: usize, give_up: bool) {
    let loader = Arc::new(BatchLoader::new(KEYS, CALLS, quick));
    let callers = (0..n).map(|key| {
        let loader = loader.clone();
        async move {
            if give_up && key.is_multiple_of(2) {
                assert!(loader.load(key).now_or_never().is_none());
            } else {
                assert!(loader.load(key).await.is_ok_and(|value| value == Some(key)));
            }
        }
    });
    callers.collect::<JoinSet<()>>().join_all().await;
}
