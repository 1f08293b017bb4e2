//! `pipeline`: the joined stages are dropped at every suspension point; the work fails and panics at each of its polls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use producer_consumer::{feed, stage, stage_in_order};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::mpsc::channel;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio::{join, try_join};

fn limit(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("tests use numbers above zero")
}

fn scene(parts: &Parts, width: usize, bound: usize) -> Scene<Result<Vec<u64>, &'static str>> {
    let permits = Rc::new(Semaphore::new(2));
    let (after, other) = (permits.clone(), permits.clone());
    let (parts, seen) = (parts.clone(), parts.clone());
    let call = async move {
        let ((first, input), (middle, middle_input), (last, mut output)) =
            (channel(bound), channel(bound), channel(bound));
        let read = |item: u64| {
            let permits = permits.clone();
            let work = async move {
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(item % 3)).await;
                Ok(item)
            };
            parts.fallible("read", work, || "read failed")
        };
        let parse = |item: u64| {
            let work = async move {
                sleep(Duration::from_millis((item + 1) % 2)).await;
                Ok(item)
            };
            parts.fallible("parse", work, || "parse failed")
        };
        let store = async {
            let mut stored = Vec::new();
            while let Some(item) = output.recv().await {
                sleep(Duration::from_millis(1)).await;
                stored.push(item);
            }
            Ok(stored)
        };
        let stages = async {
            try_join!(
                feed(0..6, first),
                stage_in_order(input, limit(width), read, middle),
                stage(middle_input, limit(width), parse, last),
                store
            )
        };
        stages.await.map(|((), (), (), stored)| stored)
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
        assert_eq!(after.available_permits(), 2);
        match (ended, seen.fault()) {
            (Ended::Returned(result), Some(Fault::Fail)) => assert!(result.is_err()),
            (Ended::Returned(result), None) => {
                let mut stored = result.expect("nothing failed");
                stored.sort_unstable();
                assert_eq!(stored, [0, 1, 2, 3, 4, 5]);
            }
            _ => {}
        }
    })
}

#[test]
fn panics_errors_and_cancellation_with_a_width_of_one() {
    sweep(|parts| scene(parts, 1, 1));
}

#[test]
fn cancellation_errors_and_panics_with_a_width_of_three() {
    sweep(|parts| scene(parts, 3, 2));
}

/// One stage alone between neighbours that live on: when it is dropped, the one before it ends well, and the one after it
/// sees the end.
#[test]
fn cancellation_of_one_stage_is_the_end_for_its_neighbours() {
    for in_order in [false, true] {
        sweep(|_| {
            let ((first, input), (last, mut output)) = (channel::<u64>(1), channel::<u64>(1));
            let work = async |item| {
                sleep(Duration::from_millis(item % 3)).await;
                Ok::<_, ()>(item)
            };
            let call = async move {
                if in_order {
                    stage_in_order(input, limit(2), work, last).await
                } else {
                    stage(input, limit(2), work, last).await
                }
            };
            Scene::new(call)
                .alongside(async move { feed::<_, ()>(0..8, first).await.unwrap() })
                .alongside(async move { while output.recv().await.is_some() {} })
        });
    }
}

/// The feeder is dropped between any two items: the stages end with what there was.
#[test]
fn cancellation_of_feed_is_the_end_of_the_input() {
    sweep(|_| {
        let (first, mut input) = channel::<u64>(1);
        let taken = Rc::new(RefCell::new(Vec::new()));
        let all = taken.clone();
        let take = async move {
            while let Some(item) = input.recv().await {
                sleep(Duration::from_millis(1)).await;
                taken.borrow_mut().push(item);
            }
        };
        Scene::new(feed::<_, ()>(0..6, first)).alongside(take).check(move |ended| {
            let all = all.borrow();
            assert!(all.iter().copied().eq(0..all.len() as u64));
            if let Ended::Returned(_) = ended {
                assert_eq!(all.len(), 6);
            }
        })
    });
}

/// While the output is full, what is at work goes on; it is not frozen as in a stream that nobody polls.
#[tokio::test(start_paused = true)]
async fn backpressure_does_not_freeze_work_that_has_begun() {
    let start = tokio::time::Instant::now();
    let ended = RefCell::new(Vec::new());
    let work = async |item: u64| {
        for _ in 0..2 {
            sleep(Duration::from_millis(10)).await;
        }
        ended.borrow_mut().push((item, start.elapsed().as_millis()));
        Ok::<_, ()>(item)
    };
    let ((first, input), (last, mut output)) = (channel(1), channel(1));
    let sink = async {
        sleep(Duration::from_secs(1)).await;
        while output.recv().await.is_some() {}
        Ok(())
    };
    try_join!(feed(0..4, first), stage_in_order(input, limit(3), work, last), sink).unwrap();
    assert_eq!(ended.borrow()[..3], [(0, 20), (1, 20), (2, 20)]);
}

/// When the consumer goes, stages and feeder end although they wait for input that never comes, and drop what is at work.
#[tokio::test(start_paused = true)]
async fn errors_are_none_when_the_consumer_goes_while_the_input_is_idle() {
    let ((first, input), (middle, middle_input), (last, output)) = (channel(1), channel(1), channel(1));
    let idle = Rc::new(());
    let at_work = idle.clone();
    let work = async |item: u64| {
        let _at_work = at_work.clone();
        std::future::pending::<()>().await;
        Ok::<_, ()>(item)
    };
    first.send(1).await.unwrap();
    let consumer = async {
        sleep(Duration::from_millis(5)).await;
        drop(output);
    };
    let ready = async |item| Ok::<_, ()>(item);
    let ended = join!(
        stage(input, limit(2), work, middle),
        stage_in_order(middle_input, limit(2), ready, last),
        consumer
    );
    assert_eq!(ended, (Ok(()), Ok(()), ()));
    assert_eq!(Rc::strong_count(&idle), 2);
    assert!(first.is_closed());
}

/// In flight, never more than widths and bounds, whatever the size of the input.
#[tokio::test(start_paused = true)]
async fn memory_is_flat_while_the_input_grows_a_hundredfold() {
    let mut peaks = Vec::new();
    for items in [1_000, 100_000] {
        let (alive, peak) = (Rc::new(()), Cell::new(0));
        let ((first, input), (middle, middle_input), (last, mut output)) =
            (channel(4), channel(4), channel(4));
        let input_items = (0..items).map(|_| {
            peak.set(peak.get().max(Rc::strong_count(&alive) - 1));
            alive.clone()
        });
        let work = async |item: Rc<()>| {
            yield_now().await;
            Ok::<_, ()>(item)
        };
        let sink = async {
            while output.recv().await.is_some() {
                yield_now().await;
            }
            Ok(())
        };
        let (one, two) =
            (stage_in_order(input, limit(4), work, middle), stage(middle_input, limit(4), work, last));
        try_join!(feed(input_items, first), one, two, sink).unwrap();
        peaks.push(peak.get());
    }
    assert_eq!(peaks[0], peaks[1]);
    assert!(peaks[0] <= 3 * 4 + (4 + 2) + 4 + 1, "{peaks:?}");
}

/// Each stage as a task of its own, on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_on_several_threads_loses_and_doubles_nothing() {
    for round in 0..20 {
        let ((first, input), (middle, middle_input), (last, mut output)) =
            (channel(2), channel(3), channel(1));
        let work = async |item: usize| {
            if item.is_multiple_of(3) {
                yield_now().await;
            }
            Ok::<_, ()>(item)
        };
        let stages = [
            tokio::spawn(feed(0..2_000, first)),
            tokio::spawn(stage_in_order(input, limit(1 + round % 5), work, middle)),
            tokio::spawn(stage_in_order(middle_input, limit(1 + round % 4), work, last)),
        ];
        for expected in 0..2_000 {
            assert_eq!(output.recv().await, Some(expected));
        }
        assert_eq!(output.recv().await, None);
        for stage in stages {
            stage.await.unwrap().unwrap();
        }
    }
}

/// An endless input whose work is ready at once leaves its neighbours their turn.
#[tokio::test]
async fn backpressure_leaves_neighbours_their_turn() {
    let ((first, input), (last, mut output)) = (channel(64), channel(64));
    let ready = async |item: u64| Ok::<_, ()>(item);
    let endless = tokio::spawn(async move {
        let sink = async {
            while output.recv().await.is_some() {}
            Ok(())
        };
        try_join!(feed(0.., first), stage_in_order(input, limit(64), ready, last), sink)
    });
    for _ in 0..100 {
        yield_now().await;
    }
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

async fn collect(mut output: mpsc::Receiver<usize>, slow: u64) -> Result<Vec<usize>, ()> {
    let mut all = Vec::new();
    while let Some(item) = output.recv().await {
        sleep(Duration::from_millis(slow)).await;
        all.push(item);
    }
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any work, any width, any bound: each item comes out once, in order where that is asked for.
    #[test]
    fn order_loses_and_doubles_nothing(
        millis in prop::collection::vec(0..9_u64, 0..40),
        (width, other_width) in (1..9_usize, 1..9_usize),
        (bound, slow) in (1..5_usize, 0..5_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (running, peak) = (Cell::new(0), Cell::new(0));
        let work = async |item: usize| {
            running.set(running.get() + 1);
            peak.set(peak.get().max(running.get()));
            sleep(Duration::from_millis(millis[item])).await;
            running.set(running.get() - 1);
            Ok::<_, ()>(item)
        };
        let in_order = async {
            let ((first, input), (last, output)) = (channel(bound), channel(bound));
            let items = 0..millis.len();
            try_join!(feed(items, first), stage_in_order(input, limit(width), work, last), collect(output, slow)).unwrap().2
        };
        let all = runtime.block_on(in_order);
        prop_assert!(all.into_iter().eq(0..millis.len()));
        prop_assert!(peak.get() <= width);
        let any_order = async {
            let ((first, input), (last, output)) = (channel(bound), channel(bound));
            let items = 0..millis.len();
            try_join!(feed(items, first), stage(input, limit(other_width), work, last), collect(output, slow)).unwrap().2
        };
        let mut all = runtime.block_on(any_order);
        all.sort_unstable();
        prop_assert!(all.into_iter().eq(0..millis.len()));
        prop_assert!(peak.get() <= width.max(other_width));
    }
}
