//! Close a WebSocket so that the client learns why.
//!
//! Use it wherever a server ends a connection: after an error of the socket, with the code for it; or of its own will.
//! Dropping the socket instead tells the client nothing, and closing it at once can take back what was said.
//!
//! | | |
//! |---|---|
//! | Order | what was queued, the close frame, the end of the stream; what the client still sends is thrown away until it ends too |
//! | Errors | `false` when the client did not end its side within the limit, or could not be reached |
//! | Cancellation | dropping the future drops the socket |
//! | Panics | none of its own; outside a Tokio runtime with a timer it panics |
//! | Memory | O(1): 1 KiB to read into |
//! | Backpressure | a client that reads nothing holds it up until the limit |
//! | Clock | `tokio::time`, for the limit |
//!
//! A TCP socket that is closed while bytes from the peer wait in it resets the connection, and a reset can overtake the close
//! frame. A client in the middle of a message that is too large would see a broken connection instead of 1009.
//!
//! ```
//! use std::time::Duration;
//! use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
//! use tokio_tungstenite::{accept_async, client_async};
//! #[tokio::main]
//! async fn main() {
//!     let (theirs, ours) = tokio::io::duplex(4096);
//!     let client = async { drop(client_async("ws://localhost", theirs).await) };
//!     let (socket, ()) = tokio::join!(accept_async(ours), client);
//!     let left = websocket_broadcast::hang_up(socket.unwrap(), CloseCode::Policy, "no", Duration::from_secs(1));
//!     assert!(left.await); // it had left before
//! }
//! ```

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest reason that fits beside the code into a control frame, in bytes.
const LONGEST_REASON: usize = 123;
/// Reads in a row.
const AT_ONCE: usize = 32;

/// Says why, ends the stream, and waits until the client has ended it too, for at most `limit`. Returns whether it has.
///
/// When the client has closed first, it gets the answer to that instead. A longer `reason` than 123 bytes is cut. A code
/// that may not be sent (1005, 1006, 1015 and those that are not defined) is sent as 1011.
pub async fn hang_up<S>(
    mut socket: WebSocketStream<S>,
    code: CloseCode,
    reason: &str,
    limit: Duration,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let code = if code.is_allowed() { code } else { CloseCode::Error };
    let reason = reason[..reason.floor_char_boundary(LONGEST_REASON)].into();
    let mut frame = Some(Message::Close(Some(CloseFrame { code, reason })));
    let farewell = async {
        poll_fn(|context| {
            let said = poll_say(&mut socket, &mut frame, context);
            if said.is_pending() {
                // A client that is itself sending may read only when somebody takes that.
                let _ = poll_throw_away(socket.get_mut(), context);
            }
            said
        })
        .await;
        hang_up_stream(socket.get_mut()).await
    };
    timeout(limit, farewell).await.unwrap_or(false)
}

/// Ends the stream, and throws away what comes until the peer has ended it too, however long that takes. Returns whether it
/// has; if not, its connection broke.
pub async fn hang_up_stream<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> bool {
    // An error means that the connection is broken, and reading shows that too.
    let _ = stream.shutdown().await;
    poll_fn(|context| poll_throw_away(stream, context)).await
}

/// The errors of both steps mean that the client has closed first or is gone. Reading shows that.
fn poll_say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    frame: &mut Option<Message>,
    context: &mut Context<'_>,
) -> Poll<()> {
    if frame.is_some() {
        let _ = ready!(socket.poll_ready_unpin(context));
    }
    if let Some(frame) = frame.take() {
        let _ = socket.start_send_unpin(frame);
    }
    socket.poll_flush_unpin(context).map(drop)
}

fn poll_throw_away<S: AsyncRead + Unpin>(stream: &mut S, context: &mut Context<'_>) -> Poll<bool> {
    let mut space = [MaybeUninit::uninit(); 1024];
    for _ in 0..AT_ONCE {
        let mut read = ReadBuf::uninit(&mut space);
        match ready!(Pin::new(&mut *stream).poll_read(context, &mut read)) {
            Ok(()) if read.filled().is_empty() => return Poll::Ready(true),
            Ok(()) => {}
            Err(_) => return Poll::Ready(false),
        }
    }
    // A stream that is always ready must not keep others, and the limit, from their turn.
    context.waker().wake_by_ref();
    Poll::Pending
}

/// The code for an error that reading from a client returned; `None` when nobody is there to read it.
pub fn close_code(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Capacity(_) => Some(CloseCode::Size),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, StreamExt};
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::Instant;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client and a server with room for so many bytes on the way.
    async fn pair(room: usize) -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (theirs, ours) = duplex(room);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None);
        (client.await, WebSocketStream::from_raw_socket(ours, Role::Server, None).await)
    }

    /// What the client gets to see, until the end of the stream.
    async fn seen(mut client: WebSocketStream<DuplexStream>) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            seen.push(match message {
                Message::Close(Some(frame)) => format!("{} {}", frame.code, frame.reason),
                message => message.to_string(),
            });
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_what_was_queued_then_the_reason() {
        let (client, mut server) = pair(64).await;
        for text in ["a", "b"] {
            server.feed(Message::text(text)).await.unwrap();
        }
        let (left, seen) = tokio::join!(hang_up(server, CloseCode::Restart, "soon", SECOND), seen(client));
        assert_eq!((left, seen), (true, ["a", "b", "1012 soon"].map(String::from).into()));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_a_client_that_stays_or_is_gone() {
        let (_stays, server) = pair(64).await;
        assert!(!hang_up(server, CloseCode::Normal, "", SECOND).await);
        let (gone, server) = pair(64).await;
        drop(gone);
        // It has ended its side, which is all that can be asked of it.
        assert!(hang_up(server, CloseCode::Normal, "", SECOND).await);
        let (client, server) = pair(64).await;
        let long = "é".repeat(100);
        let (_, seen) = tokio::join!(hang_up(server, CloseCode::Abnormal, &long, SECOND), seen(client));
        assert_eq!(seen, [format!("1011 {}", "é".repeat(61))]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_a_client_that_closes_first() {
        let (mut client, mut server) = pair(64).await;
        client
            .send(Message::Close(Some(CloseFrame { code: CloseCode::Away, reason: "bye".into() })))
            .await
            .unwrap();
        assert!(matches!(server.next().await, Some(Ok(Message::Close(_)))));
        let (left, seen) = tokio::join!(hang_up(server, CloseCode::Normal, "", SECOND), seen(client));
        assert_eq!((left, seen), (true, vec!["1001 bye".to_string()]));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_socket() {
        let (client, server) = pair(64).await;
        assert!(hang_up(server, CloseCode::Normal, "", SECOND).now_or_never().is_none());
        assert_eq!(seen(client).await, ["1000 "]);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_and_clock_a_client_that_reads_nothing_costs_the_limit() {
        let (_client, mut server) = pair(8).await;
        assert!(server.send(Message::text("more than the room")).now_or_never().is_none());
        let start = Instant::now();
        assert!(!hang_up(server, CloseCode::Normal, "", SECOND).await);
        assert_eq!(start.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_client_that_never_stops_sending_costs_the_limit_and_the_future_is_send() {
        let start = Instant::now();
        let mut stream = tokio::io::join(tokio::io::repeat(0), tokio::io::sink());
        let mut ended = pin!(timeout(Duration::from_millis(1), hang_up_stream(&mut stream)));
        // The paused clock moves only when nothing else can run: here it is moved by hand.
        while ended.as_mut().now_or_never().is_none() {
            tokio::time::advance(Duration::from_micros(100)).await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(1));
        let (client, server) = pair(64).await;
        let hang_up = tokio::spawn(hang_up(server, CloseCode::Normal, "", Duration::MAX));
        seen(client).await;
        assert!(hang_up.await.unwrap());
    }

    #[tokio::test]
    async fn memory_is_constant() {
        let (_client, server) = pair(64).await;
        let socket = size_of_val(&server);
        let future = hang_up(server, CloseCode::Normal, "", SECOND);
        assert!(size_of_val(&future) < 3 * socket + 2048, "{}", size_of_val(&future));
    }
}
