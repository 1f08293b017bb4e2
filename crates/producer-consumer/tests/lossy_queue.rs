//! `lossy_queue`: `recv` is dropped at every suspension point, and each item is received or counted as lost.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use producer_consumer::{
    LossyReceiver, LossySender, Overflow, Received, ReceiverGone, latest_queue, lossy_queue,
};
use proptest::prelude::*;
use support::sweep::{Scene, sweep};
use tokio::task::yield_now;
use tokio::time::sleep;

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MS: Duration = Duration::from_millis(1);

type Log = Rc<RefCell<Vec<(u64, u64)>>>;

/// The subject receives three items; whoever comes after it gets the rest, and counts everything.
fn scene(overflow: Overflow, keys: Option<u64>) -> Scene<()> {
    match keys {
        None => scene_of(lossy_queue(ONE.saturating_add(1), overflow)),
        Some(3) => scene_of(latest_queue(ONE.saturating_add(1), overflow, |item: &u64| item % 3)),
        Some(_) => unreachable!("a function pointer holds no number"),
    }
}

fn scene_of<K: std::hash::Hash + Eq + Clone + 'static>(
    (sender, receiver): (LossySender<u64, K>, LossyReceiver<u64, K>),
) -> Scene<()> {
    let home = Rc::new(RefCell::new(Some(receiver)));
    let (own, log) = (home.clone(), Log::default());
    let (seen, rest, after) = (log.clone(), log.clone(), log.clone());
    /// Puts the receiver back when the subject is dropped.
    struct Back<K>(Option<LossyReceiver<u64, K>>, Rc<RefCell<Option<LossyReceiver<u64, K>>>>);
    impl<K> Drop for Back<K> {
        fn drop(&mut self) {
            *self.1.borrow_mut() = self.0.take();
        }
    }
    let call = async move {
        let mut back = Back(own.borrow_mut().take(), own.clone());
        for _ in 0..3 {
            let received = back.0.as_mut().unwrap().recv().await.unwrap();
            seen.borrow_mut().push((received.item, received.lost));
            sleep(2 * MS).await;
        }
    };
    let other = sender.clone();
    let send = async move {
        for item in 0..9_u64 {
            sleep((2 * item % 5) as u32 * MS).await;
            sender.send(item).unwrap();
        }
    };
    let lost = Rc::new(Cell::new(0));
    let total = lost.clone();
    let late = async move {
        sleep(Duration::from_secs(60)).await;
        other.send(9).unwrap();
        drop(other);
        let mut receiver = home.borrow_mut().take().unwrap();
        while let Some(Received { item, lost }) = receiver.recv().await {
            rest.borrow_mut().push((item, lost));
        }
        lost.set(receiver.lost());
    };
    Scene::new(call).alongside(send).alongside(late).check(move |_| {
        let log = after.borrow();
        assert_eq!(log.len() as u64 + total.get(), 10, "{log:?}");
        let told: u64 = log.iter().map(|(_, lost)| lost).sum();
        assert!(told <= total.get());
        let mut items: Vec<_> = log.iter().map(|(item, _)| *item).collect();
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), log.len(), "an item came twice");
    })
}

#[test]
fn cancellation_at_every_point_loses_no_more_than_is_counted() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        sweep(|_| scene(overflow, None));
        sweep(|_| scene(overflow, Some(3)));
    }
}

/// A wait that is given up when the item is there already, and the end as well.
#[test]
fn cancellation_of_a_woken_recv_keeps_item_and_end() {
    sweep(|_| {
        let (sender, receiver) = lossy_queue(ONE, Overflow::DropOldest);
        let receiver = Rc::new(RefCell::new(receiver));
        let (own, after) = (receiver.clone(), Rc::new(RefCell::new(Vec::new())));
        let (first, rest, check) = (after.clone(), after.clone(), after);
        #[allow(clippy::await_holding_refcell_ref, reason = "the other one borrows a minute later")]
        let call = async move { first.borrow_mut().extend(own.borrow_mut().recv().await) };
        let send = async move {
            sleep(MS).await;
            sender.send(1).unwrap();
            // The end, which wakes too, comes later.
            sleep(2 * Duration::from_secs(60)).await;
        };
        #[allow(clippy::await_holding_refcell_ref, reason = "the other one is gone by then")]
        let late = async move {
            sleep(Duration::from_secs(60)).await;
            let mut receiver =
                receiver.try_borrow_mut().expect("the subject has received it, or was dropped");
            while let Some(received) = receiver.recv().await {
                rest.borrow_mut().push(received);
            }
        };
        Scene::new(call)
            .alongside(send)
            .alongside(late)
            .check(move |_| assert_eq!(*check.borrow(), [Received { item: 1, lost: 0 }]))
    });
}

/// Senders on several threads and one receiver: all is received or counted, in order, and the end comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_and_counts_hold_on_several_threads() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 20_000;
    for (capacity, overflow) in
        [(1, Overflow::DropOldest), (1, Overflow::DropNewest), (64, Overflow::DropOldest)]
    {
        let (sender, mut receiver) = lossy_queue(NonZeroUsize::new(capacity).unwrap(), overflow);
        let senders: Vec<_> = (0..SENDERS)
            .map(|own| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut returned = 0;
                    for item in 0..EACH {
                        returned += u64::from(sender.send((own, item)).unwrap().is_some());
                        if item % 16 == 0 {
                            yield_now().await;
                        }
                    }
                    returned
                })
            })
            .collect();
        drop(sender);
        let (mut received, mut last) = (0, [None; SENDERS as usize]);
        loop {
            // Gives up again and again.
            let ended = tokio::select! {
                biased;
                item = receiver.recv() => item,
                () = yield_now() => continue,
            };
            let Some(Received { item: (own, item), .. }) = ended else { break };
            assert!(last[own as usize].replace(item) < Some(item));
            received += 1;
        }
        let mut returned = 0;
        for sender in senders {
            returned += sender.await.unwrap();
        }
        assert_eq!((received + receiver.lost(), returned), (SENDERS * EACH, receiver.lost()));
    }
}

/// A receiver that always finds an item gives way to others.
#[tokio::test]
async fn backpressure_is_none_but_neighbours_have_their_turn() {
    let (sender, mut receiver) = lossy_queue(NonZeroUsize::MAX, Overflow::DropNewest);
    (0..100_000).for_each(|item| _ = sender.send(item).unwrap());
    drop(sender);
    let receiving = tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let mut turns = 0;
    while !receiving.is_finished() {
        yield_now().await;
        turns += 1;
    }
    assert!(turns > 500, "a neighbour had {turns} turns during 100,000 items");
}

/// A queue of 10,000 keys, each renewed and overtaken many times.
#[tokio::test]
async fn memory_of_many_keys_is_one_item_each() {
    let keys = NonZeroUsize::new(10_000).unwrap();
    let (sender, mut receiver) = latest_queue(keys, Overflow::DropOldest, |item: &usize| item % 15_000);
    for item in 0..100_000 {
        sender.send(item).unwrap();
    }
    drop(sender);
    let mut count = 0;
    while let Some(received) = receiver.recv().await {
        // The last 10,000 keys, each with its newest item.
        assert_eq!(received.item, 90_000 + count);
        count += 1;
    }
    assert_eq!((count, receiver.lost()), (10_000, 90_000));
}

/// An item's drop may use the queue: it never runs under its lock.
#[tokio::test(start_paused = true)]
async fn panics_and_calls_in_a_drop_find_the_queue_usable() {
    struct Item(u32, Option<LossySender<Item>>);
    impl Drop for Item {
        fn drop(&mut self) {
            if let Some(sender) = self.1.take() {
                let _ = sender.send(Item(self.0 + 10, None));
            }
        }
    }
    let (sender, mut receiver) = lossy_queue(ONE, Overflow::DropOldest);
    assert!(sender.send(Item(1, Some(sender.clone()))).is_ok());
    // Drops the first, which sends in turn, and loses the second.
    drop(sender.send(Item(2, None)));
    assert_eq!(receiver.recv().await.unwrap().item.0, 11);
    assert!(sender.send(Item(3, Some(sender.clone()))).is_ok());
    drop(receiver);
    assert!(matches!(sender.send(Item(4, None)), Err(ReceiverGone(Item(4, None)))));
}

/// A key whose methods panic at any call leaves a queue that still works.
#[tokio::test(start_paused = true)]
async fn panics_of_a_key_at_any_call_leave_the_queue_usable() {
    thread_local!(static CALLS: Cell<usize> = const { Cell::new(usize::MAX) });
    fn call() {
        CALLS.set(CALLS.get().saturating_sub(1));
        if CALLS.get() == 0 {
            // Not `panic!`: the message would be printed though the panic is expected.
            resume_unwind(Box::new("a key's method"));
        }
    }
    #[derive(Debug)]
    struct Key(u32);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            call();
            self.0.hash(state);
        }
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            call();
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    impl Clone for Key {
        fn clone(&self) -> Self {
            call();
            Key(self.0)
        }
    }
    for at in 1..40 {
        for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
            let (sender, mut receiver) =
                latest_queue(ONE.saturating_add(2), overflow, |item: &u32| Key(item % 5));
            CALLS.set(at);
            for item in 0..20 {
                let _ = catch_unwind(AssertUnwindSafe(|| sender.send(item)));
                if item % 4 == 3 {
                    let _ = catch_unwind(AssertUnwindSafe(|| receiver.recv().now_or_never()));
                }
            }
            CALLS.set(usize::MAX);
            for item in 100..110 {
                sender.send(item).unwrap();
            }
            drop(sender);
            let mut left = 0;
            while receiver.recv().await.is_some() {
                left += 1;
            }
            assert!(left <= 3, "{left} items were queued");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Recv,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a model that searches and shifts: the same items, the same counts, the same item returned.
    #[test]
    fn order_and_counts_hold_after_any_steps(
        steps in prop::collection::vec(prop_oneof![3 => (0..6_u64).prop_map(Step::Send), 1 => Just(Step::Recv)], 0..200),
        capacity in 1..6_usize,
        newest: bool,
        keyed: bool,
    ) {
        let overflow = if newest { Overflow::DropNewest } else { Overflow::DropOldest };
        let limit = NonZeroUsize::new(capacity).unwrap();
        // Items are (key, number); without keys each number is a key of its own.
        let mut next = 0;
        let mut model: VecDeque<((u64, u64), u64)> = VecDeque::new();
        let (mut lost, mut after) = (0, 0);
        let (sender, mut receiver) = if keyed {
            latest_queue(limit, overflow, |item: &(u64, u64)| Some(item.0))
        } else {
            latest_queue(limit, overflow, |item: &(u64, u64)| Some(item.1 + 100))
        };
        let (plain, mut plainly) = lossy_queue(limit, overflow);
        for step in steps {
            match step {
                Step::Send(key) => {
                    let item = (key, next);
                    next += 1;
                    let same = model.iter().position(|(other, _)| keyed && other.0 == key);
                    let expected = match same {
                        Some(at) => {
                            (lost, model[at].1) = (lost + 1, model[at].1 + 1);
                            Some(std::mem::replace(&mut model[at].0, item))
                        }
                        None if model.len() == capacity && newest => {
                            (lost, after) = (lost + 1, after + 1);
                            Some(item)
                        }
                        None => {
                            let oldest = if model.len() == capacity { model.pop_front() } else { None };
                            if let Some((_, before)) = oldest {
                                lost += 1;
                                match model.front_mut() {
                                    Some(front) => front.1 += before + 1,
                                    None => after += before + 1,
                                }
                            }
                            model.push_back((item, std::mem::take(&mut after)));
                            oldest.map(|(oldest, _)| oldest)
                        }
                    };
                    prop_assert_eq!(sender.send(item), Ok(expected));
                    if !keyed {
                        prop_assert_eq!(plain.send(item), Ok(expected));
                    }
                }
                Step::Recv => {
                    let expected = model.pop_front().map(|(item, lost)| Some(Received { item, lost }));
                    prop_assert_eq!(receiver.recv().now_or_never(), expected);
                    if !keyed {
                        prop_assert_eq!(plainly.recv().now_or_never(), expected);
                    }
                }
            }
            prop_assert_eq!(receiver.lost(), lost);
        }
        drop(sender);
        while let Some(received) = receiver.recv().now_or_never().unwrap() {
            prop_assert_eq!(Some((received.item, received.lost)), model.pop_front());
        }
        prop_assert!(model.is_empty());
    }
}
