//! The three generators are dropped at every suspension point, and so is the future of `next`: no item is lost or doubled.

#![expect(clippy::disallowed_methods, reason = "`block_on` is called outside a runtime, on purpose")]

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, LocalBoxStream, StreamExt};
use proptest::prelude::*;
use streams::{by_hand, by_macro, by_unfold};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;

type Item = Result<u32, &'static str>;
type Batch = Result<Option<(Vec<u32>, Batches)>, &'static str>;
type Batches = std::vec::IntoIter<Vec<u32>>;
type Read = Box<dyn FnMut(Batches) -> Pin<Box<dyn Future<Output = Batch>>>>;
type Make = fn(Batches, Read) -> LocalBoxStream<'static, Item>;

const ALL: [Make; 3] = [
    |source, read| by_macro(source, read).boxed_local(),
    |source, read| by_unfold(source, read).boxed_local(),
    |source, read| by_hand(source, read).boxed_local(),
];

/// Batches of 2, 0, 1 and 3 items.
fn batches() -> Batches {
    vec![vec![1, 2], vec![], vec![3], vec![4, 5, 6]].into_iter()
}

/// Reads the next batch under a permit.
fn reads(parts: &Parts, permits: &Arc<Semaphore>) -> Read {
    let (parts, permits) = (parts.clone(), permits.clone());
    Box::new(move |mut batches| {
        let permits = permits.clone();
        let read = async move {
            let _permit = permits.acquire().await;
            let batch = batches.next();
            sleep(Duration::from_millis(batch.as_ref().map_or(0, Vec::len) as u64)).await;
            Ok(batch.map(|batch| (batch, batches)))
        };
        Box::pin(parts.fallible("read", read, || "injected"))
    })
}

#[test]
fn cancellation_of_the_stream_at_every_point() {
    for make in ALL {
        sweep(|parts| {
            let permits = Arc::new(Semaphore::new(1));
            let (others, after, seen) = (permits.clone(), permits.clone(), parts.clone());
            let items = make(batches(), reads(parts, &permits));
            Scene::new(items.collect::<Vec<_>>())
                .alongside(async move { drop(others.acquire().await) })
                .check(move |ended| {
                    assert_eq!(after.available_permits(), 1);
                    match (ended, seen.fault()) {
                        (Ended::Returned(items), Some(Fault::Fail)) => {
                            let (last, before) = items.split_last().expect("there is an error");
                            assert_eq!(*last, Err("injected"));
                            assert!(before.iter().copied().eq((1..=6).take(before.len()).map(Ok)));
                        }
                        (Ended::Returned(items), None) => assert!(items.into_iter().eq((1..=6).map(Ok))),
                        _ => {}
                    }
                })
        });
    }
}

#[test]
fn cancellation_of_next_at_every_point() {
    for make in ALL {
        sweep(|parts| {
            let permits = Arc::new(Semaphore::new(1));
            let (others, taken) = (permits.clone(), Rc::new(RefCell::new(Vec::new())));
            // Not a child: the stream and its read live on when `next` is dropped, as they should.
            let items = Rc::new(Mutex::new(make(batches(), reads(&Parts::default(), &permits))));
            let (rest, all) = (items.clone(), taken.clone());
            let parts = parts.clone();
            let call = async move {
                for _ in 0..4 {
                    let item = parts.child("next", async { items.lock().await.next().await }).await;
                    taken.borrow_mut().extend(item);
                }
            };
            let checked = all.clone();
            let drain = async move {
                sleep(Duration::from_secs(60)).await;
                let rest: Vec<_> = rest.lock().await.by_ref().collect().await;
                all.borrow_mut().extend(rest);
            };
            Scene::new(call)
                .alongside(async move { drop(others.acquire().await) })
                .alongside(drain)
                .check(move |_| assert!(checked.borrow().iter().copied().eq((1..=6).map(Ok))))
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any batches, and an error instead of any one of them: the three generators give the same items.
    #[test]
    fn order_is_the_same_in_all_three(sizes in prop::collection::vec(0..5_usize, 0..20), failing in 0..40_usize) {
        let mut numbers = 0..;
        let batches: Vec<Vec<u32>> = sizes.iter().map(|size| numbers.by_ref().take(*size).collect()).collect();
        let mut expected: Vec<Item> = batches.iter().take(failing).flatten().copied().map(Ok).collect();
        if failing <= batches.len() {
            expected.push(Err("lost"));
        }
        for make in ALL {
            let mut reads = 0;
            let read = move |mut batches: Batches| -> Pin<Box<dyn Future<Output = Batch>>> {
                reads += 1;
                let batch = Ok(batches.next().map(|batch| (batch, batches)));
                Box::pin(std::future::ready(if reads > failing { Err("lost") } else { batch }))
            };
            let items = make(batches.clone().into_iter(), Box::new(read));
            prop_assert_eq!(&futures::executor::block_on(items.collect::<Vec<_>>()), &expected);
        }
    }
}

/// Outside a runtime and with a million batches, most of them empty: no recursion, and the end stays the end.
#[test]
fn memory_and_stack_do_not_grow_with_the_number_of_batches() {
    for make in ALL {
        let mut left = 1_000_000;
        let read = move |batches: Batches| -> Pin<Box<dyn Future<Output = Batch>>> {
            left -= 1;
            let batch = if left % 10 == 0 { vec![7] } else { vec![] };
            Box::pin(std::future::ready(Ok((left > 0).then_some((batch, batches)))))
        };
        let mut items = make(batches(), Box::new(read));
        assert_eq!(futures::executor::block_on(items.by_ref().count()), 99_999);
        assert_eq!(futures::executor::block_on(items.next()), None);
    }
}

/// What the page says of the libraries: asked again after the end, one panics and the other does not.
#[test]
fn panics_of_unfold_after_its_end() {
    let mut unfold = stream::unfold((), async |()| None::<((), ())>).boxed_local();
    let mut again = || futures::executor::block_on(unfold.next());
    assert_eq!(again(), None);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(again)).is_err());
    let mut try_unfold = stream::try_unfold((), async |()| Ok::<_, ()>(None::<((), ())>)).boxed_local();
    for _ in 0..3 {
        assert_eq!(futures::executor::block_on(try_unfold.next()), None);
    }
}
