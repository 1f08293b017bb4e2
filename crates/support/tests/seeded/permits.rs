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
    type Queue<const FIXED: bool> = VecDeque<oneshot::Sender<Option<Permit<FIXED>>>>;
    #[derive(Default)]
    struct Limit<const FIXED: bool> {
        taken: Cell<bool>,
        queue: RefCell<Queue<FIXED>>,
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
        let [subject, before, behind] = [limit.clone(), limit.clone(), limit.clone()];
        let served = Rc::new(Notify::new());
        let small_one_served = served.clone();
        Scene::new(async move {
            let _both = subject.acquire(2).await;
            work().await;
        })
        .alongside(async move {
            let _one = before.acquire(1).await;
            work().await;
            // One permit is free: without the large request, it is the small one's.
            if before.queue.borrow().iter().all(|waiter| waiter.wants == 1) {
                small_one_served.notified().await;
            }
        })
        .alongside(async move {
            moment().await;
            let _one = behind.acquire(1).await;
            served.notify_one();
        })
        .check(move |_| assert_eq!(limit.free.get(), 2))
    }
    proves(scene::<false>, scene::<true>, "waiting");
}

/// One wake-up for one of two workers: the worker that was woken is dropped, the other sleeps on (sqlx #620).
#[test]
fn a_wake_up_is_not_forwarded() {
    #[derive(Default)]
    struct Bell {
        stored: Cell<bool>,
        waiting: RefCell<VecDeque<(Rc<Cell<bool>>, Waker)>>,
    }
    impl Bell {
        fn ring(&self) {
            let Some((rung, waker)) = self.waiting.borrow_mut().pop_front() else {
                return self.stored.set(true);
            };
            rung.set(true);
            waker.wake();
        }
    }
    struct Rung<const FIXED: bool> {
        bell: Rc<Bell>,
        rung: Rc<Cell<bool>>,
    }
    impl<const FIXED: bool> Future for Rung<FIXED> {
        type Output = ();

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if self.rung.take() || self.bell.stored.take() {
                return Poll::Ready(());
            }
            self.bell.waiting.borrow_mut().push_back((self.rung.clone(), context.waker().clone()));
            Poll::Pending
        }
    }
    impl<const FIXED: bool> Drop for Rung<FIXED> {
        fn drop(&mut self) {
            self.bell.waiting.borrow_mut().retain(|(rung, _)| !Rc::ptr_eq(rung, &self.rung));
            if FIXED && self.rung.take() {
                self.bell.ring();
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let bell = Rc::<Bell>::default();
        let jobs = Rc::new(Cell::new(0));
        let worker = || {
            let (bell, jobs) = (bell.clone(), jobs.clone());
            async move {
                while jobs.get() == 0 {
                    Rung::<FIXED> { bell: bell.clone(), rung: Rc::default() }.await;
                }
                jobs.update(|jobs| jobs - 1);
                work().await;
            }
        };
        let (subject, other) = (worker(), worker());
        Scene::new(subject)
            .alongside(async move {
                moment().await;
                other.await;
            })
            .alongside(async move {
                for _ in 0..2 {
                    work().await;
                    // It rings only when there was nothing to do, as queues do.
                    if jobs.replace(jobs.get() + 1) == 0 {
                        bell.ring();
                    }
                }
            })
    }
    proves(scene::<false>, scene::<true>, "woken");
}

/// A barrier that still counts a waiter that has left, and opens for one party alone (tokio #6493 documents its own).
#[test]
fn a_barrier_counts_a_ghost() {
    #[derive(Default)]
    struct Barrier<const FIXED: bool> {
        arrived: Cell<usize>,
        round: Cell<usize>,
        open: Notify,
    }
    struct Arrival<'a, const FIXED: bool>(&'a Barrier<FIXED>, usize);

    impl<const FIXED: bool> Barrier<FIXED> {
        async fn both(&self) {
            if self.arrived.replace(1) == 1 {
                self.arrived.set(0);
                self.round.update(|round| round + 1);
                return self.open.notify_waiters();
            }
            let _arrival = Arrival(self, self.round.get());
            self.open.notified().await;
        }
    }
    impl<const FIXED: bool> Drop for Arrival<'_, FIXED> {
        fn drop(&mut self) {
            if FIXED && self.1 == self.0.round.get() {
                self.0.arrived.set(0);
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let barrier = Rc::<Barrier<FIXED>>::default();
        let other = barrier.clone();
        let here = Rc::new(());
        let partner = Rc::downgrade(&here);
        Scene::new(async move {
            work().await;
            barrier.both().await;
            work().await;
            drop(here);
        })
        .alongside(async move {
            work().await;
            moment().await;
            let alone = partner.strong_count() == 0;
            let opened = timeout(Duration::from_secs(1), other.both()).await.is_ok();
            assert!(!(alone && opened), "the barrier opened for one of two");
        })
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// A rate limiter that takes a waiter's tokens when it joins the queue, and keeps them when it leaves.
#[test]
fn tokens_of_a_waiter_that_left_are_not_refunded() {
    /// Tokens that were promised, and those that were used.
    #[derive(Default)]
    struct Bucket<const FIXED: bool> {
        promised: Cell<u32>,
        used: Cell<u32>,
    }
    struct Promise<'a, const FIXED: bool>(&'a Bucket<FIXED>);

    impl<const FIXED: bool> Bucket<FIXED> {
        async fn token(&self) {
            self.promised.update(|promised| promised + 1);
            let promise = Promise(self);
            work().await;
            self.used.update(|used| used + 1);
            std::mem::forget(promise);
        }
    }
    impl<const FIXED: bool> Drop for Promise<'_, FIXED> {
        fn drop(&mut self) {
            if FIXED {
                self.0.promised.update(|promised| promised - 1);
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let bucket = Rc::<Bucket<FIXED>>::default();
        let (subject, other) = (bucket.clone(), bucket.clone());
        Scene::new(async move {
            for _ in 0..3 {
                subject.token().await;
            }
        })
        .alongside(async move { other.token().await })
        .check(move |_| assert_eq!(bucket.promised.get(), bucket.used.get(), "tokens promised, and used"))
    }
    proves(scene::<false>, scene::<true>, "woken");
}
