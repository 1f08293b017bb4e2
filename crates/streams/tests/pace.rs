//! `pace`: `next` is dropped at every suspension point, and what comes out is the same as if it had not been.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::{StreamExt, stream};
use proptest::prelude::*;
use streams::{Pace, debounce, sample, throttle};
use support::sweep::{Scene, sweep};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

type Make = fn(ReceiverStream<u64>, Duration) -> Pace<ReceiverStream<u64>>;

/// Puts what the subject holds back when it is dropped.
struct Back<T>(Option<T>, Rc<RefCell<Option<T>>>);

impl<T> Drop for Back<T> {
    fn drop(&mut self) {
        *self.1.borrow_mut() = self.0.take();
    }
}

/// The subject takes two items; whoever comes after it gets the rest.
fn scene(make: Make, parts: &support::sweep::Parts) -> Scene<()> {
    let (sender, receiver) = mpsc::channel(2);
    let shared = Rc::new(RefCell::new(Some(make(ReceiverStream::new(receiver), ms(5)))));
    let (seen, home, parts) = (Rc::new(RefCell::new(Vec::new())), shared.clone(), parts.clone());
    let (all, rest) = (seen.clone(), seen.clone());
    let call = async move {
        let mut back = Back(shared.borrow_mut().take(), shared.clone());
        for _ in 0..2 {
            let next = parts.child("next", back.0.as_mut().expect("it is taken once").next());
            let next = next.await;
            seen.borrow_mut().extend(next);
        }
    };
    let sending = async move {
        for item in 1..=12 {
            sender.send(item).await.expect("the stream is not dropped");
            sleep(ms(item % 8)).await;
        }
    };
    let late = async move {
        sleep(Duration::from_secs(60)).await;
        let paced = home.borrow_mut().take().expect("the subject has ended");
        let all: Vec<_> = paced.collect().await;
        rest.borrow_mut().extend(all);
    };
    Scene::new(call).alongside(sending).alongside(late).check(move |_| {
        let items = all.borrow();
        assert!(items.is_sorted_by(|one, next| one < next), "{items:?}");
        assert_eq!(items.last(), Some(&12), "the last item of the stream comes out");
    })
}

#[test]
fn cancellation_of_debounce_at_every_point() {
    sweep(|parts| scene(debounce, parts));
}

#[test]
fn cancellation_of_throttle_at_every_point() {
    sweep(|parts| scene(throttle, parts));
}

#[test]
fn cancellation_of_sample_at_every_point() {
    sweep(|parts| scene(sample, parts));
}

/// A stream that is always ready: others have their turn, and throttle and sample keep their beat.
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
    let endless = || stream::iter(0..);
    local
        .run_until(async move {
            let throttled: Vec<u64> = throttle(endless(), ms(5)).take(3).collect().await;
            assert!(throttled[0] == 0 && throttled[1] < throttled[2]);
            assert!(sample(endless(), ms(5)).next().await > Some(0));
            assert!(timeout(ms(20), debounce(endless(), ms(5)).next()).await.is_err(), "it never rests");
        })
        .await;
    assert!(turns.get() > 1);
}

/// What tokio-stream calls throttle leaves nothing out.
#[tokio::test(start_paused = true)]
async fn order_of_another_throttle_has_no_gaps() {
    let all: Vec<_> = tokio_stream::StreamExt::throttle(stream::iter(0..5), ms(30)).collect().await;
    assert_eq!(all, [0, 1, 2, 3, 4]);
    assert_eq!(throttle(stream::iter(0..5), ms(30)).collect::<Vec<_>>().await, [0, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pauses, with and without cancellations: rules about time hold, and cancellations change nothing.
    #[test]
    fn clock_and_order_hold(
        pauses in prop::collection::vec(0..30_u64, 1..60),
        (period, patience, which) in (1..40_u64, 1..20_u64, 0..3_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let run = |patience: Duration| {
            let pauses = pauses.clone();
            runtime.block_on(async move {
                let start = Instant::now();
                let items = stream::iter(pauses).enumerate().then(async |(number, pause)| {
                    sleep(ms(pause)).await;
                    number
                });
                let mut paced = [debounce, throttle, sample][which](Box::pin(items), ms(period));
                let mut all = Vec::new();
                loop {
                    match timeout(patience, paced.next()).await {
                        Ok(Some(number)) => all.push((number, start.elapsed().as_millis() as u64)),
                        Ok(None) => return all,
                        Err(_) => {}
                    }
                }
            })
        };
        let all = run(Duration::MAX);
        prop_assert_eq!(&run(ms(patience)), &all);

        let mut came = 0;
        let came: Vec<u64> = pauses.iter().map(|pause| { came += pause; came }).collect();
        let end = *came.last().unwrap();
        prop_assert_eq!(all.last().map(|(number, _)| *number), Some(pauses.len() - 1));
        prop_assert!(all.is_sorted_by(|one, next| one.0 < next.0));
        for (number, at) in all.iter().filter(|(_, at)| *at < end) {
            // What came out is the latest of what had come.
            prop_assert!(came[*number] <= *at && came[number + 1] >= *at);
            match which {
                0 => prop_assert_eq!(came[*number] + period, *at),
                1 => {}
                _ => prop_assert_eq!(at % period, 0),
            }
        }
        for pair in all.windows(2).filter(|pair| which == 1 && pair[1].1 < end) {
            prop_assert!(pair[1].1 - pair[0].1 >= period);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_another_thread() {
    for make in [debounce, throttle, sample] {
        let (sender, receiver) = mpsc::channel(16);
        let taking = tokio::spawn(make(ReceiverStream::new(receiver), ms(1)).collect::<Vec<_>>());
        for number in 0..20_000 {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        let all = taking.await.unwrap();
        assert!(all.is_sorted() && all.last() == Some(&19_999));
    }
}
