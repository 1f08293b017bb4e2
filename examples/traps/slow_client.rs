//! The mistake: a room's messages are sent to one client after the other, each awaited.
//!
//! Symptom: one client on a bad line, and the whole room is slow; one that reads nothing, and the room stands still.
//! Cause: `send` waits until the client's socket takes the message, and the loop waits with it.
//! Fix: a bounded queue for each client, and a writer of its own: `Hub` and `write_frames`.
//!
//! ```console
//! cargo run --example trap_slow_client
//! ```

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures::{SinkExt, StreamExt};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use websocket_broadcast::{BatchLimit, Delivery, Hub, QueueLimit, write_frames};

type Socket = WebSocketStream<DuplexStream>;

const MESSAGES: u32 = 10;
const EVERY: Duration = Duration::from_millis(10);
const MANY: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// A server's and a client's end of a line that holds a message or two.
async fn line() -> (Socket, Socket) {
    let (server, client) = duplex(64);
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    (server, WebSocketStream::from_raw_socket(client, Role::Client, None).await)
}

/// Takes `pause` for each message, and returns when the last one was there.
async fn read(mut client: Socket, pause: Duration) -> Duration {
    let start = Instant::now();
    let mut last = start;
    while let Some(Ok(Message::Text(_))) = client.next().await {
        last = Instant::now();
        waiting("timer", sleep(pause)).await;
    }
    last - start
}

// ANCHOR: wrong
/// When the quick client had the last message.
pub async fn wrong() -> Duration {
    let ((slow, slow_end), (quick, quick_end)) = (line().await, line().await);
    let room = async {
        let mut clients = [slow, quick];
        for number in 0..MESSAGES {
            waiting("timer", sleep(EVERY)).await;
            for client in &mut clients {
                // An error would be the client's own; here it is the wait that hurts.
                let _ = client.send(Message::text(format!("{number:>40}"))).await;
            }
        }
    };
    let (_, _, took) = tokio::join!(
        room.lane("room"),
        read(slow_end, Duration::from_millis(100)).lane("slow client"),
        read(quick_end, Duration::ZERO).lane("quick client"),
    );
    took
}
// ANCHOR_END: wrong

// ANCHOR: right
/// When the quick client had the last message.
pub async fn right() -> Duration {
    let ((slow, slow_end), (quick, quick_end)) = (line().await, line().await);
    let hub = Hub::default();
    let writers = [slow, quick].map(|mut socket| {
        let queued = hub.subscribe(QueueLimit { messages: MANY, bytes: MANY, disconnect: false });
        let frames = queued.map(|delivery| match delivery {
            Delivery::Message(message) => message,
            Delivery::Lost(count) => Message::text(format!("{count} missed")),
            Delivery::Disconnected => Message::Close(None),
        });
        let limit = BatchLimit { messages: MANY, bytes: MANY, deadline: Duration::from_secs(5) };
        async move { write_frames(frames, &mut socket, limit).await }
    });
    let room = async move {
        for number in 0..MESSAGES {
            waiting("timer", sleep(EVERY)).await;
            hub.publish(format!("{number:>40}"));
        }
    };
    let [to_slow, to_quick] = writers;
    let (_, _, _, _, took) = tokio::join!(
        room.lane("room"),
        to_slow.try_lane("to slow"),
        to_quick.try_lane("to quick"),
        read(slow_end, Duration::from_millis(100)).lane("slow client"),
        read(quick_end, Duration::ZERO).lane("quick client"),
    );
    took
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (took, left) = record("one after the other", wrong()).await;
    println!("wrong: the quick client has its {MESSAGES} messages after {} ms", took.as_millis());
    let (took, right) = record("a queue each", right()).await;
    println!("right: the quick client has its {MESSAGES} messages after {} ms", took.as_millis());
    args.show(&left.beside(right))
}
