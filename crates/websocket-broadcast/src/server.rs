//! Let WebSocket clients in: known origins only, so many for each address, within a time limit.
//!
//! Use it between `TcpListener::accept`, or a TLS handshake, and the code that talks to the client. How to part from one is
//! in `hang_up`, how to notice one that vanished in `heartbeat`, and how to end the service in `drain`.
//!
//! | | |
//! |---|---|
//! | Order | the limits first, before a byte is read; then the request, its Origin, the caller's `authenticate` |
//! | Errors | [`Refused`] names the check; a client that sent a request got 400 or 403, and one over a limit is not answered |
//! | Cancellation | dropping `accept` closes the stream, and its place is free |
//! | Panics | a panic of `authenticate` is the caller's, and the place is free. `accept` panics outside a Tokio runtime with a timer |
//! | Memory | O(clients): for each 2 KiB of buffer, a message of at most `message` bytes that comes in, and the largest one that went out |
//! | Backpressure | none waits: who is over a limit is refused at once. Afterwards messages are read when the caller asks |
//! | Clock | `tokio::time`, for `handshake`: all of it, from the call to the answer |
//!
//! A client without an Origin is no browser, which always sends one, and may connect. A network of IPv6 (/64) is one address.
//!
//! ```
//! use tokio_tungstenite::client_async;
//! use websocket_broadcast::{Rules, Server};
//! #[tokio::main]
//! async fn main() {
//!     let (theirs, ours) = tokio::io::duplex(4096);
//!     let server = Server::new(Rules::default());
//!     let client = client_async("ws://localhost/chat", theirs);
//!     let accept = server.accept(ours, [127, 0, 0, 1].into(), |request| Some(request.uri().to_string()));
//!     let (_client, accepted) = tokio::join!(client, accept);
//!     assert_eq!(accepted.unwrap().1, "/chat");
//! }
//! ```

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use semaphores::keyed_limit::{KeyPermit, KeyedLimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::hang_up::hang_up_stream;

/// Bytes, for reading and for writing.
const BUFFER: usize = 2048;
const HEADERS: &str = "Sec-WebSocket-Version: 13\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose pages: of these only, each written as `https://example.org`; or, if `None`, of the host the request is for.
    pub origins: Option<Vec<String>>,
    /// So many clients in all, those in the handshake included.
    pub clients: NonZeroUsize,
    /// So many of one address.
    pub per_address: NonZeroUsize,
    /// The longest that a handshake may take.
    pub handshake: Duration,
    /// The largest message that is taken, in bytes.
    pub message: NonZeroUsize,
}

/// Lets clients in.
#[derive(Debug)]
pub struct Server {
    rules: Rules,
    places: Arc<Semaphore>,
    per_address: KeyedLimit<IpAddr>,
}

/// A place under the limits. It is free for another client when this is dropped.
#[derive(Debug)]
pub struct Place {
    _permits: (OwnedSemaphorePermit, KeyPermit<IpAddr>),
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// All places are taken.
    #[error("all {0} places are taken")]
    Full(NonZeroUsize),
    /// All places of its address are taken.
    #[error("all {1} places of {0} are taken")]
    Address(IpAddr, NonZeroUsize),
    /// It took longer than this.
    #[error("no handshake within {0:?}")]
    Late(Duration),
    /// A page of this origin may not connect.
    #[error("a page of `{0}` may not connect")]
    Origin(String),
    /// `authenticate` returned `None`.
    #[error("not authenticated")]
    Denied,
    /// It sent something else than a request for a WebSocket, or its connection broke.
    #[error("no handshake: {0}")]
    Handshake(#[source] Box<Error>),
}

impl Server {
    /// A server without clients.
    pub fn new(rules: Rules) -> Self {
        let places = Arc::new(Semaphore::new(rules.clients.get().min(Semaphore::MAX_PERMITS)));
        Server { places, per_address: KeyedLimit::new(rules.per_address, NonZeroUsize::MAX), rules }
    }

    /// Lets the client at the other end of `stream` in, or refuses it. `authenticate` says who sent the request.
    ///
    /// Returns its socket, what `authenticate` returned, and the place, to be kept for as long as the socket.
    pub async fn accept<S, T>(
        &self,
        mut stream: S,
        address: IpAddr,
        authenticate: impl FnOnce(&Request) -> Option<T>,
    ) -> Result<(WebSocketStream<S>, T, Place), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let place = self.place(address)?;
        let size = Some(self.rules.message.get());
        let config = WebSocketConfig::default().max_message_size(size).max_frame_size(size);
        let config = Some(config.read_buffer_size(BUFFER).write_buffer_size(BUFFER));
        let (mut authenticate, mut verdict) = (Some(authenticate), None);
        let handshake = async {
            #[expect(clippy::result_large_err, reason = "it is tungstenite's")]
            let check = |request: &Request, response: Response| {
                let mut known = || authenticate.take().and_then(|it| it(request)).ok_or(Refused::Denied);
                let known = self.rules.check(request.headers()).and_then(|()| known());
                // Such an answer, whose status is 200, is not sent: what is follows below.
                verdict.insert(known).as_ref().map(|_| response).map_err(|_| ErrorResponse::new(None))
            };
            // Lent, so that there still is a stream for the answer when the handshake fails.
            let accepted = accept_hdr_async_with_config(&mut stream, check, config).await.map(drop);
            let Err(error) = accepted else { return true };
            let status = if let Some(Err(_)) = verdict { "403 Forbidden" } else { "400 Bad Request" };
            if !matches!(error, Error::Io(_)) {
                // An error means that nobody is there to read it.
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{HEADERS}").as_bytes()).await;
            }
            if !matches!(verdict, Some(Err(_))) {
                verdict = Some(Err(Refused::Handshake(Box::new(error))));
            }
            hang_up_stream(&mut stream).await;
            false
        };
        let accepted = timeout(self.rules.handshake, handshake).await.unwrap_or(false);
        let known = match verdict {
            Some(Ok(known)) if accepted => known,
            Some(Err(refused)) => return Err(refused),
            _ => return Err(Refused::Late(self.rules.handshake)),
        };
        Ok((WebSocketStream::from_raw_socket(stream, Role::Server, config).await, known, place))
    }

    /// Whoever has an address of IPv6 has 2^64 of them: they count as one.
    fn place(&self, address: IpAddr) -> Result<Place, Refused> {
        let network = match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        };
        let of_all =
            self.places.clone().try_acquire_owned().map_err(|_| Refused::Full(self.rules.clients))?;
        // Unconstrained: a task whose turn is used up would be told to wait, and that is not the same as no place.
        let of_address = unconstrained(self.per_address.acquire(network)).now_or_never();
        let of_address = of_address.ok_or(Refused::Address(address, self.rules.per_address))?;
        Ok(Place { _permits: (of_all, of_address) })
    }
}

impl Rules {
    fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let hosts: Vec<_> = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes).collect();
        let allowed = |origin: &[u8]| match &self.origins {
            Some(origins) => origins.iter().any(|one| origin.eq_ignore_ascii_case(one.as_bytes())),
            None => {
                let host = origin.strip_prefix(b"https://").or(origin.strip_prefix(b"http://"));
                matches!((host, &hosts[..]), (Some(host), [one]) if host.eq_ignore_ascii_case(one))
            }
        };
        match headers.get_all(header::ORIGIN).iter().find(|origin| !allowed(origin.as_bytes())) {
            Some(origin) => Err(Refused::Origin(String::from_utf8_lossy(origin.as_bytes()).into_owned())),
            None => Ok(()),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        let [clients, per_address, message] =
            [10_000, 100, 64 * 1024].map(|n| NonZeroUsize::new(n).expect("none of them is zero"));
        Rules { origins: None, clients, per_address, handshake: Duration::from_secs(5), message }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const REQUEST: &str = "GET /?alice HTTP/1.1\r\nHost: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    type Accepted = Result<(WebSocketStream<DuplexStream>, String, Place), Refused>;

    /// The status that a client with these `headers` gets, and what the server made of it.
    async fn ask(server: &Server, headers: &str) -> (String, Accepted) {
        let (mut client, ours) = duplex(4096);
        client.write_all(format!("{REQUEST}{headers}\r\n").as_bytes()).await.unwrap();
        let mut status = [0; 12];
        let client = async {
            client.read_exact(&mut status).await.unwrap();
            client
        };
        let accept = server.accept(ours, HERE, |request| request.uri().query().map(String::from));
        let (client, accepted) = tokio::join!(client.map(drop), accept);
        let () = client;
        (String::from_utf8_lossy(&status[9..]).into_owned(), accepted)
    }

    #[tokio::test(start_paused = true)]
    async fn order_limits_then_the_origin_then_authentication() {
        let server = Server::new(Rules { per_address: ONE, ..Rules::default() });
        let (status, accepted) = ask(&server, "Origin: https://evil.example\r\n").await;
        assert_eq!(
            (&*status, accepted.unwrap_err().to_string().contains("`https://evil.example`")),
            ("403", true)
        );
        let (status, accepted) = ask(&server, "Origin: https://chat.example\r\n").await;
        let (_socket, known, _place) = accepted.unwrap();
        assert_eq!((&*status, &*known), ("101", "alice"));
        let (never_read, ours) = duplex(1);
        let full = server.accept(ours, HERE, |_| -> Option<()> { unreachable!("nothing was read") });
        assert!(matches!(full.now_or_never(), Some(Err(Refused::Address(HERE, ONE)))));
        drop(never_read);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_the_check() {
        let server = Server::new(Rules {
            clients: ONE,
            origins: Some(vec!["https://App.example".into()]),
            ..Rules::default()
        });
        for (headers, expected) in [
            ("", "101"),
            ("Origin: https://app.example\r\n", "101"),
            ("Origin: http://app.example\r\n", "403"),
            ("Origin: https://app.example\r\nOrigin: https://evil.example\r\n", "403"),
            ("Origin: null\r\n", "403"),
            ("Sec-WebSocket-Key: another\r\nSec-WebSocket-Version: 12\r\nno header\r\n", "400"),
        ] {
            let (status, accepted) = ask(&server, headers).await;
            assert_eq!((headers, &*status), (headers, expected));
            assert_eq!(accepted.is_ok(), expected == "101");
        }
        let (mut client, ours) = duplex(4096);
        client.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let denied = server.accept(ours, HERE, |_| None::<()>).await;
        assert!(matches!(denied, Err(Refused::Denied)));
        let (client, ours) = duplex(9);
        drop(client);
        let gone = server.accept(ours, HERE, |_| Some(())).await;
        assert!(gone.unwrap_err().to_string().starts_with("no handshake: "));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_frees_the_place_and_so_does_its_drop() {
        let server = Server::new(Rules { clients: ONE, ..Rules::default() });
        let (_client, ours) = duplex(9);
        assert!(server.accept(ours, HERE, |_| Some(())).now_or_never().is_none());
        let accepted = ask(&server, "").await.1.unwrap();
        assert!(matches!(server.place(HERE), Err(Refused::Full(ONE))));
        drop(accepted);
        assert!(server.place(HERE).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_authenticate_are_the_callers_and_free_the_place() {
        let server = Server::new(Rules { clients: ONE, ..Rules::default() });
        let (mut client, ours) = duplex(4096);
        client.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
        let panics = server.accept(ours, HERE, |_| -> Option<()> { std::panic::resume_unwind(Box::new(())) });
        assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
        assert!(server.place(HERE).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_a_message_is_limited() {
        let server = Server::new(Rules { message: NonZeroUsize::new(5).unwrap(), ..Rules::default() });
        let (mut client, ours) = duplex(4096);
        client.write_all(format!("{REQUEST}\r\n").as_bytes()).await.unwrap();
        let (mut socket, ..) = server.accept(ours, HERE, |_| Some(())).await.unwrap();
        for (length, taken) in [(5_u8, true), (6, false)] {
            let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0];
            frame.resize(6 + usize::from(length), 0);
            client.write_all(&frame).await.unwrap();
            assert_eq!(matches!(socket.next().await, Some(Ok(_))), taken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clock_limits_the_handshake_as_a_whole_and_the_future_is_send() {
        let server = Server::new(Rules::default());
        let start = Instant::now();
        let (mut client, ours) = duplex(4096);
        let slow = async {
            for byte in REQUEST.bytes() {
                sleep(Duration::from_millis(100)).await;
                let _ = client.write_all(&[byte]).await;
            }
        };
        let accept = server.accept(ours, HERE, |_| Some(()));
        let refused =
            tokio::select! { refused = accept => refused, () = slow => unreachable!("it takes longer") };
        assert!(matches!(refused, Err(Refused::Late(_))));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
