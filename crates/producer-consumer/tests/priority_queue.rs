//! `priority_queue`: every wait is dropped at every suspension point; nothing is lost, and the bound on overtaking holds.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join_all;
use producer_consumer::{PriorityQueue, Rejected};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MS: Duration = Duration::from_millis(1);

/// A queue, and what was received.
#[derive(Clone)]
struct World {
    queue: Rc<PriorityQueue<u32>>,
    received: Rc<RefCell<Vec<u32>>>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let queue = PriorityQueue::new(NonZeroUsize::new(capacity).unwrap(), 2);
        World { queue: Rc::new(queue), received: Rc::default() }
    }

    async fn receive(self) {
        while let Some(item) = self.queue.recv().await {
            self.received.borrow_mut().push(item);
            sleep(MS).await;
        }
    }

    async fn send(self, items: std::ops::Range<u32>) {
        for item in items {
            self.queue.send(item as u8 % 3, item).await.unwrap();
        }
    }

    /// Closes the queue long after everything else waits for something, and finds it whole.
    async fn close(self, capacity: usize) {
        sleep(Duration::from_secs(60)).await;
        let places = join_all((0..capacity).map(|_| self.queue.reserve()));
        assert_eq!(timeout(MS, places).await.unwrap().len(), capacity, "a place was lost");
        self.queue.close();
    }

    fn sorted(&self) -> Vec<u32> {
        let mut received = self.received.borrow().clone();
        received.sort_unstable();
        received
    }
}

#[test]
fn cancellation_of_recv_loses_no_item() {
    sweep(|_| {
        let world = World::new(2);
        let (own, after) = (world.clone(), world.clone());
        let call = async move {
            for _ in 0..3 {
                let item = own.queue.recv().await.expect("the queue is open");
                own.received.borrow_mut().push(item);
                sleep(MS).await;
            }
        };
        Scene::new(call)
            .alongside(world.clone().receive())
            .alongside(world.clone().send(0..8))
            .alongside(world.close(2))
            .check(move |_| assert!(after.sorted().into_iter().eq(0..8), "{:?}", after.received))
    });
}

#[test]
fn cancellation_of_reserve_and_of_send_loses_no_place() {
    sweep(|_| {
        let world = World::new(1);
        let (own, after) = (world.clone(), world.clone());
        let sent = Rc::new(RefCell::new(0));
        let count = sent.clone();
        let call = async move {
            for item in 10..12 {
                let place = own.queue.reserve().await.unwrap();
                sleep(2 * MS).await;
                place.send(0, item).unwrap();
                *count.borrow_mut() += 1;
            }
            // Dropped while it waits, its item is gone, and was not sent.
            own.queue.send(1, 12).await.unwrap();
            *count.borrow_mut() += 1;
            own.queue.send(1, 13).await.unwrap();
        };
        Scene::new(call)
            .alongside(world.clone().receive())
            .alongside(world.clone().send(0..4))
            .alongside(world.close(1))
            .check(move |ended| {
                let all = after.sorted();
                let own = all.len() - 4;
                // One that was sent when the future was dropped may not be counted yet.
                assert!(all.into_iter().eq((0..4).chain((10..).take(own))));
                assert!((0..=1).contains(&(own - *sent.borrow())));
                assert!(!matches!(ended, Ended::Returned(())) || own == 4);
            })
    });
}

#[test]
fn cancellation_beside_a_close_keeps_nobody_waiting() {
    sweep(|_| {
        let world = World::new(1);
        let (own, other, closer) = (world.clone(), world.clone(), world.clone());
        let call = async move { own.queue.recv().await };
        let sender = async move {
            let mut sent = 0;
            while other.queue.send(0, sent).await.is_ok() {
                sent += 1;
                sleep(MS).await;
            }
        };
        let close = async move {
            sleep(4 * MS).await;
            closer.queue.close();
        };
        Scene::new(call).alongside(sender).alongside(close).alongside(world.receive())
    });
}

/// Many senders and receivers on several threads, which give up at random moments: each item is received once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancellation_on_several_threads_loses_and_doubles_nothing() {
    const SENDERS: usize = 4;
    const EACH: usize = 500;
    for capacity in [1, 7] {
        let queue = Arc::new(PriorityQueue::new(NonZeroUsize::new(capacity).unwrap(), 3));
        let counts: Arc<Vec<AtomicUsize>> =
            Arc::new((0..SENDERS * EACH).map(|_| AtomicUsize::new(0)).collect());
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    for item in sender * EACH..(sender + 1) * EACH {
                        // Gives up its wait when the other branch is ready first, and tries again.
                        let place = loop {
                            tokio::select! {
                                place = queue.reserve() => break place.unwrap(),
                                () = turns(1 + item % 3) => {}
                            }
                        };
                        place.send(item as u8, item).unwrap();
                    }
                })
            })
            .collect();
        let receivers: Vec<_> = (0..4_usize)
            .map(|receiver| {
                let (queue, counts) = (queue.clone(), counts.clone());
                tokio::spawn(async move {
                    for turn in receiver.. {
                        tokio::select! {
                            item = queue.recv() => match item {
                                Some(item) => _ = counts[item].fetch_add(1, Relaxed),
                                None => break,
                            },
                            () = turns(1 + turn % 3) => {}
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        queue.close();
        for receiver in receivers {
            receiver.await.unwrap();
        }
        assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// Whoever waited first is served first, on either side, an urgent sender too; one that gave up passes its turn on.
#[tokio::test(start_paused = true)]
async fn backpressure_is_fair_on_both_sides() {
    let (queue, served) = (PriorityQueue::new(ONE, 1), RefCell::new(Vec::new()));
    let recv = async |name: u32| {
        let item = queue.recv().await.unwrap();
        served.borrow_mut().push((name, item));
    };
    let gives_up = async { _ = timeout(MS, recv(1)).await };
    let send = async {
        sleep(2 * MS).await;
        for item in 0..3 {
            queue.send(0, item).await.unwrap();
        }
    };
    tokio::join!(recv(0), gives_up, recv(2), recv(3), send);
    assert_eq!(*served.borrow(), [(0, 0), (2, 1), (3, 2)]);

    queue.send(0, 0).await.unwrap();
    let send = async |priority: u8, item: u32| {
        sleep(item * MS).await;
        queue.send(priority, item).await.unwrap();
    };
    let gives_up = async { _ = timeout(5 * MS, queue.send(0, 9)).await };
    let recv = async {
        sleep(10 * MS).await;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(queue.recv().await.unwrap());
            yield_now().await;
        }
        all
    };
    assert_eq!(tokio::join!(send(9, 1), gives_up, send(5, 2), send(0, 3), recv).4, [0, 1, 2, 3]);
}

/// Neighbours get their turn while a sender and a receiver keep each other busy.
#[tokio::test]
async fn backpressure_leaves_neighbours_their_turn() {
    let queue = Arc::new(PriorityQueue::new(NonZeroUsize::new(100_000).unwrap(), 5));
    let (own, other) = (queue.clone(), queue.clone());
    let sender = tokio::spawn(async move {
        for item in 0..100_000_usize {
            own.send(item as u8, item).await.unwrap();
        }
        own.close();
    });
    let receiver = tokio::spawn(async move { while other.recv().await.is_some() {} });
    let mut turns = 0;
    while !(sender.is_finished() && receiver.is_finished()) {
        yield_now().await;
        turns += 1;
    }
    assert!(turns > 500, "a neighbour had {turns} turns during 100,000 items");
}

/// 100,000 callers wait on either side, give up or are told of the end.
#[tokio::test(start_paused = true)]
async fn memory_and_time_hold_for_very_many_callers() {
    let queue = PriorityQueue::new(ONE, 1);
    let waiting = join_all((0..100_000).map(|_| queue.recv()));
    assert!(timeout(MS, waiting).await.is_err());
    queue.send(0, 7).await.unwrap();
    let waiting = join_all((0..100_000).map(|item| queue.send(1, item)));
    let ended = async {
        sleep(MS).await;
        queue.close();
    };
    let (rejected, ()) = tokio::join!(waiting, ended);
    assert!(rejected.into_iter().enumerate().all(|(item, ended)| ended == Err(Rejected(item))));
    assert_eq!((queue.recv().await, queue.recv().await), (Some(7), None));
}

/// The items are the queue's: they are dropped with it, and with it alone.
#[tokio::test(start_paused = true)]
async fn memory_of_items_goes_with_the_queue() {
    let (queue, item) = (PriorityQueue::new(NonZeroUsize::MAX, u32::MAX), Rc::new(()));
    for priority in [0, 255, 255, 0] {
        queue.send(priority, item.clone()).await.unwrap();
    }
    queue.close();
    drop(queue.recv().await);
    assert_eq!(Rc::strong_count(&item), 4);
    drop(queue);
    assert_eq!(Rc::strong_count(&item), 1);
}

/// What becomes of the queue.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    GiveUp,
    Recv(usize),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop_oneof![4 => 0..4_u8, 1 => any::<u8>()];
    let step = prop_oneof![
        8 => priority.prop_map(Step::Send),
        1 => Just(Step::GiveUp),
        4 => (1..4_usize).prop_map(Step::Recv),
    ];
    let end = prop_oneof![1 => Just(None), 1 => Just(Some(Step::Close))];
    (prop::collection::vec(step, 0..150), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The formulas of the contract: at most `priority × stride` later items overtake, an item is received after at most
    /// `capacity - 1 + priority × stride` others, and within a priority it is first in, first out.
    #[test]
    fn order_and_memory_hold_after_any_steps(steps in steps(), capacity in 1..20_usize, stride in prop_oneof![0..6_u32, Just(u32::MAX)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let queue = PriorityQueue::new(NonZeroUsize::new(capacity).unwrap(), stride);
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            // When each was sent: after how many had been received.
            let mut moments = Vec::new();
            for step in steps {
                match step {
                    Step::Send(priority) => {
                        let full = sent.len() - received.len() == capacity;
                        let ended = timeout(MS, queue.send(priority, sent.len())).await;
                        assert_eq!(ended.is_err(), full);
                        if !full {
                            sent.push(priority);
                            moments.push(received.len());
                        }
                    }
                    Step::GiveUp => drop(timeout(MS, queue.reserve()).await),
                    Step::Recv(count) => for _ in 0..count {
                        let ended = timeout(MS, queue.recv()).await;
                        assert_eq!(ended.is_err(), sent.len() == received.len());
                        received.extend(ended.into_iter().flatten());
                    },
                    Step::Close => {
                        queue.close();
                        assert_eq!(queue.send(0, 0).await, Err(Rejected(0)));
                    }
                }
            }
            queue.close();
            while let Some(item) = queue.recv().await {
                received.push(item);
            }
            assert_eq!(received.len(), sent.len());
            let mut of_priority = vec![VecDeque::new(); 256];
            (0..sent.len()).for_each(|item| of_priority[usize::from(sent[item])].push_back(item));
            for (place, item) in received.iter().enumerate() {
                let most = u64::from(sent[*item]) * u64::from(stride);
                let overtaking = received[..place].iter().filter(|other| *other > item).count() as u64;
                assert!(overtaking <= most, "{overtaking} overtook, at most {most}");
                assert!((place - moments[*item]) as u64 <= capacity as u64 - 1 + most);
                assert_eq!(of_priority[usize::from(sent[*item])].pop_front(), Some(*item));
                // What is more urgent and was there before goes first.
                let due = |item: usize| item as u64 + u64::from(sent[item]) * u64::from(stride);
                let passed = (0..*item).filter(|other| !received[..place].contains(other) && moments[*other] <= place);
                assert!(passed.into_iter().all(|other| due(other) >= due(*item)));
            }
        });
    }
}

/// The bound is met exactly: it could not be lower.
#[tokio::test(start_paused = true)]
async fn order_of_the_worst_case_meets_the_bound() {
    let (capacity, stride, priority) = (5, 4, 3);
    let queue = PriorityQueue::new(NonZeroUsize::new(capacity).unwrap(), stride);
    for _ in 0..capacity - 1 {
        queue.send(0, false).await.unwrap();
    }
    queue.send(priority, true).await.unwrap();
    let others = Cell::new(0);
    while !queue.recv().await.unwrap() {
        others.set(others.get() + 1);
        queue.send(0, false).await.unwrap();
    }
    assert_eq!(others.get(), capacity - 1 + usize::from(priority) * stride as usize);
}
