//! `paginate` is dropped at every suspension point: its task ends with it, and every position goes on with the next item.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::StreamExt;
use proptest::prelude::*;
use streams::{Page, PageError, Paginate, Position, paginate};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not zero");

/// Four pages of three items, each fetched under a permit; the second one is empty.
fn pages(parts: &Parts, permits: &Arc<Semaphore>) -> Paginate<u32, u32, &'static str> {
    let (parts, permits) = (parts.clone(), permits.clone());
    paginate(Position::start(0), TWO, move |page| {
        let permits = permits.clone();
        let fetch = async move {
            let _permit = permits.acquire().await;
            sleep(Duration::from_millis(u64::from(page) % 3)).await;
            let items = if page == 1 { vec![] } else { (page * 3..page * 3 + 3).collect() };
            Ok(Page { items, next: (page < 3).then_some(page + 1) })
        };
        parts.fallible("fetch", fetch, || "injected")
    })
}

fn expected() -> Vec<u32> {
    vec![0, 1, 2, 6, 7, 8, 9, 10, 11]
}

#[test]
fn cancellation_of_the_stream_at_every_point() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(1));
        let (others, after) = (permits.clone(), permits.clone());
        let (parts, seen) = (parts.clone(), parts.clone());
        let call = async move {
            let mut items = pages(&parts, &permits);
            let (mut taken, mut failed) = (Vec::new(), None);
            while let Some(item) = items.next().await {
                match item {
                    Ok(item) => taken.push(item),
                    Err(error) => failed = Some(error),
                }
                sleep(Duration::from_millis(1)).await;
            }
            (taken, failed, items.position())
        };
        Scene::new(call).alongside(async move { drop(others.acquire().await) }).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            match (ended, seen.fault()) {
                (Ended::Returned((taken, failed, position)), Some(Fault::Fail)) => {
                    let Some(PageError::Fetch(page, "injected")) = failed else {
                        panic!("{failed:?}");
                    };
                    assert_eq!(position, Some(Position::start(page)));
                    let before: Vec<_> = expected().into_iter().filter(|item| item / 3 < page).collect();
                    assert_eq!(taken, before);
                }
                (Ended::Returned(all), None) => assert_eq!(all, (expected(), None, None)),
                _ => {}
            }
        })
    });
}

/// `next` is dropped at every point, and the stream lives on: whoever takes the rest misses nothing.
#[test]
fn cancellation_of_next_at_every_point() {
    sweep(|_| {
        let permits = Arc::new(Semaphore::new(1));
        let other = permits.clone();
        let (stream, taken) = (Rc::new(tokio::sync::Mutex::new(None)), Rc::new(RefCell::new(Vec::new())));
        let (rest, all, checked) = (stream.clone(), taken.clone(), taken.clone());
        let call = async move {
            for _ in 0..5 {
                let mut stream = stream.lock().await;
                let items = stream.get_or_insert_with(|| pages(&Parts::default(), &permits));
                let item = items.next().await;
                taken.borrow_mut().extend(item);
            }
        };
        let drain = async move {
            sleep(Duration::from_secs(60)).await;
            if let Some(items) = rest.lock().await.take() {
                let rest: Vec<_> = items.collect().await;
                all.borrow_mut().extend(rest);
            }
        };
        // The task that fetches lives on with the stream.
        let scene = Scene::new(call).outlived().alongside(drain);
        scene.alongside(async move { drop(other.acquire().await) }).check(move |ended| {
            let taken: Vec<_> =
                checked.borrow().iter().map(|item| item.clone().expect("nothing fails")).collect();
            if taken.is_empty() {
                assert!(matches!(ended, Ended::Dropped), "nothing was started");
            } else {
                assert_eq!(taken, expected());
            }
        })
    });
}

/// A consumer on another thread than the fetch, dropped at random moments: the fetch always ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_from_another_thread() {
    let held = Arc::new(());
    for number in 0..500_u32 {
        let fetching = held.clone();
        let fetch = move |page: u32| {
            let held = fetching.clone();
            async move {
                tokio::task::yield_now().await;
                drop(held);
                Ok::<_, ()>(Page { items: vec![page; 3], next: Some(page + 1) })
            }
        };
        let mut items = paginate(Position::start(0), TWO, fetch);
        let taking = tokio::spawn(async move {
            for expected in 0..number % 50 {
                assert_eq!(items.next().await, Some(Ok(expected / 3)));
            }
        });
        taking.await.unwrap();
    }
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&held), 1);
}

/// The consumer runs on a runtime of its own, and the one that fetches is shut down: it is told, and does not take it for the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn errors_tell_that_the_runtime_was_shut_down() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (gone, wait) = tokio::sync::oneshot::channel::<()>();
    let fetching = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let fetch = async |page: u32| {
                if page == 3 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, ()>(Page { items: vec![page], next: Some(page + 1) })
            };
            assert!(sender.send(paginate(Position::start(1), TWO, fetch)).is_ok());
            // The sender is dropped by a test that fails.
            let _ = wait.await;
        });
    });
    let mut items = receiver.await.unwrap();
    assert_eq!((items.next().await, items.next().await), (Some(Ok(1)), Some(Ok(2))));
    gone.send(()).unwrap();
    assert_eq!(items.next().await, Some(Err(PageError::Stopped(3))));
    assert_eq!(items.next().await, None);
    assert_eq!(items.position(), Some(Position::start(3)));
    fetching.join().unwrap();
}

/// Taken since the last word of `position`, an item comes again; nothing else does. Whatever a position says is honoured.
#[tokio::test]
async fn order_a_position_beyond_its_page_goes_on_with_the_next_one() {
    let fetch =
        async |page: u32| Ok::<_, ()>(Page { items: vec![page; 2], next: (page < 2).then_some(page + 1) });
    for taken in [2, 3, usize::MAX] {
        let items = paginate(Position { page: 1, taken }, NonZeroUsize::MAX, fetch);
        assert_eq!(items.collect::<Vec<_>>().await, [Ok(2), Ok(2)]);
    }
    let mut last = paginate(Position { page: 2, taken: 2 }, TWO, fetch);
    assert_eq!((last.next().await, last.position()), (None, None));
}

/// How many items exist that were fetched and not yet dropped, at its most.
#[derive(Default)]
struct Live(AtomicUsize, AtomicUsize);

struct Item(Arc<Live>);

impl Item {
    fn new(live: &Arc<Live>) -> Item {
        let now = live.0.fetch_add(1, Ordering::Relaxed) + 1;
        live.1.fetch_max(now, Ordering::Relaxed);
        Item(live.clone())
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn memory_stays_flat_for_ten_and_a_hundred_times_the_items() {
    for pages in [10, 100, 1000_usize] {
        let live = Arc::new(Live::default());
        let making = live.clone();
        let fetch = move |page: usize| {
            let items = (0..100).map(|_| Item::new(&making)).collect();
            std::future::ready(Ok::<_, ()>(Page { items, next: (page < pages).then_some(page + 1) }))
        };
        let mut items = paginate(Position::start(1), TWO, fetch);
        let mut taken = 0;
        while let Some(item) = items.next().await {
            taken += item.into_iter().count();
            if taken % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!((taken, live.0.load(Ordering::Relaxed)), (pages * 100, 0));
        // The rest of the page that is taken, and two ahead.
        assert!((200..=300).contains(&live.1.load(Ordering::Relaxed)), "{}", live.1.load(Ordering::Relaxed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pages, killed after any numbers of items, with a fetch that fails now and then: all items, none twice.
    #[test]
    fn order_over_many_runs_is_that_of_one(
        sizes in prop::collection::vec(0..5_usize, 1..20),
        runs in prop::collection::vec(0..9_usize, 0..20),
        failing in prop::collection::vec(any::<bool>(), 0..40),
        ahead in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let total = sizes.iter().sum::<usize>();
        let (sizes, failing) = (Arc::new(sizes), Arc::new(Mutex::new(failing.into_iter())));
        let taken = runtime.block_on(async {
            let (mut taken, mut runs) = (Vec::new(), runs.into_iter());
            let mut position = Some(Position::start(0));
            while let Some(from) = position.clone() {
                let (sizes, failing) = (sizes.clone(), failing.clone());
                let fetch = move |page: usize| {
                    let fails = failing.lock().is_ok_and(|mut it| it.next() == Some(true));
                    let before: usize = sizes[..page].iter().sum();
                    let items = (before..before + sizes[page]).collect();
                    let next = (page + 1 < sizes.len()).then_some(page + 1);
                    std::future::ready(if fails { Err(()) } else { Ok(Page { items, next }) })
                };
                let mut items = paginate(from, NonZeroUsize::new(ahead).unwrap(), fetch);
                for _ in 0..runs.next().unwrap_or(usize::MAX) {
                    let Some(Ok(item)) = items.next().await else { break };
                    taken.push(item);
                }
                position = items.position();
            }
            taken
        });
        prop_assert!(taken.into_iter().eq(0..total));
    }

    /// Any loop of pages is found, at the latest after three times as many fetches as there are pages.
    #[test]
    fn errors_end_every_loop(lead in 0..40_usize, length in 1..40_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fetch = move |page: usize| {
            let next = if page + 1 == lead + length { lead } else { page + 1 };
            std::future::ready(Ok::<_, ()>(Page { items: vec![page], next: Some(next) }))
        };
        let items = runtime.block_on(async { paginate(Position::start(0), TWO, fetch).collect::<Vec<_>>().await });
        let fetches = items.len() - 1;
        let repeated = matches!(items[fetches], Err(PageError::Repeated(page)) if page >= lead);
        prop_assert!(repeated);
        prop_assert!((lead + length..=3 * (lead + length)).contains(&fetches), "{}", fetches);
        prop_assert!(length > 1 || fetches == lead + length);
    }
}
