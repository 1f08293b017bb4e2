//! `hub` in one process and `frame_writer` over sockets.

use std::fs;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Measure, Table, figure, short, stopwatch, time};
use futures::{FutureExt, Sink, SinkExt, StreamExt};
use streams::{Event, FanOut, Receiver, WhenFull};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::{JoinSet, yield_now};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use websocket_broadcast::{BatchLimit, Delivery, Hub, QueueLimit, Subscription, write_frames};

pub(crate) fn tables(bench: &mut Bench) {
    hub_tables(bench);
    frame_writer_tables(bench);
}

const CAPACITY: NonZeroUsize = NonZeroUsize::new(32).unwrap();
const QUEUE: QueueLimit = QueueLimit { messages: CAPACITY, bytes: NonZeroUsize::MAX, disconnect: false };
const BATCH: BatchLimit =
    BatchLimit { messages: CAPACITY, bytes: NonZeroUsize::MAX, deadline: Duration::from_secs(5) };

/// 64 bytes.
fn message() -> Message {
    Message::text("0123456789abcdef".repeat(4))
}

type Seen = Arc<AtomicUsize>;

/// `rounds` times `burst` messages go to `n` tasks; the next burst follows when all have this one.
fn delivered<P, R, F>(
    [n, rounds, burst]: [usize; 3],
    make: impl Fn(usize) -> (P, Vec<R>) + Send + Sync + 'static,
    publish: impl Fn(&mut P, Message) + Send + Sync + 'static,
    read: impl Fn(R, Seen) -> F + Send + Sync + 'static,
) -> Measure
where
    P: Send + 'static,
    R: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let parts = Arc::new((make, publish, read));
    stopwatch(move || {
        let parts = parts.clone();
        async move {
            let (make, publish, read) = &*parts;
            let (mut publisher, receivers) = make(n);
            let seen = Seen::default();
            let mut reading = JoinSet::new();
            receivers.into_iter().for_each(|it| _ = reading.spawn(read(it, seen.clone())));
            yield_now().await;
            let start = Instant::now();
            for round in 1..=rounds {
                (0..burst).for_each(|_| publish(&mut publisher, message()));
                while seen.load(Relaxed) < round * burst * n {
                    yield_now().await;
                }
            }
            start.elapsed()
        }
    })
}

fn by_hub(work: [usize; 3]) -> Measure {
    let make = |n| {
        let hub = Hub::default();
        let clients = (0..n).map(|_| hub.subscribe(QUEUE)).collect();
        (hub, clients)
    };
    let publish = |hub: &mut Hub, message| _ = hub.publish(message);
    delivered(work, make, publish, async |mut client: Subscription, seen: Seen| {
        while let Some(Delivery::Message(_)) = client.next().await {
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn by_fan_out(work: [usize; 3]) -> Measure {
    let make = |n| {
        let fan_out = FanOut::new();
        let clients = (0..n).map(|_| fan_out.subscribe(CAPACITY, WhenFull::DropOldest)).collect();
        (fan_out, clients)
    };
    let publish = |fan_out: &mut FanOut<Message>, message| {
        // Nobody is waited for, so it is done at once.
        assert!(fan_out.publish(message).now_or_never().is_some());
    };
    delivered(work, make, publish, async |mut client: Receiver<Message>, seen: Seen| {
        while let Some(Event::Item(_)) = client.next().await {
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn by_broadcast(work: [usize; 3]) -> Measure {
    let make = |n| {
        let (sender, _) = broadcast::channel(CAPACITY.get());
        let clients = (0..n).map(|_| sender.subscribe()).collect();
        (sender, clients)
    };
    let publish = |sender: &mut broadcast::Sender<Message>, message| _ = sender.send(message);
    delivered(work, make, publish, async |mut client: broadcast::Receiver<Message>, seen: Seen| {
        while client.recv().await.is_ok() {
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn by_mpsc_each(work: [usize; 3]) -> Measure {
    let make = |n| (0..n).map(|_| mpsc::channel(CAPACITY.get())).unzip();
    let publish = |senders: &mut Vec<mpsc::Sender<Message>>, message: Message| {
        senders.retain(|sender| sender.try_send(message.clone()).is_ok());
    };
    delivered(work, make, publish, async |mut client: mpsc::Receiver<Message>, seen: Seen| {
        while client.recv().await.is_some() {
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn by_wake_up_alone(work: [usize; 3]) -> Measure {
    let make = |n| (0..n).map(|_| Arc::new(Notify::new())).map(|it| (it.clone(), it)).unzip();
    let publish = |bells: &mut Vec<Arc<Notify>>, _| bells.iter().for_each(|bell| bell.notify_one());
    delivered(work, make, publish, async |bell: Arc<Notify>, seen: Seen| {
        loop {
            bell.notified().await;
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn hub_tables(bench: &mut Bench) {
    for (n, rounds, burst, flavour) in [
        (1_000, 20, 1, Flavour::CurrentThread),
        (10_000, 4, 1, Flavour::CurrentThread),
        (1_000, 4, 16, Flavour::CurrentThread),
        (1_000, 20, 1, Flavour::MultiThread),
    ] {
        let n = bench.size(n);
        let how =
            if burst == 1 { "one message at a time".into() } else { format!("{burst} messages at a time") };
        let title = |n| format!("{} clients, each a task, {how}", short(n));
        let work = [n, rounds, burst];
        let mut table = Table::new("hub", title(n), "ns/delivery", flavour, n * rounds * burst)
            .grown_from(title(1_000))
            .recipe("hub", by_hub(work))
            .peer("fan_out", by_fan_out(work))
            .peer("tokio broadcast", by_broadcast(work))
            .peer("a tokio mpsc each, dropped when full", by_mpsc_each(work));
        if burst == 1 {
            table = table.floor("a wake-up each, no message", by_wake_up_alone(work));
        }
        if flavour == Flavour::CurrentThread {
            table = table.python("a deque and an event each", &format!("hub {n} {rounds} {burst}"));
        }
        bench.measure(table);
    }
    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} messages, one of two clients never reads", short(n));
        let stalled = |disconnect| {
            move || async move {
                let hub = Hub::default();
                let limit = QueueLimit { disconnect, ..QUEUE };
                let (_stalled, mut reads) = (hub.subscribe(limit), hub.subscribe(limit));
                let mut seen = 0;
                for _ in 0..n {
                    hub.publish(message());
                    seen += usize::from(reads.next().await.is_some());
                }
                seen
            }
        };
        let table = Table::new("hub", title(n), "ns/message", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("hub, drop oldest", time(stalled(false)))
            .recipe("hub, disconnect", time(stalled(true)))
            .peer(
                "an unbounded tokio mpsc each",
                time(move || async move {
                    let ((stalled, _kept), (sender, mut reads)) =
                        (mpsc::unbounded_channel(), mpsc::unbounded_channel());
                    let mut seen = 0;
                    for _ in 0..n {
                        let message = message();
                        let _ = (stalled.send(message.clone()), sender.send(message));
                        seen += usize::from(reads.recv().await.is_some());
                    }
                    seen
                }),
            );
        bench.measure(table);
    }
}

/// How a server sends to its clients.
#[derive(Clone, Copy)]
enum Way {
    /// A hub, and a writer each.
    Hub,
    /// A hub, and `forward` each.
    Forward,
    /// tokio's broadcast channel, and a loop each that receives from it and from the socket.
    Loop,
    /// A loop of sends, each awaited. With one client that does not read it would stand still.
    Sends,
    /// Frames that were encoded before, written to one socket after the other.
    Raw,
}

/// The processor time of this thread so far.
fn processor_time() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let on_processor = statistics.split_whitespace().next().and_then(|number| number.parse().ok());
    on_processor.map_or(Duration::ZERO, Duration::from_nanos)
}

/// Clients on a thread of their own, which count what they get.
struct Clients {
    sockets: Vec<TcpStream>,
    expected: Seen,
    complete: Arc<Notify>,
    thread: thread::JoinHandle<()>,
}

async fn clients(n: usize) -> Clients {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback address can be bound");
    let address = listener.local_addr().expect("it is bound");
    let (expected, complete) = (Seen::default(), Arc::new(Notify::new()));
    let (of_thread, to_tell) = (expected.clone(), complete.clone());
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime needs a few file handles").block_on(async {
            let (mut reading, seen) = (JoinSet::new(), Seen::default());
            for _ in 0..n {
                let mut socket = TcpStream::connect(address).await.expect("the server listens");
                let (expected, complete, seen) = (of_thread.clone(), to_tell.clone(), seen.clone());
                reading.spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
                        if seen.fetch_add(count, Relaxed) + count == expected.load(Relaxed) {
                            complete.notify_one();
                        }
                    }
                });
            }
            while reading.join_next().await.is_some() {}
        });
    });
    let mut sockets = Vec::new();
    while sockets.len() < n {
        let (socket, _) = listener.accept().await.expect("there are file handles left");
        socket.set_nodelay(true).expect("it is a TCP socket");
        sockets.push(socket);
    }
    Clients { sockets, expected, complete, thread }
}

fn to_message(delivery: Delivery) -> Message {
    match delivery {
        Delivery::Message(message) => message,
        _ => panic!("all clients read"),
    }
}

async fn member<F: Future>(socket: TcpStream, write: impl FnOnce(Split) -> F) {
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
    let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
    let (sink, mut messages) = socket.split();
    tokio::select! {
        biased;
        _ = async { while let Some(Ok(_)) = messages.next().await {} } => {}
        _ = write(sink) => {}
    }
}

type Split = futures::stream::SplitSink<WebSocketStream<TcpStream>, Message>;

/// The server's processor time for one delivery, in microseconds.
fn on_sockets(way: Way, [n, rounds, burst]: [usize; 3]) -> Measure {
    // Two bytes of header before 64 of payload.
    const FRAME: usize = 66;
    figure(move || async move {
        let Clients { sockets, expected, complete, thread } = clients(n).await;
        let (hub, (sender, _)) = (Hub::default(), broadcast::channel(CAPACITY.get()));
        let (mut tasks, mut raw, mut opened) = (JoinSet::new(), Vec::new(), Vec::new());
        for socket in sockets {
            let queued = || hub.subscribe(QUEUE).map(to_message);
            match way {
                Way::Hub => {
                    let queued = queued();
                    let write = async move |mut sink: Split| write_frames(queued, &mut sink, BATCH).await;
                    tasks.spawn(member(socket, write));
                }
                Way::Forward => {
                    let queued = queued();
                    tasks.spawn(member(socket, async move |sink: Split| queued.map(Ok).forward(sink).await));
                }
                Way::Loop => _ = tasks.spawn(usual(socket, sender.subscribe())),
                Way::Sends => opened.push(WebSocketStream::from_raw_socket(socket, Role::Server, None).await),
                Way::Raw => raw.push(socket),
            }
        }
        yield_now().await;
        let frames = [b"\x81\x40".as_slice(), message().into_data().as_ref()].concat().repeat(burst);
        let before = processor_time();
        for round in 1..=rounds {
            expected.store(round * burst * n * FRAME, Relaxed);
            match way {
                Way::Hub | Way::Forward => (0..burst).for_each(|_| _ = hub.publish(message())),
                Way::Loop => (0..burst).for_each(|_| _ = sender.send(message())),
                Way::Sends => {
                    for _ in 0..burst {
                        send_each(&mut opened, message()).await.expect("all clients read");
                    }
                }
                Way::Raw => {
                    for socket in &raw {
                        assert!(socket.try_write(&frames).is_ok_and(|count| count == frames.len()));
                    }
                }
            }
            complete.notified().await;
        }
        let took = processor_time() - before;
        // Their sockets are closed with them, which ends the clients.
        tasks.shutdown().await;
        drop((raw, opened));
        thread.join().expect("the clients do not panic");
        (took.as_secs_f64() * 1e6 / (n * rounds * burst) as f64, "processor time".into())
    })
}

async fn send_each<S: Sink<Message, Error = Error> + Unpin>(
    clients: &mut [S],
    message: Message,
) -> Result<(), Error> {
    for client in clients {
        client.send(message.clone()).await?;
    }
    Ok(())
}

async fn usual(socket: TcpStream, mut messages: broadcast::Receiver<Message>) {
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    loop {
        tokio::select! {
            Ok(message) = messages.recv() => if socket.send(message).await.is_err() { return },
            message = socket.next() => if !matches!(message, Some(Ok(_))) { return },
            else => return,
        }
    }
}

fn frame_writer_tables(bench: &mut Bench) {
    for (n, rounds, burst) in [(100, 100, 1), (400, 25, 1), (100, 20, 16), (400, 5, 16)] {
        let how = if burst == 1 { "one at a time".into() } else { format!("{burst} at a time") };
        let title = |n| format!("64 bytes to {n} clients over loopback, {how}");
        let work = [n, rounds, burst];
        let table = Table::new("frame_writer", title(n), "µs/delivery", Flavour::CurrentThread, 1)
            .grown_from(title(100))
            .recipe("hub and write_frames", on_sockets(Way::Hub, work))
            .peer("hub and forward", on_sockets(Way::Forward, work))
            .peer("broadcast and a select! loop", on_sockets(Way::Loop, work))
            .peer("a loop of sends", on_sockets(Way::Sends, work))
            .floor("encoded frames, try_write", on_sockets(Way::Raw, work))
            .python("encoded frames, transport.write", &format!("frame_writer {n} {rounds} {burst}"));
        bench.measure(table);
    }
}
