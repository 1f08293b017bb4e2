//! `server` is dropped at every suspension point: its places come back, and nobody waits for a client that is gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use semaphores::{Rate, RateLimit};
use support::sweep::{Ended, Parts, Scene, sweep};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{client_async, connect_async};
use websocket_broadcast::{Refused, Rules, Server};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ONE: NonZeroUsize = NonZeroUsize::MIN;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// One place. The subject takes it; whoever comes an hour later must get it.
fn scene(parts: &Parts, headers: &'static str, room: usize) -> Scene<bool> {
    let server = Rc::new(Server::new(Rules { clients: ONE, per_address: ONE, ..Rules::default() }));
    let (subject, after, parts) = (server.clone(), server, parts.clone());
    let (mut theirs, ours) = duplex(room);
    let call = async move {
        let accept = subject.accept(ours, HERE, |_| Some(()));
        parts.child("handshake", accept).await.is_ok()
    };
    let client = async move {
        // The request comes in two pieces. An error: the server has hung up.
        let (first, second) = REQUEST.split_at(40);
        let _ = theirs.write_all(first.as_bytes()).await;
        sleep(Duration::from_millis(3)).await;
        let _ = theirs.write_all(format!("{second}{headers}\r\n").as_bytes()).await;
        let _ = theirs.read_to_end(&mut Vec::new()).await;
    };
    Scene::new(call).alongside(client).check(move |ended| {
        if let Ended::Returned(accepted) = ended {
            assert_eq!(accepted, headers.is_empty());
        }
        let (_theirs, ours) = duplex(1);
        let again = after.accept(ours, HERE, |_| Some(())).now_or_never();
        assert!(again.is_none(), "the place is free: {again:?}");
    })
}

#[test]
fn cancellation_at_every_point_of_a_good_handshake() {
    sweep(|parts| scene(parts, "", 16));
}

#[test]
fn cancellation_at_every_point_of_a_refusal() {
    sweep(|parts| scene(parts, "Origin: https://evil.example\r\n", 16));
}

#[test]
fn cancellation_at_every_point_of_a_bad_request() {
    sweep(|parts| scene(parts, "Upgrade", 4096));
}

/// A client that connects and sends nothing, or sends its request and reads nothing.
#[tokio::test(start_paused = true)]
async fn clock_a_client_that_hangs_costs_the_handshakes_limit() {
    for (room, headers) in [(1, ""), (REQUEST.len() + 2, ""), (REQUEST.len() + 2, "Origin: null\r\n")] {
        let server = Server::new(Rules::default());
        let (mut theirs, ours) = duplex(room);
        let request = format!("{REQUEST}{headers}\r\n");
        let client = async {
            if room > 1 {
                theirs.write_all(request.as_bytes()).await.unwrap();
            }
            // Shut, so that what the server writes finds no room once this is full.
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        let refused = tokio::select! {
            refused = server.accept(ours, HERE, |_| Some(())) => refused.map(drop),
            () = client => unreachable!("it waits for ever"),
        };
        assert!(start.elapsed() <= Duration::from_secs(5));
        match (room > 1, headers) {
            (true, "") => assert!(refused.is_ok(), "the answer fits into what is on the way"),
            (true, _) => assert!(matches!(refused, Err(Refused::Origin(_)))),
            _ => assert!(matches!(refused, Err(Refused::Late(_)))),
        }
    }
}

/// Everybody of one network of IPv6 shares its places, and an IPv4 address is the same in both notations.
#[tokio::test(start_paused = true)]
async fn errors_count_a_network_of_ipv6_as_one_address() {
    let server = Server::new(Rules { per_address: ONE, ..Rules::default() });
    let v6 = |a, b| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, a, 0, 0, 0, b));
    let mut held = Vec::new();
    for (address, free) in [
        (v6(1, 1), true),
        (v6(1, 2), false),
        (v6(2, 1), true),
        (HERE, true),
        (IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), false),
    ] {
        let (mut theirs, ours) = duplex(4096);
        theirs.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
        let accepted = server.accept(ours, address, |_| Some(())).await;
        assert_eq!(accepted.is_ok(), free, "{address}");
        held.push((theirs, accepted));
    }
}

/// A task that has used up its turn is not told that a limit is reached.
#[tokio::test(start_paused = true)]
async fn errors_of_a_limit_do_not_depend_on_the_callers_turn() {
    let server = Server::new(Rules::default());
    let (mut theirs, ours) = duplex(4096);
    theirs.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
    let semaphore = tokio::sync::Semaphore::new(1);
    let call = async {
        while tokio::task::coop::has_budget_remaining() {
            drop(semaphore.acquire().await.unwrap());
        }
        server.accept(ours, HERE, |_| Some(())).await
    };
    assert!(call.await.is_ok());
}

/// Against tungstenite's client over TCP: hundreds at once, and never more inside than there are places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_places_hold_over_real_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let clients = NonZeroUsize::new(5).unwrap();
    let server = Arc::new(Server::new(Rules { clients, ..Rules::default() }));
    let (inside, peak, refused) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let serving = {
        let (inside, peak, refused) = (inside.clone(), peak.clone(), refused.clone());
        async move {
            loop {
                let (stream, address) = listener.accept().await.unwrap();
                let (server, inside, peak, refused) =
                    (server.clone(), inside.clone(), peak.clone(), refused.clone());
                tokio::spawn(async move {
                    match server.accept(stream, address.ip(), |_| Some(())).await {
                        Ok((mut socket, (), _place)) => {
                            peak.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                            while let Some(Ok(_)) = socket.next().await {}
                            inside.fetch_sub(1, SeqCst);
                        }
                        Err(error) => {
                            assert!(matches!(error, Refused::Full(_)), "{error}");
                            refused.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        }
    };
    let serving = tokio::spawn(serving);
    let callers = (0..300).map(|_| {
        let url = url.clone();
        tokio::spawn(async move {
            let connected = connect_async(url).await;
            tokio::task::yield_now().await;
            connected.is_ok()
        })
    });
    let mut accepted = 0;
    for caller in callers.collect::<Vec<_>>() {
        accepted += usize::from(caller.await.unwrap());
    }
    assert!(accepted >= 1 && peak.load(SeqCst) <= 5, "{accepted} {peak:?}");
    assert!(refused.load(SeqCst) <= 300 - accepted);
    serving.abort();
}

/// A page of somebody else gets 403 from the real client's view, and its own page gets in.
#[tokio::test]
async fn errors_are_answers_that_a_real_client_understands() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = Server::new(Rules::default());
    for (origin, status) in [(format!("http://{host}"), None), ("https://evil.example".into(), Some(403))] {
        let mut request = format!("ws://{host}/").into_client_request().unwrap();
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        let stream = TcpStream::connect(&host).await.unwrap();
        let accept = async {
            let (stream, address) = listener.accept().await.unwrap();
            server.accept(stream, address.ip(), |_| Some(())).await
        };
        // Dropped at once, so that the server sees the end.
        let client = async {
            match client_async(request, stream).await {
                Ok(_) => None,
                Err(Error::Http(response)) => Some(response.status().as_u16()),
                Err(other) => panic!("{other}"),
            }
        };
        let (accepted, seen) = tokio::join!(accept, client);
        assert_eq!((accepted.is_ok(), seen), (status.is_none(), status));
    }
}

/// What the page of the book shows: authentication by the first message, with a deadline; and a flood that is slowed down.
#[tokio::test(start_paused = true)]
async fn clock_the_pages_first_message_and_rate() {
    let server = Server::new(Rules::default());
    let (mut theirs, ours) = duplex(4096);
    theirs.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
    let (mut socket, (), _place) = server.accept(ours, HERE, |_| Some(())).await.unwrap();
    assert!(timeout(Duration::from_secs(5), socket.next()).await.is_err());
    for _ in 0..30 {
        theirs.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.unwrap();
    }
    let [tokens, burst] = [100, 10].map(|n| NonZeroUsize::new(n).unwrap());
    let limit = RateLimit::new(Rate { tokens, per: Duration::from_secs(1), burst });
    let start = Instant::now();
    for _ in 0..30 {
        limit.acquire(1).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(""));
    }
    assert_eq!(start.elapsed(), Duration::from_millis(200));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// Whatever comes instead of a request: an answer or a closed stream, no panic, and the place is free.
    #[test]
    fn errors_any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..400_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let server = Server::new(Rules { clients: ONE, ..Rules::default() });
        runtime.block_on(async {
            let (mut theirs, ours) = duplex(8192);
            let mut request = format!("{REQUEST}\r\n").into_bytes();
            request.truncate(cut.min(request.len() - 1));
            request.extend(bytes);
            theirs.write_all(&request).await.unwrap();
            theirs.shutdown().await.unwrap();
            // Some mixtures are good requests; none is both refused and holding its place.
            drop(server.accept(ours, HERE, |_| Some(())).await);
            let (_theirs, ours) = duplex(1);
            assert!(server.accept(ours, HERE, |_| Some(())).now_or_never().is_none());
        });
    }
}
