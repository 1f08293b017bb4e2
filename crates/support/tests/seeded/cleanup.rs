//! Cleanup that is not done, because it stands behind an await or its guard was built too late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use support::sweep::{Parts, Scene};
use tokio::sync::{broadcast, mpsc};

use crate::{moment, proves, work};

/// Begin, work, release: whoever is dropped while working never comes to the release (async-bb8-diesel #47).
#[test]
fn the_async_release_is_skipped_by_a_drop() {
    struct Lease<const FIXED: bool>(Option<mpsc::UnboundedSender<()>>);

    impl<const FIXED: bool> Lease<FIXED> {
        fn release(&mut self) {
            if let Some(releases) = self.0.take() {
                releases.send(()).expect("the task that releases stays as long as there are leases");
            }
        }
    }
    impl<const FIXED: bool> Drop for Lease<FIXED> {
        fn drop(&mut self) {
            // Drop cannot await: it asks a task that can.
            if FIXED {
                self.release();
            }
        }
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let (releases, mut asked) = mpsc::unbounded_channel();
        let leased = Rc::new(Cell::new(false));
        let (lease, released) = (leased.clone(), leased.clone());
        Scene::new(async move {
            moment().await;
            lease.set(true);
            let mut lease = Lease::<FIXED>(Some(releases));
            work().await;
            lease.release();
        })
        .alongside(async move {
            while asked.recv().await.is_some() {
                moment().await;
                released.set(false);
            }
        })
        .check(move |_| assert!(!leased.get(), "the lease was released"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// Only the answer to `BEGIN` arms the rollback: dropped before it, the transaction stays open (sqlx #4385).
#[test]
fn a_guard_is_built_too_late() {
    struct Transaction<'a>(&'a Cell<bool>);

    impl Drop for Transaction<'_> {
        fn drop(&mut self) {
            self.0.set(false);
        }
    }
    async fn transaction<const FIXED: bool>(open: &Cell<bool>) {
        let early = FIXED.then(|| Transaction(open));
        open.set(true);
        work().await;
        let _rollback = early.unwrap_or_else(|| Transaction(open));
        work().await;
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let open = Rc::new(Cell::new(false));
        let subject = open.clone();
        Scene::new(async move { transaction::<FIXED>(&subject).await })
            .check(move |_| assert!(!open.get(), "no transaction is open"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}

/// A pool counts up, connects, counts down: each cancelled caller leaves a connection too many in the count (sqlx #83).
#[test]
fn a_counter_is_not_restored() {
    struct InFlight<'a, const FIXED: bool>(&'a Cell<u32>);

    impl<const FIXED: bool> InFlight<'_, FIXED> {
        fn done(self) {
            if !FIXED {
                self.0.update(|count| count - 1);
            }
        }
    }
    impl<const FIXED: bool> Drop for InFlight<'_, FIXED> {
        fn drop(&mut self) {
            if FIXED {
                self.0.update(|count| count - 1);
            }
        }
    }
    async fn call<const FIXED: bool>(in_flight: &Cell<u32>) {
        in_flight.update(|count| count + 1);
        let call = InFlight::<FIXED>(in_flight);
        work().await;
        call.done();
    }

    fn scene<const FIXED: bool>(_: &Parts) -> Scene<()> {
        let in_flight = Rc::new(Cell::new(0));
        let (subject, other) = (in_flight.clone(), in_flight.clone());
        Scene::new(async move {
            for _ in 0..2 {
                call::<FIXED>(&subject).await;
            }
        })
        .alongside(async move { call::<FIXED>(&other).await })
        .check(move |_| assert_eq!(in_flight.get(), 0, "calls in flight"))
    }
    proves(scene::<false>, scene::<true>, "woken");
}

/// A refresh that panics leaves the flag set that says one is under way: there is never a second refresh.
#[test]
fn a_busy_flag_stays_set() {
    struct Busy<'a>(&'a Cell<bool>);

    impl Drop for Busy<'_> {
        fn drop(&mut self) {
            self.0.set(false);
        }
    }

    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let busy = Rc::new(Cell::new(false));
        let subject = busy.clone();
        let refresh = parts.child("refresh", work());
        Scene::new(async move {
            if subject.replace(true) {
                return;
            }
            let _busy = FIXED.then(|| Busy(&subject));
            refresh.await;
            subject.set(false);
        })
        .check(move |_| assert!(!busy.get(), "nobody is busy"))
    }
    proves(scene::<false>, scene::<true>, "Panic:refresh");
}

/// One caller runs the query, the others wait for its answer: with that one gone they wait for ever (linera-protocol #6577).
#[test]
fn followers_wait_for_a_leader_that_is_gone() {
    type Flight = RefCell<Option<broadcast::Sender<u32>>>;
    struct Leader<'a>(&'a Flight);

    impl Drop for Leader<'_> {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    async fn answer<const FIXED: bool>(flight: &Flight, query: impl Future<Output = ()>) -> u32 {
        loop {
            let under_way = flight.borrow().as_ref().map(broadcast::Sender::subscribe);
            let Some(mut answer) = under_way else { break };
            // An error says that the leader is gone, and that somebody else must lead.
            if let Ok(answer) = answer.recv().await {
                return answer;
            }
        }
        flight.replace(Some(broadcast::Sender::new(1)));
        let _leader = FIXED.then(|| Leader(flight));
        query.await;
        if let Some(followers) = flight.take() {
            // Refused when nobody follows.
            let _ = followers.send(42);
        }
        42
    }

    fn scene<const FIXED: bool>(parts: &Parts) -> Scene<()> {
        let flight = Rc::<Flight>::default();
        let (subject, first, second) = (flight.clone(), flight.clone(), flight.clone());
        let query = parts.child("query", work());
        Scene::new(async move { assert_eq!(answer::<FIXED>(&subject, query).await, 42) })
            .alongside(async move {
                moment().await;
                assert_eq!(answer::<FIXED>(&first, work()).await, 42);
            })
            .alongside(async move {
                moment().await;
                assert_eq!(answer::<FIXED>(&second, work()).await, 42);
            })
            .check(move |_| assert!(flight.borrow().is_none(), "no query is under way"))
    }
    proves(scene::<false>, scene::<true>, "suspended");
}
