//! `robots` is dropped at every suspension point: the fetch ends with its last caller, and the others have their answer.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;
use reqwest::redirect::Policy;
use scraping::{Access, Fetched, ROBOTS_BYTES, Robots};
use support::api::{Api, Fault};
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

const HUNDRED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(100).unwrap();

fn url(url: &str) -> Url {
    url.parse().unwrap()
}

fn file(text: &str) -> Fetched {
    Fetched { status: 200, location: None, body: text.into() }
}

/// Waits three times, for a permit, a timer and its turn, and is redirected once.
async fn request(url: Url, permits: Arc<Semaphore>) -> Result<Fetched, &'static str> {
    if url.path() == "/robots.txt" {
        let _permit = permits.acquire().await;
        sleep(Duration::from_millis(2)).await;
        return Ok(Fetched { status: 301, location: Some("/r".into()), body: Vec::new() });
    }
    yield_now().await;
    Ok(file("user-agent: *\ndisallow: /private"))
}

/// The only caller: the fetch is a child of it, which fails and panics too.
#[test]
fn cancellation_of_the_only_caller_ends_the_fetch() {
    let report = sweep(|parts: &Parts| {
        let permits = Arc::new(Semaphore::new(1));
        let (other, after, seen, parts) = (permits.clone(), permits.clone(), parts.clone(), parts.clone());
        let robots = Robots::new("bot", HUNDRED, move |url| {
            parts.fallible("fetch", request(url, permits.clone()), || "injected")
        });
        let call = async move { robots.access(&url("http://a/private")).await };
        Scene::new(call).returns_panics().alongside(async move { drop(other.acquire().await) }).check(
            move |ended| {
                assert_eq!(after.available_permits(), 1);
                if let Ended::Returned(Access { allowed, unknown, .. }) = ended {
                    assert!(!allowed);
                    assert_eq!(unknown.is_some(), seen.fault().is_some(), "{unknown:?}");
                }
            },
        )
    });
    assert!(report.points >= 4, "{}", report.points);
}

/// One of two callers leaves at any point: the other one has its answer, and one file was fetched for both.
#[test]
fn cancellation_of_one_caller_leaves_the_answer_to_the_other() {
    let report = sweep(|_| {
        let permits = Arc::new(Semaphore::new(1));
        let (requests, other) = (Arc::new(AtomicUsize::new(0)), permits.clone());
        let counter = requests.clone();
        let robots = Rc::new(Robots::new("bot", HUNDRED, move |url: Url| {
            counter.fetch_add(usize::from(url.path() == "/robots.txt"), Relaxed);
            request(url, permits.clone())
        }));
        let (beside, answered) = (robots.clone(), Rc::new(Cell::new(false)));
        let answer = answered.clone();
        let call = async move { robots.access(&url("http://a/1")).await };
        let second = async move {
            yield_now().await;
            let access = beside.access(&url("http://a/private")).await;
            assert_eq!((access.allowed, access.unknown), (false, None));
            answer.set(true);
        };
        let blocked = async move { drop(other.acquire().await) };
        Scene::new(call).outlived().alongside(blocked).alongside(second).check(move |ended| {
            assert!(answered.get());
            assert_eq!(requests.load(Relaxed), 1);
            if let Ended::Returned(access) = ended {
                assert!(access.allowed);
            }
        })
    });
    assert!(report.points >= 4, "{}", report.points);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Callers that come and leave at any time, of any origin: no two fetches of an origin overlap, and there is none while
    /// its rules are kept.
    #[test]
    fn order_of_any_callers(
        callers in prop::collection::vec((0..4_usize, 0..60_u64, 0..30_u64), 1..40),
        takes in 0..12_u64,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let fetched = Arc::new(Mutex::new(Hosts::default()));
        let own = fetched.clone();
        let robots = Robots::new("bot", HUNDRED, move |url: Url| {
            let fetched = own.clone();
            async move {
                let host = url.host_str().unwrap().to_string();
                assert!(fetched.lock().unwrap().0.insert(host.clone()), "two fetches of {host} at a time");
                let _running = Running(fetched.clone(), host.clone());
                sleep(Duration::from_millis(takes)).await;
                *fetched.lock().unwrap().1.entry(host).or_default() += 1;
                Ok::<_, &str>(file(""))
            }
        });
        runtime.block_on(async {
            let calls = callers.iter().map(async |(host, comes, stays)| {
                sleep(Duration::from_millis(*comes)).await;
                let came = Instant::now();
                let url = url(&format!("http://host{host}/"));
                let access = timeout(Duration::from_millis(*stays), robots.access(&url)).await.ok();
                assert!(access.is_none_or(|access| access.allowed));
                assert!(came.elapsed() <= Duration::from_millis(takes + 1), "it waits for nothing but one fetch");
            });
            join_all(calls).await;
            yield_now().await;
            yield_now().await;
        });
        let fetched = fetched.lock().unwrap();
        prop_assert!(fetched.0.is_empty());
        prop_assert!(fetched.1.values().all(|ended| *ended == 1), "{:?}", fetched.1);
    }
}

/// Hosts whose file is being fetched, and how often each was.
type Hosts = (HashSet<String>, HashMap<String, usize>);

struct Running(Arc<Mutex<Hosts>>, String);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().0.remove(&self.1);
    }
}

/// The parser is not ours: no file may make it panic, and none that is full of patterns may take it seconds.
#[tokio::test]
async fn errors_of_hostile_files_are_answers() {
    let lines =
        ["disallow: /*a*b*c\n", " \n", "user-agent: *\n", "a", "\0", "disallow: *\n", "\u{feff}", "allow\r"];
    for line in lines {
        let body = line.repeat(50_000 / line.len());
        let robots = Robots::new("bot", HUNDRED, move |_| std::future::ready(Ok::<_, &str>(file(&body))));
        assert_eq!(robots.access(&url("http://a/aaaaaaaaaaaaaaaaaaaaaaaa")).await.unknown, None);
    }
    let body = "allow:$\n".repeat(ROBOTS_BYTES);
    let robots = Robots::new("bot", HUNDRED, move |_| std::future::ready(Ok::<_, &str>(file(&body))));
    assert!(robots.access(&url("http://a/")).await.unknown.is_some());
}

/// The runtime of the first caller may be gone: the next caller fetches anew.
#[test]
fn cancellation_by_the_end_of_the_runtime_is_not_kept() {
    let robots = Robots::new("bot", HUNDRED, async |_| {
        yield_now().await;
        Ok::<_, &str>(file(""))
    });
    let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
    let url = url("http://a/");
    let first = runtime();
    let mut call = Box::pin(robots.access(&url));
    first.block_on(async { assert!(futures::poll!(&mut call).is_pending()) });
    drop(first);
    let stopped = runtime().block_on(call);
    assert_eq!(stopped.unknown.as_deref(), Some("the shared work was stopped: its runtime was shut down"));
    assert!(runtime().block_on(robots.access(&url)).allowed);
    // What is known needs no runtime.
    assert!(futures::FutureExt::now_or_never(robots.access(&url)).unwrap().allowed);
}

/// A request with reqwest, as the example makes it.
async fn get(client: reqwest::Client, url: Url) -> reqwest::Result<Fetched> {
    let mut response = client.get(url).send().await?;
    let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(String::from);
    let (status, mut body) = (response.status().as_u16(), Vec::new());
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() >= ROBOTS_BYTES {
            break;
        }
    }
    Ok(Fetched { status, location, body })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_over_real_sockets_one_request_for_a_hundred_callers() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = Api::start().await.unwrap();
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
    let of = |client: reqwest::Client| Robots::new("bot", HUNDRED, move |url| get(client.clone(), url));
    let robots = Arc::new(of(client.clone()));
    let (public, private) = (url(&api.url("/users/1")), url(&api.url("/limited?key=me")));
    let callers = (0..100).map(|caller| {
        let (robots, url) = (robots.clone(), if caller % 2 == 0 { public.clone() } else { private.clone() });
        tokio::spawn(async move { robots.access(&url).await })
    });
    for (caller, access) in join_all(callers).await.into_iter().enumerate() {
        assert_eq!(access.unwrap().allowed, caller % 2 == 0);
    }
    assert_eq!(api.gauge().total(), 1);

    api.fault("/robots.txt", Fault::new().status(503));
    assert_eq!(of(client.clone()).access(&public).await.unknown.as_deref(), Some("status 503"));
    api.fault("/robots.txt", Fault::new().reset_before_response());
    assert!(of(client.clone()).access(&public).await.unknown.is_some());
    assert_eq!(api.gauge().total(), 3);
    api.stop().await;
    assert!(of(client).access(&public).await.unknown.is_some(), "nobody listens there");
}
