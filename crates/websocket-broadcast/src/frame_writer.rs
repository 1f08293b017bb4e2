//! Write what waits for a client in one go, and give up a client that does not take it in time.
//!
//! Use it as the only writer of a WebSocket, beside the task that reads from it. The messages come from a `hub`'s
//! subscription, or any stream whose own queue is bounded: the writer keeps none.
//!
//! | | |
//! |---|---|
//! | Order | messages are written in the order of the stream |
//! | Errors | the first failure of the socket, or [`WriteError::TooSlow`] when a batch is not with the kernel by its deadline; either names what was being written |
//! | Cancellation | dropping the call loses nothing: what was taken is in the sink and goes out with the next call, what was not is in the stream |
//! | Panics | none of its own; a panic of the stream or the sink is the caller's |
//! | Memory | in the sink at most one batch, which may pass its limit in bytes by its last message |
//! | Backpressure | nothing is taken from the stream while a batch is being written: what waits, waits in the stream's queue |
//! | Clock | `tokio::time`: each batch has its own deadline; waiting for messages has none |
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use futures::{StreamExt, stream};
//! use websocket_broadcast::{BatchLimit, write_frames};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (mut sink, peer) = futures::channel::mpsc::channel(9);
//!     let limit = BatchLimit { messages: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX, deadline: Duration::from_secs(5) };
//!     assert!(write_frames(stream::iter(["a".into(), "b".into()]), &mut sink, limit).await.is_ok());
//!     assert_eq!(peer.take(2).collect::<Vec<_>>().await, ["a".into(), "b".into()]);
//! }
//! ```

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::{Sink, SinkExt, Stream, StreamExt};
use thiserror::Error;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// How much is written at once, and in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit {
    /// The most messages.
    pub messages: NonZeroUsize,
    /// No further message is added when the payloads come to so many bytes. A socket whose own write buffer is smaller
    /// (`WebSocketConfig::write_buffer_size`, by default 128 KiB) writes more often.
    pub bytes: NonZeroUsize,
    /// How long a batch may take, from its first message until the kernel has the last. With `bytes` it makes the slowest rate
    /// at which a client may read. Zero allows only what the socket takes at once.
    pub deadline: Duration,
}

/// Why writing has ended before the stream. The socket is of no further use: drop it.
#[derive(Debug, Error)]
pub enum WriteError<E> {
    /// The client reads too slowly. A close frame would only queue up behind the rest.
    #[error("the client did not take a batch within {deadline:?} (messages: {messages}, bytes: {bytes})")]
    TooSlow {
        /// How many messages were in the batch; none if it only had to finish what a dropped call has left.
        messages: usize,
        /// The size of their payloads.
        bytes: usize,
        /// The time that it was given.
        deadline: Duration,
    },
    /// The socket failed.
    #[error("cannot write a batch (messages: {messages}, bytes: {bytes})")]
    Socket {
        /// How many messages were in the batch.
        messages: usize,
        /// The size of their payloads.
        bytes: usize,
        /// What the socket said.
        source: E,
    },
}

/// What is in the sink.
#[derive(Default)]
struct Batch {
    messages: usize,
    bytes: usize,
}

/// Writes `messages` to `sink` until the stream ends; then all is flushed, and the socket is still open.
///
/// To close it, end the stream with a [`Message::Close`], which is then written within a deadline too.
///
/// # Panics
///
/// Outside a Tokio runtime with a timer.
pub async fn write_frames<S>(
    messages: impl Stream<Item = Message>,
    sink: &mut S,
    limit: BatchLimit,
) -> Result<(), WriteError<S::Error>>
where
    S: Sink<Message> + Unpin,
{
    let mut messages = pin!(messages.fuse());
    let mut batch = Batch::default();
    loop {
        consume_budget().await;
        let write = async {
            while batch.messages < limit.messages.get() && batch.bytes < limit.bytes.get() {
                // Ready before a message is taken, so that this call never has one in its hands while it waits.
                poll_fn(|context| sink.poll_ready_unpin(context)).await?;
                let waits = poll_fn(|context| Poll::Ready(messages.as_mut().poll_next(context))).await;
                let Poll::Ready(Some(message)) = waits else { break };
                batch.send(message, sink)?;
            }
            sink.flush().await?;
            poll_fn(|context| sink.poll_ready_unpin(context)).await
        };
        let written = timeout(limit.deadline, write).await;
        let Batch { messages: count, bytes } = batch;
        match written {
            Ok(Ok(())) => batch = Batch::default(),
            Ok(Err(source)) => return Err(WriteError::Socket { messages: count, bytes, source }),
            Err(_) => {
                return Err(WriteError::TooSlow { messages: count, bytes, deadline: limit.deadline });
            }
        }
        let Some(message) = messages.next().await else { return Ok(()) };
        let bytes = message.len();
        batch.send(message, sink).map_err(|source| WriteError::Socket { messages: 1, bytes, source })?;
    }
}

impl Batch {
    fn send<S: Sink<Message> + Unpin>(&mut self, message: Message, sink: &mut S) -> Result<(), S::Error> {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(message.len());
        sink.start_send_unpin(message)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures::{FutureExt, stream};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::{Instant, sleep};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const MANY: BatchLimit = limit(100, 1_000, 50);

    const fn limit(messages: usize, bytes: usize, milliseconds: u64) -> BatchLimit {
        let (messages, bytes) = (NonZeroUsize::new(messages).unwrap(), NonZeroUsize::new(bytes).unwrap());
        BatchLimit { messages, bytes, deadline: Duration::from_millis(milliseconds) }
    }

    /// A server's socket and the client's end of its pipe, which holds `room` bytes.
    async fn socket(room: usize) -> (WebSocketStream<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(room);
        (WebSocketStream::from_raw_socket(server, Role::Server, None).await, client)
    }

    fn texts(texts: &[&str]) -> impl Stream<Item = Message> + Unpin {
        stream::iter(texts.iter().map(|text| Message::text(*text)).collect::<Vec<_>>())
    }

    fn queue(texts: &[&str]) -> (mpsc::UnboundedSender<Message>, impl Stream<Item = Message> + Unpin) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        texts.iter().for_each(|text| sender.send(Message::text(*text)).unwrap());
        (sender, stream::poll_fn(move |context| receiver.poll_recv(context)))
    }

    /// A sink that notes what it was sent between two flushes.
    fn batches() -> (impl Sink<Message, Error = ()> + Unpin, std::rc::Rc<std::cell::RefCell<Vec<usize>>>) {
        struct Noting(usize, std::rc::Rc<std::cell::RefCell<Vec<usize>>>);
        impl Sink<Message> for Noting {
            type Error = ();
            fn poll_ready(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> Poll<Result<(), ()>> {
                Poll::Ready(Ok(()))
            }
            fn start_send(mut self: std::pin::Pin<&mut Self>, message: Message) -> Result<(), ()> {
                assert_ne!(message, Message::text("panic"));
                self.0 += 1;
                if message == Message::text("fail") { Err(()) } else { Ok(()) }
            }
            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> Poll<Result<(), ()>> {
                let sent = std::mem::take(&mut self.0);
                self.1.borrow_mut().extend((sent > 0).then_some(sent));
                Poll::Ready(Ok(()))
            }
            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> Poll<Result<(), ()>> {
                Poll::Ready(Ok(()))
            }
        }
        let noted = std::rc::Rc::default();
        (Noting(0, std::rc::Rc::clone(&noted)), noted)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_and_what_waits_goes_out_at_once() {
        let (mut sink, noted) = batches();
        write_frames(texts(&["a"; 250]), &mut sink, MANY).await.unwrap();
        assert_eq!(noted.take(), [100, 100, 50]);
        write_frames(texts(&["abcdef"; 5]), &mut sink, limit(9, 10, 1)).await.unwrap();
        assert_eq!(noted.take(), [2, 2, 1], "until ten bytes are reached");
        let (sender, messages) = queue(&["a"]);
        let later = async {
            sleep(Duration::from_secs(3600)).await;
            ["b", "c"].iter().for_each(|text| sender.send((*text).into()).unwrap());
            drop(sender);
        };
        tokio::join!(write_frames(messages, &mut sink, MANY).map(Result::unwrap), later);
        assert_eq!(noted.take(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_what_was_being_written() {
        let (mut sink, _) = batches();
        let error = write_frames(texts(&["ab", "fail", "c"]), &mut sink, MANY).await.unwrap_err();
        assert!(matches!(error, WriteError::Socket { messages: 2, bytes: 6, source: () }), "{error:?}");

        let (mut socket, client) = socket(64).await;
        let error = write_frames(texts(&["abcdefgh"; 20]), &mut socket, MANY).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the client did not take a batch within 50ms (messages: 20, bytes: 160)"
        );
        drop(client);
        let error = write_frames(texts(&["a"]), &mut socket, MANY).await.unwrap_err();
        assert!(matches!(error, WriteError::Socket { .. }), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_loses_nothing() {
        let (mut socket, mut client) = socket(8).await;
        let (_sender, mut messages) = queue(&["abcdef", "ghijkl"]);
        let call = write_frames(&mut messages, &mut socket, limit(1, 1, 50)).now_or_never();
        assert!(call.is_none(), "the second has no room in the pipe");
        let mut bytes = [0; 16];
        let resumed = write_frames(&mut messages, &mut socket, MANY);
        tokio::select! {
            read = client.read_exact(&mut bytes) => assert_eq!(read.unwrap(), 16),
            ended = resumed => panic!("the stream goes on: {ended:?}"),
        }
        assert_eq!(&bytes, b"\x81\x06abcdef\x81\x06ghijkl");
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers() {
        let (mut sink, _) = batches();
        let call = write_frames(texts(&["panic"]), &mut sink, MANY);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_keep_the_rest_in_the_stream() {
        let (mut socket, _client) = socket(8).await;
        let (_sender, mut messages) = queue(&["abcdef"; 9]);
        write_frames(&mut messages, &mut socket, limit(4, 99, 50)).await.unwrap_err();
        assert_eq!(messages.by_ref().take(5).count().await, 5);
        assert!(messages.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn clock_gives_each_batch_its_own_deadline() {
        let start = Instant::now();
        let (mut socket, mut client) = socket(8).await;
        let read = async move {
            let mut byte = [0];
            // A byte every 4 ms: 12 bytes with their header take 32 ms after the pipe is full.
            while client.read(&mut byte).await.unwrap() == 1 {
                sleep(Duration::from_millis(4)).await;
            }
        };
        let write = tokio::spawn(async move {
            let messages = texts(&["abcdefghij"; 9]);
            let written = write_frames(messages, &mut socket, limit(1, 1, 50)).await;
            written.map(|()| drop(socket))
        });
        tokio::join!(read, async { write.await.unwrap().unwrap() });
        assert!(start.elapsed() >= Duration::from_millis(9 * 12 * 4));

        let (mut sink, _) = batches();
        write_frames(texts(&["a"]), &mut sink, limit(1, 1, 0)).await.unwrap();
        let never = BatchLimit { deadline: Duration::MAX, ..MANY };
        write_frames(texts(&["a"]), &mut sink, never).await.unwrap();
    }
}
