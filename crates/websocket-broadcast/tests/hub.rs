//! `hub`: either end is dropped at every suspension point, and what no limit dropped is not lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use support::sweep::{Scene, sweep};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use websocket_broadcast::Delivery::{Disconnected, Lost};
use websocket_broadcast::{Delivery, Hub, QueueLimit, Subscription};

const MANY: QueueLimit =
    QueueLimit { messages: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX, disconnect: true };

fn limit(messages: usize, bytes: usize, disconnect: bool) -> QueueLimit {
    let [messages, bytes] = [messages, bytes].map(|limit| NonZeroUsize::new(limit).expect("not zero"));
    QueueLimit { messages, bytes, disconnect }
}

fn number(delivery: &Delivery) -> Option<u64> {
    let Delivery::Message(message) = delivery else { return None };
    message.to_text().ok()?.parse().ok()
}

/// Every number up to `sent` is there or counted as lost, in its place.
fn complete(deliveries: &[Delivery], sent: u64) {
    let mut seen = 0;
    for delivery in deliveries {
        seen += if let Lost(lost) = delivery { *lost } else { 1 };
        assert!(number(delivery).is_none_or(|number| number == seen), "{deliveries:?}");
    }
    assert_eq!(seen, sent, "{deliveries:?}");
}

/// Puts what the subject holds back when it is dropped.
struct Back(Option<Subscription>, Rc<RefCell<Option<Subscription>>>);

impl Drop for Back {
    fn drop(&mut self) {
        *self.1.borrow_mut() = self.0.take();
    }
}

#[test]
fn cancellation_of_next_at_every_point() {
    for limit in [limit(2, 99, false), MANY] {
        sweep(|parts| {
            let hub = Hub::default();
            let shared = Rc::new(RefCell::new(Some(hub.subscribe(limit))));
            let mut other = hub.subscribe(MANY);
            let (seen, home, parts) = (Rc::new(RefCell::new(Vec::new())), shared.clone(), parts.clone());
            let (rest, all) = (seen.clone(), seen.clone());
            let call = async move {
                let mut back = Back(shared.borrow_mut().take(), shared.clone());
                for _ in 0..4 {
                    let next = parts.child("next", back.0.as_mut().expect("it is taken once").next());
                    let next = next.await;
                    seen.borrow_mut().extend(next);
                }
            };
            let publishing = async move {
                for number in 1..=9_u64 {
                    assert_eq!(hub.publish(number.to_string()), 2);
                    sleep(Duration::from_millis(number % 3)).await;
                }
            };
            let other = async move {
                for expected in 1..=9 {
                    assert_eq!(other.next().await.as_ref().and_then(number), Some(expected));
                }
                assert_eq!(other.next().await, None);
            };
            let late = async move {
                sleep(Duration::from_secs(60)).await;
                let subscription = home.borrow_mut().take().expect("the subject has ended");
                let all: Vec<_> = subscription.collect().await;
                rest.borrow_mut().extend(all);
            };
            Scene::new(call).alongside(publishing).alongside(other).alongside(late).check(move |_| {
                complete(&all.borrow(), 9);
            })
        });
    }
}

/// The subject holds the hub: whenever it is dropped, who waits is woken and sees the end.
#[test]
fn cancellation_of_the_publisher_at_every_point() {
    sweep(|_| {
        let hub = Hub::default();
        let clients = [limit(1, 9, false), MANY].map(|limit| hub.subscribe(limit));
        let published = Rc::new(RefCell::new(0));
        let count = published.clone();
        let call = async move {
            for number in 1..=4_u64 {
                hub.publish(number.to_string());
                *count.borrow_mut() = number;
                sleep(Duration::from_millis(5)).await;
            }
        };
        clients.into_iter().fold(Scene::new(call), |scene, client| {
            let published = published.clone();
            scene.alongside(async move {
                let all: Vec<_> = client.collect().await;
                complete(&all, *published.borrow());
            })
        })
    });
}

#[tokio::test]
async fn cancellation_in_any_order_of_drops() {
    for order in 0..6 {
        let hub = Hub::default();
        let (one, other) = (hub.subscribe(MANY), hub.subscribe(limit(1, 1, true)));
        hub.publish("1");
        let mut handles: Vec<Box<dyn std::any::Any>> = vec![Box::new(hub), Box::new(one), Box::new(other)];
        handles.swap(0, order % 3);
        handles.swap(1, 1 + order / 3);
        handles.into_iter().for_each(drop);
    }
    let hub = Hub::default();
    let mut early = hub.subscribe(limit(1, 9, true));
    assert_eq!((hub.publish("1"), hub.publish("2")), (1, 0));
    hub.close();
    hub.close();
    assert_eq!(number(&early.next().await.unwrap()), Some(1));
    assert_eq!(early.by_ref().collect::<Vec<_>>().await, [Lost(1), Disconnected], "closing changes nothing");
    assert_eq!(early.next().await, None);
}

/// A subscription that is moved from task to task is woken where it waits.
#[tokio::test(start_paused = true)]
async fn cancellation_moves_the_wake_up_with_the_subscription() {
    let hub = Hub::default();
    let mut subscription = hub.subscribe(MANY);
    for expected in 0..100_u64 {
        assert!(subscription.next().now_or_never().is_none());
        let receiving = tokio::spawn(async move { (subscription.next().await, subscription) });
        tokio::task::yield_now().await;
        hub.publish(expected.to_string());
        let delivery;
        (delivery, subscription) = receiving.await.unwrap();
        assert_eq!(number(&delivery.unwrap()), Some(expected));
    }
}

/// A payload whose drop uses the hub, as `Bytes::from_owner` allows.
struct Entangled(Weak<Hub>);

impl AsRef<[u8]> for Entangled {
    fn as_ref(&self) -> &[u8] {
        b"entangled"
    }
}

impl Drop for Entangled {
    fn drop(&mut self) {
        if let Some(hub) = self.0.upgrade() {
            drop(hub.subscribe(MANY));
            hub.publish("from a drop");
        }
    }
}

#[tokio::test]
async fn panics_and_deadlocks_do_not_come_from_a_payload_that_publishes() {
    let hub = Arc::new(Hub::default());
    let clients = [limit(1, 99, false), limit(9, 9, false), limit(1, 99, true)].map(|it| hub.subscribe(it));
    for _ in 0..3 {
        hub.publish(Bytes::from_owner(Entangled(Arc::downgrade(&hub))));
    }
    drop(clients);
    assert_eq!(hub.publish("1"), 0);
}

struct Bomb;

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        b"bomb"
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// A panic in a payload's drop is the publisher's, when everybody has the message, and the hub goes on.
#[tokio::test]
async fn panics_of_a_drop_leave_the_hub_working() {
    let hub = Hub::default();
    let (mut latest, mut all) = (hub.subscribe(limit(1, 99, false)), hub.subscribe(limit(1, 99, true)));
    assert_eq!(hub.publish(Bytes::from_owner(Bomb)), 2);
    assert!(all.next().await.is_some(), "the other still holds the payload");
    assert!(catch_unwind(AssertUnwindSafe(|| hub.publish("2"))).is_err());
    assert_eq!((latest.next().await, number(&latest.next().await.unwrap())), (Some(Lost(1)), Some(2)));
    assert_eq!((number(&all.next().await.unwrap()), hub.publish("3")), (Some(2), 2));
}

/// A waker that publishes.
struct Echo(Arc<Hub>, AtomicUsize);

impl Wake for Echo {
    fn wake(self: Arc<Self>) {
        if self.1.fetch_add(1, Relaxed) == 0 {
            assert_eq!(self.0.publish("2"), 2);
        }
    }
}

#[test]
fn panics_and_deadlocks_do_not_come_from_a_waker_that_publishes() {
    let hub = Arc::new(Hub::default());
    let (mut one, mut other) = (hub.subscribe(MANY), hub.subscribe(MANY));
    let waker: Waker = Arc::new(Echo(hub.clone(), AtomicUsize::new(0))).into();
    assert!(one.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(hub.publish("1"), 2);
    for client in [&mut one, &mut other] {
        let seen = [1, 2].map(|_| number(&client.next().now_or_never().flatten().unwrap()));
        assert_eq!(seen, [Some(1), Some(2)]);
    }
}

/// 10,000 clients, one of which never reads: the others have everything, and those who leave are forgotten.
#[tokio::test]
async fn backpressure_of_one_among_ten_thousand_is_not_felt() {
    let hub = Hub::default();
    let mut never = hub.subscribe(limit(4, 1_000, false));
    let reading = |_| {
        let subscription = hub.subscribe(limit(20, 1_000, true));
        tokio::spawn(subscription.map(|it| assert!(number(&it).is_some())).count())
    };
    let reading: Vec<_> = (0..10_000).map(reading).collect();
    for number in 1..=20_u64 {
        assert_eq!(hub.publish(number.to_string()), 10_001);
    }
    hub.close();
    for reading in reading {
        assert_eq!(reading.await.unwrap(), 20);
    }
    assert_eq!(never.next().await, Some(Lost(16)));
}

#[tokio::test]
async fn backpressure_of_a_long_queue_gives_way() {
    let hub = Hub::default();
    let subscription = hub.subscribe(MANY);
    (0..100_000).for_each(|_| _ = hub.publish(""));
    drop(hub);
    let reading = tokio::spawn(subscription.count());
    tokio::task::yield_now().await;
    assert!(!reading.is_finished(), "100,000 messages in one turn");
    assert_eq!(reading.await.unwrap(), 100_000);
}

/// Clients on two threads, two publishers that take turns, and others that come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_threads() {
    const SENT: u64 = 20_000;
    let hub = Arc::new(Hub::default());
    let limits = [limit(7, 99, false), limit(1, 99, false), limit(99, 20, false), MANY, MANY];
    let reading = limits.map(|limit| tokio::spawn(hub.subscribe(limit).collect::<Vec<_>>()));
    let next = Arc::new(std::sync::Mutex::new(0));
    let publishing = [(); 2].map(|()| {
        let (hub, next) = (hub.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                {
                    // The number is taken and published in one turn: the order is known.
                    let mut next = next.lock().unwrap();
                    if *next == SENT {
                        return;
                    }
                    *next += 1;
                    assert!(hub.publish(next.to_string()) >= 5);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let (subscribing, coming) = (Arc::downgrade(&hub), [(); 200]);
    let coming_and_going = tokio::spawn(async move {
        for () in coming {
            let Some(mut subscription) = subscribing.upgrade().map(|hub| hub.subscribe(limit(1, 9, false)))
            else {
                return;
            };
            let _ = (subscription.next().await, subscription.next().await);
        }
    });
    for task in publishing {
        task.await.unwrap();
    }
    drop(hub);
    coming_and_going.await.unwrap();
    for (which, reading) in reading.into_iter().enumerate() {
        let deliveries = reading.await.unwrap();
        complete(&deliveries, SENT);
        assert!(which < 3 || deliveries.len() as u64 == SENT, "who has room loses nothing");
    }
}

/// What a reader would write: a queue of numbered messages, and what was lost before each.
fn model(limit: QueueLimit, moves: &[Option<usize>]) -> Vec<(u64, usize)> {
    let (mut queue, mut events, mut sent, mut seen) = (VecDeque::new(), Vec::new(), 0, 0);
    let (mut open, mut told) = (true, false);
    let mut receive = |queue: &mut VecDeque<(u64, usize)>, sent: u64, open: bool| {
        let next = queue.front().map_or(sent, |(number, _)| number - 1);
        if next > seen {
            events.push((0, (next - seen) as usize));
            seen = next;
        } else if let Some((number, size)) = queue.pop_front() {
            events.push((number, size));
            seen = number;
        } else if !open && !told {
            events.push((0, 0));
            told = true;
        }
    };
    for publish in moves {
        let Some(size) = *publish else {
            receive(&mut queue, sent, open);
            continue;
        };
        if !open {
            continue;
        }
        sent += 1;
        let full = |queue: &VecDeque<(u64, usize)>| {
            let bytes: usize = queue.iter().map(|(_, size)| size).sum();
            queue.len() == limit.messages.get() || bytes + size > limit.bytes.get()
        };
        if size > limit.bytes.get() || (limit.disconnect && full(&queue)) {
            open &= !limit.disconnect;
            continue;
        }
        while full(&queue) {
            queue.pop_front();
        }
        queue.push_back((sent, size));
    }
    for _ in 0..moves.len() + 2 {
        receive(&mut queue, sent, open);
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn errors_memory_and_order_are_those_of_the_model(
        messages in 1..6_usize,
        bytes in 1..20_usize,
        disconnect in prop::bool::ANY,
        moves in prop::collection::vec(prop::option::weighted(0.6, 0..22_usize), 0..80),
    ) {
        let limit = limit(messages, bytes, disconnect);
        let hub = Hub::default();
        let mut subscription = hub.subscribe(limit);
        let mut deliveries = Vec::new();
        for publish in &moves {
            match publish {
                Some(size) => _ = hub.publish(vec![0; *size]),
                None => deliveries.extend(subscription.next().now_or_never().flatten()),
            }
        }
        drop(hub);
        while let Some(delivery) = subscription.next().now_or_never().expect("the hub is gone") {
            deliveries.push(delivery);
        }
        let mut number = 0;
        let events = deliveries.into_iter().map(|delivery| match delivery {
            Lost(lost) => {
                number += lost;
                (0, lost as usize)
            }
            Delivery::Message(Message::Binary(payload)) => {
                number += 1;
                (number, payload.len())
            }
            other => {
                assert_eq!(other, Disconnected);
                (0, 0)
            }
        });
        prop_assert_eq!(events.collect::<Vec<_>>(), model(limit, &moves));
    }
}
