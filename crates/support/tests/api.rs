//! `support::api` over real sockets. Every test is decided by statuses, bytes and counts; the time limits
//! only keep a broken server from hanging the run.
#![cfg(feature = "api")]

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::api::{Api, Counts, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

const MS: Duration = Duration::from_millis(1);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("done long before 20 seconds")
}

async fn start() -> (Api, Client) {
    // Built together with the families, reqwest has TLS and wants a provider; an error means that one is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = Api::start().await.expect("a free port");
    (api, Client::builder().no_proxy().build().expect("a client without TLS"))
}

async fn get(api: &Api, client: &Client, path: &str) -> (StatusCode, Value) {
    let answer = soon(client.get(api.url(path)).send()).await.expect("an answer");
    let status = answer.status();
    (status, soon(answer.json()).await.expect("JSON"))
}

async fn status(api: &Api, client: &Client, path: &str) -> u16 {
    soon(client.get(api.url(path)).send()).await.expect("an answer").status().as_u16()
}

/// Sends a request on a connection of its own.
async fn open(api: &Api, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.address()).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a sent request");
    stream
}

/// What a client receives, head and body, and how the connection ends.
async fn receive(mut stream: TcpStream) -> (String, String, io::Result<()>) {
    let mut received = Vec::new();
    let ended = soon(stream.read_to_end(&mut received)).await.map(|_| ());
    let received = String::from_utf8(received).expect("text");
    let (head, body) = received.split_once("\r\n\r\n").unwrap_or((&received, ""));
    (head.to_owned(), body.to_owned(), ended)
}

#[tokio::test]
async fn the_index_is_plain_text_and_its_examples_work() {
    let (api, client) = start().await;
    let answer = client.get(api.url("/")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let index = answer.text().await.unwrap();
    let listed = index.lines().filter(|line| line.starts_with(' ')).flat_map(str::split_whitespace);
    let examples: BTreeSet<&str> = listed.filter(|word| word.starts_with('/')).collect();
    assert_eq!(examples.len(), 21, "{examples:?}");
    for path in examples {
        match soon(client.get(api.url(path)).send()).await {
            Ok(answer) => assert!(![400, 404, 405].contains(&answer.status().as_u16()), "{path}: {answer:?}"),
            Err(error) => assert!(path.contains("reset=before"), "{path}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_explained() {
    let (api, client) = start().await;
    for (path, message) in [
        ("/users/7?latency=soon", "latency=soon: expected milliseconds (20) or a range (20..80)"),
        ("/users/7?latency=80..20", "latency=80..20: expected milliseconds (20) or a range (20..80)"),
        ("/users/7?tail=101,5", "tail=101,5: expected percent,milliseconds (5,300)"),
        ("/users/7?hold=3", "hold=3: expected requests,milliseconds (3,500)"),
        ("/users/7?slow=0,5", "slow=0,5: expected bytes,milliseconds (8,5)"),
        ("/users/7?status=199", "status=199: expected 200 to 599"),
        ("/users/7?reset=after", "reset=after: expected `before` or a number of bytes"),
        ("/users/7?truncate=-1", "truncate=-1: expected a number of bytes"),
        ("/users/7?first=x", "first=x: expected a number of requests"),
        ("/users/7?every=0", "every=0: expected a number of requests, 1 or more"),
        ("/users/7?retry_after=1.5", "retry_after=1.5: expected a number of seconds"),
        ("/users/7?date=yes", "date=yes: expected 0 or 1"),
        ("/users/7?latncy=20", "unknown parameter latncy: GET / lists the parameters"),
        ("/?page=1", "unknown parameter page: GET / lists the parameters"),
        ("/items?page=0", "page=0: expected 1 to 1000"),
        ("/items?per_page=101", "per_page=101: expected 1 to 100"),
        ("/limited?rate=0", "rate=0: expected 0.001 to 1000000 a second"),
        ("/limited?rate=NaN", "rate=NaN: expected 0.001 to 1000000 a second"),
        ("/limited?burst=0", "burst=0: expected 1 to 1000000"),
    ] {
        let expected = (StatusCode::BAD_REQUEST, json!({ "error": message }));
        assert_eq!(get(&api, &client, path).await, expected, "{path}");
    }
    let (not_found, body) = get(&api, &client, "/nothing").await;
    assert_eq!(
        (not_found, body),
        (StatusCode::NOT_FOUND, json!({ "error": "no route /nothing: GET / lists the routes" }))
    );
    let posted = client.post(api.url("/users/7")).send().await.unwrap();
    assert_eq!((posted.status().as_u16(), &posted.headers()["allow"]), (405, &"GET, HEAD".parse().unwrap()));
}

#[tokio::test]
async fn users_are_the_same_every_time() {
    let (api, client) = start().await;
    let (found, user) = get(&api, &client, "/users/7").await;
    assert_eq!((found, &user), (StatusCode::OK, &json!({ "id": 7, "name": "Hiroshi Okafor" })));
    assert_eq!(get(&api, &client, "/users/7").await.1, user);
    assert_eq!(status(&api, &client, "/users/100000").await, 200);
    for unknown in ["0", "100001", "-1", "seven", "7/orders"] {
        let (status, body) = get(&api, &client, &format!("/users/{unknown}")).await;
        let message = format!("no user {unknown}: ids run from 1 to 100000");
        assert_eq!((status, body), (StatusCode::NOT_FOUND, json!({ "error": message })));
    }
}

#[tokio::test]
async fn head_tells_the_length_and_sends_no_body() {
    let (api, client) = start().await;
    let length = client.get(api.url("/users/7")).send().await.unwrap().bytes().await.unwrap().len();
    let head = client.head(api.url("/users/7")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], length.to_string().as_str());
    assert_eq!(head.bytes().await.unwrap().len(), 0);
    assert_eq!(api.gauge().counts(), Counts { in_flight: 0, peak: 1, total: 2 });
}

#[tokio::test]
async fn pages_lead_to_all_items_once_and_keep_the_query() {
    let (api, client) = start().await;
    let mut next = Some(String::from("/items?per_page=90&slow=2000,1&id=a%20b"));
    let mut ids = Vec::new();
    let mut pages = 0;
    while let Some(path) = next {
        let (status, page) = get(&api, &client, &path).await;
        assert_eq!((status, &page["total"]), (StatusCode::OK, &json!(1000)), "{path}");
        ids.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()));
        pages += 1;
        next = page["next"].as_str().map(str::to_owned);
        if let Some(next) = &next {
            assert_eq!(*next, format!("/items?per_page=90&slow=2000%2C1&id=a+b&page={}", pages + 1));
        }
    }
    assert_eq!(pages, 12);
    assert_eq!(ids, (1..=1000).collect::<Vec<_>>());
    let (_, past_the_end) = get(&api, &client, "/items?page=1000").await;
    assert_eq!((&past_the_end["items"], &past_the_end["next"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn the_rate_limit_saves_up_a_burst_and_says_when_to_come_back() {
    let (api, client) = start().await;
    let slowly = "/limited?rate=0.001&burst=3";
    for allowed in [200, 200, 200, 429, 429] {
        assert_eq!(status(&api, &client, slowly).await, allowed);
    }
    assert_eq!(status(&api, &client, &format!("{slowly}&key=other")).await, 200, "a bucket per key");

    let limited = client.get(api.url(slowly)).send().await.unwrap();
    let seconds: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((900..=1000).contains(&seconds), "{seconds} s until the next token");

    let before = SystemTime::now();
    let limited = client.get(api.url(&format!("{slowly}&date=1"))).send().await.unwrap();
    let date = httpdate::parse_http_date(limited.headers()["retry-after"].to_str().unwrap()).unwrap();
    let wait = date.duration_since(before).unwrap();
    assert!((900..=1001).contains(&wait.as_secs()), "{wait:?} until the next token");

    assert_eq!(status(&api, &client, "/limited?rate=0.5&key=half").await, 200);
    let limited = client.get(api.url("/limited?rate=0.5&key=half")).send().await.unwrap();
    let seconds: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let message = limited.json::<Value>().await.unwrap()["error"].to_string();
    let milliseconds: u64 = message.split(' ').find_map(|word| word.parse().ok()).expect("milliseconds");
    assert_eq!(seconds, milliseconds.div_ceil(1000), "rounded up: never too early");

    // A token comes back every microsecond: by the time that the next request arrives, there is one.
    for _ in 0..50 {
        assert_eq!(status(&api, &client, "/limited?rate=1000000&key=fast").await, 200);
    }
}

#[tokio::test]
async fn echo_returns_what_it_received() {
    let (api, client) = start().await;
    let sent =
        client.put(api.url("/echo?a=b&latency=1")).header("x-trace", "7").body("hello").send().await.unwrap();
    let echo: Value = sent.json().await.unwrap();
    assert_eq!(
        (&echo["method"], &echo["path"], &echo["body"]),
        (&json!("PUT"), &json!("/echo?a=b&latency=1"), &json!("hello"))
    );
    assert!(echo["headers"].as_array().unwrap().contains(&json!(["x-trace", "7"])), "{echo}");
    let fits = client.post(api.url("/echo")).body("x".repeat(1024 * 1024)).send().await.unwrap();
    assert_eq!(fits.status(), StatusCode::OK);
    assert_eq!(fits.json::<Value>().await.unwrap()["body"].as_str().unwrap().len(), 1024 * 1024);
    // Chunked, so that the length is not announced; the server may hang up before all of it is written.
    let too_long = reqwest::Body::from("x".repeat(1024 * 1024 + 1));
    match client.post(api.url("/echo")).body(too_long).send().await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
        Err(error) => assert!(error.is_request(), "{error:?}"),
    }
}

#[tokio::test]
async fn failures_are_counted_for_each_url() {
    let (api, client) = start().await;
    for expected in [503, 503, 200, 200] {
        assert_eq!(status(&api, &client, "/users/1?first=2").await, expected);
    }
    assert_eq!(status(&api, &client, "/users/2?first=2").await, 503, "another URL starts from one");
    for expected in [200, 500, 200, 500] {
        assert_eq!(status(&api, &client, "/users/1?every=2&status=500").await, expected);
    }
    let answer = client.get(api.url("/users/1?status=503&retry_after=3")).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "3");
    let before = SystemTime::now();
    let dated = client.get(api.url("/users/1?status=503&retry_after=3&date=1")).send().await.unwrap();
    let date = httpdate::parse_http_date(dated.headers()["retry-after"].to_str().unwrap()).unwrap();
    assert!(date >= before + Duration::from_secs(3), "never too early");
    let spared = client.get(api.url("/users/1?every=2&retry_after=3")).send().await.unwrap();
    assert!(spared.status().is_success() && !spared.headers().contains_key("retry-after"));
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({ "error": "503 Service Unavailable, as asked for" })
    );
}

#[tokio::test]
async fn a_fault_of_a_route_can_be_replaced_and_overruled() {
    let (api, client) = start().await;
    api.fault("/", Fault::new().status(500));
    api.fault("/users", Fault::new().status(502).first(1));
    for expected in [502, 200] {
        assert_eq!(status(&api, &client, "/users/1").await, expected);
    }
    assert_eq!(status(&api, &client, "/users/2").await, 502);
    assert_eq!(status(&api, &client, "/items").await, 500, "the longest route that fits");
    assert_eq!(status(&api, &client, "/users/3?status=504").await, 504, "the query comes first");
    assert_eq!(status(&api, &client, "/users/3?status=504").await, 200, "but replaces only its own part");
    api.fault("/users", Fault::new().status(503).first(1));
    assert_eq!(status(&api, &client, "/users/1").await, 503, "a new fault counts from the start");
    api.fault("/users", Fault::new());
    assert_eq!(status(&api, &client, "/users/9").await, 200);
    assert_eq!(status(&api, &client, "/gauge").await, 200, "the gauge has no faults");
}

#[tokio::test]
async fn a_slow_body_comes_in_chunks() {
    let (api, client) = start().await;
    let whole = client.get(api.url("/users/7")).send().await.unwrap().text().await.unwrap();
    let (head, body, ended) = receive(open(&api, "/users/7?slow=8,1").await).await;
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    let lines: Vec<&str> = body.split("\r\n").collect();
    let (sizes, parts): (Vec<_>, Vec<_>) = lines.chunks_exact(2).map(|line| (line[0], line[1])).unzip();
    assert_eq!(parts.concat(), whole);
    assert_eq!(sizes.len(), whole.len().div_ceil(8) + 1, "{sizes:?}");
    assert_eq!((sizes[0], sizes[sizes.len() - 1]), ("8", "0"));
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_connection_can_be_reset_before_the_response_or_within_it() {
    let (api, client) = start().await;
    let reset =
        |ended: io::Result<()>| ended.map_err(|error| error.kind()) == Err(io::ErrorKind::ConnectionReset);
    let (head, _, ended) = receive(open(&api, "/users/7?reset=before").await).await;
    assert!(head.is_empty() && reset(ended), "{head}");

    for (asked, sent) in [(0, 0), (10, 10), (1000, 31)] {
        for slow in ["", "&slow=3,1"] {
            let (head, body, ended) =
                receive(open(&api, &format!("/users/7?reset={asked}{slow}")).await).await;
            assert!(head.contains("content-length: 32"), "{head}");
            assert_eq!((body.len(), reset(ended)), (sent, true), "{asked}{slow}");
        }
    }
    api.fault("/users", Fault::new().reset_after(10).first(1));
    let cut = client.get(api.url("/users/7")).send().await.unwrap().bytes().await;
    assert!(cut.is_err_and(|error| error.is_decode() || error.is_body()));
    assert_eq!(status(&api, &client, "/users/7").await, 200, "the server lives on");
    soon(api.gauge().until(|now| now.in_flight == 0)).await;
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_announced() {
    let (api, client) = start().await;
    for (asked, sent) in [(0, 0), (10, 10), (1000, 31)] {
        let (head, body, ended) = receive(open(&api, &format!("/users/7?truncate={asked}")).await).await;
        assert!(head.contains("content-length: 32"), "{head}");
        assert_eq!(body.len(), sent);
        assert!(ended.is_ok(), "closed and not reset: {ended:?}");
    }
    let cut = client.get(api.url("/users/7?truncate=10")).send().await.unwrap().bytes().await;
    assert!(cut.is_err_and(|error| error.is_decode() || error.is_body()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_answers_when_enough_requests_are_in_flight() {
    let (api, client) = start().await;
    for _ in 0..20 {
        let urls = (1..=3).map(|user| api.url(&format!("/users/{user}?hold=3,60000")));
        let answers = soon(join_all(urls.map(|url| client.get(url).send()))).await;
        for answer in answers {
            assert_eq!(answer.unwrap().headers()["x-hold"], "met");
        }
    }
    assert_eq!(api.gauge().peak(), 3);
    let alone = client.get(api.url("/users/1?hold=2,5")).send().await.unwrap();
    assert_eq!((alone.status().as_u16(), &alone.headers()["x-hold"]), (200, &"time limit".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_keeps_to_its_limit_is_not_reported_above_it() {
    let (api, client) = start().await;
    api.fault("/", Fault::new().hold(4, 20 * MS));
    let limit = Semaphore::new(4);
    let fetch = async |user: usize| {
        let _permit = limit.acquire().await.unwrap();
        let path = if user.is_multiple_of(4) {
            "/items?per_page=100&slow=4000,1".into()
        } else {
            format!("/users/{user}")
        };
        client.get(api.url(&path)).send().await.unwrap().bytes().await.unwrap();
    };
    soon(join_all((1..=40).map(fetch))).await;
    assert_eq!(api.gauge().counts(), Counts { in_flight: 0, peak: 4, total: 40 });
    let (users, items) = (api.gauge().route("/users"), api.gauge().route("/items"));
    assert_eq!((users.total, items.total), (30, 10));
    assert_eq!(api.gauge().busiest_window(Duration::from_secs(3600)), 40);

    let expected = json!({
        "in_flight": 0, "peak": 4, "total": 40, "routes": {
            "/items": { "in_flight": 0, "peak": items.peak, "total": 10 },
            "/users": { "in_flight": 0, "peak": users.peak, "total": 30 },
        },
    });
    for _ in 0..2 {
        assert_eq!(
            get(&api, &client, "/gauge").await,
            (StatusCode::OK, expected.clone()),
            "not counted itself"
        );
    }
    api.gauge().reset();
    assert_eq!(api.gauge().counts(), Counts::default());
}

#[tokio::test]
async fn a_client_that_gives_up_is_seen_leaving() {
    let (api, _) = start().await;
    let gauge = api.gauge();
    for path in ["/users/7?hold=2,60000", "/users/7?latency=60000", "/users/7?slow=1,60000"] {
        let stream = open(&api, path).await;
        assert_eq!(soon(gauge.until(|now| now.in_flight == 1)).await.in_flight, 1, "{path}");
        drop(stream);
        soon(gauge.until(|now| now.in_flight == 0)).await;
    }
    assert_eq!(gauge.counts(), Counts { in_flight: 0, peak: 1, total: 3 });
}

#[tokio::test]
async fn stop_lets_running_requests_end_and_leaves_no_task() {
    let before = Handle::current().metrics().num_alive_tasks();
    let api = Api::start().await.unwrap();
    let gauge = api.gauge();
    let address = api.address();
    let idle = TcpStream::connect(address).await.unwrap();
    let mut running = TcpStream::connect(address).await.unwrap();
    running.write_all(b"GET /users/7?hold=2,100 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    soon(gauge.until(|now| now.in_flight == 1)).await;
    let ((head, _, ended), ()) = soon(async { tokio::join!(receive(running), api.stop()) }).await;
    assert!(head.starts_with("HTTP/1.1 200") && ended.is_ok(), "{head} {ended:?}");
    assert!(head.contains("connection: close"), "told not to send another: {head}");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop(idle);
}

#[tokio::test]
async fn stop_aborts_what_overstays() {
    let before = Handle::current().metrics().num_alive_tasks();
    let api = Api::start().await.unwrap();
    let gauge = api.gauge();
    let endless = open(&api, "/users/7?hold=2,60000").await;
    soon(gauge.until(|now| now.in_flight == 1)).await;
    soon(api.stop()).await;
    assert_eq!((Handle::current().metrics().num_alive_tasks(), gauge.in_flight()), (before, 0));
    let (head, _, _) = receive(endless).await;
    assert_eq!(head, "", "no answer");
}

#[tokio::test]
async fn dropping_the_server_ends_all_of_its_tasks() {
    let before = Handle::current().metrics().num_alive_tasks();
    let api = Api::start().await.unwrap();
    let gauge = api.gauge();
    let streams = [open(&api, "/users/7?latency=60000").await, open(&api, "/users/7?slow=1,60000").await];
    soon(gauge.until(|now| now.in_flight == 2)).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before + 3, "accepting, and two connections");
    drop(api);
    soon(async {
        while Handle::current().metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(gauge.in_flight(), 0);
    drop(streams);
}
