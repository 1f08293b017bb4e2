//! `barrier`: participants are dropped at every suspension point, and leave no ghost.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use locks::{Barrier, Round};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// Three participants for two rounds, of which two give up when nobody else comes. Afterwards it must take three to go on.
#[test]
fn cancellation_at_every_point() {
    sweep(|_| {
        let barrier = Rc::new(Barrier::new(THREE));
        let (subject, checked) = (barrier.clone(), barrier.clone());
        let arrive = |barrier: Rc<Barrier>, late| async move {
            for _ in 0..2 {
                sleep(Duration::from_millis(late)).await;
                let _ = timeout(Duration::from_millis(20), barrier.wait()).await;
            }
        };
        let call = async move {
            let first = subject.wait().await;
            yield_now().await;
            let second = subject.wait().await;
            (first.number, second.number)
        };
        Scene::new(call)
            .alongside(arrive(barrier.clone(), 2))
            .alongside(arrive(barrier, 3))
            .check(move |ended| {
                if let Ended::Returned(rounds) = ended {
                    assert_eq!(rounds, (0, 1));
                }
                // An hour later nobody is there: two of three cannot be enough.
                assert_eq!(checked.wait().now_or_never(), None);
                let mut two = Box::pin(async { tokio::join!(checked.wait(), checked.wait()) });
                assert!(two.as_mut().now_or_never().is_none());
                let third = checked.wait().now_or_never();
                assert!(third.is_some_and(|round| round.leads), "a place was lost");
                assert!(two.now_or_never().is_some());
            })
            // Of those whom a full round wakes, a watch channel wakes one or the other first.
            .random()
    });
}

/// tokio's own barrier, of version 1.54.1, counts the one that gave up: a round of two is full with one.
#[tokio::test]
async fn cancellation_leaves_a_ghost_in_tokios_barrier() {
    // ANCHOR: ghost
    let barrier = tokio::sync::Barrier::new(2);
    assert!(barrier.wait().now_or_never().is_none()); // it arrives, and gives up
    assert!(barrier.wait().now_or_never().is_some()); // alone, and let go at once
    // ANCHOR_END: ghost
    let barrier = Barrier::new(NonZeroUsize::new(2).unwrap());
    assert!(barrier.wait().now_or_never().is_none());
    assert!(barrier.wait().now_or_never().is_none());
}

/// Each round is led once, and nobody passes it before all have arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_many_rounds_on_two_threads() {
    const ROUNDS: usize = 2000;
    let barrier = Arc::new(Barrier::new(THREE));
    let (arrived, led) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (barrier, arrived, led) = (barrier.clone(), arrived.clone(), led.clone());
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let Round { number, leads } = barrier.wait().await;
                    assert_eq!(number, round as u64);
                    assert!(arrived.load(Ordering::SeqCst) >= 3 * (round + 1));
                    led.fetch_add(usize::from(leads), Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(led.load(Ordering::SeqCst), ROUNDS);
}

/// Others arrive and give up all the time, on another thread, while the rounds go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_storm_keeps_the_rounds_whole() {
    let barrier = Arc::new(Barrier::new(THREE));
    let guests = {
        let barrier = barrier.clone();
        tokio::spawn(async move {
            loop {
                // Completed by chance, or dropped while it waits.
                let _ = barrier.wait().now_or_never();
                yield_now().await;
            }
        })
    };
    let member = |barrier: Arc<Barrier>| async move {
        let mut last = None;
        for _ in 0..500 {
            let Round { number, .. } = barrier.wait().await;
            assert!(last.is_none_or(|last| number > last));
            last = Some(number);
        }
    };
    // Three can fill each round without the guest. At the end a lone one would wait: a helper lets it go.
    let members: Vec<_> = (0..3).map(|_| tokio::spawn(member(barrier.clone()))).collect();
    let helper = tokio::spawn(async move {
        loop {
            barrier.wait().await;
        }
    });
    for task in join_all(members).await {
        task.unwrap();
    }
    guests.abort();
    helper.abort();
}

#[tokio::test]
async fn memory_of_a_hundred_thousand() {
    let n = NonZeroUsize::new(100_000).unwrap();
    let barrier = Arc::new(Barrier::new(n));
    let wait = |barrier: Arc<Barrier>| async move { barrier.wait().await };
    let tasks: Vec<_> = (0..n.get()).map(|_| tokio::spawn(wait(barrier.clone()))).collect();
    let leaders = join_all(tasks).await.into_iter().filter(|task| task.as_ref().is_ok_and(|it| it.leads));
    assert_eq!(leaders.count(), 1);
    assert_eq!(Arc::strong_count(&barrier), 1);
}

/// Alone at a barrier for one, a loop gives other tasks their turn.
#[tokio::test]
async fn backpressure_a_loop_of_rounds_yields() {
    let barrier = Barrier::new(NonZeroUsize::MIN);
    let endless = tokio::spawn(async move {
        loop {
            barrier.wait().await;
        }
    });
    yield_now().await;
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the plainest model: a count that goes up with an arrival, and down with a wait that is given up.
    #[test]
    fn order_is_that_of_a_model(size in 1..5_usize, steps in prop::collection::vec(any::<(bool, usize)>(), 0..80)) {
        let barrier = Barrier::new(NonZeroUsize::new(size).unwrap());
        let (mut waiting, mut round) = (Vec::new(), 0);
        for (arrives, which) in steps {
            if arrives {
                let mut wait = Box::pin(barrier.wait());
                match wait.as_mut().now_or_never() {
                    Some(led) => {
                        prop_assert_eq!(led, Round { number: round, leads: true });
                        prop_assert_eq!(waiting.len(), size - 1);
                        for wait in waiting.drain(..) {
                            prop_assert_eq!(FutureExt::now_or_never(wait), Some(Round { number: round, leads: false }));
                        }
                        round += 1;
                    }
                    None => waiting.push(wait),
                }
            } else if !waiting.is_empty() {
                drop(waiting.swap_remove(which % waiting.len()));
            }
            prop_assert!(waiting.len() < size);
        }
    }
}
