//! A small local HTTP/1.1 server that misbehaves when it is asked to.
//!
//! [`Api::start`] binds it to a free port of 127.0.0.1. What goes wrong is asked for in a request's query
//! string, which works from a shell too, or for all requests of a route with [`Api::fault`]. [`Api::gauge`]
//! tells how many requests were in flight at once. Tests should be decided by such facts, not by how long
//! something took: `hold` proves that requests run together without a sleep, and [`Gauge::until`] waits for
//! one to arrive or to leave.
//!
//! Resets are real ones (RST, by `SO_LINGER` 0). Linux hands the client what was sent before the reset; other
//! systems may throw it away. Memory: one counter for each distinct URL whose latency varies or whose
//! failures are counted, one bucket for each key of `/limited`, and the start times of the last 100 000
//! requests.
//!
//! ```
//! use support::api::{Api, Fault};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let api = Api::start().await?;
//! api.fault("/users", Fault::new().status(503).first(1));
//!
//! let mut stream = tokio::net::TcpStream::connect(api.address()).await?;
//! stream.write_all(b"GET /users/7 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable"));
//! assert_eq!(api.gauge().total(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! What `GET /` answers:
//!
#![doc = concat!("```text\n", include_str!("api/index.txt"), "```")]

mod body;
mod fault;
mod gauge;
mod routes;

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use body::{AnswerBody, End};
pub use fault::Fault;
use fault::{Query, Reset};
use gauge::InFlight;
pub use gauge::{Counts, Gauge};
use routes::{Buckets, Refusal};

/// How long [`Api::stop`] waits for the connections before it aborts them.
const GRACE: Duration = Duration::from_secs(1);

/// A running server. Dropping it stops accepting and aborts the connections; [`Api::stop`] also waits for
/// them.
pub struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The accepting task and the connections hold the other ends, and finish when told.
    stopping: watch::Sender<()>,
    /// Only the accepting task, which in turn owns the connections: dropping the set drops them all.
    accepting: JoinSet<()>,
}

struct Shared {
    faults: Mutex<Vec<(String, Fault)>>,
    /// How often each URL was asked for.
    seen: Mutex<HashMap<String, u64>>,
    buckets: Buckets,
    gauge: Gauge,
}

impl Api {
    /// Starts a server on a free port of 127.0.0.1, on the current runtime.
    pub async fn start() -> io::Result<Api> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            faults: Mutex::default(),
            seen: Mutex::default(),
            buckets: Buckets::default(),
            gauge: Gauge::new(),
        });
        let (stopping, stop) = watch::channel(());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone(), stop));
        Ok(Api { address, shared, stopping, accepting })
    }

    /// The URL of a path: `url("/users/1")` is `http://127.0.0.1:PORT/users/1`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies `fault` to the requests whose path starts with `route`, in place of an earlier fault for the
    /// same text. Of several that fit, the longest counts. [`Fault::first`] and [`Fault::every`] count from
    /// here on.
    pub fn fault(&self, route: &str, fault: Fault) {
        let mut faults = lock(&self.shared.faults);
        faults.retain(|(other, _)| other != route);
        faults.push((route.to_owned(), fault));
        lock(&self.shared.seen).retain(|url, _| !url.starts_with(route));
    }

    /// How many requests are and were in flight.
    pub fn gauge(&self) -> Gauge {
        self.shared.gauge.clone()
    }

    /// Stops accepting, lets running requests end, and returns when every connection is gone. What still runs
    /// after one second is aborted. Dropping this future aborts at once.
    pub async fn stop(mut self) {
        self.stopping.send_replace(());
        while let Some(ended) = self.accepting.join_next().await {
            resume_panic(ended);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, shared.clone(), stop.clone()));
                }
                // Out of file descriptors, most likely: some may be free again soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(ended) = connections.join_next() => resume_panic(ended),
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            resume_panic(ended);
        }
    };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// A panic of the server is not swallowed: it ends the server, and `stop` passes it on.
fn resume_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        // Here and not in the future, so that a request counts before anything else happens to it.
        let path = request.uri().path();
        let mut query = Query::new(request.uri().query().unwrap_or_default());
        let fault = match path {
            "/gauge" => Ok(Fault::new()),
            _ => shared.fault_for(path).with_query(&mut query),
        };
        let hold = fault.as_ref().ok().and_then(|fault| fault.hold).map(|(wanted, _)| wanted);
        let in_flight = (path != "/gauge").then(|| shared.gauge.enter(routes::name(path), hold));
        answer(&shared, request, query, fault, in_flight)
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stop.changed() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let cause = ended.as_ref().err().and_then(|error| error.source()?.downcast_ref::<io::Error>());
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionReset) {
        // Closing a socket that must not linger sends RST. If this fails, or if it was the client who reset
        // the connection, there is nobody left to notice.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

/// Answers a request. The error asks for a reset of the connection.
async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    query: Query,
    fault: Result<Fault, String>,
    mut in_flight: Option<InFlight>,
) -> io::Result<Response<AnswerBody>> {
    let fault = match fault {
        Ok(fault) => fault,
        Err(message) => {
            let answer = Response::from(Refusal::from(message));
            return Ok(answer.map(|body| AnswerBody::new(body, End::Whole, None, in_flight)));
        }
    };
    let (head, body) = request.into_parts();
    let url = head.uri.path_and_query().map_or("", |url| url.as_str());
    let nth = if fault.needs_count() { shared.count(url) } else { 1 };
    let fault = fault.for_request(nth);
    let held = match (&mut in_flight, fault.hold) {
        (Some(in_flight), Some((_, limit))) => {
            Some(tokio::time::timeout(limit, in_flight.held()).await.is_ok())
        }
        _ => None,
    };
    let wait = fault.wait(url, nth);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await; // even a sleep of zero may take a millisecond
    }
    if fault.reset == Some(Reset::BeforeResponse) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }

    let date = fault.date.unwrap_or(false);
    let mut answer = match fault.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) => routes::error(status, &format!("{status}, as asked for")),
        None => routes::answer(shared, &head, body, query, date).await.unwrap_or_else(Response::from),
    };
    if let (Some(_), Some(seconds)) = (fault.status, fault.retry_after) {
        routes::retry_after(&mut answer, seconds.into(), date);
    }
    if let Some(met) = held {
        let held = HeaderValue::from_static(if met { "met" } else { "time limit" });
        answer.headers_mut().insert("x-hold", held);
    }

    // A client that has every byte would not notice what comes after, so the last one is always cut off.
    let length = answer.body().len();
    let (end, sent) = match (fault.reset, fault.truncate) {
        (Some(Reset::AfterBytes(bytes)), _) => (End::Reset, bytes.min(length.saturating_sub(1))),
        (_, Some(bytes)) => (End::Short, bytes.min(length.saturating_sub(1))),
        _ => (End::Whole, length),
    };
    if end != End::Whole {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(answer.map(|body| AnswerBody::new(body.slice(..sent), end, fault.slow, in_flight)))
}

impl Shared {
    fn fault_for(&self, path: &str) -> Fault {
        let faults = lock(&self.faults);
        let fitting = faults.iter().filter(|(route, _)| path.starts_with(route.as_str()));
        fitting.max_by_key(|(route, _)| route.len()).map(|(_, fault)| fault.clone()).unwrap_or_default()
    }

    /// Counts a request for `url`, and says how many there were with this one.
    fn count(&self, url: &str) -> u64 {
        let mut seen = lock(&self.seen);
        let count = seen.entry(url.to_owned()).or_default();
        *count += 1;
        *count
    }
}

/// Every change under these locks is a single step, so a panic cannot leave one half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "a defect of the server")]
    async fn stop_passes_on_a_panic() {
        let mut api = Api::start().await.expect("a free port");
        api.accepting.spawn(async { panic!("a defect of the server") });
        api.stop().await;
    }
}
