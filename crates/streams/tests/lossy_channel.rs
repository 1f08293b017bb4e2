//! `lossy_channel`: either end is dropped at every suspension point, and what was not lost by the policy is not lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use streams::Event::{Disconnected, Item, Lost};
use streams::{Event, Receiver, Sender, WhenFull, lossy_channel};
use support::sweep::{Parts, Scene, sweep};
use tokio::time::sleep;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Puts what the subject holds back when it is dropped.
struct Back<T>(Option<T>, Rc<RefCell<Option<T>>>);

impl<T> Drop for Back<T> {
    fn drop(&mut self) {
        *self.1.borrow_mut() = self.0.take();
    }
}

async fn send_from(sender: &mut Sender<u64>, next: &RefCell<u64>, parts: Option<&Parts>) {
    while *next.borrow() <= 8 {
        match parts {
            Some(parts) => parts.child("room", sender.room()).await,
            None => sender.room().await,
        }
        assert!(sender.send(*next.borrow()));
        *next.borrow_mut() += 1;
    }
}

#[test]
fn cancellation_of_room_at_every_point() {
    sweep(|parts| {
        let (sender, mut receiver) = lossy_channel(TWO, WhenFull::DropNewest);
        let shared = Rc::new(RefCell::new(Some(sender)));
        let (next, home, parts) = (Rc::new(RefCell::new(1)), shared.clone(), parts.clone());
        let (rest, all) = (next.clone(), Rc::new(RefCell::new(Vec::new())));
        let seen = all.clone();
        let call = async move {
            let mut back = Back(shared.borrow_mut().take(), shared.clone());
            send_from(back.0.as_mut().expect("it is taken once"), &next, Some(&parts)).await;
        };
        let receiving = async move {
            while let Some(event) = receiver.next().await {
                seen.borrow_mut().push(event);
                sleep(Duration::from_millis(3)).await;
            }
        };
        let late = async move {
            sleep(Duration::from_secs(60)).await;
            let mut sender = home.borrow_mut().take().expect("the subject has ended");
            send_from(&mut sender, &rest, None).await;
        };
        Scene::new(call).alongside(receiving).alongside(late).check(move |_| {
            assert!(all.borrow().iter().copied().eq((1..=8).map(Item)), "{:?}", all.borrow());
        })
    });
}

#[test]
fn cancellation_of_next_at_every_point() {
    sweep(|parts| {
        let (mut sender, receiver): (_, Receiver<u64>) = lossy_channel(TWO, WhenFull::DropOldest);
        let shared = Rc::new(RefCell::new(Some(receiver)));
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
        let sending = async move {
            for number in 1..=9 {
                sender.send(number);
                sleep(Duration::from_millis(number % 3)).await;
            }
        };
        let late = async move {
            sleep(Duration::from_secs(60)).await;
            let receiver = home.borrow_mut().take().expect("the subject has ended");
            let all: Vec<_> = receiver.collect().await;
            rest.borrow_mut().extend(all);
        };
        Scene::new(call).alongside(sending).alongside(late).check(move |_| complete(&all.borrow(), 9))
    });
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

#[test]
fn cancellation_by_a_dropped_receiver_wakes_the_sender() {
    sweep(|_| {
        let (mut sender, receiver) = lossy_channel(NonZeroUsize::MIN, WhenFull::DropNewest);
        let call = async move {
            let _receiver = receiver;
            sleep(Duration::from_millis(5)).await;
        };
        let sending = async move {
            sender.send(1);
            sender.room().await;
            assert!(!sender.send(2));
        };
        Scene::new(call).alongside(sending)
    });
}

/// Its clone and its drop run code that uses the channel: neither may happen under the lock.
struct Entangled(Option<Arc<std::sync::Mutex<Sender<Entangled>>>>);

impl Drop for Entangled {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            assert!(!sender.try_lock().is_ok_and(|sender| sender.is_closed() && sender.has_room()));
        }
    }
}

#[test]
fn memory_is_given_back_outside_the_lock() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Disconnect] {
        let (sender, receiver) = lossy_channel(NonZeroUsize::MIN, when_full);
        let sender = Arc::new(std::sync::Mutex::new(sender));
        let mut through = lossy_channel::<Entangled>(NonZeroUsize::MIN, when_full);
        for _ in 0..3 {
            through.0.send(Entangled(Some(sender.clone())));
            sender.lock().unwrap().send(Entangled(None));
        }
        drop((through, receiver));
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// A panic in an item's drop is the sender's, and the channel goes on.
#[tokio::test]
async fn panics_of_a_drop_leave_the_channel_working() {
    let (mut sender, mut receiver) = lossy_channel(NonZeroUsize::MIN, WhenFull::DropOldest);
    assert!(sender.send(Some(Bomb)));
    assert!(catch_unwind(AssertUnwindSafe(|| sender.send(None))).is_err());
    assert!(matches!(receiver.next().await, Some(Lost(1))));
    assert!(matches!(receiver.next().now_or_never(), Some(Some(Item(None)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_survives_two_threads() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest] {
        for waits in [true, false] {
            let (mut sender, receiver) = lossy_channel(NonZeroUsize::new(7).unwrap(), when_full);
            let sending = tokio::spawn(async move {
                for number in 1..=50_000 {
                    if waits {
                        sender.room().await;
                    }
                    sender.send(number);
                }
            });
            let events = tokio::spawn(receiver.collect::<Vec<_>>()).await.unwrap();
            sending.await.unwrap();
            complete(&events, 50_000);
            assert!(!waits || events.len() == 50_000, "nothing is lost after `room`");
        }
    }
}

/// A receiver that is moved from task to task is woken where it waits.
#[tokio::test(start_paused = true)]
async fn cancellation_moves_the_wake_up_with_the_receiver() {
    let (mut sender, mut receiver) = lossy_channel(TWO, WhenFull::DropOldest);
    for number in 0..100 {
        assert!(receiver.next().now_or_never().is_none());
        let receiving = tokio::spawn(async move { (receiver.next().await, receiver) });
        tokio::task::yield_now().await;
        sender.send(number);
        let event;
        (event, receiver) = receiving.await.unwrap();
        assert_eq!(event, Some(Item(number)));
    }
}

#[tokio::test]
async fn backpressure_of_room_gives_way_and_next_does_too() {
    let (mut sender, receiver) = lossy_channel(NonZeroUsize::new(100_000).unwrap(), WhenFull::Disconnect);
    (0..100_000).for_each(|number| _ = sender.send(number));
    let reading = tokio::spawn(receiver.count());
    tokio::task::yield_now().await;
    assert!(!reading.is_finished(), "100,000 items in one turn");
    drop(sender);
    assert_eq!(reading.await.unwrap(), 100_000);
}

/// What a reader would write: a queue of numbers, and what was lost before each.
fn model(capacity: usize, when_full: WhenFull, moves: &[bool]) -> Vec<Event<u64>> {
    let (mut queue, mut events, mut sent, mut seen) = (VecDeque::new(), Vec::new(), 0, 0);
    let (mut open, mut told) = (true, false);
    let mut receive = |queue: &mut VecDeque<u64>, sent: u64, open: bool| {
        let next = queue.front().map_or(sent, |number| number - 1);
        if next > seen {
            events.push(Lost(next - seen));
            seen = next;
        } else if let Some(number) = queue.pop_front() {
            events.push(Item(number));
            seen = number;
        } else if !open && !told {
            events.push(Disconnected);
            told = true;
        }
    };
    for send in moves {
        if !send {
            receive(&mut queue, sent, open);
        } else if open {
            sent += 1;
            if queue.len() == capacity {
                match when_full {
                    WhenFull::DropOldest => _ = queue.pop_front(),
                    WhenFull::DropNewest => continue,
                    WhenFull::Disconnect => {
                        open = false;
                        continue;
                    }
                }
            }
            queue.push_back(sent);
        }
    }
    for _ in 0..moves.len() + 2 {
        receive(&mut queue, sent, open);
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn errors_and_order_are_those_of_the_model(
        capacity in 1..6_usize,
        which in 0..3_usize,
        moves in prop::collection::vec(prop::bool::weighted(0.6), 0..80),
    ) {
        let when_full = [WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Disconnect][which];
        let (mut sender, mut receiver) = lossy_channel(NonZeroUsize::new(capacity).unwrap(), when_full);
        let (mut events, mut number) = (Vec::new(), 0);
        for send in &moves {
            if *send {
                number += 1;
                sender.send(number);
            } else {
                events.extend(receiver.next().now_or_never().flatten());
            }
        }
        drop(sender);
        while let Some(event) = receiver.next().now_or_never().expect("the sender is gone") {
            events.push(event);
        }
        prop_assert_eq!(events, model(capacity, when_full, &moves));
    }
}
