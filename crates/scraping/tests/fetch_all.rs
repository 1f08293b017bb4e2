//! `fetch_all` dropped at every suspension point, with any fetches and deadlines, and over real HTTP.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use reqwest::Client;
use scraping::{AddressGuard, BodyBudget, FetchError, HttpClient, Limits, Missing, fetch_all, fetch_page};
use server::{answer, redirect, serve};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use timeouts::Deadline;
use tokio::sync::Semaphore;
use tokio::time::sleep;

mod server;

/// No test is decided by a limit that is not its subject.
const NEVER: Limits =
    Limits { connect: Duration::MAX, header: Duration::MAX, idle: Duration::MAX, total: Duration::MAX };

fn limit(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("tests use a limit above zero")
}

/// Counts a fetch as running for as long as it lives.
struct Running(Rc<Cell<usize>>);

impl Running {
    fn start(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Running(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Five fetches, three at a time, with two permits that others want as well.
fn scene(parts: &Parts, milliseconds: u64) -> Scene<Vec<Result<u64, Missing<&'static str>>>> {
    let parts = parts.clone();
    let seen = parts.clone();
    let (running, called) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let permits = Rc::new(Semaphore::new(2));
    let (other, after, at_end, was_called) =
        (permits.clone(), permits.clone(), running.clone(), called.clone());
    let call = async move {
        let deadline = Deadline::after("crawl", Duration::from_millis(milliseconds));
        let fetch = |url: &u64| {
            let (url, permits, running) = (*url, permits.clone(), running.clone());
            called.borrow_mut().push(url);
            let fetch = async move {
                let _running = Running::start(&running);
                let _permit = permits.acquire().await;
                sleep(Duration::from_millis(url)).await;
                Ok(url)
            };
            parts.fallible("fetch", fetch, || "injected")
        };
        let outcomes = fetch_all(&[3, 1, 4, 2, 5], limit(3), &deadline, fetch, |_, _| ()).await;
        assert_eq!(running.get(), 0, "a fetch lives on after the call");
        outcomes
    };
    Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).returns_panics().check(
        move |ended| {
            assert_eq!((after.available_permits(), at_end.get()), (2, 0));
            let Ended::Returned(outcomes) = ended else { return };
            assert_eq!(outcomes.len(), 5);
            let failed =
                outcomes.iter().filter(|it| matches!(it, Err(Missing::Error(_) | Missing::Panic(_)))).count();
            // A child that is to fail may be cut off before.
            assert!(failed <= usize::from(seen.fault().is_some()));
            if milliseconds > 100 && !matches!(seen.fault(), Some(Fault::Fail | Fault::Panic)) {
                assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            }
            for (outcome, url) in outcomes.iter().zip([3, 1, 4, 2, 5]) {
                match outcome {
                    Ok(value) => assert_eq!(*value, url),
                    Err(Missing::NotStarted(_)) => assert!(!was_called.borrow().contains(&url)),
                    Err(_) => {}
                }
            }
        },
    )
}

#[test]
fn cancellation_at_every_point() {
    let report = sweep(|parts| scene(parts, 1000));
    println!("{} points", report.points);
}

#[test]
fn clock_deadline_at_every_point() {
    for milliseconds in [0, 3, 4] {
        let report = sweep(|parts| scene(parts, milliseconds));
        println!("{} points", report.points);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Each URL has an outcome, `done` sees each once, and what ends well before the deadline is there.
    #[test]
    fn order_loses_and_doubles_nothing(urls in prop::collection::vec(0..40_u64, 0..40), width in 1..50_usize, deadline in 0..200_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = RefCell::new(vec![0; urls.len()]);
        let called = RefCell::new(Vec::new());
        let fetch = async |url: &u64| {
            called.borrow_mut().push(url as *const u64);
            sleep(Duration::from_millis(*url)).await;
            if url % 7 == 3 { Err(*url) } else { Ok(*url) }
        };
        let outcomes = runtime.block_on(async {
            let deadline = Deadline::after("crawl", Duration::from_millis(deadline));
            fetch_all(&urls, limit(width), &deadline, fetch, |place, _| seen.borrow_mut()[place] += 1).await
        });
        prop_assert!(seen.borrow().iter().all(|times| *times == 1));
        for (url, outcome) in urls.iter().zip(&outcomes) {
            let was_called = called.borrow().contains(&(url as *const u64));
            match outcome {
                Ok(value) => prop_assert!(value == url && url % 7 != 3),
                Err(Missing::Error(value)) => prop_assert!(value == url && url % 7 == 3),
                Err(Missing::CutOff(_)) => prop_assert!(was_called),
                Err(Missing::NotStarted(_)) => prop_assert!(!was_called),
                Err(Missing::Panic(_)) => prop_assert!(false, "none panics"),
            }
        }
        // Those that run at the same time from the start, and end before.
        if width >= urls.len() {
            for (url, outcome) in urls.iter().zip(&outcomes) {
                prop_assert!(*url >= deadline || !matches!(outcome, Err(Missing::CutOff(_) | Missing::NotStarted(_))));
            }
        }
    }
}

#[test]
fn memory_and_time_grow_with_the_number_of_urls_only() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let urls: Vec<usize> = (0..100_000).collect();
    let done = Cell::new(0);
    let outcomes = runtime.block_on(async {
        let deadline = Deadline::after("crawl", Duration::MAX);
        let fetch = async |url: &usize| Ok::<_, ()>(*url);
        fetch_all(&urls, limit(100), &deadline, fetch, |_, _| done.set(done.get() + 1)).await
    });
    assert!(outcomes.into_iter().map(Result::unwrap).eq(0..100_000));
    assert_eq!(done.get(), 100_000);
}

/// Fetches that never wait cannot run past the deadline for ever.
#[tokio::test(start_paused = true)]
async fn clock_deadline_ends_fetches_that_are_always_ready() {
    let count = AtomicUsize::new(0);
    let urls = vec![(); 200_000];
    let fetch = async |(): &()| {
        // Time passes without a wait.
        if count.fetch_add(1, Ordering::Relaxed) == 1000 {
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        Ok::<_, ()>(())
    };
    let deadline = Deadline::after("crawl", Duration::from_secs(1));
    let outcomes = fetch_all(&urls, limit(10), &deadline, fetch, |_, _| ()).await;
    let ended = outcomes.iter().filter(|it| it.is_ok()).count();
    assert!((1000..2000).contains(&ended), "{ended} of 200,000");
}

fn local(limits: Limits) -> HttpClient {
    let address = |address: std::net::IpAddr| address == std::net::Ipv4Addr::LOCALHOST;
    let guard = AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() };
    HttpClient::new(Client::builder().tls_certs_only([]), guard, limits)
        .expect("it needs no system certificates")
}

#[tokio::test]
async fn errors_of_every_kind_over_http() {
    let server = serve(|path| match path {
        "/page" => answer("200 OK\r\ncontent-type: text/html", b"<p>"),
        "/image" => answer("200 OK\r\ncontent-type: image/png", b"..."),
        "/long" => answer("200 OK\r\ncontent-type: text/html", &[b' '; 101]),
        "/inside" => redirect("http://10.0.0.1/"),
        "/part" => Some(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"
                .to_vec(),
        ),
        "/silent" => None,
        _ => answer("404 Not Found", b""),
    })
    .await;
    let header = Duration::from_millis(50);
    let http = local(Limits { header, ..NEVER });
    let budget = BodyBudget::new(limit(200), limit(100), &["text/html"]).unwrap();
    let paths = ["/page", "/image", "/long", "/inside", "/part", "/none"].map(|path| server.url(path));
    let mut urls: Vec<String> = paths.into();
    // A port that is taken, and where nobody listens.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = format!("http://{}/", taken.local_addr().unwrap());
    urls.extend([gone, "no URL".into(), "ftp://127.0.0.1/".into()]);
    let fetch = |url: &'_ String| {
        let (http, budget, url) = (&http, &budget, url.clone());
        async move { fetch_page(http, budget, &url, |body| body.to_vec()).await }
    };
    let deadline = Deadline::after("crawl", Duration::from_secs(3600));
    // The silent one alone, because a busy machine may make the others as slow.
    let silent = [server.url("/silent")];
    let silent = fetch_all(&silent, limit(3), &deadline, fetch, |_, _| ()).await;
    let http = local(NEVER);
    let fetch = |url: &'_ String| {
        let (http, budget, url) = (&http, &budget, url.clone());
        async move { fetch_page(http, budget, &url, |body| body.to_vec()).await }
    };
    let outcomes = fetch_all(&urls, limit(3), &deadline, fetch, |_, _| ()).await;
    let kinds = outcomes.iter().chain(&silent).map(|outcome| match outcome {
        Ok(page) => {
            assert_eq!((page.status.as_u16(), page.length, &*page.content), (200, 3, &b"<p>"[..]));
            "page"
        }
        Err(Missing::Error(error)) => FetchError::kind(error),
        Err(other) => panic!("{other}"),
    });
    let expected = [
        "page",
        "content type",
        "too long",
        "refused",
        "broken off",
        "status",
        "no connection",
        "not a URL",
        "refused",
        "timed out",
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    assert_eq!(budget.free(), 200);
}

#[tokio::test]
async fn cancellation_at_the_deadline_closes_the_connections() {
    let server = serve(|path| if path == "/silent" { None } else { answer("200 OK", b"ok") }).await;
    let (http, budget) = (local(NEVER), BodyBudget::new(limit(9), limit(9), &[]).unwrap());
    let urls = ["/silent", "/", "/silent"].map(|path| server.url(path));
    let fetch = |url: &'_ String| {
        let (http, budget, url) = (&http, &budget, url.clone());
        async move { fetch_page(http, budget, &url, <[u8]>::len).await }
    };
    let deadline = Deadline::after("crawl", Duration::from_secs(3600));
    // Ends by a fact: that all three have arrived.
    let both = async {
        tokio::select! {
            biased;
            outcomes = fetch_all(&urls, limit(3), &deadline, fetch, |_, _| ()) => panic!("{}", outcomes.len()),
            () = server.until(|counts| counts.requests == 3) => {}
        }
    };
    both.await;
    drop(http);
    server.until(|counts| counts.open == 0).await;
    assert_eq!(budget.free(), 9);
}
