//! Ping a quiet WebSocket, and end it when its peer has stopped answering.
//!
//! Use it for every connection that outlives a request: a peer whose network vanished closes nothing, and without traffic TCP
//! does not notice for hours.
//!
//! | | |
//! |---|---|
//! | Order | the socket's; pings go out between messages |
//! | Errors | [`Lost::Silent`] after `period` without a frame and another one without an answer, then the stream ends; errors of the socket come through |
//! | Cancellation | dropping the future of `next` loses no message and stops no clock |
//! | Panics | none of its own; [`Heartbeat::new`] panics outside a Tokio runtime with a timer |
//! | Memory | O(1): one timer |
//! | Backpressure | the caller's. A ping that does not fit into a full socket waits there, and its time runs |
//! | Clock | `tokio::time`. Who is polled late pings late: a peer always has a whole `period` to answer, and what it sent meanwhile counts |
//!
//! Every frame counts as life, not only pongs. The stream has to be polled, as it has to be for the answers to the peer's
//! own pings. It may be split between two tasks. A single frame must come in within `2 × period`: keep messages small.
//!
//! ```
//! use std::time::Duration;
//! use futures::StreamExt;
//! use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
//! use websocket_broadcast::{Heartbeat, Lost};
//! #[tokio::main]
//! async fn main() {
//!     let (_silent, ours) = tokio::io::duplex(4096);
//!     let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
//!     let mut socket = Heartbeat::new(socket, Duration::from_millis(5));
//!     assert!(matches!(socket.next().await, Some(Err(Lost::Silent(_)))));
//! }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::hang_up::close_code;

/// The resolution of tokio's timers.
const SHORTEST: Duration = Duration::from_millis(1);
/// Longer than any program runs, and still an instant that exists.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A WebSocket that pings.
#[derive(Debug)]
pub struct Heartbeat<S> {
    socket: WebSocketStream<S>,
    period: Duration,
    /// Since when the peer is quiet.
    heard: Instant,
    ping: Ping,
    /// Moved only when it has run out, not for each frame.
    timer: Pin<Box<Sleep>>,
    /// Who waits to send, maybe another task than the one that reads.
    sender: Option<Waker>,
}

#[derive(Debug, PartialEq)]
enum Ping {
    NotDue,
    /// Due at this time; not yet written.
    Due(Instant),
    /// Written, and maybe not yet flushed.
    Sent(Instant),
    /// It was not answered.
    Unanswered,
}

/// Why the messages ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// No frame came within this time, and no answer to the ping in as long again.
    #[error("no answer to a ping within {0:?}")]
    Silent(Duration),
    /// The peer broke the protocol, or its connection broke.
    #[error(transparent)]
    Socket(#[from] Error),
}

impl Lost {
    /// What to tell the peer, if there may be one: 1011 if it was silent, or the code for its error.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Lost::Silent(_) => Some(CloseCode::Error),
            Lost::Socket(error) => close_code(error),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Heartbeat<S> {
    /// Pings when no frame has come for `period`, which is at least a millisecond.
    pub fn new(socket: WebSocketStream<S>, period: Duration) -> Self {
        let period = period.clamp(SHORTEST, LONGEST);
        let timer = Box::pin(sleep(period));
        Heartbeat { socket, period, heard: Instant::now(), ping: Ping::NotDue, timer, sender: None }
    }

    /// The socket, for instance to hang up.
    pub fn into_inner(self) -> WebSocketStream<S> {
        self.socket
    }

    /// Moves the ping on as far as the socket takes it. Errors show when the socket is read, or as silence.
    fn send_ping(&mut self) {
        // tungstenite keeps one waker of whoever sends: it must stay the sender's. Whoever reads is woken in any case.
        let mut context = Context::from_waker(self.sender.as_ref().unwrap_or(Waker::noop()));
        if let Ping::Due(asked) = self.ping {
            if self.socket.poll_ready_unpin(&mut context).is_pending() {
                return;
            }
            let _ = self.socket.start_send_unpin(Message::Ping(Bytes::new()));
            self.ping = Ping::Sent(asked);
        }
        if let Ping::Sent(_) = self.ping {
            let _ = self.socket.poll_flush_unpin(&mut context);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Heartbeat<S> {
    type Item = Result<Message, Lost>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ping == Ping::Unanswered {
            return Poll::Ready(None);
        }
        if let Poll::Ready(item) = this.socket.poll_next_unpin(context) {
            this.heard = Instant::now();
            this.ping = Ping::NotDue;
            return Poll::Ready(item.map(|item| item.map_err(Lost::Socket)));
        }
        loop {
            this.send_ping();
            ready!(this.timer.as_mut().poll(context));
            let now = Instant::now();
            let next = match this.ping {
                Ping::Due(asked) | Ping::Sent(asked) if now >= asked + this.period => {
                    this.ping = Ping::Unanswered;
                    return Poll::Ready(Some(Err(Lost::Silent(this.period))));
                }
                Ping::Due(asked) | Ping::Sent(asked) => asked,
                _ if now >= this.heard + this.period => {
                    this.ping = Ping::Due(now);
                    now
                }
                _ => this.heard,
            };
            this.timer.as_mut().reset(next + this.period);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Heartbeat<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender = Some(context.waker().clone());
        self.socket.poll_ready_unpin(context)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.socket.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender = Some(context.waker().clone());
        self.socket.poll_flush_unpin(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sender = Some(context.waker().clone());
        self.socket.poll_close_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    async fn pair(room: usize) -> (DuplexStream, Heartbeat<DuplexStream>) {
        let (theirs, ours) = duplex(room);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        (theirs, Heartbeat::new(socket, PERIOD))
    }

    async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    fn at(start: Instant) -> u128 {
        start.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn order_messages_come_through_and_pings_go_out_in_between() {
        let (theirs, mut heartbeat) = pair(4096).await;
        let mut client = client(theirs).await;
        heartbeat.send(Message::text("hello")).await.unwrap();
        client.send(Message::text("hi")).await.unwrap();
        assert_eq!(heartbeat.next().await.unwrap().unwrap(), Message::text("hi"));
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("hello"));
        let start = Instant::now();
        let (pong, ping) = tokio::join!(heartbeat.next(), async {
            let ping = client.next().await;
            client.flush().await.unwrap();
            ping
        });
        assert!(ping.unwrap().unwrap().is_ping() && pong.unwrap().unwrap().is_pong());
        assert_eq!(at(start), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_silence_after_twice_the_period_then_the_end() {
        let (mut theirs, mut heartbeat) = pair(4096).await;
        let start = Instant::now();
        let lost = heartbeat.next().await.unwrap().unwrap_err();
        assert_eq!((at(start), lost.close_code()), (200, Some(CloseCode::Error)));
        assert!(heartbeat.next().await.is_none());
        drop(heartbeat.into_inner());
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, [0x89, 0], "one ping");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_the_socket_come_through() {
        let (mut theirs, mut heartbeat) = pair(4096).await;
        theirs.write_all(&[0xff; 14]).await.unwrap();
        let lost = heartbeat.next().await.unwrap().unwrap_err();
        assert_eq!(lost.close_code(), Some(CloseCode::Protocol));
        assert!(heartbeat.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_late_reader_gives_the_peer_its_time_and_every_frame_counts() {
        let (mut theirs, mut heartbeat) = pair(4096).await;
        let start = Instant::now();
        sleep(10 * PERIOD).await;
        assert!(timeout(PERIOD - SHORTEST, heartbeat.next()).await.is_err());
        theirs.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(heartbeat.next().await.unwrap().unwrap(), Message::text(""));
        assert!(heartbeat.next().await.unwrap().is_err());
        assert_eq!(at(start), 1000 + 99 + 200);
        let (_theirs, heartbeat) = pair(1).await;
        let mut longest = Heartbeat::new(heartbeat.into_inner(), Duration::MAX);
        assert!(timeout(Duration::from_secs(86_400 * 365), longest.next()).await.is_err());
        let mut shortest = Heartbeat::new(longest.into_inner(), Duration::ZERO);
        assert!(shortest.next().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_next_stops_no_clock() {
        let (_theirs, mut heartbeat) = pair(4096).await;
        let start = Instant::now();
        let lost = loop {
            if let Ok(lost) = timeout(Duration::from_millis(7), heartbeat.next()).await {
                break lost;
            }
        };
        assert!(matches!(lost, Some(Err(Lost::Silent(PERIOD)))));
        assert_eq!(at(start), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_a_peer_that_reads_nothing_is_silent_too() {
        let (_theirs, mut heartbeat) = pair(8).await;
        let start = Instant::now();
        assert!(timeout(PERIOD / 2, heartbeat.send(Message::text("more than the room"))).await.is_err());
        assert!(heartbeat.next().await.unwrap().is_err());
        assert_eq!(at(start), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_timer_and_halves_can_run_in_two_tasks() {
        let (theirs, heartbeat) = pair(8).await;
        assert!(size_of_val(&heartbeat) <= size_of::<WebSocketStream<DuplexStream>>() + 96);
        let (mut sink, mut stream) = heartbeat.split();
        // Blocked for some periods, in which the other half pings.
        let sending = tokio::spawn(async move { sink.send(Message::binary(vec![7; 100])).await });
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        let mut client = client(theirs).await;
        for _ in 0..3 {
            sleep(PERIOD * 3 / 2).await;
            client.send(Message::Pong(Bytes::new())).await.unwrap();
        }
        let message = timeout(PERIOD / 2, client.next()).await.expect("a lost wake-up");
        assert_eq!(message.unwrap().unwrap().len(), 100);
        sending.await.unwrap().unwrap();
        drop(client);
        reading.await.unwrap();
    }
}
