//! `address_guard`, `http_client`, `bounded_body`, `fetch_all`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Measure, Table, stopwatch, time};
use futures::{StreamExt, stream};
use reqwest::{Client, ClientBuilder, Url};
use scraping::{AddressGuard, BodyBudget, HttpClient, Limits, fetch_all, fetch_page, is_public};
use timeouts::Deadline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) fn tables(bench: &mut Bench) {
    address_guard_tables(bench);
    http_client_tables(bench);
    bounded_body_tables(bench);
    fetch_all_tables(bench);
}

const REQUESTS: usize = 100;
const SMALL: usize = 100;
const LARGE: usize = 1 << 20;
const LIMIT: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// A server on a thread of its own, which answers `GET /1000` with so many bytes. It lives as long as the program.
fn server() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a new socket can be changed");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(serve(socket));
                }
            });
        });
        address
    })
}

async fn serve(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let mut request = [0; 4096];
    let mut answer = Vec::new();
    while let Ok(read @ 1..) = socket.read(&mut request).await {
        let text = String::from_utf8_lossy(&request[..read]);
        let length = text.split([' ', '/']).nth(2).and_then(|text| text.parse().ok()).unwrap_or(0);
        answer.clear();
        answer.extend(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").bytes());
        answer.resize(answer.len() + length, b'x');
        if socket.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn url(length: usize) -> String {
    format!("http://{}/{length}", server())
}

/// Without the system's certificates, which would be read again for each client.
fn builder() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().tls_certs_only([]).no_proxy()
}

fn http() -> HttpClient {
    let address = |address: IpAddr| is_public(address) || address.is_loopback();
    let guard = AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() };
    HttpClient::new(builder(), guard, Limits::default()).expect("it needs no certificates")
}

fn budget() -> BodyBudget {
    let size = NonZeroUsize::new(LARGE * 64).expect("not zero");
    BodyBudget::new(size, size, &[]).expect("the cap is not above the budget")
}

/// Times `work` without what `make` does before.
fn after<S, F>(make: fn() -> S, work: impl Fn(S) -> F + Copy + Send + Sync + 'static) -> Measure
where
    S: Send + 'static,
    F: Future<Output = ()> + Send,
{
    stopwatch(move || async move {
        let state = make();
        let start = Instant::now();
        work(state).await;
        start.elapsed()
    })
}

fn address_guard_tables(bench: &mut Bench) {
    let texts =
        ["https://example.org/a", "http://93.184.215.14/", "http://2130706433/", "http://[::ffff:10.0.0.1]/"];
    let parsed = texts.map(|text| text.parse::<Url>().expect("it is a URL"));
    let guard = AddressGuard::default();
    let check = time(move || {
        let passed = parsed.iter().filter(|url| guard.check(url).is_ok()).count();
        async move { assert_eq!(passed, 2) }
    });
    let parse = time(move || {
        let hosts = texts.iter().filter(|text| text.parse::<Url>().is_ok_and(|url| url.has_host())).count();
        async move { assert_eq!(hosts, 4) }
    });
    let title = "four URLs, a name and three addresses, two of them private".to_string();
    let table = Table::new("address_guard", title, "ns/URL", Flavour::CurrentThread, texts.len())
        .recipe("check, of URLs that are parsed", check)
        .floor("parsing alone", parse)
        .python("urlsplit and ipaddress", "address_guard 1000");
    bench.measure(table);
}

fn http_client_tables(bench: &mut Bench) {
    let requests = bench.size(REQUESTS);
    let title = format!("{requests} requests one after the other, {SMALL} bytes each");
    let recipe = after(http, move |http| async move {
        for _ in 0..requests {
            let body = http.get(&url(SMALL)).await.expect("it answers").bytes().await;
            assert_eq!(body.expect("all of it").len(), SMALL);
        }
    });
    let client = || builder().build().expect("it needs no certificates");
    let bare = after(client, move |client| async move {
        for _ in 0..requests {
            let body = client.get(url(SMALL)).send().await.expect("it answers").bytes().await;
            assert_eq!(body.expect("all of it").len(), SMALL);
        }
    });
    let each = after(
        || (),
        move |()| async move {
            for _ in 0..requests {
                let client = builder().build().expect("it needs no certificates");
                let body = client.get(url(SMALL)).send().await.expect("it answers").bytes().await;
                assert_eq!(body.expect("all of it").len(), SMALL);
            }
        },
    );
    let raw = after(
        || (),
        move |()| async move {
            let mut socket = TcpStream::connect(server()).await.expect("it listens");
            let (mut answer, request) =
                ([0; 4096], format!("GET /{SMALL} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
            for _ in 0..requests {
                socket.write_all(request.as_bytes()).await.expect("it reads");
                assert_ne!(socket.read(&mut answer).await.expect("it answers"), 0);
            }
        },
    );
    let table = Table::new("http_client", title, "µs/request", Flavour::CurrentThread, requests)
        .recipe("get", recipe)
        .peer("reqwest Client, no limits", bare)
        .peer("reqwest, a client per request", each)
        .floor("a socket, nothing parsed", raw)
        .python("streams, one connection", &format!("http_client {requests} {SMALL} {}", server().port()));
    bench.measure(table);
}

fn bounded_body_tables(bench: &mut Bench) {
    let title = "16 bodies of 1 MiB one after the other".to_string();
    const BODIES: usize = 16;
    let recipe = after(http, |http| async move {
        let budget = budget();
        for _ in 0..BODIES {
            let response = http.get(&url(LARGE)).await.expect("it answers");
            assert_eq!(budget.read(response).await.expect("all of it").len(), LARGE);
        }
    });
    let bytes = after(http, |http| async move {
        for _ in 0..BODIES {
            let body = http.get(&url(LARGE)).await.expect("it answers").bytes().await;
            assert_eq!(body.expect("all of it").len(), LARGE);
        }
    });
    let chunks = after(http, |http| async move {
        for _ in 0..BODIES {
            let mut response = http.get(&url(LARGE)).await.expect("it answers");
            let mut length = 0;
            while let Some(chunk) = response.chunk().await.expect("all of it") {
                length += chunk.len();
            }
            assert_eq!(length, LARGE);
        }
    });
    let table = Table::new("bounded_body", title, "µs/body", Flavour::CurrentThread, BODIES)
        .recipe("read", recipe)
        .peer("bytes()", bytes)
        .floor("chunk(), nothing kept", chunks)
        .python("streams, readexactly", &format!("http_client {BODIES} {LARGE} {}", server().port()));
    bench.measure(table);
}

fn deadline() -> Deadline {
    Deadline::after("bench", Duration::from_secs(3600))
}

fn fetch_all_tables(bench: &mut Bench) {
    let requests = bench.size(500);
    let title = format!("{requests} pages of {SMALL} bytes over HTTP, 32 at a time");
    let recipe = after(http, move |http| async move {
        let (budget, urls) = (budget(), vec![url(SMALL); requests]);
        let fetch = |url: &'_ String| {
            let (http, budget, url) = (&http, &budget, url.clone());
            async move { fetch_page(http, budget, &url, <[u8]>::len).await }
        };
        let pages = fetch_all(&urls, LIMIT, &deadline(), fetch, |_, _| ()).await;
        assert!(pages.iter().all(|page| page.as_ref().is_ok_and(|page| page.content == SMALL)));
    });
    let client = || builder().build().expect("it needs no certificates");
    let bare = after(client, move |client| async move {
        let fetch = |url: String| {
            let client = client.clone();
            async move { client.get(url).send().await?.bytes().await }
        };
        let pages = stream::iter(vec![url(SMALL); requests]).map(fetch).buffer_unordered(LIMIT.get());
        let all = pages.all(|page| async move { page.is_ok_and(|page| page.len() == SMALL) });
        assert!(all.await);
    });
    let table = Table::new("fetch_all", title, "µs/page", Flavour::CurrentThread, requests)
        .recipe("fetch_all and fetch_page", recipe)
        .peer("reqwest and buffer_unordered", bare)
        .python(
            "streams and a queue of 32 workers",
            &format!("fetch_all {requests} {SMALL} {}", server().port()),
        );
    bench.measure(table);

    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n: usize| format!("{n} fetches that are there at once, 32 at a time");
        let recipe = time(move || async move {
            let urls: Vec<usize> = (0..n).collect();
            let fetch = |url: &usize| std::future::ready(Ok::<_, ()>(*url));
            assert_eq!(fetch_all(&urls, LIMIT, &deadline(), fetch, |_, _| ()).await.len(), n);
        });
        let peer = time(move || async move {
            let fetches = stream::iter(0..n).map(|url| std::future::ready(Ok::<_, ()>(url)));
            assert_eq!(fetches.buffer_unordered(LIMIT.get()).collect::<Vec<_>>().await.len(), n);
        });
        let table = Table::new("fetch_all", title(n), "ns/fetch", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("fetch_all", recipe)
            .peer("buffer_unordered, no deadline, any order", peer)
            .python("gather and Semaphore", &format!("fetch_all_there {n}"));
        bench.measure(table);
    }
}
