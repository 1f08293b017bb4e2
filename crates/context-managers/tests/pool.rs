//! The pool beyond its own tests: every point of cancellation, other threads, closing at any time, any use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_managers::{CheckoutError, Manage, Pool, Pooled, Rules};
use futures::FutureExt;
use proptest::prelude::*;
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// What is known of all connections.
#[derive(Default)]
struct Ledger {
    made: AtomicUsize,
    open: AtomicUsize,
    peak: AtomicUsize,
    /// Handed out although an exchange was half done.
    dirty: AtomicBool,
}

struct Connection {
    busy: bool,
    uses: usize,
    ledger: Arc<Ledger>,
}

impl Connection {
    /// An exchange with the other side: the connection can only be used again when it was waited for.
    async fn exchange(&mut self, pause: impl Future<Output = ()>) {
        if self.busy {
            self.ledger.dirty.store(true, Ordering::Relaxed);
        }
        self.busy = true;
        self.uses += 1;
        pause.await;
        self.busy = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ledger.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections that take a while to make and to check, and stay healthy for so many uses.
struct Connect {
    ledger: Arc<Ledger>,
    parts: Parts,
    healthy_for: usize,
    takes: Option<Duration>,
}

impl Connect {
    async fn pause(&self) {
        match self.takes {
            Some(takes) => sleep(takes).await,
            None => yield_now().await,
        }
    }
}

impl Manage for Connect {
    type Resource = Connection;
    type Error = &'static str;

    async fn create(&self) -> Result<Connection, &'static str> {
        let create = async {
            self.pause().await;
            self.ledger.made.fetch_add(1, Ordering::Relaxed);
            let open = self.ledger.open.fetch_add(1, Ordering::Relaxed) + 1;
            self.ledger.peak.fetch_max(open, Ordering::Relaxed);
            Ok(Connection { busy: false, uses: 0, ledger: self.ledger.clone() })
        };
        self.parts.fallible("create", create, || "injected").await
    }

    async fn is_healthy(&self, connection: &mut Connection) -> bool {
        let check = async {
            self.pause().await;
            connection.uses < self.healthy_for
        };
        self.parts.child("check", check).await
    }
}

fn pool(size: usize, healthy_for: usize, parts: &Parts) -> (Arc<Pool<Connect>>, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let takes = Some(2 * MS);
    let connect = Connect { ledger: ledger.clone(), parts: parts.clone(), healthy_for, takes };
    (Pool::new(connect, Rules { size: NonZeroUsize::new(size).unwrap(), ..Rules::default() }), ledger)
}

/// The subject and two others share the pool. Each other uses it until it had three exchanges; faults and drops must cost
/// nobody a place, and no connection is handed out in the middle of an exchange.
fn scene(parts: &Parts, size: usize, healthy_for: usize) -> Scene<Result<(), CheckoutError<&'static str>>> {
    let (pool, ledger) = pool(size, healthy_for, parts);
    let (subject, after) = (pool.clone(), pool.clone());
    let call = async move {
        for _ in 0..3 {
            let mut connection = subject.checkout().await?;
            connection.exchange(sleep(3 * MS)).await;
            connection.put_back();
        }
        Ok(())
    };
    let other = |pool: Arc<Pool<Connect>>| async move {
        let mut done = 0;
        while done < 3 {
            // A fault that the sweep injects may hit any checkout; it is tried again.
            let checkout = tokio::spawn({
                let pool = pool.clone();
                async move { pool.checkout().await }
            });
            if let Ok(Ok(mut connection)) = checkout.await {
                connection.exchange(sleep(2 * MS)).await;
                connection.put_back();
                done += 1;
            }
        }
    };
    Scene::new(call).alongside(other(pool.clone())).alongside(other(pool)).returns_panics().outlived().check(
        move |_| {
            assert!(!ledger.dirty.load(Ordering::Relaxed), "handed out in the middle of an exchange");
            assert!(ledger.peak.load(Ordering::Relaxed) <= size);
            let open = ledger.open.load(Ordering::Relaxed);
            drop(after);
            assert!(open <= size);
            assert_eq!(ledger.open.load(Ordering::Relaxed), 0, "nobody holds one now");
        },
    )
}

#[test]
fn cancellation_and_faults_with_one_place() {
    sweep(|parts| scene(parts, 1, usize::MAX));
}

#[test]
fn cancellation_and_faults_with_two_places_and_frequent_replacement() {
    sweep(|parts| scene(parts, 2, 2));
}

/// The pool is closed at each point: whoever waits is told.
#[test]
fn errors_of_all_that_wait_when_it_is_closed() {
    sweep(|_| {
        let (pool, ledger) = pool(1, usize::MAX, &Parts::default());
        let (subject, waiting, ask, after) = (pool.clone(), pool.clone(), pool.clone(), pool);
        let call = async move {
            for _ in 0..2 {
                let mut connection = subject.checkout().await?;
                connection.exchange(sleep(3 * MS)).await;
                connection.put_back();
            }
            Ok(())
        };
        let other = async move {
            for _ in 0..2 {
                let _connection = waiting.checkout().await;
                sleep(MS).await;
            }
        };
        Scene::new(call).alongside(other).stop(move || ask.close()).outlived().check(
            move |ended: Ended<Result<(), CheckoutError<&'static str>>>| {
                if let Ended::Returned(Err(error)) = ended {
                    assert!(matches!(error, CheckoutError::Closed));
                }
                after.close();
                assert_eq!(ledger.open.load(Ordering::Relaxed), 0, "closed, and nobody holds one");
            },
        )
    });
}

/// A resource whose drop panics, or uses the pool.
struct Rude(&'static str, Mutex<Option<Arc<Pool<MakeRude>>>>);

impl Drop for Rude {
    fn drop(&mut self) {
        if let Some(pool) = self.1.lock().unwrap().take() {
            pool.evict();
            pool.close();
        }
        if self.0 == "panics" {
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }
}

struct MakeRude(&'static str);

impl Manage for MakeRude {
    type Resource = Rude;
    type Error = ();

    async fn create(&self) -> Result<Rude, ()> {
        Ok(Rude(self.0, Mutex::default()))
    }
}

fn one_place(max_idle: Option<Duration>) -> Rules {
    Rules { size: NonZeroUsize::MIN, max_idle, ..Rules::default() }
}

#[tokio::test(start_paused = true)]
async fn panics_in_the_drop_of_a_resource_cost_no_place() {
    let pool = Pool::new(MakeRude("panics"), one_place(Some(MS)));
    for _ in 0..3 {
        let held = pool.checkout().await.unwrap();
        assert!(tokio::spawn(async move { drop(held) }).await.unwrap_err().is_panic());
    }
    // Expired: its drop panics in the next checkout, which is not the one that made it. The place is not lost.
    pool.checkout().await.unwrap().put_back();
    sleep(2 * MS).await;
    let next = pool.clone();
    assert!(tokio::spawn(async move { next.checkout().await.is_ok() }).await.unwrap_err().is_panic());
    let last = timeout(MS, pool.checkout()).await.unwrap().unwrap();
    assert!(tokio::spawn(async move { drop(last) }).await.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn errors_no_lock_is_held_when_a_resource_is_dropped() {
    for expire in [false, true] {
        let pool = Pool::new(MakeRude("reenters"), one_place(Some(MS)));
        let held = pool.checkout().await.unwrap();
        *held.1.lock().unwrap() = Some(pool.clone());
        held.put_back();
        if expire {
            sleep(2 * MS).await;
            pool.evict();
        } else {
            pool.close();
        }
        assert_eq!(pool.checkout().await.err(), Some(CheckoutError::Closed));
    }
}

/// A resource that asks, in its drop, whether its place is free already.
struct Nosy(std::sync::Weak<Pool<MakeNosy>>, Arc<AtomicUsize>);

struct MakeNosy(Arc<std::sync::OnceLock<std::sync::Weak<Pool<MakeNosy>>>>, Arc<AtomicUsize>);

impl Manage for MakeNosy {
    type Resource = Nosy;
    type Error = ();

    async fn create(&self) -> Result<Nosy, ()> {
        Ok(Nosy(self.0.get().cloned().unwrap_or_default(), self.1.clone()))
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            let free = pool.checkout().now_or_never().is_some();
            self.1.fetch_add(if free { 1 } else { 100 }, Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn memory_a_place_is_free_only_when_its_resource_is_gone() {
    let seen = Arc::<AtomicUsize>::default();
    let own = Arc::<std::sync::OnceLock<_>>::default();
    let pool = Pool::new(MakeNosy(own.clone(), seen.clone()), one_place(None));
    own.set(Arc::downgrade(&pool)).unwrap();
    drop(pool.checkout().await.unwrap());
    assert_eq!(seen.load(Ordering::Relaxed), 100);
}

#[tokio::test(start_paused = true)]
async fn clock_accepts_any_limit() {
    for (limit, reused) in [(Duration::ZERO, false), (Duration::MAX, true)] {
        let (ledger, parts) = (Arc::<Ledger>::default(), Parts::default());
        let connect = Connect { ledger: ledger.clone(), parts, healthy_for: 9, takes: None };
        let rules = Rules { size: NonZeroUsize::MAX, max_idle: Some(limit), max_lifetime: Some(limit) };
        let pool = Pool::new(connect, rules);
        for _ in 0..2 {
            pool.checkout().await.unwrap().put_back();
        }
        assert_eq!(ledger.made.load(Ordering::Relaxed), if reused { 1 } else { 2 });
    }
}

/// A hundred thousand wait for two places; half of them give up.
#[tokio::test]
async fn order_of_a_hundred_thousand() {
    let (ledger, parts) = (Arc::<Ledger>::default(), Parts::default());
    let connect = Connect { ledger: ledger.clone(), parts, healthy_for: usize::MAX, takes: None };
    let pool = Pool::new(connect, Rules { size: NonZeroUsize::new(2).unwrap(), ..Rules::default() });
    let served = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..100_000)
        .map(|number| {
            let (pool, served) = (pool.clone(), served.clone());
            tokio::spawn(async move {
                let mut connection = pool.checkout().await.unwrap();
                served.lock().unwrap().push(number);
                connection.exchange(yield_now()).await;
                connection.put_back();
            })
        })
        .collect();
    yield_now().await;
    callers.iter().skip(1).step_by(2).for_each(tokio::task::JoinHandle::abort);
    for caller in callers {
        let _ = caller.await;
    }
    let served = served.lock().unwrap();
    assert!(served.len() >= 50_000);
    // Two are served at a time, so that neighbours may swap.
    assert!(served.windows(3).all(|window| window[0] < window[2]), "not in turn");
    assert!(!ledger.dirty.load(Ordering::Relaxed));
}

/// Two threads, connections that wear out, users that are aborted in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_cancellation_on_several_threads() {
    for round in 0..60 {
        let (ledger, parts) = (Arc::<Ledger>::default(), Parts::default());
        let connect = Connect { ledger: ledger.clone(), parts, healthy_for: 5, takes: None };
        let size = 1 + round % 4;
        let pool = Pool::new(connect, Rules { size: NonZeroUsize::new(size).unwrap(), ..Rules::default() });
        let users: Vec<_> = (0..40)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for _ in 0..10 {
                        let mut connection: Pooled<_> = pool.checkout().await.unwrap();
                        connection.exchange(yield_now()).await;
                        connection.put_back();
                    }
                })
            })
            .collect();
        for user in users.iter().step_by(3) {
            yield_now().await;
            user.abort();
        }
        for user in users {
            let _ = user.await;
        }
        // Every place is there.
        let mut all = Vec::new();
        for _ in 0..size {
            all.push(pool.checkout().await.unwrap());
        }
        assert_eq!(ledger.open.load(Ordering::Relaxed), size);
        drop(all);
        drop(pool);
        assert_eq!(ledger.open.load(Ordering::Relaxed), 0);
        assert!(ledger.peak.load(Ordering::Relaxed) <= size);
        assert!(!ledger.dirty.load(Ordering::Relaxed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever users do: never more than the size exist, none is used in the middle of an exchange, and every place comes back.
    #[test]
    fn memory_and_order_of_any_use(
        users in prop::collection::vec(prop::collection::vec((0..8_u64, 0..12_u64), 1..6), 1..12),
        size in 1..5_usize,
        healthy_for in 1..4_usize,
        max_idle in prop::option::of(0..10_u64),
        max_lifetime in prop::option::of(0..30_u64),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (ledger, parts) = (Arc::<Ledger>::default(), Parts::default());
            let connect = Connect { ledger: ledger.clone(), parts, healthy_for, takes: Some(2 * MS) };
            let [max_idle, max_lifetime] = [max_idle, max_lifetime].map(|it| it.map(Duration::from_millis));
            let pool = Pool::new(connect, Rules { size: NonZeroUsize::new(size).unwrap(), max_idle, max_lifetime });
            let mut tasks = Vec::new();
            for uses in users {
                let pool = pool.clone();
                tasks.push(tokio::spawn(async move {
                    for (works, patience) in uses {
                        // Given up at any point, in the checkout or in the exchange.
                        let using = async {
                            let mut connection = pool.checkout().await.unwrap();
                            connection.exchange(sleep(Duration::from_millis(works))).await;
                            connection.put_back();
                        };
                        let _ = timeout(Duration::from_millis(patience), using).await;
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            let mut all = Vec::new();
            for _ in 0..size {
                all.push(timeout(1000 * MS, pool.checkout()).await.expect("every place came back").unwrap());
            }
            assert!(ledger.peak.load(Ordering::Relaxed) <= size);
            assert!(!ledger.dirty.load(Ordering::Relaxed));
        });
    }
}
