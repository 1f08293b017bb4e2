//! `work_queue`: every wait is dropped at every suspension point; no item is lost or doubled, and nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use producer_consumer::{Closed, WorkQueue};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// A queue and what became of its items.
#[derive(Clone)]
struct World {
    queue: Rc<WorkQueue<u32>>,
    done: Rc<RefCell<Vec<u32>>>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).expect("tests use a capacity above zero");
        World { queue: Rc::new(WorkQueue::new(capacity)), done: Rc::default() }
    }

    async fn consume(self) {
        while let Some(lease) = self.queue.take().await {
            sleep(Duration::from_millis(1)).await;
            self.done.borrow_mut().push(lease.done());
        }
    }

    async fn produce(self, items: std::ops::Range<u32>) {
        for item in items {
            self.queue.put(item).await.unwrap();
        }
    }

    /// Closes the queue long after everything else waits for something.
    async fn close(self) {
        sleep(Duration::from_secs(60)).await;
        self.queue.close();
        self.queue.join().await;
    }

    fn sorted(&self) -> Vec<u32> {
        let mut done = self.done.borrow().clone();
        done.sort_unstable();
        done
    }
}

#[test]
fn cancellation_of_take_loses_no_item() {
    sweep(|parts| {
        let (world, parts) = (World::new(1), parts.clone());
        let (own, after) = (world.clone(), world.clone());
        let call = async move {
            for _ in 0..3 {
                let work = async {
                    let lease = own.queue.take().await.expect("the queue is open");
                    sleep(Duration::from_millis(2)).await;
                    own.done.borrow_mut().push(lease.done());
                };
                parts.child("work", work).await;
            }
        };
        Scene::new(call)
            .alongside(world.clone().consume())
            .alongside(world.clone().produce(0..8))
            .alongside(world.close())
            .check(move |_| assert!(after.sorted().into_iter().eq(0..8), "{:?}", after.done))
    });
}

#[test]
fn cancellation_of_take_many_loses_no_item() {
    sweep(|parts| {
        let (world, parts) = (World::new(3), parts.clone());
        let (own, after) = (world.clone(), world.clone());
        let call = async move {
            for _ in 0..3 {
                let work = async {
                    let batch = own.queue.take_many(TWO).await.expect("the queue is open");
                    sleep(Duration::from_millis(2)).await;
                    own.done.borrow_mut().extend(batch.done());
                };
                parts.child("work", work).await;
            }
        };
        Scene::new(call)
            .alongside(world.clone().consume())
            .alongside(world.clone().produce(0..10))
            .alongside(world.close())
            .check(move |_| assert!(after.sorted().into_iter().eq(0..10), "{:?}", after.done))
    });
}

#[test]
fn cancellation_of_put_drops_its_own_item_at_most() {
    sweep(|_| {
        let world = World::new(1);
        let (own, after, put) = (world.clone(), world.clone(), Rc::new(Cell::new(0)));
        let count = put.clone();
        let call = async move {
            for item in 10..13 {
                own.queue.put(item).await.unwrap();
                count.set(count.get() + 1);
            }
        };
        Scene::new(call)
            .alongside(world.clone().consume())
            .alongside(world.clone().produce(0..4))
            .alongside(world.close())
            .check(move |_| {
                // What was put is done; of the rest no trace.
                let expected: Vec<u32> = (0..4).chain((10..13).take(put.get())).collect();
                assert_eq!(after.sorted(), expected);
            })
    });
}

#[test]
fn cancellation_of_reserve_and_put_all_leaves_the_rest_with_the_caller() {
    sweep(|_| {
        let world = World::new(2);
        let (own, after) = (world.clone(), world.clone());
        let items = Rc::new(RefCell::new((10..16).collect::<VecDeque<u32>>()));
        let rest = items.clone();
        let call = async move {
            for _ in 0..2 {
                let slot = own.queue.reserve().await.unwrap();
                sleep(Duration::from_millis(2)).await;
                let item = items.borrow_mut().pop_front().expect("there are six");
                slot.put(item).unwrap();
            }
            let mut held = Held(items.take(), items.clone());
            own.queue.put_all(&mut held.0).await.unwrap();
        };
        Scene::new(call)
            .alongside(world.clone().consume())
            .alongside(world.clone().produce(0..4))
            .alongside(world.close())
            .check(move |_| {
                let mut all = after.sorted();
                all.extend(rest.borrow().iter());
                assert!(all.into_iter().eq((0..4).chain(10..16)));
            })
    });
}

/// Brings the items back to where the check looks for them.
struct Held(VecDeque<u32>, Rc<RefCell<VecDeque<u32>>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.borrow_mut().append(&mut self.0);
    }
}

#[test]
fn cancellation_of_join_and_stop_loses_no_item() {
    sweep(|_| {
        let world = World::new(2);
        let (own, after) = (world.clone(), world.clone());
        let (first, second) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let (firsts, seconds, rest) = (first.clone(), second.clone(), second.clone());
        let call = async move {
            own.queue.join().await;
            // Now there are items in the queue again, and some in work.
            for item in 10..13 {
                own.queue.put(item).await.unwrap();
            }
            *firsts.borrow_mut() = own.queue.stop().await;
        };
        let again = world.clone();
        let stop = async move {
            sleep(Duration::from_secs(60)).await;
            *seconds.borrow_mut() = again.queue.stop().await;
            again.queue.join().await;
            assert_eq!(again.queue.put(1).await, Err(Closed(1)));
        };
        let patient = world.clone();
        let join = async move { patient.queue.join().await };
        Scene::new(call)
            .alongside(world.clone().produce(0..2))
            .alongside(world.consume())
            .alongside(join)
            .alongside(stop)
            .check(move |ended| {
                let mut all = after.sorted();
                all.extend(first.borrow().iter().chain(rest.borrow().iter()));
                if let Ended::Returned(()) = ended {
                    assert_eq!(all, [0, 1, 10, 11, 12]);
                    assert!(rest.borrow().is_empty());
                }
                let before = all.len();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), before, "an item came twice");
            })
    });
}

/// Many producers and consumers on several threads, which give up at random moments, fail and panic: each item is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancellation_on_several_threads_loses_and_doubles_nothing() {
    const PRODUCERS: usize = 4;
    const EACH: usize = 2_000;
    for capacity in [1, 7] {
        let queue = Arc::new(WorkQueue::new(NonZeroUsize::new(capacity).unwrap()));
        let counts: Arc<Vec<AtomicUsize>> =
            Arc::new((0..PRODUCERS * EACH).map(|_| AtomicUsize::new(0)).collect());
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let items = producer * EACH..(producer + 1) * EACH;
                    if producer % 2 == 0 {
                        return queue.put_all(&mut items.collect()).await.unwrap();
                    }
                    for item in items {
                        // Gives up its wait when the other branch is ready first, and tries again.
                        let slot = loop {
                            tokio::select! {
                                slot = queue.reserve() => break slot.unwrap(),
                                () = turns(1 + item % 3) => {}
                            }
                        };
                        slot.put(item).unwrap();
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (0..4_usize)
            .map(|consumer| {
                let (queue, counts) = (queue.clone(), counts.clone());
                tokio::spawn(async move {
                    let count = |item: usize| counts[item].fetch_add(1, Relaxed);
                    for turn in consumer.. {
                        let taken = async {
                            if consumer % 2 == 0 {
                                let lease = queue.take().await?;
                                if turn % 5 == 0 {
                                    turns(1).await;
                                }
                                // Some are handed back, at most twice each.
                                if turn % 7 != 0 || lease.handed_back() > 1 {
                                    count(lease.done());
                                }
                            } else {
                                let batch = queue.take_many(NonZeroUsize::new(1 + turn % 9)?).await?;
                                if turn % 7 != 0 || batch.iter().any(|(_, times)| times > 1) {
                                    batch.done().for_each(|item| _ = count(item));
                                }
                            }
                            Some(())
                        };
                        tokio::select! {
                            taken = taken => if taken.is_none() { break },
                            () = turns(2 + turn % 3) => {}
                        }
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.await.unwrap();
        }
        queue.join().await;
        queue.close();
        for consumer in consumers {
            consumer.await.unwrap();
        }
        assert!(counts.iter().all(|count| count.load(Relaxed) == 1));
    }
}

async fn turns(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// Whoever waited first is served first, on either side; one that gave up passes its turn on.
#[tokio::test(start_paused = true)]
async fn order_of_waiting_callers_is_that_of_their_calls() {
    let (queue, served) = (WorkQueue::<u32>::new(ONE), RefCell::new(Vec::new()));
    let take = async |name: u32| {
        let lease = queue.take().await.unwrap();
        served.borrow_mut().push((name, lease.done()));
    };
    let gives_up = async {
        let _ = timeout(Duration::from_millis(1), take(1)).await;
    };
    let put = async {
        sleep(Duration::from_millis(2)).await;
        queue.put_all(&mut (0..3).collect()).await.unwrap();
    };
    tokio::join!(take(0), gives_up, take(2), take(3), put);
    assert_eq!(*served.borrow(), [(0, 0), (2, 1), (3, 2)]);

    queue.put(0).await.unwrap();
    let put = async |item: u32| {
        sleep(Duration::from_millis(item.into())).await;
        queue.put(item).await.unwrap();
    };
    let take = async {
        sleep(Duration::from_millis(10)).await;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(queue.take().await.unwrap().done());
        }
        all
    };
    assert_eq!(tokio::join!(put(3), put(1), put(2), take).3, [0, 1, 2, 3]);
}

/// Neighbours get their turn while a producer and a consumer keep each other busy.
#[tokio::test]
async fn backpressure_leaves_neighbours_their_turn() {
    let queue = Arc::new(WorkQueue::new(NonZeroUsize::new(100_000).unwrap()));
    let (own, other) = (queue.clone(), queue.clone());
    let producer = tokio::spawn(async move {
        for item in 0..100_000 {
            own.put(item).await.unwrap();
        }
        own.close();
    });
    let consumer =
        tokio::spawn(async move { while other.take().await.map(|lease| lease.done()).is_some() {} });
    let mut turns = 0;
    while !(producer.is_finished() && consumer.is_finished()) {
        yield_now().await;
        turns += 1;
    }
    assert!(turns > 500, "a neighbour had {turns} turns during 100,000 items");
}

/// In flight, never more than the capacity and the consumers, whatever the size of the input.
#[tokio::test(start_paused = true)]
async fn memory_is_flat_while_the_input_grows_a_hundredfold() {
    let mut peaks = Vec::new();
    for items in [1_000, 100_000] {
        let (queue, alive) = (WorkQueue::new(NonZeroUsize::new(8).unwrap()), Rc::new(()));
        let peak = Cell::new(0);
        let produce = async {
            for _ in 0..items {
                let _ = queue.put(alive.clone()).await;
                peak.set(peak.get().max(Rc::strong_count(&alive) - 1));
            }
            queue.close();
        };
        let consume = async || {
            while let Some(lease) = queue.take().await {
                yield_now().await;
                drop(lease.done());
            }
        };
        tokio::join!(produce, consume(), consume());
        peaks.push(peak.get());
    }
    assert_eq!(peaks[0], peaks[1]);
    assert!(peaks[0] <= 8 + 2, "{peaks:?}");
}

/// What one consumer does with an item, or somebody with the queue.
#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Take,
    TakeMany(usize),
    Done(usize),
    HandBack(usize),
    Close,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..6_usize).prop_map(Step::Put),
        4 => Just(Step::Take),
        2 => (1..5_usize).prop_map(Step::TakeMany),
        4 => any::<usize>().prop_map(Step::Done),
        3 => any::<usize>().prop_map(Step::HandBack),
        1 => Just(Step::Close),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nothing is lost or doubled, the bound holds, and the ends are where they belong.
    #[test]
    fn memory_and_order_after_any_steps(steps in steps(), capacity in 1..6_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let queue = WorkQueue::new(NonZeroUsize::new(capacity).unwrap());
            let (mut next, mut done, mut stopped) = (0_u32, Vec::new(), Vec::new());
            let (mut leases, mut batches) = (Vec::new(), Vec::new());
            let moment = Duration::from_millis(1);
            let (mut closed, mut ended) = (false, false);
            for step in steps {
                match step {
                    Step::Put(count) => {
                        let mut items: VecDeque<u32> = (next..next + count as u32).collect();
                        match timeout(moment, queue.put_all(&mut items)).await {
                            Ok(put) => assert_eq!(put.is_err(), closed),
                            Err(_) => assert!(!closed && !items.is_empty()),
                        }
                        next += (count - items.len()) as u32;
                    }
                    Step::Take => match timeout(moment, queue.take()).await {
                        Ok(Some(lease)) => leases.push(lease),
                        Ok(None) => assert!(ended || (closed && leases.is_empty() && batches.is_empty())),
                        Err(_) => {}
                    },
                    Step::TakeMany(most) => {
                        let batch = timeout(moment, queue.take_many(NonZeroUsize::new(most).unwrap())).await;
                        if let Ok(Some(batch)) = batch {
                            assert!((1..=most).contains(&batch.iter().count()));
                            batches.push(batch);
                        }
                    }
                    Step::Done(at) if at % 2 == 0 && !leases.is_empty() => {
                        done.push(leases.swap_remove(at % leases.len()).done());
                    }
                    Step::Done(at) if !batches.is_empty() => done.extend(batches.swap_remove(at % batches.len()).done()),
                    Step::HandBack(at) if at % 2 == 0 && !leases.is_empty() => drop(leases.swap_remove(at % leases.len())),
                    Step::HandBack(at) if !batches.is_empty() => drop(batches.swap_remove(at % batches.len())),
                    Step::Done(_) | Step::HandBack(_) => {}
                    Step::Close => {
                        queue.close();
                        closed = true;
                    }
                    Step::Stop => {
                        let all_back = leases.is_empty() && batches.is_empty();
                        let rest = timeout(moment, queue.stop()).await;
                        assert_eq!(rest.is_ok(), all_back);
                        stopped.extend(rest.into_iter().flatten());
                        (closed, ended) = (true, true);
                    }
                }
            }
            drop((leases, batches));
            // Whether it was closed or not: all that was put and not done is there, and the whole room is free after that.
            stopped.extend(timeout(moment, queue.stop()).await.expect("nothing is in work"));
            queue.join().await;
            done.append(&mut stopped);
            done.sort_unstable();
            assert!(done.into_iter().eq(0..next));
        });
    }

    /// However items came back: the room is what it was, no more and no less.
    #[test]
    fn backpressure_is_the_same_after_any_hand_backs(rounds in prop::collection::vec((0..5_usize, 0..5_usize), 0..20), capacity in 1..4_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let queue = WorkQueue::new(NonZeroUsize::new(capacity).unwrap());
            let moment = Duration::from_millis(1);
            for (takes, puts) in rounds {
                let mut leases = Vec::new();
                for _ in 0..takes {
                    leases.extend(timeout(moment, queue.take()).await.into_iter().flatten());
                }
                let _ = timeout(moment, queue.put_all(&mut (0..puts).collect())).await;
                drop(leases);
            }
            while timeout(moment, queue.take()).await.map(|lease| lease.map(|lease| lease.done())).is_ok() {}
            let mut items: VecDeque<usize> = (0..capacity + 3).collect();
            assert!(timeout(moment, queue.put_all(&mut items)).await.is_err());
            assert_eq!(items.len(), 3);
        });
    }
}
