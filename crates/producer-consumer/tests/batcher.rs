//! `batcher`: `next` is dropped at every suspension point, and each item is still in exactly one batch.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use producer_consumer::Batcher;
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// The subject takes two batches; whoever comes after it gets the rest.
fn scene(bytes: Option<usize>) -> Scene<()> {
    let (sender, receiver) = mpsc::channel(2);
    let mut batches =
        Batcher::new(receiver, NonZeroUsize::new(3).expect("not zero"), Duration::from_millis(5));
    if let Some(bytes) = bytes {
        batches = batches.max_bytes(NonZeroUsize::new(bytes).expect("not zero"), |item| *item);
    }
    let shared = Rc::new(RefCell::new(Some(batches)));
    let (seen, checked, home) = (Rc::new(RefCell::new(Vec::new())), shared.clone(), shared.clone());
    let all = seen.clone();
    /// Puts the batcher back when the subject is dropped.
    struct Back(Option<Batcher<usize>>, Rc<RefCell<Option<Batcher<usize>>>>);
    impl Drop for Back {
        fn drop(&mut self) {
            *self.1.borrow_mut() = self.0.take();
        }
    }
    let call = async move {
        let mut back = Back(shared.borrow_mut().take(), shared.clone());
        for _ in 0..2 {
            let next = back.0.as_mut().expect("it is taken once").next().await;
            seen.borrow_mut().extend(next);
        }
    };
    let sending = async move {
        for item in 1..=9 {
            sender.send(item).await.expect("the batcher is not dropped");
            sleep(Duration::from_millis(item as u64 % 4)).await;
        }
    };
    let rest = all.clone();
    let late = async move {
        sleep(Duration::from_secs(60)).await;
        let mut batches = home.borrow_mut().take().expect("the subject has ended");
        while let Some(batch) = batches.next().await {
            rest.borrow_mut().push(batch);
        }
    };
    Scene::new(call).alongside(sending).alongside(late).check(move |ended| {
        let batches = all.borrow();
        assert!(batches.iter().all(|batch| (1..=3).contains(&batch.len())));
        assert!(batches.concat().into_iter().eq(1..=9), "{batches:?}");
        assert!(checked.borrow().is_none());
        assert!(!matches!(ended, Ended::Panicked(_)));
    })
}

#[test]
fn cancellation_at_every_point_by_count() {
    sweep(|_| scene(None));
}

#[test]
fn cancellation_at_every_point_by_bytes() {
    sweep(|_| scene(Some(8)));
}

/// A sender that always has one more item ready cannot hold a batch open: the deadline is kept, and others have their turn.
#[tokio::test]
async fn clock_is_kept_against_an_endless_sender() {
    let (sender, receiver) = mpsc::channel(2);
    let endless = tokio::spawn(async move { while sender.send(()).await.is_ok() {} });
    let mut batches = Batcher::new(receiver, NonZeroUsize::MAX, Duration::from_millis(2));
    assert!(batches.next().await.is_some_and(|batch| !batch.is_empty()));
    drop(batches);
    endless.await.unwrap();
}

/// The batches come out of what was received, one item each, without end for a consumer that never waits.
#[tokio::test(start_paused = true)]
async fn backpressure_gives_way_to_other_tasks() {
    let (sender, receiver) = mpsc::channel(100_000);
    (0..100_000_usize).for_each(|item| sender.try_send(item).unwrap());
    drop(sender);
    let mut batches =
        Batcher::new(receiver, NonZeroUsize::MAX, Duration::MAX).max_bytes(NonZeroUsize::MIN, |_| 1);
    let turns = Rc::new(RefCell::new(0));
    let counted = turns.clone();
    let others = async move {
        loop {
            *counted.borrow_mut() += 1;
            tokio::task::yield_now().await;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.spawn_local(others);
    let taken = local.run_until(async move {
        let mut taken = 0;
        while let Some(batch) = batches.next().await {
            assert_eq!(batch, [taken]);
            taken += 1;
        }
        taken
    });
    assert_eq!(taken.await, 100_000);
    assert!(*turns.borrow() > 100, "{} turns", turns.borrow());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any items, pauses, limits and cancellations: each item in one batch, in order, in time, within the limits.
    #[test]
    fn order_and_limits_hold(
        items in prop::collection::vec((0..9_usize, 0..30_u64), 0..60),
        (most, bytes) in (1..8_usize, 1..20_usize),
        (delay, patience) in (0..40_u64, 1..20_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let sent = items.clone();
        let batches = runtime.block_on(async move {
            let (sender, receiver) = mpsc::channel(4);
            tokio::spawn(async move {
                for (size, pause) in sent {
                    sleep(Duration::from_millis(pause)).await;
                    sender.send((size, Instant::now())).await.unwrap();
                }
            });
            let limit = NonZeroUsize::new(most).unwrap();
            let mut batcher = Batcher::new(receiver, limit, Duration::from_millis(delay))
                .max_bytes(NonZeroUsize::new(bytes).unwrap(), |(size, _)| *size);
            let mut all = Vec::new();
            loop {
                // A consumer that gives up again and again.
                match timeout(Duration::from_millis(patience), batcher.next()).await {
                    Ok(Some(batch)) => all.push((batch, Instant::now())),
                    Ok(None) => return all,
                    Err(_) => {}
                }
            }
        });
        for (batch, at) in &batches {
            let size: usize = batch.iter().map(|(size, _)| size).sum();
            prop_assert!((1..=most).contains(&batch.len()) && (size <= bytes || batch.len() == 1));
            prop_assert!(at.duration_since(batch[0].1) <= Duration::from_millis(delay + 1));
        }
        let all = batches.into_iter().flat_map(|(batch, _)| batch).map(|(size, _)| size);
        prop_assert!(all.eq(items.into_iter().map(|(size, _)| size)));
    }
}
