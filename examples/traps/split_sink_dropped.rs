//! The mistake: a WebSocket is split, and the task that writes returns: its half is dropped.
//!
//! Symptom: the client sees no end. It keeps a socket on which nothing comes any more, until its own timeout.
//! Cause: the halves of `split` share one socket. Dropping one says nothing to the other side and closes nothing.
//! Fix: send a close frame before the sink goes: `close`, or `Message::Close` with a code.
//!
//! ```console
//! cargo run --example trap_split_sink_dropped
//! ```

use std::time::Duration;

use clap::Parser;
use futures::{Sink, SinkExt, StreamExt};
use support::lanes::{LaneExt, PictureArgs, try_record, waiting};
use tokio::io::{DuplexStream, duplex};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

type Socket = WebSocketStream<DuplexStream>;

/// What the client saw last; an error if it still waited after ten seconds.
pub type Saw = Result<Option<Message>, Elapsed>;

/// A server's and a client's socket.
pub async fn sockets() -> (Socket, Socket) {
    let (server, client) = duplex(1024);
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    (server, WebSocketStream::from_raw_socket(client, Role::Client, None).await)
}

/// Reads until a close frame, the end or an error, for ten seconds.
pub async fn client(mut socket: Socket) -> Saw {
    let last = async {
        let mut last = None;
        while let Some(Ok(message)) = socket.next().await {
            last = Some(message);
        }
        last
    };
    timeout(Duration::from_secs(10), last).await
}

async fn last_message(sink: &mut (impl Sink<Message> + Unpin)) {
    waiting("timer", sleep(Duration::from_secs(2))).await;
    let _ = sink.send("the last message".into()).await;
}

// ANCHOR: wrong
/// What the client saw.
pub async fn wrong() -> Saw {
    let (server, end) = sockets().await;
    let (mut sink, mut messages) = server.split();
    let write = async move {
        last_message(&mut sink).await;
        // Done: the sink is dropped.
    };
    let read = async { while let Some(Ok(_)) = waiting("io", messages.next()).await {} };
    let served = async { tokio::join!(write.lane("writes"), read.lane("reads")) };
    tokio::select! {
        saw = client(end).try_lane("client") => saw,
        _ = served => Ok(None),
    }
}
// ANCHOR_END: wrong

// ANCHOR: right
/// What the client saw.
pub async fn right() -> Saw {
    let (server, end) = sockets().await;
    let (mut sink, mut messages) = server.split();
    let write = async move {
        last_message(&mut sink).await;
        let close = CloseFrame { code: CloseCode::Normal, reason: "that was all".into() };
        let _ = sink.send(Message::Close(Some(close))).await;
    };
    // Read on: the client's answer ends the loop.
    let read = async move { while let Some(Ok(_)) = waiting("io", messages.next()).await {} };
    let served = async { tokio::join!(write.lane("writes"), read.lane("reads")) };
    tokio::join!(client(end).try_lane("client"), served).0
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (saw, left) = try_record("sink dropped", wrong()).await;
    println!("wrong: the client saw {}", describe(&saw));
    let (saw, right) = try_record("closed", right()).await;
    println!("right: the client saw {}", describe(&saw));
    args.show(&left.beside(right))
}

fn describe(saw: &Saw) -> String {
    match saw {
        Err(_) => "no end within ten seconds".into(),
        Ok(Some(Message::Close(Some(close)))) => format!("a close frame: {} {}", close.code, close.reason),
        Ok(_) => "an end without a close frame".into(),
    }
}
