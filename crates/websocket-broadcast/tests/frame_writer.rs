//! `frame_writer`: dropped at every suspension point, the client still gets every message once, in order.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use futures::{SinkExt, StreamExt, stream};
use proptest::prelude::*;
use support::sweep::{Scene, sweep};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use websocket_broadcast::{BatchLimit, Delivery, Hub, QueueLimit, Subscription, WriteError, write_frames};

const ALL: QueueLimit =
    QueueLimit { messages: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX, disconnect: true };

const fn limit(messages: usize, bytes: usize, milliseconds: u64) -> BatchLimit {
    let (messages, bytes) = (NonZeroUsize::new(messages), NonZeroUsize::new(bytes));
    let (messages, bytes) = (messages.expect("not zero"), bytes.expect("not zero"));
    BatchLimit { messages, bytes, deadline: Duration::from_millis(milliseconds) }
}

async fn sockets(room: usize) -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (server, client) = duplex(room);
    let server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    (server, WebSocketStream::from_raw_socket(client, Role::Client, None).await)
}

fn message(delivery: Delivery) -> Message {
    match delivery {
        Delivery::Message(message) => message,
        other => panic!("nothing is dropped here: {other:?}"),
    }
}

type Left = (WebSocketStream<DuplexStream>, Subscription);

/// What the subject writes with, put back when it is dropped.
struct Writer {
    socket: Option<WebSocketStream<DuplexStream>>,
    subscription: Option<Subscription>,
    home: Rc<RefCell<Option<Left>>>,
}

impl Writer {
    async fn write(&mut self, limit: BatchLimit) -> Result<(), WriteError<Error>> {
        let subscription = self.subscription.as_mut().expect("it is taken when this is dropped");
        let socket = self.socket.as_mut().expect("it is taken when this is dropped");
        write_frames(subscription.map(message), socket, limit).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.home.borrow_mut() = self.socket.take().zip(self.subscription.take());
    }
}

/// Through a pipe of a few bytes, so that batches wait in the middle of frames.
#[test]
fn cancellation_at_every_point() {
    for batch in [limit(1, 1, 60_000), limit(3, 99, 60_000), limit(99, 12, 60_000)] {
        let report = sweep(|parts| {
            let hub = Hub::default();
            let subscription = hub.subscribe(ALL);
            let (home, parts) = (Rc::new(RefCell::new(None)), parts.clone());
            let (gone, resumed) = (home.clone(), home.clone());
            let (server, client) = duplex(7);
            let setting_up =
                async move { WebSocketStream::from_raw_socket(server, Role::Server, None).await };
            let server = futures::FutureExt::now_or_never(setting_up).expect("there is no handshake");
            let mut writer = Writer { socket: Some(server), subscription: Some(subscription), home };
            let call = async move { parts.child("write", writer.write(batch)).await };
            let publishing = async move {
                for number in 1..=9_u64 {
                    hub.publish(format!("message {number}"));
                    if number % 4 == 0 {
                        sleep(Duration::from_millis(9)).await;
                    }
                }
            };
            let reading = async move {
                let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
                for number in 1..=9 {
                    let next = client.next().await.expect("nine are written").expect("frames are whole");
                    assert_eq!(next, Message::text(format!("message {number}")));
                    sleep(Duration::from_millis(2)).await;
                }
            };
            // An owner that goes on with what the subject has left, as the contract allows.
            let late = async move {
                sleep(Duration::from_secs(5)).await;
                let (socket, subscription) = gone.borrow_mut().take().expect("the subject has ended");
                let home = Rc::default();
                let mut writer = Writer { socket: Some(socket), subscription: Some(subscription), home };
                writer.write(batch).await.expect("the client reads");
            };
            Scene::new(call)
                .alongside(publishing)
                .alongside(reading)
                .alongside(late)
                .check(move |_| assert!(resumed.borrow().is_none()))
        });
        assert!(report.points > 20, "{report}");
    }
}

/// What ends the stream becomes a close frame, written within a deadline like any other.
#[tokio::test(start_paused = true)]
async fn order_ends_with_a_close_frame() {
    let (mut server, client) = sockets(64).await;
    let hub = Hub::default();
    let frames = hub.subscribe(ALL).map(message);
    let close = CloseFrame { code: CloseCode::Away, reason: "restart".into() };
    let frames = frames.chain(stream::iter([Message::Close(Some(close.clone()))]));
    ["a", "b"].iter().for_each(|text| _ = hub.publish(*text));
    drop(hub);
    let write = async move {
        write_frames(frames, &mut server, limit(9, 99, 50)).await.unwrap();
        // The client's answer to the close frame.
        while let Some(answer) = server.next().await {
            assert!(answer.unwrap().is_close());
        }
    };
    let (seen, ()) = tokio::join!(client.map(Result::unwrap).collect::<Vec<_>>(), write);
    assert_eq!(seen, ["a".into(), "b".into(), Message::Close(Some(close))]);
}

#[tokio::test(start_paused = true)]
async fn errors_of_a_closed_socket_name_their_cause() {
    let (mut server, _client) = sockets(64).await;
    server.close(None).await.unwrap();
    let error = write_frames(stream::iter(["a".into()]), &mut server, limit(9, 99, 50)).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot write a batch (messages: 1, bytes: 1)");
    assert!(matches!(error, WriteError::Socket { source: Error::Protocol(_), .. }), "{error:?}");
}

/// A close frame would wait behind what the client does not read.
#[tokio::test(start_paused = true)]
async fn errors_of_a_slow_client_leave_nothing_to_say_goodbye_with() {
    let (mut server, _client) = sockets(64).await;
    let messages = stream::iter([Message::binary(vec![0; 1_000])]);
    let error = write_frames(messages, &mut server, limit(9, 99, 50)).await.unwrap_err();
    assert!(matches!(error, WriteError::TooSlow { messages: 1, bytes: 1_000, .. }), "{error:?}");
    assert!(timeout(Duration::from_secs(3_600), server.close(None)).await.is_err());
}

/// An endless stream and a sink that is always ready: everything else still runs.
#[tokio::test]
async fn backpressure_of_an_endless_stream_gives_way() {
    let mut sink = futures::sink::drain().sink_map_err(|never| match never {});
    let call = write_frames(stream::repeat("a".into()), &mut sink, limit(10, 99, 50));
    let other = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        ended = call => panic!("the stream is endless: {ended:?}"),
        () = other => {}
    }
}

#[tokio::test]
async fn order_of_many_and_the_future_is_send() {
    let (mut server, client) = sockets(1_000).await;
    let reading = tokio::spawn(client.map(|message| message.unwrap().len()).take(100_000).count());
    let messages = stream::iter((0..100_000).map(|number| Message::text(number.to_string())));
    let most = BatchLimit { messages: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX, deadline: Duration::MAX };
    let write = tokio::spawn(async move { write_frames(messages, &mut server, most).await.map(|()| server) });
    assert_eq!(reading.await.unwrap(), 100_000);
    drop(write.await.unwrap().unwrap());
}

/// A server's and a client's socket.
async fn tcp(send_buffer: Option<u32>) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().expect("it is a loopback socket");
    if let Some(size) = send_buffer {
        socket.set_send_buffer_size(size).expect("it is a loopback socket");
    }
    socket.bind("127.0.0.1:0".parse().expect("it is a loopback socket")).expect("it is a loopback socket");
    let listener: TcpListener = socket.listen(8).expect("it is a loopback socket");
    let client = TcpSocket::new_v4().expect("it is a loopback socket");
    let (client, accepted) = tokio::join!(
        client.connect(listener.local_addr().expect("it is a loopback socket")),
        listener.accept()
    );
    (accepted.expect("it is a loopback socket").0, client.expect("it is a loopback socket"))
}

const SMALL: Option<u32> = Some(16 * 1024);

/// How many bytes the kernel takes of a client that does not read.
async fn taken(send_buffer: Option<u32>) -> usize {
    let (server, _client) = tcp(send_buffer).await;
    server.writable().await.expect("it is a loopback socket");
    let mut taken = 0;
    for _ in 0..200 {
        while let Ok(count) = server.try_write(&[0; 64 * 1024]) {
            taken += count;
        }
        tokio::task::yield_now().await;
    }
    taken
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_of_the_kernel_is_bounded_by_the_send_buffer() {
    let (small, default) = (taken(SMALL).await, taken(None).await);
    println!("{small} bytes with a small send buffer, {default} with the default");
    assert!(small < 512 * 1024 && default > 2 * small, "{small} {default}");
}

/// A client of which nobody reads: it is given up after what the kernel holds, and no other is.
#[tokio::test]
async fn errors_of_a_stuck_client_are_its_own() {
    let hub = Hub::default();
    let ((stuck, _kept), (reads, mut client)) = (tcp(SMALL).await, tcp(SMALL).await);
    let writers = [(stuck, 100), (reads, 60_000)].map(|(socket, milliseconds)| {
        let subscription = hub.subscribe(ALL);
        tokio::spawn(async move {
            let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
            write_frames(subscription.map(message), &mut socket, limit(64, 64 * 1024, milliseconds)).await
        })
    });
    let total = 64 * 64 * 1024;
    let reading = tokio::spawn(async move {
        let (mut bytes, mut buffer) = (0, vec![0; 64 * 1024]);
        while bytes < total {
            bytes += client.read(&mut buffer).await.unwrap();
        }
        client
    });
    let payload = vec![7; 64 * 1024];
    for _ in 0..64 {
        hub.publish(payload.clone());
    }
    let [stuck, reads] = writers;
    let error = stuck.await.unwrap().unwrap_err();
    assert!(matches!(error, WriteError::TooSlow { messages: 1, bytes: 65_536, .. }), "{error:?}");
    reading.await.unwrap();
    hub.close();
    reads.await.unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sizes, limits and pipes: all comes out once, in order.
    #[test]
    fn order_loses_and_doubles_nothing(
        sizes in prop::collection::vec(0..300_usize, 0..40),
        messages in 1..9_usize,
        bytes in 1..500_usize,
        room in 1..200_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = runtime.block_on(async {
            let (mut server, client) = sockets(room).await;
            let frames = stream::iter(sizes.iter().map(|size| Message::binary(vec![0; *size])).collect::<Vec<_>>());
            let write = async {
                write_frames(frames, &mut server, limit(messages, bytes, 50)).await.unwrap();
                drop(server);
            };
            let read = client.filter_map(async |message| message.ok().map(|message| message.len()));
            tokio::join!(write, read.collect::<Vec<_>>()).1
        });
        prop_assert_eq!(seen, sizes);
    }
}
