//! `concurrency_limit`: callers are dropped at every suspension point, and the permits are all there afterwards.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use semaphores::{ConcurrencyLimit, Held};
use support::api::Api;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

/// Waits its turn behind others, so that it is dropped while it waits too, and runs in front of one.
fn alongside(
    scene: Scene<Result<(), &'static str>>,
    limit: &ConcurrencyLimit,
) -> Scene<Result<(), &'static str>> {
    let (before, behind, after) = (limit.clone(), limit.clone(), limit.clone());
    scene
        .alongside(async move { before.run(async || sleep(Duration::from_millis(3)).await).await })
        .alongside(async move {
            sleep(Duration::from_millis(1)).await;
            let held = behind.hold(async || Ok::<_, ()>(())).await;
            sleep(Duration::from_millis(3)).await;
            drop(held);
        })
        .check(move |_| assert_eq!(after.free(), 1))
}

#[test]
fn cancellation_of_run_at_every_point() {
    sweep(|parts| {
        let (limit, parts) = (ConcurrencyLimit::new(NonZeroUsize::MIN), parts.clone());
        let subject = limit.clone();
        let call = async move {
            for _ in 0..2 {
                let work = || async {
                    sleep(Duration::from_millis(2)).await;
                    yield_now().await;
                    Ok(())
                };
                subject.run(|| parts.fallible("work", work(), || "injected")).await?;
            }
            Ok(())
        };
        alongside(Scene::new(call), &limit)
    });
}

#[test]
fn cancellation_of_hold_at_every_point() {
    sweep(|parts| {
        let (limit, parts) = (ConcurrencyLimit::new(NonZeroUsize::MIN), parts.clone());
        let subject = limit.clone();
        let call = async move {
            for _ in 0..2 {
                let open = async {
                    sleep(Duration::from_millis(2)).await;
                    Ok::<_, &str>(())
                };
                let held = subject.hold(|| parts.fallible("open", open, || "injected")).await?;
                // The use of what was opened, under the same permit.
                let held = Held::map(held, |()| 7);
                sleep(Duration::from_millis(2)).await;
                assert_eq!(*held, 7);
            }
            Ok(())
        };
        alongside(Scene::new(call), &limit)
    });
}

/// A task that is aborted, in whose future the permit lives.
#[test]
fn cancellation_by_abort_at_every_point() {
    sweep(|parts| {
        let limit = ConcurrencyLimit::new(NonZeroUsize::MIN);
        let (subject, after, parts) = (limit.clone(), limit.clone(), parts.clone());
        let call = async move {
            let work = async move { subject.run(|| sleep(Duration::from_millis(2))).await };
            let task = tokio::task::spawn_local(parts.child("task", work));
            parts.abort_with("task", task.abort_handle());
            let mut task = AbortOnDrop(task);
            if let Err(error) = (&mut task.0).await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        };
        Scene::new(call)
            .alongside(async move { limit.run(async || sleep(Duration::from_millis(1)).await).await })
            .check(move |_: Ended<()>| assert_eq!(after.free(), 1))
    });
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The server's own gauge says how many requests it saw at once. A body of 40 bytes takes five pauses.
#[tokio::test]
async fn backpressure_covers_the_body_of_a_response() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = Api::start().await.unwrap();
    let limit = ConcurrencyLimit::new(NonZeroUsize::new(2).unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let fetch = async |id: usize| {
        let url = api.url(&format!("/users/{id}?slow=4,2"));
        let mut response = limit.hold(|| client.get(&url).send()).await.unwrap();
        let mut length = 0;
        while let Some(chunk) = response.chunk().await.unwrap() {
            length += chunk.len();
        }
        length
    };
    assert!(join_all((1..9).map(fetch)).await.into_iter().all(|length| length > 20));
    assert_eq!((api.gauge().peak(), api.gauge().total()), (2, 8));
    api.stop().await;
}

/// The pitfall on the page: a permit that ends when the head of the response is there.
#[tokio::test]
async fn pitfall_a_permit_for_the_head_alone() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = Api::start().await.unwrap();
    let limit = Semaphore::new(2);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut responses = Vec::new();
    for id in 1..9 {
        // A body that takes half a minute.
        let url = api.url(&format!("/users/{id}?slow=1,1000"));
        // ANCHOR: head_alone
        let response = {
            let _permit = limit.acquire().await.unwrap();
            client.get(&url).send().await.unwrap()
        }; // here the permit is free, and the body has only begun
        // ANCHOR_END: head_alone
        responses.push(response);
    }
    assert_eq!((api.gauge().in_flight(), limit.available_permits()), (8, 2));
    drop(responses);
}

/// Two threads, a hundred tasks, half of them aborted while they wait or work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_permits_survive_two_threads() {
    let limit = ConcurrencyLimit::new(NonZeroUsize::new(3).unwrap());
    let running = Arc::new(AtomicUsize::new(0));
    for round in 0..100 {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (limit, running) = (limit.clone(), running.clone());
                tokio::spawn(async move {
                    let work = || async {
                        let running = Running::begin(&running);
                        yield_now().await;
                        drop(running);
                    };
                    limit.run(work).await;
                })
            })
            .collect();
        if round % 2 == 0 {
            yield_now().await;
        }
        tasks.iter().step_by(2).for_each(JoinHandle::abort);
        for (number, task) in tasks.into_iter().enumerate() {
            assert!(task.await.is_ok() || number % 2 == 0);
        }
        assert_eq!(limit.free(), 3);
    }
}

struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(running: &'a AtomicUsize) -> Self {
        assert!(running.fetch_add(1, Ordering::Relaxed) < 3);
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The callers end in any order and give up at any time; nobody is forgotten.
#[test]
fn order_with_callers_that_give_up() {
    use proptest::prelude::*;
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(calls in prop::collection::vec((0..9_u64, 0..20_u64), 0..40), permits in 1..5_usize)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let limit = ConcurrencyLimit::new(NonZeroUsize::new(permits).unwrap());
        let (running, ended) = (Rc::new(Cell::new(0)), Cell::new(0));
        let call = async |(work, patience): (u64, u64)| {
            struct One(Rc<Cell<usize>>);
            impl Drop for One { fn drop(&mut self) { self.0.set(self.0.get() - 1) } }
            let work = || async {
                running.set(running.get() + 1);
                let one = One(running.clone());
                assert!(running.get() <= permits);
                sleep(Duration::from_millis(work)).await;
                drop(one);
            };
            let _ = tokio::time::timeout(Duration::from_millis(patience), limit.run(work)).await;
            ended.set(ended.get() + 1);
        };
        let count = calls.len();
        runtime.block_on(join_all(calls.into_iter().map(call)));
        prop_assert_eq!((ended.get(), limit.free(), running.get()), (count, permits, 0));
    });
}
