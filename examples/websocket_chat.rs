//! A chat with a room for each path and a page for the browser, in which slow clients hold nobody up.
//!
//! Without `--port` four clients chat for a moment, one of which reads slowly and one not at all. The picture varies: it is
//! drawn from real sockets.
//!
//! ```console
//! cargo run --example websocket_chat
//! cargo run --example websocket_chat -- --port 8080
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::{SinkExt, Stream, StreamExt, stream};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use websocket_broadcast::{BatchLimit, Delivery, Hub, QueueLimit, write_frames};

/// Serve a chat: open the address in two windows. Each path is a room.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all went well, 1 it did not, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// The port to serve on until Ctrl-C. Without one, four clients chat for a moment on a free one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What may wait for one client. The oldest messages make room.
const QUEUE: QueueLimit = QueueLimit { messages: number(8), bytes: number(256 * 1024), disconnect: false };
/// What is written to one client at once.
const BATCH: BatchLimit =
    BatchLimit { messages: number(64), bytes: number(8 * 1024), deadline: Duration::from_millis(500) };
/// What the kernel takes of a client that does not read.
const KERNEL: u32 = 16 * 1024;
const LARGEST_MESSAGE: usize = 16 * 1024;
const HANDSHAKE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port.unwrap_or(0)));
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    // Sockets that are accepted inherit it.
    socket.set_send_buffer_size(KERNEL)?;
    socket.bind(address).with_context(|| format!("cannot serve on {address}"))?;
    let listener = socket.listen(128)?;
    let address = listener.local_addr()?;

    let rooms = &Rooms::default();
    let body = async {
        let clients = async {
            match args.port {
                None => chat(address, rooms).await.map(Some),
                Some(_) => {
                    println!("open http://{address}/ in two windows; Ctrl-C ends it");
                    pending().await
                }
            }
        };
        tokio::select! {
            result = clients => result,
            () = serve(listener, rooms) => Ok(None),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
        }
    };
    let (result, picture) = record("websocket_chat", body).await;
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(if result?.is_some() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

/// Rooms that somebody is in. The connections own them, so that an empty room vanishes.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<String, Weak<Hub>>>>);

impl Rooms {
    fn enter(&self, name: &str) -> Arc<Hub> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = rooms.get(name).and_then(Weak::upgrade) {
            return hub;
        }
        rooms.retain(|_, hub| hub.strong_count() > 0);
        let hub = Arc::new(Hub::default());
        rooms.insert(name.into(), Arc::downgrade(&hub));
        hub
    }

    fn close(&self) {
        let rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hubs: Vec<_> = rooms.values().filter_map(Weak::upgrade).collect();
        drop(rooms);
        hubs.iter().for_each(|hub| hub.close());
    }
}

/// Serves for ever. Dropping it drops every connection.
async fn serve(listener: TcpListener, rooms: &Rooms) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => _ = connections.spawn(connection(socket, rooms.clone())),
                // Too many open files: no reason to spin.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers requests until one becomes a WebSocket, and then is that.
async fn connection(socket: TcpStream, rooms: Rooms) {
    let _ = socket.set_nodelay(true);
    let (sender, mut upgraded) = mpsc::channel(1);
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request, &sender)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    if server.serve_connection(TokioIo::new(socket), service).with_upgrades().await.is_err() {
        return;
    }
    let Ok((upgrade, room)) = upgraded.try_recv() else { return };
    if let Ok(socket) = upgrade.await {
        member(TokioIo::new(socket), &rooms.enter(&room)).await;
    }
}

/// The page; or, if the browser asks for it, the handshake of a WebSocket.
fn answer(
    mut request: Request<Incoming>,
    upgraded: &mpsc::Sender<(OnUpgrade, String)>,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let text = |name| text(headers, name);
    let mut response = Response::new(Full::default());
    if !text(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        *response.body_mut() = Full::from(include_str!("websocket_chat.html"));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
        return response;
    }
    let origin = text(header::ORIGIN);
    if !origin.is_empty() && origin != format!("http://{}", text(header::HOST)) {
        // Another site's page, with this user's cookies.
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if key.is_empty() || text(header::SEC_WEBSOCKET_VERSION) != "13" {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ] {
        response.headers_mut().extend(value.parse().ok().map(|value| (name, value)));
    }
    let room = request.uri().path().to_string();
    // There is room: a connection is upgraded once.
    let _ = upgraded.try_send((hyper::upgrade::on(&mut request), room));
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// One client: its first message is its name, and all others go to the room.
async fn member(socket: TokioIo<Upgraded>, hub: &Hub) {
    let config =
        WebSocketConfig::default().read_buffer_size(4 * 1024).max_message_size(Some(LARGEST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = socket.split();
    let Ok(Some(Ok(Message::Text(name)))) = timeout(HANDSHAKE, messages.next()).await else { return };
    let name: String = name.chars().take(20).collect();

    let subscription = hub.subscribe(QUEUE);
    hub.publish(format!("({name} is here)"));
    let close = CloseFrame { code: CloseCode::Away, reason: "the server stops".into() };
    let frames = subscription.map(frame).chain(stream::iter([Message::Close(Some(close))]));
    let write = write_frames(frames, &mut sink, BATCH).try_lane(format!("to {name}"));
    let read = async {
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Text(text) = message {
                hub.publish(format!("{name}: {text}"));
            }
        }
    };
    let written = tokio::select! {
        biased;
        () = read => Ok(()),
        written = write => written,
    };
    match written {
        // The answer to the close frame, if there is one.
        Ok(()) => _ = timeout(HANDSHAKE, messages.next()).await,
        Err(error) => println!("server: {name} is disconnected: {error}"),
    }
    hub.publish(format!("({name} has left)"));
}

/// What a client is sent.
fn frame(delivery: Delivery) -> Message {
    match delivery {
        Delivery::Message(message) => message,
        Delivery::Lost(count) => Message::text(format!("({count} missed)")),
        Delivery::Disconnected => {
            Message::Close(Some(CloseFrame { code: CloseCode::Again, reason: "too slow".into() }))
        }
    }
}

/// What a client has seen when its socket is closed.
#[derive(Default)]
struct Seen {
    messages: usize,
    missed: usize,
    end: String,
}

/// Ann says a lot, Ben reads it, Cat takes her time, and Dan has gone to lunch.
async fn chat(address: SocketAddr, rooms: &Rooms) -> anyhow::Result<()> {
    let [ann, ben, cat, dan] = {
        let connect = |name| connect(address, name);
        let (ann, ben, cat, dan) = (connect("ann"), connect("ben"), connect("cat"), connect("dan"));
        let (ann, ben, cat, dan) = tokio::try_join!(ann, ben, cat, dan)?;
        [ann, ben, cat, dan]
    };
    let (mut says, ann) = ann.split();
    let talk = async {
        let paste = "lorem ipsum ".repeat(500);
        for _ in 0..120 {
            says.send(Message::text(&*paste)).await?;
            waiting("timer", sleep(Duration::from_millis(6))).await;
        }
        rooms.close();
        Ok(())
    };
    let ann = read(ann, Duration::ZERO);
    let ben = read(ben, Duration::ZERO);
    let cat = read(cat, Duration::from_millis(20));
    let dan = async {
        // What the kernel has taken for him is all that he will see.
        waiting("timer", sleep(Duration::from_millis(750))).await;
        read(dan, Duration::ZERO).await
    };
    let seen = async { tokio::try_join!(ann, ben, cat.try_lane("cat reads"), dan.try_lane("dan reads")) };
    let ((), seen) = tokio::try_join!(talk.try_lane("ann says"), seen)?;
    println!("client  messages  missed  end");
    for (name, seen) in ["ann", "ben", "cat", "dan"].into_iter().zip(<[Seen; 4]>::from(seen)) {
        println!("{name:6}  {:>8}  {:>6}  {}", seen.messages, seen.missed, seen.end);
    }
    Ok(())
}

async fn connect(address: SocketAddr, name: &str) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(KERNEL)?;
    let socket = socket.connect(address).await?;
    let (mut socket, _) = client_async(format!("ws://{address}/lobby"), socket).await?;
    socket.send(name.into()).await?;
    let Some(Ok(Message::Text(_))) = socket.next().await else { bail!("{name} was not let in") };
    Ok(socket)
}

/// Reads to the end, with a pause after each message.
async fn read(
    mut socket: impl Stream<Item = Result<Message, Error>> + Unpin,
    pause: Duration,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) => {
                let missed = text.strip_prefix('(').and_then(|text| text.strip_suffix(" missed)"));
                seen.missed += missed.map_or(Ok(0), str::parse)?;
                seen.messages += usize::from(missed.is_none());
                if !pause.is_zero() {
                    waiting("timer", sleep(pause)).await;
                }
            }
            Ok(Message::Close(Some(close))) => seen.end = format!("{} {}", close.code, close.reason),
            Ok(_) => {}
            Err(Error::Io(_) | Error::Protocol(_)) => seen.end = "cut off".into(),
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(!seen.end.is_empty(), "the socket ended without a reason");
    Ok(seen)
}

const fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("no limit here is zero")
}
