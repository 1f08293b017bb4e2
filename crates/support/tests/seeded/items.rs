//! Items, frames and replies that are lost, torn or mixed up when their carrier is dropped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use support::sweep::{Ended, Parts, Scene};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{moment, proves, work};

/// A channel that puts an item into a waiting receiver's slot: the item goes down with the slot.
#[test]
fn an_item_is_lost_in_the_slot_of_a_dropped_receiver() {
    #[derive(Default)]
    struct Channel<const FIXED: bool> {
        items: RefCell<VecDeque<u32>>,
        waiting: RefCell<VecDeque<oneshot::Sender<u32>>>,
    }
    struct Slot<'a, const FIXED: bool>(&'a Channel<FIXED>, oneshot::Receiver<u32>);

    impl<const FIXED: bool> Channel<FIXED> {
        fn send(&self, item: u32) {
            let receiver = self.waiting.borrow_mut().pop_front();
            match receiver.map_or(Err(item), |receiver| receiver.send(item)) {
                Ok(()) => {}
                Err(item) => self.items.borrow_mut().push_front(item),
            }
        }

        async fn receive(&self) -> Option<u32> {
            if let Some(item) = self.items.borrow_mut().pop_front() {
                return Some(item);
            }
            let (sender, receiver) = oneshot::channel();
            self.waiting.borrow_mut().push_back(sender);
            let mut slot = Slot(self, receiver);
            (&mut slot.1).await.ok()
        }
    }
    impl<const FIXED: bool> Drop for Slot<'_, FIXED> {
        fn drop(&mut self) {
            self.1.close();
            if FIXED && let Ok(item) = self.1.try_recv() {
                self.0.send(item);
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let channel = Rc::<Channel<FIXED>>::default();
        let received = Rc::new(Cell::new(0));
        let (subject, sender, count) = (channel.clone(), channel.clone(), received.clone());
        Scene::new(async move {
            for _ in 0..3 {
                subject.receive().await;
                count.update(|count| count + 1);
            }
        })
        .alongside(async move {
            for item in 0..3 {
                moment().await;
                sender.send(item);
            }
        })
        .check(move |_| assert_eq!(received.get() + channel.items.borrow().len(), 3, "of three items"))
    }
    proves(scene::<false>, scene::<true>, "woken");
}

/// A pool that takes a connection from its idle ones and then pings it: the connection goes down with the ping (sqlx #1869).
#[test]
fn an_item_is_taken_from_the_queue_before_an_await() {
    type Idle = RefCell<Vec<u32>>;
    struct Connection<'a, const FIXED: bool>(&'a Idle, Option<u32>);

    impl<const FIXED: bool> Drop for Connection<'_, FIXED> {
        fn drop(&mut self) {
            if FIXED {
                self.0.borrow_mut().extend(self.1);
            }
        }
    }
    async fn query<const FIXED: bool>(idle: &Idle) {
        let connection = idle.borrow_mut().pop();
        let guard = Connection::<FIXED>(idle, connection);
        let ping = work();
        ping.await;
        // From here on there is a guard in either version.
        let guard = Connection::<true>(idle, std::mem::forget(guard).map_or(connection, |()| None));
        work().await;
        drop(guard);
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let idle = Rc::new(RefCell::new(vec![1]));
        let subject = idle.clone();
        Scene::new(async move { query::<FIXED>(&subject).await })
            .check(move |_| assert_eq!(*idle.borrow(), [1], "the pool has its connection"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}
