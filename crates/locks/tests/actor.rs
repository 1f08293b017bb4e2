//! `actor`: asking and stopping are dropped at every suspension point; a request is done, or it is not.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, poll};
use locks::{Actor, Address, AskError, Request, StopError};
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const FOREVER: Duration = Duration::MAX;

/// An account in two halves, which must be equal between two requests.
#[derive(Debug, Default)]
struct Account {
    left: u64,
    right: u64,
    permits: Option<Arc<Semaphore>>,
}

/// Adds to the one half, waits, and adds to the other.
struct Deposit(u64, Parts);

impl Request<Account> for Deposit {
    type Reply = Result<u64, &'static str>;

    async fn handle(self, account: &mut Account) -> Self::Reply {
        assert_eq!(account.left, account.right);
        let amount = self.0;
        let work = async {
            account.left += amount;
            if let Some(permits) = account.permits.clone() {
                let _permit = permits.acquire().await;
                yield_now().await;
            }
            sleep(Duration::from_millis(2)).await;
            account.right += amount;
            Ok(account.left)
        };
        let result = self.1.fallible("deposit", work, || "refused").await;
        if result.is_err() {
            (account.left, account.right) = (0, 0);
        }
        result
    }
}

fn capacity(capacity: usize) -> NonZeroUsize {
    NonZeroUsize::new(capacity).expect("tests use capacities above zero")
}

/// A caller that leaves at any point: its request is done whole or not at all, and others are served.
#[test]
fn cancellation_of_a_caller_at_every_point() {
    let report = sweep(|parts| {
        let (other, parts, seen) = (Parts::default(), parts.clone(), parts.clone());
        let permits = Arc::new(Semaphore::new(1));
        let after = permits.clone();
        let (sender, receiver) = oneshot::channel::<Address<Account>>();
        // The actor is the bystander's: it lives on, and its state shows what was done.
        let owner = async move {
            let actor = Actor::start(Account { permits: Some(permits), ..Account::default() }, capacity(1));
            let _ = sender.send(actor.address());
            let address = actor.address();
            let others = (0..3).map(|_| address.ask(Deposit(10, other.clone())));
            let replies = join_all(others).await;
            let stopped = actor.stop(FOREVER).await;
            if seen.fault() == Some(Fault::Panic) {
                assert!(matches!(stopped, Err(StopError::Panicked(_))), "{stopped:?}");
                return;
            }
            assert!(replies.iter().all(|reply| matches!(reply, Ok(Ok(_)))), "{replies:?}");
            let account = stopped.expect("nobody panicked");
            assert_eq!(account.left, account.right);
            assert!([30, 31].contains(&account.left) || seen.fault().is_some(), "{account:?}");
        };
        let call = async move {
            let address = receiver.await.expect("it is sent");
            address.ask(Deposit(1, parts)).await
        };
        Scene::new(call).outlived().returns_panics().alongside(owner).check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            if let Ended::Returned(Err(error)) = ended {
                assert!(matches!(error, AskError::Panicked(_)), "{error}");
            }
        })
    });
    assert!(report.points >= 5);
}

/// The owner is dropped at any point, also while it stops; callers are told, and nothing of the actor is left.
#[test]
fn cancellation_of_the_owner_at_every_point() {
    for limit in [FOREVER, Duration::from_millis(3), Duration::ZERO] {
        sweep(|parts| {
            let (parts, permits) = (parts.clone(), Arc::new(Semaphore::new(1)));
            let (after, other) = (permits.clone(), permits.clone());
            let (sender, receiver) = oneshot::channel::<Address<Account>>();
            let call = async move {
                let actor =
                    Actor::start(Account { permits: Some(permits), ..Account::default() }, capacity(2));
                let _ = sender.send(actor.address());
                yield_now().await;
                let address = actor.address();
                let ask = async {
                    let _ = address.ask(Deposit(1, parts)).await;
                };
                let ((), stopped) = tokio::join!(ask, actor.stop(limit));
                stopped.map(|account| account.left)
            };
            let callers = async move {
                // It is not sent when the subject is dropped before its first poll.
                let Ok(address) = receiver.await else { return };
                for reply in join_all((0..4).map(|_| address.ask(Deposit(10, Parts::default())))).await {
                    assert!(!matches!(reply, Err(AskError::Panicked(_))), "{reply:?}");
                }
                assert_eq!(address.ask(Deposit(10, Parts::default())).await, Err(AskError::NotBegun));
            };
            let user = async move { drop(other.acquire().await) };
            Scene::new(call).returns_panics().alongside(callers).alongside(user).check(move |ended| {
                assert_eq!(after.available_permits(), 1);
                if let Ended::Returned(Err(error)) = ended {
                    assert!(limit < FOREVER || matches!(error, StopError::Panicked(_)), "{error}");
                }
            })
        });
    }
}

struct Nothing;

impl<S: Send> Request<S> for Nothing {
    type Reply = ();

    async fn handle(self, _: &mut S) {}
}

/// Panics before it returns a future.
struct Eager;

impl Request<()> for Eager {
    type Reply = ();

    #[allow(clippy::manual_async_fn, reason = "what is not async is tested")]
    fn handle(self, (): &mut ()) -> impl Future<Output = ()> + Send {
        fail();
        async {}
    }
}

fn fail() {
    resume_unwind(Box::new("eager"));
}

#[tokio::test(start_paused = true)]
async fn panics_before_the_first_await_are_the_same() {
    let actor = Actor::start((), capacity(1));
    assert_eq!(actor.address().ask(Eager).await, Err(AskError::Panicked("eager".into())));
    assert_eq!(actor.stop(FOREVER).await, Err(StopError::Panicked("eager".into())));
}

/// A state, a request and a reply whose drops panic.
#[tokio::test(start_paused = true)]
async fn panics_of_a_drop_are_told_to_the_owner() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            resume_unwind(Box::new("in a drop"));
        }
    }
    struct Make;
    impl Request<()> for Make {
        type Reply = Bad;
        async fn handle(self, (): &mut ()) -> Bad {
            sleep(Duration::from_millis(2)).await;
            Bad
        }
    }
    let actor = Actor::start((), capacity(1));
    // The caller has left when the reply comes.
    assert!(timeout(Duration::from_millis(1), actor.address().ask(Make)).await.is_err());
    assert_eq!(actor.stop(FOREVER).await, Err(StopError::Panicked("in a drop".into())));
}

#[tokio::test(start_paused = true)]
async fn errors_when_the_runtime_is_gone() {
    let other = Builder::new_current_thread().build().unwrap();
    let actor = {
        let _entered = other.enter();
        Actor::start((), capacity(1))
    };
    let address = actor.address();
    let mut ask = Box::pin(address.ask(Nothing));
    assert!(poll!(&mut ask).is_pending());
    std::thread::spawn(move || drop(other)).join().unwrap();
    assert_eq!(ask.await, Err(AskError::NotBegun));
    assert_eq!(actor.stop(FOREVER).await.unwrap_err(), StopError::Shutdown);
}

/// The addresses outlive the actor, and a call may be kept unpolled.
#[tokio::test(start_paused = true)]
async fn cancellation_in_odd_orders() {
    let actor = Actor::start((), capacity(1));
    let address = actor.address();
    let mut kept = Box::pin(address.ask(Nothing));
    assert!(poll!(&mut kept).is_pending());
    drop(actor);
    assert_eq!(address.clone().ask(Nothing).await, Err(AskError::NotBegun));
    assert_eq!(kept.await, Err(AskError::NotBegun));

    // A call that has been given a place and is not polled holds the end up, for as long as the limit says.
    let actor = Actor::start((), capacity(1));
    let address = actor.address();
    let mut first = Box::pin(address.ask(Nothing));
    let mut second = Box::pin(address.ask(Nothing));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    assert_eq!(first.await, Ok(()));
    let limit = Duration::from_millis(5);
    assert_eq!(actor.stop(limit).await, Err(StopError::Late(limit)));
    assert_eq!(second.await, Err(AskError::NotBegun));
}

/// As the documentation warns; the limit of `stop` ends it.
#[tokio::test(start_paused = true)]
async fn cancellation_of_an_actor_that_asks_itself() {
    struct Itself(Address<()>);
    impl Request<()> for Itself {
        type Reply = ();
        async fn handle(self, (): &mut ()) {
            let _ = self.0.ask(Nothing).await;
        }
    }
    let actor = Actor::start((), capacity(1));
    let (address, limit) = (actor.address(), Duration::from_secs(3600));
    assert!(timeout(limit, address.ask(Itself(address.clone()))).await.is_err());
    assert_eq!(actor.stop(limit).await, Err(StopError::Late(limit)));
}

#[tokio::test(start_paused = true)]
async fn order_of_a_hundred_thousand_callers() {
    struct Next;
    impl Request<u32> for Next {
        type Reply = u32;
        async fn handle(self, last: &mut u32) -> u32 {
            *last += 1;
            *last
        }
    }
    let actor = Actor::start(0, capacity(16));
    let callers = (1..=100_000).map(|number| {
        let address = actor.address();
        tokio::spawn(async move { address.ask(Next).await == Ok(number) })
    });
    assert!(join_all(callers).await.into_iter().all(|in_order| in_order.unwrap()));
    assert_eq!(actor.stop(FOREVER).await, Ok(100_000));
}

/// On two threads callers leave while the actor works and stops: each request is whole, and each reply is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_on_two_threads() {
    for round in 0..200_usize {
        let actor = Actor::start(Account::default(), capacity(1 + round % 3));
        let done = Arc::new(AtomicUsize::new(0));
        let callers = (0..8_usize).map(|caller| {
            let (address, done) = (actor.address(), done.clone());
            tokio::spawn(async move {
                for turn in 0..20 {
                    let ask = address.ask(Quick);
                    let reply = if (caller + turn) % 2 == 0 {
                        tokio::select! { biased; reply = ask => reply, () = yield_now() => continue }
                    } else {
                        ask.await
                    };
                    match reply {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => assert_eq!(error, AskError::NotBegun),
                    }
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for _ in 0..round {
            yield_now().await;
        }
        let account = actor.stop(Duration::from_secs(60)).await.unwrap();
        for caller in join_all(callers).await {
            caller.unwrap();
        }
        assert_eq!(account.left, account.right);
        assert!(account.left as usize >= done.load(Ordering::Relaxed));
    }
}

struct Quick;

impl Request<Account> for Quick {
    type Reply = ();

    async fn handle(self, account: &mut Account) {
        account.left += 1;
        yield_now().await;
        account.right += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Callers with any patience, and a stop at any time: the state is the sum of what was done, and every reply is told right.
    #[test]
    fn errors_tell_what_was_done(
        patience in prop::collection::vec(0..40_u64, 0..30),
        room in 1..4_usize,
        stop_after in 0..60_u64,
        limit in 0..60_u64,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let actor = Actor::start(Account::default(), capacity(room));
            let address = actor.address();
            let asks = patience.iter().map(|millis| {
                timeout(Duration::from_millis(*millis), address.ask(Deposit(1, Parts::default()))).map(Result::ok)
            });
            let stop = async {
                sleep(Duration::from_millis(stop_after)).await;
                actor.stop(Duration::from_millis(limit)).await
            };
            let (replies, stopped) = tokio::join!(join_all(asks), stop);
            let done = replies.iter().filter(|reply| matches!(reply, Some(Ok(_)))).count();
            let in_part = replies.iter().filter(|reply| **reply == Some(Err(AskError::Unfinished))).count();
            assert!(in_part <= 1);
            match stopped {
                // A caller that left may have left a request that was begun.
                Ok(account) => {
                    let left = replies.iter().filter(|reply| reply.is_none()).count();
                    assert_eq!((account.left, in_part), (account.right, 0));
                    assert!((done..=done + left).contains(&(account.left as usize)));
                }
                Err(error) => assert_eq!(error, StopError::Late(Duration::from_millis(limit))),
            }
        });
    }
}
