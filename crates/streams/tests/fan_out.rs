//! `fan_out`: `publish` is dropped at every suspension point: an item is for everybody or for nobody.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use streams::Event::{Disconnected, Item, Lost};
use streams::{Event, FanOut, WhenFull};
use support::sweep::{Ended, Scene, sweep};
use tokio::time::{Instant, sleep};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MANY: NonZeroUsize = NonZeroUsize::new(100).unwrap();

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The subject publishes 1 to 4, a second publisher waits for its turn with 11 to 13, and one subscriber is slow.
#[test]
fn cancellation_of_publish_at_every_point() {
    sweep(|parts| {
        let fan_out = Rc::new(FanOut::new());
        let (mut slow, fast) =
            (fan_out.subscribe_blocking(ONE, ms(500)), fan_out.subscribe(MANY, WhenFull::Disconnect));
        let (published, parts) = (Rc::new(Cell::new(0)), parts.clone());
        let (of_slow, of_fast) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let done = published.clone();
        let (slow_seen, fast_seen) = (of_slow.clone(), of_fast.clone());
        let (own, other): (_, Rc<FanOut<u64>>) = (fan_out.clone(), fan_out);
        let call = async move {
            for number in 1..=4 {
                assert_eq!(parts.child("publish", own.publish(number)).await, 2);
                published.set(number);
            }
        };
        let other = async move {
            for number in 11..=13 {
                assert_eq!(other.publish(number).await, 2);
            }
        };
        let slow = async move {
            while let Some(event) = slow.next().await {
                slow_seen.borrow_mut().push(event);
                sleep(ms(20)).await;
            }
        };
        let fast = async move {
            let all = fast.collect().await;
            *fast_seen.borrow_mut() = all;
        };
        Scene::new(call).alongside(other).alongside(slow).alongside(fast).check(move |ended| {
            let (slow, fast): (Vec<Event<u64>>, Vec<Event<u64>>) = (of_slow.take(), of_fast.take());
            assert_eq!(slow, fast, "an item is for everybody or for nobody");
            let all = (1..=done.get()).chain(11..=13).map(Item);
            assert!(all.clone().all(|item| slow.contains(&item)) && slow.len() == all.count(), "{slow:?}");
            assert!(!matches!(ended, Ended::Returned(())) || done.get() == 4);
        })
    });
}

/// The slow one is the subject: whenever it is dropped, publishing goes on and the other one misses nothing.
#[test]
fn cancellation_of_a_subscriber_at_every_point() {
    sweep(|_| {
        let fan_out = FanOut::new();
        let (mut slow, fast) =
            (fan_out.subscribe_blocking(ONE, Duration::MAX), fan_out.subscribe_blocking(ONE, ms(500)));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let all = seen.clone();
        let call = async move {
            while slow.next().await.is_some() {
                sleep(ms(20)).await;
            }
        };
        let publish = async move {
            for number in 1..=4 {
                assert!(fan_out.publish(number).await >= 1);
            }
        };
        let fast = async move {
            let all = fast.collect().await;
            *seen.borrow_mut() = all;
        };
        Scene::new(call).alongside(publish).alongside(fast).check(move |_| {
            assert!(all.borrow().iter().copied().eq((1..=4).map(Item)), "{:?}", all.borrow());
        })
    });
}

#[tokio::test(start_paused = true)]
async fn backpressure_a_stuck_subscriber_delays_one_item_only() {
    let (fan_out, start) = (FanOut::new(), Instant::now());
    let stuck = fan_out.subscribe_blocking(ONE, ms(100));
    let fast = fan_out.subscribe(MANY, WhenFull::Disconnect);
    for number in 1..=50 {
        fan_out.publish(number).await;
    }
    assert_eq!(start.elapsed(), ms(100));
    drop(fan_out);
    assert_eq!(fast.count().await, 50);
    assert_eq!(stuck.collect::<Vec<_>>().await, [Item(1), Lost(1), Disconnected]);
}

/// 10,000 subscribers that block, all of them full: the cost grows with their number, not with its square.
#[tokio::test(start_paused = true)]
async fn backpressure_of_many_is_waited_for_once() {
    let (fan_out, start) = (Arc::new(FanOut::new()), Instant::now());
    let reading: Vec<_> = (0..10_000_u64)
        .map(|number| {
            let mut subscriber = fan_out.subscribe_blocking(ONE, ms(1_000 + number % 7));
            tokio::spawn(async move {
                let mut seen = 0;
                while let Some(event) = subscriber.next().await {
                    assert!(matches!(event, Item(_)));
                    seen += 1;
                    sleep(ms(number % 50)).await;
                }
                seen
            })
        })
        .collect();
    for number in 0..4 {
        assert_eq!(fan_out.publish(number).await, 10_000);
    }
    assert!(start.elapsed() <= ms(200), "{:?}", start.elapsed());
    drop(fan_out);
    for reading in reading {
        assert_eq!(reading.await.unwrap(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn order_of_publishers_is_first_come_first_served() {
    let fan_out = Arc::new(FanOut::new());
    let mut slow = fan_out.subscribe_blocking(ONE, Duration::MAX);
    let publishing: Vec<_> = (0..100)
        .map(|number| {
            tokio::spawn({
                let fan_out = fan_out.clone();
                async move { fan_out.publish(number).await }
            })
        })
        .collect();
    drop(fan_out);
    for number in 0..100 {
        sleep(ms(1)).await;
        assert_eq!(slow.next().await, Some(Item(number)));
    }
    assert_eq!(slow.next().await, None);
    for publishing in publishing {
        assert_eq!(publishing.await.unwrap(), 1);
    }
}

/// Who only subscribes does not keep it open.
#[tokio::test]
async fn order_ends_when_the_publisher_is_dropped() {
    let fan_out = Arc::new(FanOut::new());
    let subscribes: Weak<FanOut<u64>> = Arc::downgrade(&fan_out);
    let mut early = fan_out.subscribe(MANY, WhenFull::DropOldest);
    assert_eq!(fan_out.publish(1).await, 1);
    let late = subscribes.upgrade().expect("it is not dropped").subscribe(MANY, WhenFull::DropOldest);
    drop(fan_out);
    assert!(subscribes.upgrade().is_none());
    assert_eq!((early.next().await, early.next().await, early.next().await), (Some(Item(1)), None, None));
    assert_eq!(late.count().await, 0);
}

/// Its clone subscribes, and its drop too: no lock may be held that either needs.
struct Entangled(Weak<FanOut<Entangled>>);

impl Clone for Entangled {
    fn clone(&self) -> Self {
        drop(self.0.upgrade().map(|fan_out| fan_out.subscribe(ONE, WhenFull::DropOldest)));
        Entangled(self.0.clone())
    }
}

impl Drop for Entangled {
    fn drop(&mut self) {
        drop(self.0.upgrade().map(|fan_out| fan_out.subscribe(ONE, WhenFull::DropOldest)));
    }
}

#[tokio::test]
async fn panics_and_deadlocks_do_not_come_from_an_item_that_subscribes() {
    let fan_out = Arc::new(FanOut::new());
    let _kept = [WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Disconnect]
        .map(|it| fan_out.subscribe(ONE, it));
    for expected in [3, 2, 2] {
        assert_eq!(fan_out.publish(Entangled(Arc::downgrade(&fan_out))).await, expected);
    }
}

/// Without a runtime, as long as nobody has to be waited for.
#[test]
fn order_outside_a_runtime() {
    let fan_out = FanOut::default();
    let subscriber = fan_out.subscribe(MANY, WhenFull::DropNewest);
    assert_eq!(fan_out.publish(7).now_or_never(), Some(1));
    drop(fan_out);
    assert_eq!(subscriber.collect::<Vec<_>>().now_or_never(), Some(vec![Item(7)]));
}

/// Every number up to `sent` is there or counted as lost, in its place.
fn complete(events: &[Event<u64>], sent: u64) {
    let mut seen = 0;
    for event in events {
        seen += if let Lost(lost) = event { *lost } else { 1 };
        if let Item(number) = event {
            assert_eq!(*number, seen, "{events:?}");
        }
    }
    assert_eq!(seen, sent, "{events:?}");
}

/// Subscribers on two threads, two publishers that take turns, and others that come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_threads() {
    const SENT: u64 = 20_000;
    let fan_out = Arc::new(FanOut::new());
    let seven = NonZeroUsize::new(7).unwrap();
    let complete_ones = [
        fan_out.subscribe(seven, WhenFull::DropOldest),
        fan_out.subscribe(seven, WhenFull::DropNewest),
        fan_out.subscribe(ONE, WhenFull::DropOldest),
        fan_out.subscribe_blocking(seven, Duration::MAX),
        fan_out.subscribe_blocking(ONE, Duration::MAX),
    ];
    let reading = complete_ones.map(|subscriber| tokio::spawn(subscriber.collect::<Vec<_>>()));
    let next = Arc::new(tokio::sync::Mutex::new(0));
    let publishing: Vec<_> = (0..2)
        .map(|_| {
            let (fan_out, next) = (fan_out.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    // The number is taken and published in one turn: the order is known.
                    let mut next = next.lock().await;
                    if *next == SENT {
                        return;
                    }
                    *next += 1;
                    fan_out.publish(*next).await;
                }
            })
        })
        .collect();
    let subscribing = Arc::downgrade(&fan_out);
    let coming_and_going = tokio::spawn(async move {
        while let Some(fan_out) = subscribing.upgrade() {
            let mut subscriber = fan_out.subscribe_blocking(ONE, Duration::MAX);
            drop(fan_out);
            for _ in 0..3 {
                assert!(matches!(subscriber.next().await, Some(Item(_)) | None));
            }
        }
    });
    drop(fan_out);
    for task in publishing {
        task.await.unwrap();
    }
    coming_and_going.await.unwrap();
    for (number, reading) in reading.into_iter().enumerate() {
        let events = reading.await.unwrap();
        complete(&events, SENT);
        assert!(number < 3 || events.len() as u64 == SENT, "who blocks loses nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Subscribers of any speed, capacity and policy: each sees or is told of everything since it came, and publishing takes
    /// no longer than they may hold it up.
    #[test]
    fn errors_and_backpressure_hold(
        subscribers in prop::collection::vec((0..4_usize, 1..5_usize, 0..12_u64, 0..10_u64), 0..6),
        every in 0..6_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fan_out = FanOut::new();
            let mut longest = 0;
            let mut reading = Vec::new();
            for number in 1..=20_u64 {
                for (which, capacity, pause, joins) in &subscribers {
                    if *joins + 1 != number {
                        continue;
                    }
                    let capacity = NonZeroUsize::new(*capacity).unwrap();
                    let mut subscriber = match which {
                        0 => fan_out.subscribe(capacity, WhenFull::DropOldest),
                        1 => fan_out.subscribe(capacity, WhenFull::DropNewest),
                        2 => fan_out.subscribe(capacity, WhenFull::Disconnect),
                        _ => fan_out.subscribe_blocking(capacity, ms(7)),
                    };
                    longest = longest.max(if *which == 3 { 7 } else { 0 });
                    let (pause, before) = (ms(*pause), *joins);
                    let task = tokio::spawn(async move {
                        let mut events = Vec::new();
                        while let Some(event) = subscriber.next().await {
                            events.push(if let Item(number) = event { Item(number - before) } else { event });
                            sleep(pause).await;
                        }
                        events
                    });
                    reading.push((*which, before, task));
                }
                let before = Instant::now();
                fan_out.publish(number).await;
                // A millisecond is the resolution of the clock.
                assert!(before.elapsed() <= ms(longest + 1), "{:?}", before.elapsed());
                sleep(ms(every)).await;
            }
            drop(fan_out);
            for (which, before, task) in reading {
                let events = task.await.unwrap();
                let cut_off = events.last() == Some(&Disconnected);
                assert!(which >= 2 || !cut_off);
                match events.strip_suffix(&[Disconnected]) {
                    None => complete(&events, 20 - before),
                    Some(events) => {
                        let seen: u64 = events.iter().map(|it| if let Lost(lost) = it { *lost } else { 1 }).sum();
                        complete(events, seen);
                    }
                }
                assert!(which < 3 || cut_off || events.len() as u64 == 20 - before, "who blocks loses nothing");
            }
        });
    }
}
