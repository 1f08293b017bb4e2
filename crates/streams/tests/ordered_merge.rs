//! `ordered_merge` and `next` on it are dropped at every suspension point: no item is lost, and what comes out is sorted.

#![expect(clippy::disallowed_methods, reason = "`block_on` is called outside a runtime, on purpose")]

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::time::Duration;

use futures::stream::{self, LocalBoxStream, StreamExt};
use proptest::prelude::*;
use streams::{OrderedMergeError, ordered_merge};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

type Item = Result<u64, &'static str>;

const SOURCES: [&[u64]; 4] = [&[1, 4, 4, 9], &[], &[4, 5], &[0, 9, 10]];

fn expected() -> Vec<(usize, u64)> {
    vec![(3, 0), (0, 1), (0, 4), (0, 4), (2, 4), (2, 5), (0, 9), (3, 9), (3, 10)]
}

fn sources(parts: &Parts) -> Vec<LocalBoxStream<'static, Item>> {
    let source = |(index, items): (usize, &'static [u64])| {
        let parts = parts.clone();
        let wait = move |item: &'static u64| {
            let wait = async move {
                sleep(Duration::from_millis(*item % 3)).await;
                Ok(*item)
            };
            parts.fallible(format!("source {index}"), wait, || "injected")
        };
        stream::iter(items).then(wait).boxed_local()
    };
    SOURCES.into_iter().enumerate().map(source).collect()
}

#[test]
fn cancellation_of_the_stream_at_every_point() {
    sweep(|parts| {
        let seen = parts.clone();
        let merged = ordered_merge(sources(parts), |item| *item);
        Scene::new(merged.collect::<Vec<_>>()).check(move |ended| match (ended, seen.fault()) {
            (Ended::Returned(items), Some(Fault::Fail)) => {
                let (last, before) = items.split_last().expect("there is an error");
                assert!(matches!(last, Err(OrderedMergeError::Failed { error: "injected", .. })), "{last:?}");
                assert!(before.iter().cloned().eq(expected().into_iter().take(before.len()).map(Ok)));
            }
            (Ended::Returned(items), None) => assert!(items.into_iter().eq(expected().into_iter().map(Ok))),
            _ => {}
        })
    });
}

#[test]
fn cancellation_of_next_at_every_point() {
    sweep(|_| {
        let merged = Rc::new(Mutex::new(ordered_merge(sources(&Parts::default()), |item| *item)));
        let taken = Rc::new(RefCell::new(Vec::new()));
        let (rest, all, checked) = (merged.clone(), taken.clone(), taken.clone());
        let call = async move {
            for _ in 0..6 {
                let item = merged.lock().await.next().await;
                taken.borrow_mut().extend(item);
            }
        };
        let drain = async move {
            sleep(Duration::from_secs(60)).await;
            let rest: Vec<_> = rest.lock().await.by_ref().collect().await;
            all.borrow_mut().extend(rest);
        };
        Scene::new(call)
            .alongside(drain)
            .check(move |_| assert!(checked.borrow().iter().cloned().eq(expected().into_iter().map(Ok))))
    });
}

/// A key that counts how often it is compared.
struct Counted<'a>(u64, &'a Cell<usize>);

impl Ord for Counted<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.1.set(self.1.get() + 1);
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Counted<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Counted<'_> {}

#[test]
fn order_costs_comparisons_in_the_logarithm_of_the_sources() {
    for (sources, most) in [(1_u64, 3), (16, 12), (1024, 26), (65_536, 40)] {
        let compared = Cell::new(0);
        let items = 200_000 / sources;
        let source = |index| stream::iter((0..items).map(move |item| Ok::<_, ()>(item * sources + index)));
        let merged = ordered_merge((0..sources).map(source), |item| Counted(*item, &compared));
        let items = futures::executor::block_on(merged.map(Result::unwrap).collect::<Vec<_>>());
        assert!(items.iter().map(|(_, item)| *item).eq(0..items.len() as u64));
        let each = compared.get() / items.len();
        assert!(each <= most, "{each} comparisons for each item of {sources} sources");
    }
}

#[test]
fn errors_of_empty_input_and_of_a_key_that_panics_leave_nothing_odd() {
    let none = ordered_merge(Vec::<LocalBoxStream<'static, Item>>::new(), |item| *item);
    assert_eq!(futures::executor::block_on(none.count()), 0);
    let held = Rc::new(());
    let items = (0..9).map(|item| Ok::<_, ()>((item, held.clone())));
    let mut merged =
        ordered_merge([stream::iter(items.collect::<Vec<_>>())], |(item, _)| assert_ne!(*item, 4));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        futures::executor::block_on(merged.by_ref().for_each(async |_| ()));
    }));
    assert!(panicked.is_err());
    drop(merged);
    assert_eq!(Rc::strong_count(&held), 1);
}

/// Senders on other threads: no wake-up is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_wakes_from_other_threads() {
    for _ in 0..20 {
        let mut sources = Vec::new();
        for index in 0..30 {
            let (sender, receiver) = mpsc::channel(2);
            sources.push(ReceiverStream::new(receiver).map(Ok::<u64, ()>));
            tokio::spawn(async move {
                for item in 0..50 {
                    sender.send(item * 30 + index).await.expect("the consumer takes all");
                }
            });
        }
        let merged =
            tokio::spawn(ordered_merge(sources, |item| *item).map(Result::unwrap).collect::<Vec<_>>());
        assert!(merged.await.unwrap().into_iter().map(|(_, item)| item).eq(0..1500));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sources: the result is what a stable sort of all items makes of them; if one is not sorted, the error says which,
    /// and what came before it is sorted.
    #[test]
    fn order_is_that_of_a_stable_sort(
        mut sources in prop::collection::vec(prop::collection::vec((0..9_u8, any::<u8>()), 0..20), 0..10),
        unsorted in 0..20_usize,
    ) {
        for (index, source) in sources.iter_mut().enumerate() {
            if index != unsorted {
                source.sort_by_key(|(key, _)| *key);
            }
        }
        let streams = sources.iter().map(|source| stream::iter(source.clone()).map(Ok::<_, ()>));
        let merged = futures::executor::block_on(ordered_merge(streams, |(key, _)| *key).collect::<Vec<_>>());
        let flat = sources.iter().enumerate().flat_map(|(index, source)| source.iter().map(move |item| (index, *item)));
        let mut all: Vec<_> = flat.collect();
        all.sort_by_key(|(_, (key, _))| *key);
        let sorted = sources.iter().all(|source| source.is_sorted_by_key(|(key, _)| *key));
        if sorted {
            prop_assert!(merged.into_iter().eq(all.into_iter().map(Ok)));
        } else {
            let (last, before) = merged.split_last().unwrap();
            let unsorted = matches!(last, Err(OrderedMergeError::Unsorted { index, .. }) if *index == unsorted);
            prop_assert!(unsorted);
            let before: Vec<_> = before.iter().map(|item| item.clone().unwrap()).collect();
            prop_assert!(before.is_sorted_by_key(|(_, (key, _))| *key));
        }
    }
}
