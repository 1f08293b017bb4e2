//! Fetch with one pooled client whose every wait is limited and whose every hop is checked.
//!
//! Use it for all that a program fetches: one client for the whole program. Bodies may be of any length: read them with
//! `bounded_body`.
//!
//! | | |
//! |---|---|
//! | Order | none: requests are independent |
//! | Errors | [`HttpError`] tells a [`Refused`] address from the [`Limit`] that ran out, for an error of the body too; a status is no error |
//! | Cancellation | dropping the call or the response ends the request and closes its connection, unless the answer has been read to its end |
//! | Panics | none of its own |
//! | Memory | none for bodies, which pass through; a read buffer for each connection, in use or idle |
//! | Backpressure | a body is read no faster than it is taken; requests are not limited |
//! | Clock | `tokio::time` for the four limits; idle connections age by the system's clock |
//!
//! The limits differ in what they tell apart. `connect`: a host that is away. `header`: a server that accepts and says nothing.
//! `idle`: a body that stopped. `total`: one that trickles for ever. reqwest has three of them and reports them alike; its
//! read timeout counts for the header too.
//!
//! ```
//! use scraping::{AddressGuard, HttpClient, HttpError, Limits};
//!
//! #[tokio::main]
//! async fn main() {
//!     let builder = reqwest::Client::builder();
//!     let http = HttpClient::new(builder, AddressGuard::default(), Limits::default()).unwrap();
//!     let error = http.get("http://127.0.0.1/admin").await.unwrap_err();
//!     assert!(matches!(error, HttpError::Refused(_)));
//! }
//! ```

use std::error::Error;
use std::iter::successors;
use std::mem::take;
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Body, Client, ClientBuilder, Request, Response, ResponseBuilderExt, Url};
use rustls::crypto::{CryptoProvider, ring};
use streams::stall_guard::{StallGuard, Stalled};
use tokio::time::{Instant, timeout};

use super::address_guard::{AddressGuard, Refused};

/// How long a request may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the lookup of the name, the connection and its TLS.
    pub connect: Duration,
    /// From the call to the header of the answer, redirects included.
    pub header: Duration,
    /// For each piece of the body, from when it is asked for.
    pub idle: Duration,
    /// From the call to the end of the body.
    pub total: Duration,
}

impl Default for Limits {
    /// 5 s, 10 s, 10 s, 60 s.
    fn default() -> Self {
        let [connect, header, idle, total] = [5, 10, 10, 60].map(Duration::from_secs);
        Limits { connect, header, idle, total }
    }
}

/// A client and its pool of connections. Clones share them.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
    guard: AddressGuard,
    limits: Limits,
}

/// Why there is no answer, or no more of its body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It is not a URL.
    #[error("`{url}` is not a URL (http://host/path)")]
    NotAUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: <Url as std::str::FromStr>::Err,
    },
    /// The guard does not allow it.
    #[error(transparent)]
    Refused(Refused),
    /// A limit ran out.
    #[error(transparent)]
    TimedOut(TimedOut),
    /// The exchange failed.
    #[error(transparent)]
    Request(reqwest::Error),
}

/// Which limit ran out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}: the {limit:?} limit of {after:?} ran out")]
pub struct TimedOut {
    /// The host of the URL that was asked for.
    pub host: String,
    /// Which limit.
    pub limit: Limit,
    /// How long it is.
    pub after: Duration,
}

/// The fields of [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are those of the fields")]
pub enum Limit {
    Connect,
    Header,
    Idle,
    Total,
}

impl HttpClient {
    /// Makes the client out of `builder`, of which [`AddressGuard::apply`] replaces some.
    ///
    /// If no provider of cryptography is installed, ring becomes that of the whole program: without one, reqwest panics.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`], for instance when the system has no root certificates.
    pub fn new(builder: ClientBuilder, guard: AddressGuard, limits: Limits) -> Result<Self, reqwest::Error> {
        if CryptoProvider::get_default().is_none() {
            // An error means that another thread was faster.
            let _ = ring::default_provider().install_default();
        }
        let builder = guard.apply(builder).connect_timeout(limits.connect);
        let client = builder.tls_backend_rustls().gzip(true).build()?;
        Ok(HttpClient { client, guard, limits })
    }

    /// Fetches `url`: the header now, the body as it is read from the response.
    pub async fn get(&self, url: &str) -> Result<Response, HttpError> {
        let parsed: Result<Url, _> = url.parse();
        let parsed = parsed.map_err(|source| HttpError::NotAUrl { url: url.into(), source })?;
        self.send(self.client.get(parsed).build()?).await
    }

    /// Sends any request; [`Request::new`] makes one.
    ///
    /// The length of a body that is announced stands in its header only: [`Response::content_length`] is `None`.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let (start, limits) = (Instant::now(), self.limits);
        self.guard.check(request.url()).map_err(HttpError::Refused)?;
        let host = request.url().host_str().unwrap_or_default().to_string();
        let first = limits.header.min(limits.total);
        match timeout(first, self.client.execute(request)).await {
            Ok(Ok(response)) => Ok(limited(response, host, start, limits)),
            Ok(Err(error)) if error.is_connect() && error.is_timeout() => {
                Err(HttpError::TimedOut(TimedOut { host, limit: Limit::Connect, after: limits.connect }))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let limit = if first == limits.header { Limit::Header } else { Limit::Total };
                Err(HttpError::TimedOut(TimedOut { host, limit, after: first }))
            }
        }
    }
}

impl From<reqwest::Error> for HttpError {
    /// Finds out what is behind the error of a request, or of a body that is being read.
    fn from(error: reqwest::Error) -> Self {
        let mut chain = successors(error.source(), |error| (*error).source());
        match (chain.find_map(|error| error.downcast_ref::<TimedOut>()), Refused::behind(&error)) {
            (Some(timed_out), _) => HttpError::TimedOut(timed_out.clone()),
            (_, Some(refused)) => HttpError::Refused(refused.clone()),
            _ => HttpError::Request(error),
        }
    }
}

/// The same response, with the limits on its body.
fn limited(mut response: Response, host: String, start: Instant, limits: Limits) -> Response {
    let mut head = http::Response::builder().url(response.url().clone());
    head = head.status(response.status()).version(response.version());
    let (headers, extensions) = (take(response.headers_mut()), take(response.extensions_mut()));
    let guard = StallGuard::new(Box::pin(response.bytes_stream()), limits.idle);
    let guard = guard.total(limits.total.saturating_sub(start.elapsed()));
    let body = guard.map(move |item| {
        let (limit, after) = match item {
            Ok(chunk) => return chunk.map_err(Box::<dyn Error + Send + Sync>::from),
            Err(Stalled::Idle { .. }) => (Limit::Idle, limits.idle),
            Err(Stalled::Total { .. }) => (Limit::Total, limits.total),
        };
        Err(TimedOut { host: host.clone(), limit, after }.into())
    });
    let limited = head.body(Body::wrap_stream(body));
    let mut limited = limited.expect("status and version are those of a response");
    *limited.headers_mut() = headers;
    limited.extensions_mut().extend(extensions);
    limited.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const NEVER: Limits =
        Limits { connect: Duration::MAX, header: Duration::MAX, idle: Duration::MAX, total: Duration::MAX };
    const SECOND: Duration = Duration::from_secs(1);

    fn client(limits: Limits) -> HttpClient {
        let guard = AddressGuard { ports: Vec::new(), address: |_| true, ..AddressGuard::default() };
        // No certificates: a system may have none.
        HttpClient::new(Client::builder().tls_certs_only([]), guard, limits).unwrap()
    }

    /// What the limits make of a body that never comes from a server.
    fn answer(
        body: impl futures::Stream<Item = Result<&'static str, TimedOut>> + Send + 'static,
        limits: Limits,
    ) -> Response {
        let response = http::Response::new(Body::wrap_stream(body)).into();
        limited(response, "example.org".into(), Instant::now(), limits)
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn clock_connect_and_header_are_apart() {
        // The system accepts for a server that says nothing, and starts no TLS.
        let (_listener, address) = listen().await;
        let limits = Limits { connect: SECOND, ..NEVER };
        let error = client(limits).get(&format!("https://{address}/")).await.unwrap_err();
        assert_eq!(error.to_string(), "127.0.0.1: the Connect limit of 1s ran out");
        let (start, limits) = (Instant::now(), Limits { header: SECOND, ..NEVER });
        let error = client(limits).get(&format!("http://{address}/")).await.unwrap_err();
        assert_eq!(error.to_string(), "127.0.0.1: the Header limit of 1s ran out");
        assert!(start.elapsed() < 2 * SECOND);
        let limits = Limits { total: SECOND, ..NEVER };
        let error = client(limits).get(&format!("http://{address}/")).await.unwrap_err();
        assert_eq!(error.to_string(), "127.0.0.1: the Total limit of 1s ran out");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_idle_and_total_are_apart() {
        let stopped = stream::iter([Ok("some")]).chain(stream::pending());
        let mut response = answer(stopped, Limits { idle: SECOND, ..NEVER });
        assert_eq!(response.chunk().await.unwrap().unwrap(), "some");
        let error = HttpError::from(response.chunk().await.unwrap_err());
        assert_eq!(error.to_string(), "example.org: the Idle limit of 1s ran out");

        let trickle = stream::repeat(Ok("x")).then(|item| async {
            tokio::time::sleep(SECOND / 3).await;
            item
        });
        let response = answer(trickle, Limits { idle: SECOND, total: 10 * SECOND, ..NEVER });
        let (start, error) = (Instant::now(), HttpError::from(response.bytes().await.unwrap_err()));
        assert_eq!(error.to_string(), "example.org: the Total limit of 10s ran out");
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn errors_are_told_apart_and_a_status_is_none() {
        let (listener, address) = listen().await;
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            socket.write_all(b"HTTP/1.1 503 Busy\r\nx-a: b\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        });
        let http = client(NEVER);
        let url = format!("http://{address}/");
        let response = http.get(&url).await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().as_str()), (503, &*url));
        assert_eq!(
            (&response.headers()["x-a"], response.remote_addr().is_some()),
            (&"b".parse().unwrap(), true)
        );
        assert_eq!(response.text().await.unwrap(), "no");
        serving.await.unwrap();
        // A port that is taken, and where nobody listens.
        let taken = tokio::net::TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}/", taken.local_addr().unwrap());
        assert!(matches!(http.get(&url).await, Err(HttpError::Request(error)) if error.is_connect()));
        assert!(matches!(http.get("example.org").await, Err(HttpError::NotAUrl { .. })));
        assert!(matches!(http.get("gopher://example.org").await, Err(HttpError::Refused(_))));
    }

    #[tokio::test]
    async fn cancellation_closes_the_connection_of_an_unread_body() {
        let (listener, address) = listen().await;
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await.unwrap();
            // Ends, or fails, when the other side has gone.
            matches!(socket.read(&mut [0; 4096]).await, Ok(0) | Err(_))
        });
        let http = client(NEVER);
        // A future that can be spawned.
        let response = tokio::spawn(async move { http.get(&format!("http://{address}/")).await }).await;
        let mut response = response.unwrap().unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "some");
        drop(response);
        assert!(serving.await.unwrap());
    }

    #[tokio::test]
    async fn backpressure_leaves_the_body_where_it_is() {
        let pulled = Arc::new(AtomicUsize::new(0));
        let counted = pulled.clone();
        let body = stream::repeat(Ok("x")).inspect(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        let mut response = answer(body, NEVER);
        for taken in 1..=3 {
            response.chunk().await.unwrap();
            assert_eq!(pulled.load(Ordering::Relaxed), taken);
        }
    }
}
