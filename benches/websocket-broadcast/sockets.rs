//! `server`, `hang_up`, `heartbeat`, `drain`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use benches::{Bench, Flavour, Table, time};
use futures::{SinkExt, StreamExt};
use tasks::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use websocket_broadcast::{Drain, Heartbeat, Rules, Server, hang_up};

pub(crate) fn tables(bench: &mut Bench) {
    server_tables(bench);
    hang_up_tables(bench);
    heartbeat_tables(bench);
    drain_tables(bench);
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: chat.example\r\nOrigin: https://chat.example\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// A masked text of five bytes.
const TEXT: &[u8] = &[0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];

/// A client that costs nothing: it sends these bytes so many times and then is silent or has ended.
struct Script {
    bytes: &'static [u8],
    times: usize,
    at: usize,
    ends: bool,
}

impl Script {
    fn new(bytes: &'static [u8], times: usize, ends: bool) -> Self {
        Script { bytes, times, at: 0, ends }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = space.remaining();
        while self.times > 0 && space.remaining() > 0 {
            let rest = &self.bytes[self.at..];
            let length = rest.len().min(space.remaining());
            space.put_slice(&rest[..length]);
            self.at += length;
            if self.at == self.bytes.len() {
                (self.at, self.times) = (0, self.times - 1);
            }
        }
        if space.remaining() < before || self.ends { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn socket(script: Script) -> WebSocketStream<Script> {
    let small = WebSocketConfig::default().read_buffer_size(2048);
    WebSocketStream::from_raw_socket(script, Role::Server, Some(small)).await
}

/// The column of bytes is the memory of these idle clients.
fn server_tables(bench: &mut Bench) {
    let title = |clients: usize| format!("{clients} handshakes, and all clients kept");
    let mut smaller: Option<usize> = None;
    for clients in [10, 1_000, 10_000] {
        let clients = bench.size(clients);
        let plain = move |config: WebSocketConfig| {
            time(move || async move {
                let mut kept = Vec::with_capacity(clients);
                for _ in 0..clients {
                    kept.push(accept_async_with_config(Script::new(REQUEST, 1, false), Some(config)).await);
                }
                kept
            })
        };
        let recipe = time(move || async move {
            let limit = NonZeroUsize::new(clients).unwrap_or(NonZeroUsize::MIN);
            let server = Server::new(Rules { clients: limit, per_address: limit, ..Rules::default() });
            let mut kept = Vec::with_capacity(clients);
            for _ in 0..clients {
                let script = Script::new(REQUEST, 1, false);
                kept.push(server.accept(script, IpAddr::V4(Ipv4Addr::LOCALHOST), |_| Some(())).await);
            }
            kept
        });
        let table = Table::new("server", title(clients), "µs/client", Flavour::CurrentThread, clients)
            .recipe("Server", recipe)
            .peer(
                "tokio-tungstenite, 4 KiB buffers",
                plain(WebSocketConfig::default().read_buffer_size(4096)),
            );
        // The defaults of 10,000 clients would reserve more than a gigabyte.
        let table = if clients <= 1_000 {
            table.peer("tokio-tungstenite, defaults", plain(WebSocketConfig::default()))
        } else {
            table
        };
        let table = if let Some(smaller) = smaller { table.grown_from(title(smaller)) } else { table };
        smaller = Some(clients);
        bench.measure(table.python("handshake by hand", &format!("server {clients}")));
    }
}

fn hang_up_tables(bench: &mut Bench) {
    const SOCKETS: usize = 1_000;
    let title = format!("{SOCKETS} sockets closed, their clients gone at once");
    let recipe = time(|| async {
        for _ in 0..SOCKETS {
            let socket = socket(Script::new(&[], 0, true)).await;
            hang_up(socket, CloseCode::Normal, "bye", Duration::from_secs(1)).await;
        }
    });
    let close = time(|| async {
        for _ in 0..SOCKETS {
            let mut socket = socket(Script::new(&[], 0, true)).await;
            let _ = SinkExt::close(&mut socket).await;
        }
    });
    let table = Table::new("hang_up", title, "ns/socket", Flavour::CurrentThread, SOCKETS)
        .recipe("hang_up", recipe)
        .floor("SinkExt::close, and dropped", close);
    bench.measure(table);
}

fn heartbeat_tables(bench: &mut Bench) {
    for messages in [1_000, 100_000] {
        let messages = bench.size(messages);
        let recipe = time(move || async move {
            let socket = socket(Script::new(TEXT, messages, false)).await;
            let mut socket = Heartbeat::new(socket, Duration::from_secs(30));
            for _ in 0..messages {
                black_box(socket.next().await);
            }
        });
        let bare = time(move || async move {
            let mut socket = socket(Script::new(TEXT, messages, false)).await;
            for _ in 0..messages {
                black_box(socket.next().await);
            }
        });
        let title = format!("{messages} messages of 5 bytes read");
        let table = Table::new("heartbeat", title, "ns/message", Flavour::CurrentThread, messages)
            .recipe("Heartbeat", recipe)
            .floor("WebSocketStream", bare);
        bench.measure(table);
    }
}

/// The time to a full stop.
fn drain_tables(bench: &mut Bench) {
    const LIMIT: Duration = Duration::from_secs(60);
    for count in [1_000, 100_000] {
        let count = bench.size(count);
        let recipe = time(move || async move {
            let drain = Drain::new(LIMIT);
            for _ in 0..count {
                let _ = drain.spawn(|leaving| async move { leaving.begun().await });
            }
            let _ = drain.drain(LIMIT).await;
        });
        let shutdown = time(move || async move {
            let mut shutdown = Shutdown::default();
            let phase = shutdown.phase("sockets", LIMIT);
            for _ in 0..count {
                let stop = phase.stopping();
                let _ = phase.spawn("socket", async move { stop.cancelled().await });
            }
            let _ = shutdown.run(futures::stream::iter([()])).await;
        });
        let floor = time(move || async move {
            let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
            for _ in 0..count {
                let token = token.clone();
                tasks.spawn(async move { token.cancelled().await });
            }
            token.cancel();
            tasks.close();
            tasks.wait().await;
        });
        let title = format!("{count} tasks started, told to leave, and joined");
        let table = Table::new("drain", title, "ns/task", Flavour::CurrentThread, count)
            .recipe("Drain", recipe)
            .peer("tasks::Shutdown, one phase", shutdown)
            .floor("TaskTracker and CancellationToken, panics lost", floor);
        bench.measure(table.python("Event and asyncio.wait", &format!("drain {count}")));
    }
}
