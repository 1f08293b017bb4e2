//! `map_concurrent` is dropped at every suspension point: each item is consumed, dropped in work, or never pulled.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gather::map_concurrent;
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;

/// What became of the items.
#[derive(Default)]
struct Ledger {
    pulled: Cell<usize>,
    running: Cell<usize>,
    peak: Cell<usize>,
    dropped: Cell<usize>,
    finished: Cell<usize>,
    consumed: Cell<usize>,
}

/// Counts an item as running for as long as it lives, and as dropped unless it was finished.
struct Running<'a>(&'a Ledger, bool);

impl<'a> Running<'a> {
    fn start(ledger: &'a Ledger) -> Self {
        ledger.running.set(ledger.running.get() + 1);
        ledger.peak.set(ledger.peak.get().max(ledger.running.get()));
        Running(ledger, false)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        let end = if self.1 { &self.0.finished } else { &self.0.dropped };
        end.set(end.get() + 1);
    }
}

fn scene(parts: &support::sweep::Parts, limit: usize) -> Scene<Result<(), &'static str>> {
    let limit = NonZeroUsize::new(limit).expect("tests use a limit above zero");
    let ledger = Rc::new(Ledger::default());
    let permits = Arc::new(Semaphore::new(2));
    let (after, other, checked) = (permits.clone(), permits.clone(), ledger.clone());
    let parts = parts.clone();
    let call = async move {
        let items = (0..6_u64).inspect(|_| ledger.pulled.set(ledger.pulled.get() + 1));
        let work = |item| {
            let (ledger, permits) = (&ledger, &permits);
            let work = async move {
                let mut running = Running::start(ledger);
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(item % 3)).await;
                running.1 = true;
                Ok(())
            };
            parts.fallible("work", work, || "injected")
        };
        let consume = |mut results: mpsc::Receiver<Result<(), &'static str>>| {
            let ledger = &ledger;
            async move {
                while let Some(result) = results.recv().await {
                    result?;
                    sleep(Duration::from_millis(2)).await;
                    ledger.consumed.set(ledger.consumed.get() + 1);
                }
                Ok(())
            }
        };
        map_concurrent(items, limit, work, consume).await
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
        let ledger = checked;
        assert_eq!(after.available_permits(), 2);
        assert!(ledger.peak.get() <= limit.get());
        assert_eq!(ledger.running.get(), 0);
        assert!(ledger.finished.get() + ledger.dropped.get() <= ledger.pulled.get());
        assert!(ledger.consumed.get() <= ledger.finished.get());
        if let Ended::Returned(Ok(())) = ended {
            assert_eq!((ledger.finished.get(), ledger.consumed.get()), (6, 6));
        }
    })
}

#[test]
fn cancellation_at_every_point_with_one_lane() {
    sweep(|parts| scene(parts, 1));
}

#[test]
fn cancellation_at_every_point_with_three_lanes() {
    sweep(|parts| scene(parts, 3));
}

#[test]
fn errors_of_the_consumer_end_everything() {
    sweep(|parts| {
        let parts = parts.clone();
        let seen = parts.clone();
        let call = async move {
            let work = |item: u64| parts.fallible("work", async move { Ok(item) }, || "injected");
            let consume = |mut results: mpsc::Receiver<Result<u64, &'static str>>| async move {
                let mut sum = 0;
                while let Some(result) = results.recv().await {
                    sum += result?;
                }
                Ok(sum)
            };
            map_concurrent(0..40, NonZeroUsize::new(4).expect("not zero"), work, consume).await
        };
        Scene::new(call).check(move |ended| match (ended, seen.fault()) {
            (Ended::Returned(result), Some(Fault::Fail)) => assert_eq!(result, Err("injected")),
            (Ended::Returned(result), None) => assert_eq!(result, Ok(780)),
            _ => {}
        })
    });
}

/// Wake-ups come from other threads while lanes and consumer are polled: none may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_wakes_from_other_threads() {
    for _ in 0..50 {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..500).map(|_| oneshot::channel::<usize>()).unzip();
        let sending = tokio::spawn(async move {
            for (i, sender) in senders.into_iter().enumerate() {
                sender.send(i).unwrap();
                if i % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let consume = |mut results: mpsc::Receiver<usize>| async move {
            let mut sum = 0;
            while let Some(number) = results.recv().await {
                sum += number;
            }
            sum
        };
        let limit = NonZeroUsize::new(40).unwrap();
        let sum =
            tokio::spawn(map_concurrent(receivers, limit, async |number| number.await.unwrap(), consume));
        assert_eq!(sum.await.unwrap(), 500 * 499 / 2);
        sending.await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any items, any limit: each comes out once, and never more than the limit run.
    #[test]
    fn order_loses_and_doubles_nothing(millis in prop::collection::vec(0..9_u64, 0..60), limit in 1..80_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ledger = Ledger::default();
        let work = async |(number, millis)| {
            let _running = Running::start(&ledger);
            sleep(Duration::from_millis(millis)).await;
            number
        };
        let consume = async |mut results: mpsc::Receiver<usize>| {
            let mut all = Vec::new();
            while let Some(number) = results.recv().await {
                all.push(number);
            }
            all.sort_unstable();
            all
        };
        let items = millis.iter().copied().enumerate();
        let limit = NonZeroUsize::new(limit).unwrap();
        let all = runtime.block_on(map_concurrent(items, limit, work, consume));
        prop_assert!(all.into_iter().eq(0..millis.len()));
        prop_assert!(ledger.peak.get() <= limit.get());
    }
}
