//! `bounded_body` dropped at every suspension point, with any pieces, and before a body made to fill the memory.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use futures::{StreamExt, stream};
use proptest::prelude::*;
use reqwest::{Body, Client, Response};
use scraping::{AddressGuard, BodyBudget, BodyError, HttpClient, Limits};
use server::{answer, serve};
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::time::sleep;

mod server;

fn budget(budget: usize, cap: usize) -> BodyBudget {
    let size = |size| NonZeroUsize::new(size).expect("tests use sizes above zero");
    BodyBudget::new(size(budget), size(cap), &[]).expect("tests use a cap below the budget")
}

fn response(pieces: Vec<Result<Vec<u8>, io::Error>>, wait: Duration) -> Response {
    let pieces = stream::iter(pieces).then(move |piece| async move {
        sleep(wait).await;
        piece
    });
    http::Response::new(Body::wrap_stream(pieces)).into()
}

/// One body has the budget for a while; the subject waits for it, and reads in three pieces; others wait behind it.
fn scene(_: &Parts, last: Option<io::ErrorKind>) -> Scene<Result<usize, BodyError>> {
    let budget = Rc::new(budget(8, 8));
    let (subject, before, behind, after) = (budget.clone(), budget.clone(), budget.clone(), budget);
    let tick = Duration::from_millis(2);
    let mut pieces = vec![Ok(vec![1; 3]), Ok(Vec::new())];
    pieces.push(last.map_or(Ok(vec![2; 3]), |kind| Err(kind.into())));
    let call = async move { subject.read(response(pieces, tick)).await.map(|body| body.len()) };
    Scene::new(call)
        .alongside(async move {
            let body = before.read(response(vec![Ok(vec![0; 8])], tick)).await;
            sleep(tick).await;
            assert_eq!(body.map(|body| body.len()).ok(), Some(8));
        })
        .alongside(async move {
            sleep(Duration::from_millis(1)).await;
            assert!(behind.read(response(vec![Ok(vec![0; 8])], tick)).await.is_ok());
        })
        .check(move |ended| {
            assert_eq!(after.free(), 8);
            if let Ended::Returned(length) = ended {
                assert_eq!(length.ok(), if last.is_some() { None } else { Some(6) });
            }
        })
}

#[test]
fn cancellation_at_every_point() {
    let report = sweep(|parts| scene(parts, None));
    println!("{} points", report.points);
}

#[test]
fn errors_of_reading_give_the_share_back() {
    let report = sweep(|parts| scene(parts, Some(io::ErrorKind::ConnectionReset)));
    println!("{} points", report.points);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the pieces: the whole body, or an error when it is too long, and never a part.
    #[test]
    fn errors_or_all_of_it(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..12), cap in 1..120_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (budget, all) = (budget(200, cap), pieces.concat());
        let body = response(pieces.into_iter().map(Ok).collect(), Duration::from_millis(1));
        match runtime.block_on(budget.read(body)) {
            Ok(body) => {
                prop_assert!(all.len() <= cap);
                prop_assert_eq!(&*body, &*all);
                prop_assert_eq!(budget.free(), 200 - all.len());
            }
            Err(error) => {
                prop_assert!(all.len() > cap);
                let is_too_long = matches!(error, BodyError::TooLong { .. });
                prop_assert!(is_too_long);
            }
        }
        prop_assert_eq!(budget.free(), 200);
    }
}

/// What is in use at a time never exceeds the budget, whatever the order in which bodies come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_within_the_budget_under_load() {
    let budget = budget(64, 16);
    let read = |number: usize| {
        let budget = budget.clone();
        tokio::spawn(async move {
            let length = number % 17;
            let pieces = (0..length).map(|byte| Ok(vec![byte as u8])).collect();
            let body = budget.read(response(pieces, Duration::ZERO)).await.unwrap();
            assert!(budget.free() <= 64 - body.len());
            body.len()
        })
    };
    let lengths = join_all((0..1000).map(read)).await.into_iter().map(Result::unwrap);
    assert_eq!(lengths.sum::<usize>(), (0..1000).map(|number| number % 17).sum::<usize>());
    assert_eq!(budget.free(), 64);
}

fn local() -> HttpClient {
    let guard = AddressGuard { ports: Vec::new(), address: |_| true, ..AddressGuard::default() };
    let limit = Duration::MAX;
    let limits = Limits { connect: limit, header: limit, idle: limit, total: limit };
    HttpClient::new(Client::builder().tls_certs_only([]), guard, limits)
        .expect("it needs no system certificates")
}

/// Zeros, compressed to about a thousandth.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for _ in 0..mebibytes {
        encoder.write_all(&vec![0; 1 << 20]).expect("a Vec takes everything");
    }
    encoder.finish().expect("a Vec takes everything")
}

/// The peak of what is allocated, beyond what there was, while the body is being read.
fn peak(cap: usize, body: &[u8]) -> (u64, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let head = "200 OK\r\ncontent-encoding: gzip";
    let answer = answer(head, body);
    let server = runtime.block_on(serve(move |_| answer.clone()));
    let (http, budget) = (local(), budget(cap, cap));
    let response = runtime.block_on(http.get(&server.url("/"))).expect("there is an answer");
    let mut too_long = false;
    let info = allocation_counter::measure(|| {
        too_long = matches!(runtime.block_on(budget.read(response)), Err(BodyError::TooLong { .. }));
    });
    assert_eq!(budget.free(), cap);
    (info.bytes_max, too_long)
}

#[test]
fn memory_is_flat_before_a_gzip_bomb() {
    let cap = 256 << 10;
    let (small, large) = (bomb(1), bomb(16));
    assert!(large.len() < 20 << 10, "{} bytes on the wire", large.len());
    for bomb in [small, large] {
        let (peak, too_long) = peak(cap, &bomb);
        assert!(too_long);
        println!("{peak} bytes at the peak");
        // Twice the cap while the buffer grows, and what the client and the decompressor hold.
        assert!(peak < 2 * cap as u64 + (300 << 10), "{peak} bytes at the peak");
    }
}

#[tokio::test]
async fn errors_of_a_body_that_ends_early() {
    let server = serve(|path| match path {
        "/chunked" => {
            Some(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nno size\r\n".to_vec())
        }
        "/zipped" => answer("200 OK\r\ncontent-encoding: gzip", &bomb(1)[..500]),
        "/corrupt" => answer("200 OK\r\ncontent-encoding: gzip", b"this is no gzip"),
        _ => answer("200 OK", b"whole"),
    })
    .await;
    let (http, budget) = (local(), budget(2 << 20, 2 << 20));
    for path in ["/chunked", "/zipped", "/corrupt"] {
        let response = http.get(&server.url(path)).await.unwrap();
        let read = budget.read(response).await;
        assert!(matches!(read, Err(BodyError::Read(_))), "{path}: {read:?}");
    }
    let whole = budget.read(http.get(&server.url("/")).await.unwrap()).await.unwrap();
    assert_eq!((&*whole, budget.free()), (&b"whole"[..], (2 << 20) - 5));
}
