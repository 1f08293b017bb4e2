//! `chunks`: `next` is dropped at every suspension point, and each item is still in exactly one chunk.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use proptest::prelude::*;
use streams::{Chunks, chunks};
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

/// Puts what the subject holds back when it is dropped.
struct Back<T>(Option<T>, Rc<RefCell<Option<T>>>);

impl<T> Drop for Back<T> {
    fn drop(&mut self) {
        *self.1.borrow_mut() = self.0.take();
    }
}

/// The subject takes two chunks; whoever comes after it gets the rest.
#[test]
fn cancellation_at_every_point() {
    sweep(|parts| {
        let (sender, receiver) = mpsc::channel(2);
        let source = ReceiverStream::new(receiver);
        let made: Chunks<ReceiverStream<u64>> =
            chunks(source, NonZeroUsize::new(3).unwrap(), Duration::from_millis(5));
        let shared = Rc::new(RefCell::new(Some(made)));
        let (seen, home, parts) = (Rc::new(RefCell::new(Vec::new())), shared.clone(), parts.clone());
        let (all, rest) = (seen.clone(), seen.clone());
        let call = async move {
            let mut back = Back(shared.borrow_mut().take(), shared.clone());
            for _ in 0..2 {
                let next = back.0.as_mut().expect("it is taken once").next();
                let next = parts.child("next", next).await;
                seen.borrow_mut().extend(next);
            }
        };
        let sending = async move {
            for item in 1..=9 {
                sender.send(item).await.expect("the stream is not dropped");
                sleep(Duration::from_millis(item % 4)).await;
            }
        };
        let late = async move {
            sleep(Duration::from_secs(60)).await;
            let chunks = home.borrow_mut().take().expect("the subject has ended");
            let all: Vec<_> = chunks.collect().await;
            rest.borrow_mut().extend(all);
        };
        Scene::new(call).alongside(sending).alongside(late).check(move |_| {
            let chunks = all.borrow();
            assert!(chunks.iter().all(|chunk| (1..=3).contains(&chunk.len())));
            assert!(chunks.concat().into_iter().eq(1..=9), "{chunks:?}");
        })
    });
}

/// The taken items are given back, and with the rest of the stream they are all.
#[test]
fn cancellation_gives_back_what_was_taken() {
    sweep(|_| {
        let numbers = stream::iter(1..=9_u64).then(async |number| {
            sleep(Duration::from_millis(number % 4)).await;
            number
        });
        let made = chunks(Box::pin(numbers), NonZeroUsize::new(4).unwrap(), Duration::from_millis(5));
        let shared = Rc::new(RefCell::new(Some(made)));
        let (seen, home) = (Rc::new(RefCell::new(Vec::new())), shared.clone());
        let all = seen.clone();
        let call = async move {
            let mut back = Back(shared.borrow_mut().take(), shared.clone());
            while let Some(chunk) = back.0.as_mut().expect("it is taken once").next().await {
                seen.borrow_mut().extend(chunk);
            }
        };
        let rest = all.clone();
        let late = async move {
            sleep(Duration::from_secs(60)).await;
            let chunks = home.borrow_mut().take();
            let (stream, taken) = chunks.unwrap().into_parts();
            rest.borrow_mut().extend(taken);
            // After its end `then` may not be polled again.
            if rest.borrow().len() < 9 {
                let left: Vec<_> = stream.collect().await;
                rest.borrow_mut().extend(left);
            }
        };
        Scene::new(call).alongside(late).check(move |ended| {
            assert!(all.borrow().iter().copied().eq(1..=9), "{:?}", all.borrow());
            assert!(!matches!(ended, Ended::Panicked(_)));
        })
    });
}

/// A stream that is always ready cannot hold a chunk open: the deadline is kept, and others have their turn.
#[tokio::test]
async fn clock_is_kept_against_an_endless_stream() {
    let turns = Rc::new(Cell::new(0));
    let counted = turns.clone();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(async move {
        loop {
            counted.set(counted.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    let mut endless = chunks(stream::repeat(()), NonZeroUsize::MAX, Duration::from_millis(20));
    let chunk = local.run_until(endless.next()).await;
    assert!(chunk.is_some_and(|chunk| !chunk.is_empty()));
    assert!(turns.get() > 1);
}

/// The peer reserves the full count for each chunk, and looks at its timer only when nothing is ready.
#[tokio::test(start_paused = true)]
async fn memory_and_clock_of_the_peer_are_not_bounded() {
    use tokio_stream::StreamExt as Peer;
    const LIMIT: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();
    let one = || StreamExt::chain(stream::iter([7_u8]), stream::pending());
    let peer =
        StreamExt::next(&mut Box::pin(Peer::chunks_timeout(one(), LIMIT.get(), Duration::from_millis(5))))
            .await;
    assert!(peer.is_some_and(|chunk| chunk.len() == 1 && chunk.capacity() >= 1_000_000));
    let own = StreamExt::next(&mut chunks(one(), LIMIT, Duration::from_millis(5))).await;
    assert!(own.is_some_and(|chunk| chunk.len() == 1 && chunk.capacity() < 100));

    let start = std::time::Instant::now();
    let ready = std::iter::from_fn(|| (start.elapsed() < Duration::from_millis(50)).then_some(()));
    let peer = Peer::chunks_timeout(stream::iter(ready), usize::MAX, Duration::from_millis(1));
    assert_eq!(StreamExt::count(peer).await, 1, "ready for 50 ms, and due after one");
}

/// Chunks of one out of a stream that is always ready, for a consumer that never waits.
#[tokio::test]
async fn backpressure_gives_way_to_other_tasks() {
    let other = tokio::spawn(async {});
    let mut ones = chunks(stream::repeat(()), NonZeroUsize::MIN, Duration::MAX);
    while !other.is_finished() {
        assert_eq!(ones.next().await, Some(vec![()]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_another_thread() {
    let (sender, receiver) = mpsc::channel(16);
    let taking = tokio::spawn(async move {
        let limit = NonZeroUsize::new(64).unwrap();
        let chunks = chunks(ReceiverStream::new(receiver), limit, Duration::from_millis(1));
        chunks.flat_map(stream::iter).collect::<Vec<_>>().await
    });
    for number in 0..100_000 {
        sender.send(number).await.unwrap();
    }
    drop(sender);
    assert!(taking.await.unwrap().into_iter().eq(0..100_000));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pauses, limits and cancellations: each item in one chunk, in order, in time, within the limit.
    #[test]
    fn order_and_limits_hold(
        pauses in prop::collection::vec(0..30_u64, 0..60),
        (most, delay, patience) in (1..8_usize, 0..40_u64, 1..20_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let given = pauses.clone();
        let all = runtime.block_on(async move {
            let items = stream::iter(given).enumerate().then(async |(number, pause)| {
                sleep(Duration::from_millis(pause)).await;
                (number, Instant::now())
            });
            let limit = NonZeroUsize::new(most).unwrap();
            let mut chunks = chunks(Box::pin(items), limit, Duration::from_millis(delay));
            let mut all = Vec::new();
            loop {
                match timeout(Duration::from_millis(patience), chunks.next()).await {
                    Ok(Some(chunk)) => all.push((chunk, Instant::now())),
                    Ok(None) => return all,
                    Err(_) => {}
                }
            }
        });
        for (chunk, at) in &all {
            prop_assert!((1..=most).contains(&chunk.len()));
            prop_assert!(at.duration_since(chunk[0].1) <= Duration::from_millis(delay + 1));
        }
        let numbers = all.into_iter().flat_map(|(chunk, _)| chunk).map(|(number, _)| number);
        prop_assert!(numbers.eq(0..pauses.len()));
    }
}

/// It is `Send` and `Unpin` when the stream is.
#[tokio::test(start_paused = true)]
async fn order_in_a_task_of_its_own() {
    fn unpin<S: Stream + Unpin>(stream: S) -> S {
        stream
    }
    let boxed = stream::iter(0..5).then(async |number| number).boxed();
    let mut all = unpin(chunks(boxed, NonZeroUsize::new(4).unwrap(), Duration::from_millis(5)));
    let all = tokio::spawn(async move { all.by_ref().collect::<Vec<_>>().await });
    assert_eq!(all.await.unwrap(), [vec![0, 1, 2, 3], vec![4]]);
}
