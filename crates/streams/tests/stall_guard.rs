//! `stall_guard`: `next` is dropped at every suspension point, and no item is lost.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use futures::{StreamExt, stream};
use proptest::prelude::*;
use streams::{StallGuard, Stalled};
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Puts what the subject holds back when it is dropped.
struct Back<T>(Option<T>, Rc<RefCell<Option<T>>>);

impl<T> Drop for Back<T> {
    fn drop(&mut self) {
        *self.1.borrow_mut() = self.0.take();
    }
}

/// The subject takes three items; whoever comes after it gets the rest, as long as the stream does not stall.
fn scene(parts: &support::sweep::Parts, longest: u64) -> Scene<()> {
    let (sender, receiver) = mpsc::channel(1);
    let guarded = StallGuard::new(ReceiverStream::new(receiver), ms(50)).total(Duration::from_secs(600));
    let shared = Rc::new(RefCell::new(Some(guarded)));
    let (seen, home, parts) = (Rc::new(RefCell::new(Vec::new())), shared.clone(), parts.clone());
    let (all, rest) = (seen.clone(), seen.clone());
    let call = async move {
        let mut back = Back(shared.borrow_mut().take(), shared.clone());
        for _ in 0..3 {
            let next = parts.child("next", back.0.as_mut().expect("it is taken once").next());
            let next = next.await;
            seen.borrow_mut().extend(next);
        }
    };
    let sending = async move {
        for item in 1..=8 {
            // The receiver is dropped when the stream has stalled.
            let _ = sender.send(item).await;
            sleep(ms(if item == 6 { longest } else { 3 })).await;
        }
    };
    let late = async move {
        sleep(Duration::from_secs(60)).await;
        let guarded = home.borrow_mut().take().expect("the subject has ended");
        let all: Vec<_> = guarded.collect().await;
        rest.borrow_mut().extend(all);
    };
    Scene::new(call).alongside(sending).alongside(late).check(move |_| {
        let expected = (1..=if longest < 50 { 8 } else { 6 }).map(Ok);
        let stalled = (longest >= 50).then_some(Err(Stalled::Idle { limit: ms(50), items: 6 }));
        assert!(all.borrow().iter().copied().eq(expected.chain(stalled)), "{:?}", all.borrow());
    })
}

#[test]
fn cancellation_at_every_point() {
    sweep(|parts| scene(parts, 3));
}

#[test]
fn cancellation_at_every_point_before_a_stall() {
    sweep(|parts| scene(parts, 500));
}

/// A call that ends with the error has given back what the stream held.
#[test]
fn errors_come_when_the_permit_is_free_again() {
    sweep(|_| {
        let permits = Rc::new(Semaphore::new(1));
        let (other, after) = (permits.clone(), permits.clone());
        let call = async move {
            let permit = permits.acquire().await.unwrap();
            let source = stream::iter(1..4).chain(stream::pending()).inspect(move |_| _ = &permit);
            let mut guarded = StallGuard::new(source, ms(10));
            let last = loop {
                if let Some(Err(stalled)) = guarded.next().await {
                    break stalled;
                }
            };
            // The guard is still here, and what it guarded is not.
            assert_eq!(permits.available_permits(), 1);
            assert_eq!(guarded.next().await, None);
            last
        };
        Scene::new(call).alongside(async move { drop(other.acquire().await) }).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            if let Ended::Returned(stalled) = ended {
                assert_eq!(stalled, Stalled::Idle { limit: ms(10), items: 3 });
            }
        })
    });
}

/// The trap of either limit alone. A timeout for each item lets a stream drip on for ever; a timeout for the whole cuts a
/// healthy long one off.
#[tokio::test(start_paused = true)]
async fn clock_of_one_limit_alone_is_wrong() {
    let drip = || stream::repeat(()).then(|()| sleep(ms(900)));
    let each = tokio_stream::StreamExt::timeout(drip(), ms(1_000))
        .take_while(|item| std::future::ready(item.is_ok()));
    assert!(timeout(Duration::from_secs(3_600), each.count()).await.is_err(), "it drips on after an hour");
    let guarded = StallGuard::new(Box::pin(drip()), ms(1_000)).total(Duration::from_secs(60));
    let last = guarded.filter_map(async |item| item.err()).collect::<Vec<_>>().await;
    assert_eq!(last, [Stalled::Total { limit: Duration::from_secs(60), items: 66 }]);

    let healthy = || stream::iter(0..100).then(|_| sleep(ms(50)));
    assert!(timeout(ms(1_000), healthy().count()).await.is_err(), "it was healthy, and is cut off");
    let guarded = StallGuard::new(Box::pin(healthy()), ms(1_000)).total(Duration::from_secs(60));
    assert!(guarded.all(async |item| item.is_ok()).await);
}

/// `tokio-stream`'s timeout counts the time in which the consumer is busy, and then the wait has no time left.
#[tokio::test(start_paused = true)]
async fn clock_of_a_timeout_adapter_counts_the_consumer_too() {
    let slow = || {
        Box::pin(stream::iter(1..4).then(async |item| {
            sleep(ms(5)).await;
            item
        }))
    };
    let mut peer = std::pin::pin!(tokio_stream::StreamExt::timeout(slow(), ms(10)));
    let mut guarded = StallGuard::new(slow(), ms(10));
    assert!(peer.next().await.unwrap().is_ok() && guarded.next().await.unwrap().is_ok());
    sleep(ms(50)).await;
    assert!(peer.next().await.unwrap().is_err(), "the source had no time at all");
    assert_eq!(guarded.next().await, Some(Ok(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pauses, a consumer that works and gives up now and then: the first limit that runs out ends it, to the millisecond.
    #[test]
    fn clock_is_exact(
        pauses in prop::collection::vec(1..30_u64, 0..40),
        (idle, total, patience) in (1..35_u64, 1..400_u64, 1..20_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let given = pauses.clone();
        let (seen, took) = runtime.block_on(async move {
            let start = Instant::now();
            let items = Box::pin(stream::iter(given).then(async |pause| sleep(ms(pause)).await));
            let mut guarded = StallGuard::new(items, ms(idle)).total(ms(total));
            let mut seen = Vec::new();
            loop {
                match timeout(ms(patience), guarded.next()).await {
                    Ok(Some(item)) => seen.push(item),
                    Ok(None) => return (seen, start.elapsed()),
                    Err(_) => {}
                }
            }
        });
        // What must have happened, item by item.
        let (mut now, mut expected) = (0, Vec::new());
        for pause in pauses {
            let items = expected.len() as u64;
            let (stall, end) = (now + idle, total);
            now += pause;
            if end <= stall.min(now) {
                expected.push(Err(Stalled::Total { limit: ms(total), items }));
                now = end;
                break;
            }
            if stall < now {
                expected.push(Err(Stalled::Idle { limit: ms(idle), items }));
                now = stall;
                break;
            }
            expected.push(Ok(()));
        }
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(took, ms(now));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_another_thread() {
    let (sender, receiver) = mpsc::channel(NonZeroUsize::MIN.get());
    let guarded =
        StallGuard::new(ReceiverStream::new(receiver), Duration::from_secs(600)).total(Duration::MAX);
    let taking = tokio::spawn(guarded.map(|item| item.expect("it does not stall")).collect::<Vec<_>>());
    for number in 0..50_000 {
        sender.send(number).await.unwrap();
    }
    drop(sender);
    assert!(taking.await.unwrap().into_iter().eq(0..50_000));
}
