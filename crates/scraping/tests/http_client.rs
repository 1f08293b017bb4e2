//! `http_client` before real servers, plain and with TLS, and dropped at every poll.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Certificate, Client, Method, Request};
use rustls::ServerConfig;
use scraping::{AddressGuard, HttpClient, HttpError, Limit, Limits, Reason, is_public};
use server::{Server, answer, redirect, serve, serve_tls};
use support::sweep::{Ended, Scene, sweep};
use tokio::task::yield_now;

mod server;

/// No test is decided by a limit that is not its subject.
const NEVER: Limits =
    Limits { connect: Duration::MAX, header: Duration::MAX, idle: Duration::MAX, total: Duration::MAX };

fn local() -> AddressGuard {
    let address = |address: IpAddr| is_public(address) || address == Ipv4Addr::LOCALHOST;
    AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() }
}

fn client(limits: Limits) -> HttpClient {
    HttpClient::new(Client::builder().tls_certs_only([]), local(), limits)
        .expect("it needs no system certificates")
}

/// A server for `localhost` with a certificate of its own.
async fn tls() -> (Server, Certificate) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("a new key");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a new key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("a new key");
    let config =
        config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).expect("a new key");
    let server = serve_tls(|_| answer("200 OK", b"in private"), Arc::new(config).into()).await;
    (server, Certificate::from_der(cert.der()).expect("a new key"))
}

#[tokio::test]
async fn errors_of_tls_unless_the_certificate_is_known() {
    let (server, certificate) = tls().await;
    let url = format!("https://localhost:{}/", server.address.port());
    let unknown = client(NEVER).get(&url).await;
    assert!(matches!(unknown, Err(HttpError::Request(error)) if error.is_connect()));
    let http = HttpClient::new(Client::builder().tls_certs_only([certificate]), local(), NEVER).unwrap();
    assert_eq!(http.get(&url).await.unwrap().text().await.unwrap(), "in private");
    let by_address = http.get(&format!("https://{}/", server.address)).await;
    assert!(matches!(by_address, Err(HttpError::Request(_))), "the certificate is for another name");
}

#[tokio::test]
async fn errors_of_the_guard_reach_the_caller() {
    let server = serve(|path| match path {
        "/inside" => redirect("http://10.0.0.1/"),
        _ => redirect("/again"),
    })
    .await;
    let http = client(NEVER);
    let reason = async |url: &str| match http.get(url).await {
        Err(HttpError::Refused(refused)) => refused.reason,
        other => panic!("{other:?}"),
    };
    let inside = Reason::Address("10.0.0.1".parse().unwrap());
    assert_eq!(reason(&server.url("/inside")).await, inside);
    assert_eq!(reason("http://10.0.0.1/").await, inside);
    assert_eq!(reason(&server.url("/")).await, Reason::Redirects(5));
    let request = Request::new(Method::POST, "http://[fe80::1]/".parse().unwrap());
    assert!(matches!(http.send(request).await, Err(HttpError::Refused(_))));
}

/// The clock is paused: what is still silent after a second of it has not answered.
#[tokio::test(start_paused = true)]
async fn clock_header_limit_covers_all_hops() {
    let server = serve(|path| if path == "/" { redirect("/silent") } else { None }).await;
    let limits = Limits { header: Duration::from_secs(1), ..NEVER };
    match client(limits).get(&server.url("/")).await {
        Err(HttpError::TimedOut(timed_out)) => assert_eq!(timed_out.limit, Limit::Header),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn clock_limits_of_zero_refuse_at_once_and_the_longest_do_not_overflow() {
    let server = serve(|_| answer("200 OK", b"here")).await;
    let zero = Limits { connect: Duration::ZERO, header: Duration::ZERO, ..NEVER };
    assert!(matches!(client(zero).get(&server.url("/")).await, Err(HttpError::TimedOut(_))));
}

#[tokio::test]
async fn backpressure_one_connection_serves_many_requests() {
    let server = serve(|_| answer("200 OK", b"here")).await;
    let http = client(NEVER);
    for _ in 0..20 {
        assert_eq!(http.clone().get(&server.url("/")).await.unwrap().text().await.unwrap(), "here");
    }
    assert_eq!((server.counts().connections, server.counts().requests), (1, 20));
}

/// Polls until it has been pending so many times, and drops it; says whether it had ended before.
async fn drop_after<F: Future>(pendings: usize, future: F) -> bool {
    let (mut future, mut left) = (pin!(future), pendings);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Up to the connection: what the name resolves to is not allowed.
#[test]
fn cancellation_at_every_point_before_the_connection() {
    let report = sweep(|_| {
        let guard = AddressGuard::default();
        let http = HttpClient::new(Client::builder().tls_certs_only([]), guard, NEVER);
        let http = http.expect("it needs no system certificates");
        let request = Request::new(Method::POST, "http://localhost/".parse().expect("it is a URL"));
        let call = async move {
            let got = http.get("http://localhost/").await.map(drop);
            (got, http.send(request).await.map(drop))
        };
        Scene::new(call).check(|ended| {
            if let Ended::Returned(outcome) = ended {
                assert!(matches!(outcome, (Err(HttpError::Refused(_)), Err(HttpError::Refused(_)))));
            }
        })
    });
    println!("{} points", report.points);
}

/// A connection is a task of hyper's that may outlive the request in the pool, so the sweep cannot be used from there on.
#[tokio::test]
async fn cancellation_at_every_poll_leaves_no_request() {
    let server = serve(|path| if path == "/end" { answer("200 OK", b"end") } else { redirect("/end") }).await;
    let mut ended = 0;
    for pendings in 0..40 {
        let http = client(NEVER);
        let url = server.url("/");
        let call = async {
            let response = http.get(&url).await.unwrap();
            response.text().await.unwrap()
        };
        ended += usize::from(drop_after(pendings, call).await);
        // The same client still works.
        assert_eq!(http.get(&url).await.unwrap().text().await.unwrap(), "end");
        drop(http);
        server.until(|counts| counts.open == 0).await;
    }
    assert!((1..40).contains(&ended), "{ended} of 40 ended, so not every poll was tried");
}

#[tokio::test]
async fn cancellation_of_a_silent_request_closes_its_connection() {
    let server = serve(|_| None).await;
    let (http, url) = (client(NEVER), server.url("/"));
    let call = tokio::spawn(async move { http.get(&url).await.map(drop) });
    server.until(|counts| counts.requests == 1).await;
    assert_eq!(server.counts().open, 1);
    call.abort();
    server.until(|counts| counts.open == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_of_some_leaves_the_others_alone() {
    let server = serve(|path| if path == "/silent" { None } else { answer("200 OK", b"here") }).await;
    let http = client(NEVER);
    let calls = (0..200).map(|number| {
        let (http, url) = (http.clone(), server.url(if number % 2 == 0 { "/silent" } else { "/" }));
        tokio::spawn(async move { http.get(&url).await.unwrap().text().await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    yield_now().await;
    calls.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
    let ended = join_all(calls).await;
    assert_eq!(ended.iter().filter(|text| text.as_ref().is_ok_and(|text| text == "here")).count(), 100);
    drop(http);
    server.until(|counts| counts.open == 0).await;
}
