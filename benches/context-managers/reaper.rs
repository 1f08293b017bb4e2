//! `reaper`.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Table, stopwatch, time};
use context_managers::{Limits, Reaped, Reaper};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A cleanup that waits once.
async fn clean(resource: u64) -> Result<(), u64> {
    yield_now().await;
    if resource == u64::MAX { Err(resource) } else { Ok(()) }
}

const EACH: Duration = Duration::from_secs(5);

/// The least that one writes: `Drop` spawns, and a tracker is waited for.
struct Spawning(u64, TaskTracker);

impl Drop for Spawning {
    fn drop(&mut self) {
        drop(self.1.spawn(clean(self.0)));
    }
}

/// The same with a time limit for each.
struct Limited(u64, TaskTracker);

impl Drop for Limited {
    fn drop(&mut self) {
        drop(self.1.spawn(timeout(EACH, clean(self.0))));
    }
}

/// Drops the guards and waits for all cleanups.
async fn drop_and_wait<G>(guards: Vec<G>, tracker: TaskTracker) -> Duration {
    let start = Instant::now();
    drop(guards);
    tracker.close();
    tracker.wait().await;
    start.elapsed()
}

pub(crate) fn tables(bench: &mut Bench) {
    for guards in [10, 1_000, 100_000].map(|guards| bench.size(guards)) {
        let title = |guards: usize| format!("{guards} guards dropped together, each cleanup pending once");
        let reaper = |at_once: usize| {
            stopwatch(move || async move {
                let [capacity, at_once] = [guards, at_once].map(|n| NonZeroUsize::new(n).expect("not zero"));
                let limits = Limits { capacity, at_once, each: EACH };
                let reaper = Reaper::new(limits, clean, |_, _| ());
                let mut all: Vec<Reaped<u64>> = Vec::with_capacity(guards);
                while all.len() < guards
                    && let Some(place) = reaper.reserve().await
                {
                    all.push(place.guard("guard", 1));
                }
                let start = Instant::now();
                drop(all);
                reaper.drain().await;
                start.elapsed()
            })
        };
        let spawn = stopwatch(move || async move {
            let tracker = TaskTracker::new();
            let all: Vec<_> = (0..guards).map(|_| Spawning(1, tracker.clone())).collect();
            drop_and_wait(all, tracker).await
        });
        let limited = stopwatch(move || async move {
            let tracker = TaskTracker::new();
            let all: Vec<_> = (0..guards).map(|_| Limited(1, tracker.clone())).collect();
            drop_and_wait(all, tracker).await
        });
        let by_hand = time(move || async move {
            let all: Vec<u64> = vec![1; guards];
            for resource in all {
                let _ = clean(resource).await;
            }
        });
        let table = Table::new("reaper", title(guards), "ns/guard", Flavour::CurrentThread, guards)
            .grown_from(title(10))
            .recipe("reaper, 10 at a time", reaper(10))
            .recipe("reaper, 1 at a time", reaper(1))
            .peer("spawned by Drop on a TaskTracker", spawn)
            .peer("the same with a timeout for each", limited)
            .floor("awaited by hand, without a guard", by_hand)
            .python("create_task by __del__", &format!("reaper {guards}"));
        bench.measure(table);
    }
}
