//! Items, frames and replies that are lost, torn or mixed up when their carrier is dropped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use support::sweep::{Ended, Parts, Scene};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
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
                Err(item) => self.items.borrow_mut().push_back(item),
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
    struct Checkout<'a>(&'a Idle, Option<u32>);

    impl Drop for Checkout<'_> {
        fn drop(&mut self) {
            self.0.borrow_mut().extend(self.1);
        }
    }
    async fn query<const FIXED: bool>(idle: &Idle) {
        let connection = idle.borrow_mut().pop();
        if !FIXED {
            ping().await;
        }
        let _checkout = Checkout(idle, connection);
        if FIXED {
            ping().await;
        }
        work().await;
    }
    async fn ping() {
        moment().await;
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let idle = Rc::new(RefCell::new(vec![1]));
        let subject = idle.clone();
        Scene::new(async move { query::<FIXED>(&subject).await })
            .check(move |_| assert_eq!(*idle.borrow(), [1], "the pool has its connection"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// `send(item).await` on a full channel: the item that waits for a place is dropped with the call (tokio #5947 warns of it).
#[test]
fn a_cancelled_send_loses_what_it_took_from_the_buffer() {
    async fn drain<const FIXED: bool>(buffer: &RefCell<VecDeque<u32>>, sender: mpsc::Sender<u32>) {
        while !buffer.borrow().is_empty() {
            // What is reserved is a place, and that can be given back.
            let place = if FIXED { sender.reserve().await.ok() } else { None };
            let Some(item) = buffer.borrow_mut().pop_front() else { return };
            match place {
                Some(place) => place.send(item),
                None => sender.send(item).await.expect("the receiver stays"),
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let buffer = Rc::new(RefCell::new(VecDeque::from([0, 1, 2, 3])));
        let received = Rc::new(Cell::new(0));
        let (subject, count) = (buffer.clone(), received.clone());
        let (sender, mut receiver) = mpsc::channel(1);
        Scene::new(async move { drain::<FIXED>(&subject, sender).await })
            .alongside(async move {
                while receiver.recv().await.is_some() {
                    count.update(|count| count + 1);
                    work().await;
                }
            })
            .check(move |_| assert_eq!(received.get() + buffer.borrow().len(), 4, "of four items"))
    }
    proves(scene::<false>, scene::<true>, "woken");
}

/// A polite stop flushes, a second one interrupts the flush: what was taken out of the buffer for it is gone.
#[test]
fn the_second_cancellation_loses_what_the_first_was_saving() {
    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let buffer = Rc::new(RefCell::new(Vec::new()));
        let stored = Rc::new(RefCell::new(Vec::new()));
        let received = Rc::new(Cell::new(0));
        let (subject_buffer, store, count) = (buffer.clone(), stored.clone(), received.clone());
        let (sender, mut receiver) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let subject = async move {
            while let Some(item) = stopped.run_until_cancelled(receiver.recv()).await.flatten() {
                subject_buffer.borrow_mut().push(item);
                count.update(|count| count + 1);
            }
            if stopped.is_cancelled() {
                let batch = if FIXED {
                    subject_buffer.borrow().clone()
                } else {
                    subject_buffer.borrow_mut().split_off(0)
                };
                work().await;
                store.borrow_mut().extend(batch);
                subject_buffer.borrow_mut().clear();
            }
        };
        Scene::new(subject)
            .stop(move || stop.cancel())
            .alongside(async move {
                for item in 0..3 {
                    moment().await;
                    // Refused when the subject is gone: the item is still ours.
                    let _ = sender.send(item).await;
                }
            })
            .check(move |_| {
                assert_eq!(
                    buffer.borrow().len() + stored.borrow().len(),
                    received.get(),
                    "items that came in"
                );
            })
    }
    proves(scene::<false>, scene::<true>, "Stop:");
}

/// A stop and an item at the same instant: the loop looks at the stop first, and drops the item with the other branch.
#[test]
fn a_stop_wins_over_an_item_that_is_there() {
    fn scene<const FIXED: bool>(_: &Parts) -> Scene<Option<u32>> {
        let (sender, mut item) = oneshot::channel();
        let delivered = Rc::new(Cell::new(false));
        let delivery = delivered.clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let subject = async move {
            work().await;
            if FIXED {
                tokio::select! { biased; item = &mut item => item.ok(), () = stopped.cancelled() => None }
            } else {
                tokio::select! { biased; () = stopped.cancelled() => None, item = &mut item => item.ok() }
            }
        };
        Scene::new(subject)
            .stop(move || stop.cancel())
            .alongside(async move {
                work().await;
                moment().await;
                delivery.set(sender.send(7).is_ok());
            })
            .check(move |ended| {
                // A drop may take the item along, a polite stop may not.
                if let Ended::Returned(item) = ended {
                    assert_eq!(item.is_some(), delivered.get(), "the item was delivered");
                }
            })
    }
    proves(scene::<false>, scene::<true>, "Stop:woken");
}

/// A loop that starts its read anew after any other event, and loses what was read (`read_exact` in a `select!`).
#[test]
fn another_event_drops_a_read_that_had_begun() {
    async fn read_frame(bytes: &RefCell<VecDeque<u8>>) -> [Option<u8>; 2] {
        let header = bytes.borrow_mut().pop_front();
        work().await;
        [header, bytes.borrow_mut().pop_front()]
    }
    async fn read<const FIXED: bool>(
        bytes: &RefCell<VecDeque<u8>>,
        mut events: mpsc::Receiver<()>,
    ) -> [Option<u8>; 2] {
        let mut reading = pin!(read_frame(bytes));
        loop {
            tokio::select! {
                biased;
                frame = &mut reading => return frame,
                Some(()) = events.recv() => {}
            }
            if !FIXED {
                reading.set(read_frame(bytes));
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<[Option<u8>; 2]> {
        let bytes = RefCell::new(VecDeque::from([1, 2, 3, 4]));
        let (event, events) = mpsc::channel(1);
        Scene::new(async move { read::<FIXED>(&bytes, events).await })
            .alongside(async move {
                moment().await;
                // Refused when the reader is gone.
                let _ = event.send(()).await;
            })
            .check(|ended| {
                if let Ended::Returned(frame) = ended {
                    assert_eq!(frame, [Some(1), Some(2)], "the first frame");
                }
            })
    }
    proves(scene::<false>, scene::<true>, "end");
}

/// A frame in two writes: cancelled between them, it leaves half a frame for the next user of the connection.
#[test]
fn a_half_written_frame_corrupts_the_stream() {
    #[derive(Default)]
    struct Connection {
        wire: RefCell<Vec<u8>>,
        in_frame: Cell<bool>,
    }
    async fn write<const FIXED: bool>(connection: &Connection, body: &[u8]) {
        if FIXED && connection.in_frame.replace(true) {
            // The last user left in mid-frame: this connection is of no use any more, another one is opened.
            connection.wire.borrow_mut().clear();
        }
        connection.wire.borrow_mut().push(body.len() as u8);
        work().await;
        connection.wire.borrow_mut().extend(body);
        connection.in_frame.set(false);
    }
    /// The frames on the wire, unless the last one is torn.
    fn frames(mut wire: &[u8]) -> Option<Vec<&[u8]>> {
        let mut frames = Vec::new();
        while let Some((length, rest)) = wire.split_first() {
            let (frame, rest) = rest.split_at_checked(usize::from(*length))?;
            frames.push(frame);
            wire = rest;
        }
        Some(frames)
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let connection = Rc::<Connection>::default();
        let (subject, next) = (connection.clone(), connection.clone());
        let free = Rc::new(tokio::sync::Semaphore::new(1));
        let next_free = free.clone();
        Scene::new(async move {
            let _permit = free.acquire().await;
            write::<FIXED>(&subject, b"one").await;
            write::<FIXED>(&subject, b"two").await;
        })
        .alongside(async move {
            moment().await;
            let _permit = next_free.acquire().await;
            write::<FIXED>(&next, b"next").await;
        })
        .check(move |_| {
            let wire = connection.wire.borrow();
            let frames = frames(&wire).unwrap_or_default();
            assert_eq!(frames.last(), Some(&&b"next"[..]), "the last frame on the wire {wire:?}");
        })
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// A request was sent and its reply not waited for: the next request gets that reply (redis-py #2624).
#[test]
fn the_next_request_gets_the_reply_of_a_cancelled_one() {
    struct Connection {
        requests: mpsc::Sender<u32>,
        replies: mpsc::Receiver<u32>,
    }
    async fn request<const FIXED: bool>(connection: &tokio::sync::Mutex<Connection>, id: u32) -> Option<u32> {
        let mut connection = connection.lock().await;
        connection.requests.send(id).await.ok()?;
        loop {
            let reply = connection.replies.recv().await?;
            if !FIXED || reply == id {
                return Some(reply);
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let (requests, mut incoming) = mpsc::channel(1);
        let (outgoing, replies) = mpsc::channel(1);
        let subject = Rc::new(tokio::sync::Mutex::new(Connection { requests, replies }));
        let next = subject.clone();
        Scene::new(async move {
            for id in 0..2 {
                assert_eq!(request::<FIXED>(&subject, id).await, Some(id));
            }
        })
        .alongside(async move {
            while let Some(id) = incoming.recv().await {
                work().await;
                // Refused when both users are gone.
                let _ = outgoing.send(id).await;
            }
        })
        .alongside(async move {
            moment().await;
            assert_eq!(request::<FIXED>(&next, 9).await, Some(9));
        })
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// A caller gives up, its entry in the table of pending replies stays for ever (nats.rs #1617).
#[test]
fn a_reply_slot_stays_in_the_table() {
    type Pending = RefCell<BTreeMap<u32, oneshot::Sender<()>>>;
    struct Entry<'a, const FIXED: bool>(&'a Pending, u32);

    impl<const FIXED: bool> Drop for Entry<'_, FIXED> {
        fn drop(&mut self) {
            if FIXED {
                self.0.borrow_mut().remove(&self.1);
            }
        }
    }
    async fn call<const FIXED: bool>(pending: &Pending, id: u32) -> bool {
        let (sender, reply) = oneshot::channel();
        pending.borrow_mut().insert(id, sender);
        let _entry = Entry::<FIXED>(pending, id);
        reply.await.is_ok()
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let pending = Rc::<Pending>::default();
        let (subject, server) = (pending.clone(), pending.clone());
        Scene::new(async move {
            assert!(call::<FIXED>(&subject, 0).await);
            // Nobody answers this one.
            assert!(timeout(Duration::from_millis(5), call::<FIXED>(&subject, 1)).await.is_err());
        })
        .alongside(async move {
            moment().await;
            if let Some(caller) = server.borrow_mut().remove(&0) {
                // Refused when the caller is gone, which is its own affair.
                let _ = caller.send(());
            }
        })
        .check(move |_| assert!(pending.borrow().is_empty(), "nobody waits for a reply"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}
