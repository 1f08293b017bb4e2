//! Permits, places in a queue and wake-ups that go astray when their waiter is dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use support::sweep::{Parts, Scene};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::{moment, proves, work};

/// A semaphore that hands its permit to the first waiter: a waiter that was dropped at that moment took the permit with it.
#[test]
fn a_permit_is_lost_with_its_waiter() {
    #[derive(Default)]
    struct Limit<const FIXED: bool> {
        taken: Cell<bool>,
        queue: RefCell<VecDeque<oneshot::Sender<Option<Permit<FIXED>>>>>,
    }
    struct Permit<const FIXED: bool>(Rc<Limit<FIXED>>);

    async fn acquire<const FIXED: bool>(limit: &Rc<Limit<FIXED>>) -> Permit<FIXED> {
        let mut handed = None;
        if limit.taken.replace(true) {
            let (sender, receiver) = oneshot::channel();
            limit.queue.borrow_mut().push_back(sender);
            handed = receiver.await.ok().flatten();
        }
        handed.unwrap_or_else(|| Permit(limit.clone()))
    }
    impl<const FIXED: bool> Drop for Permit<FIXED> {
        fn drop(&mut self) {
            let next = self.0.queue.borrow_mut().pop_front();
            let Some(next) = next else { return self.0.taken.set(false) };
            // The permit itself travels to the waiter: wherever it is dropped on the way, it is released again.
            let permit = FIXED.then(|| Permit(self.0.clone()));
            if next.send(permit).is_err() && !FIXED {
                drop(Permit(self.0.clone()));
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let limit = Rc::<Limit<FIXED>>::default();
        let [subject, before, behind] = [limit.clone(), limit.clone(), limit.clone()];
        Scene::new(async move {
            let _permit = acquire(&subject).await;
            work().await;
        })
        .alongside(async move {
            let _permit = acquire(&before).await;
            work().await;
        })
        .alongside(async move {
            moment().await;
            acquire(&behind).await;
        })
        .check(move |_| assert!(!limit.taken.get(), "nobody holds the permit"))
    }
    proves(scene::<false>, scene::<true>, "woken");
}

/// A large request that leaves the head of the queue, behind which a small one would fit by now (embassy #6964).
#[test]
fn those_behind_the_head_of_the_queue_are_not_woken() {
    struct Limit<const FIXED: bool> {
        free: Cell<usize>,
        queue: RefCell<VecDeque<Rc<Waiter>>>,
    }
    struct Waiter {
        wants: usize,
        granted: Cell<bool>,
        bell: Notify,
    }
    /// A place in the queue, and later the permits.
    struct Place<const FIXED: bool>(Rc<Limit<FIXED>>, Rc<Waiter>);

    impl<const FIXED: bool> Limit<FIXED> {
        async fn acquire(self: &Rc<Self>, wants: usize) -> Place<FIXED> {
            let waiter = Rc::new(Waiter { wants, granted: Cell::new(false), bell: Notify::new() });
            self.queue.borrow_mut().push_back(waiter.clone());
            let place = Place(self.clone(), waiter.clone());
            self.serve();
            waiter.bell.notified().await;
            place
        }

        fn serve(&self) {
            let mut queue = self.queue.borrow_mut();
            while let Some(first) = queue.pop_front_if(|first| first.wants <= self.free.get()) {
                self.free.update(|free| free - first.wants);
                first.granted.set(true);
                first.bell.notify_one();
            }
        }
    }
    impl<const FIXED: bool> Drop for Place<FIXED> {
        fn drop(&mut self) {
            let Place(limit, waiter) = self;
            if waiter.granted.get() {
                limit.free.update(|free| free + waiter.wants);
                limit.serve();
            } else {
                limit.queue.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
                if FIXED {
                    limit.serve();
                }
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let limit = Rc::new(Limit::<FIXED> { free: Cell::new(2), queue: RefCell::default() });
        let [subject, before, behind, after] = [(); 4].map(|()| limit.clone());
        Scene::new(async move {
            let _both = subject.acquire(2).await;
            work().await;
        })
        .alongside(async move {
            let _one = before.acquire(1).await;
            // It leaves only after it was asked to: nothing else moves the queue on.
            while before.queue.borrow().iter().any(|waiter| waiter.wants == 1) || before.free.get() > 0 {
                moment().await;
                if before.queue.borrow().len() == 2 {
                    break;
                }
            }
        })
        .alongside(async move { drop(behind.acquire(1).await) })
        .check(move |_| assert_eq!(after.free.get(), 2))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}
