//! A WebSocket echo server that lets in whom it should, notices who is gone, and tells its clients when it stops.
//!
//! The picture varies by some milliseconds: the sockets and the time are real.
//!
//! ```console
//! cargo run --example websocket_server
//! cargo run --example websocket_server -- --port 9001    # then connect to ws://127.0.0.1:9001/?yourname
//! ```

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures::future::join_all;
use futures::{SinkExt, StreamExt, stream};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::ctrl_c;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use websocket_broadcast::{Drain, Heartbeat, Leaving, Rules, Server, hang_up, retry_after};

/// Echo what WebSocket clients send, with the checks, limits and farewells of a real server.
///
/// Without --port it starts on a free one, and seven clients of its own try what clients do; then it stops.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 each client saw what it should, 1 one did not or the server failed, 2 bad arguments, 130 stopped by Ctrl-C (with --port that is 0)."
)]
struct Args {
    /// Serve on this port of 127.0.0.1 until Ctrl-C; 0 is any free one
    #[arg(long)]
    port: Option<u16>,
    /// Milliseconds without a frame after which a client is pinged, and after as many again given up
    #[arg(long, default_value = "150", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    period: u64,
    /// The largest message in bytes
    #[arg(long, default_value = "1000")]
    message: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// How long a client has to take leave.
const LIMIT: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let listener = TcpListener::bind(("127.0.0.1", args.port.unwrap_or(0))).await;
    let listener = listener.context("cannot listen")?;
    let address = listener.local_addr()?;
    println!("listens on ws://{address}/?name");
    let stop = async {
        match args.port {
            // An error means that signals cannot be caught.
            Some(_) => drop(ctrl_c().await),
            None => sleep(Duration::from_millis(600)).await,
        }
    };
    let clients = async { args.port.is_some() || clients(address).await };
    let run = async {
        tokio::select! {
            biased;
            well = run(&args, listener, stop, clients) => ExitCode::from(u8::from(!well)),
            Ok(()) = ctrl_c(), if args.port.is_none() => ExitCode::from(130),
        }
    };
    let (code, picture) = record("server", run).await;
    args.picture.show(&picture).context("cannot write the picture")?;
    Ok(code)
}

/// Serves `clients` until `stop`, and returns whether all went well.
async fn run(
    args: &Args,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
    clients: impl Future<Output = bool>,
) -> bool {
    let rules = Rules { handshake: Duration::from_millis(250), message: args.message, ..Rules::default() };
    let (server, period) = (Arc::new(Server::new(rules)), Duration::from_millis(args.period));
    let drain = Drain::new(Duration::from_secs(30));
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    // Nothing refuses a task here: the draining begins below.
                    let _ = drain.spawn(|leaving| serve(server.clone(), stream, address, period, leaving));
                }
                // Too many open files, for instance: others may close theirs.
                Err(error) => {
                    println!("cannot accept: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    let serve = async {
        tokio::select! {
            biased;
            () = stop => {}
            () = accept => unreachable!("it never ends"),
        }
        drain.drain(LIMIT).lane("drain").await
    };
    let (report, well) = tokio::join!(serve, clients);
    println!("drained: {} left, {} cut off, {} panicked", report.left, report.cut, report.panicked);
    well && report.cut + report.panicked == 0
}

/// Everything that happens to one connection.
async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    address: SocketAddr,
    period: Duration,
    leaving: Leaving,
) {
    // Small messages leave at once.
    let _ = stream.set_nodelay(true);
    let accept = server.accept(stream, address.ip(), |request| request.uri().query().map(String::from));
    let accepted = tokio::select! {
        biased;
        accepted = accept => accepted,
        () = leaving.begun() => return,
    };
    let (socket, name, _place) = match accepted {
        Ok(accepted) => accepted,
        Err(refused) => return println!("refused: {refused}"),
    };
    let mut socket = Heartbeat::new(socket, period);
    let lost = loop {
        let message = tokio::select! {
            biased;
            () = leaving.begun() => {
                leaving.farewell(socket.into_inner(), stream::empty()).await;
                return;
            }
            message = socket.next() => message,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                // Who reads nothing for so long gets no farewell either.
                if !matches!(timeout(LIMIT, socket.send(message)).await, Ok(Ok(()))) {
                    return println!("{name}: reads nothing");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(lost)) => break lost,
            None => return println!("{name}: left"),
        }
    };
    println!("{name}: {lost}");
    if let Some(code) = lost.close_code() {
        hang_up(socket.into_inner(), code, &lost.to_string(), LIMIT).await;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Seven clients, from good to bad. Returns whether each saw what it should.
async fn clients(address: SocketAddr) -> bool {
    let start = Instant::now();
    let client = |number: usize| async move {
        let (name, wanted) = CLIENTS[number];
        let seen = async {
            let seen = match number {
                0 => talk(address, "alice").await,
                1 => talk(address, "bob").await,
                2 => connect(address, "mallory", "https://evil.example").await.map(|_| "let in".into()),
                3 => say_nothing(address).await,
                4 => send(address, "carol", Message::binary(vec![0; 100_000])).await,
                5 => {
                    let text = Frame::message(vec![0xff], OpCode::Data(Data::Text), true);
                    send(address, "dave", Message::Frame(text)).await
                }
                _ => freeze(address).await,
            };
            // What ends a client against its will is an error in the picture.
            if number > 1 { seen.and_then(|seen| bail!(seen)) } else { seen }
        };
        let seen = seen.try_lane(name).await.unwrap_or_else(|error| format!("{error:#}"));
        println!("{:>4} ms  {name:17} {seen}", start.elapsed().as_millis());
        seen.starts_with(wanted)
    };
    join_all((0..CLIENTS.len()).map(client)).await.into_iter().all(|well| well)
}

/// Each client, and how what it sees begins.
const CLIENTS: [(&str, &str); 7] = [
    ("alice", "closed 1012"),
    ("bob", "closed 1012"),
    ("a foreign page", "HTTP 403"),
    ("says nothing", "closed without a word"),
    ("sends too much", "closed 1009"),
    ("sends no UTF-8", "closed 1007"),
    ("froze", "closed 1011"),
];

async fn connect(address: SocketAddr, name: &str, origin: &str) -> Result<Socket> {
    let mut request = format!("ws://{address}/?{name}").into_client_request()?;
    request.headers_mut().insert("Origin", origin.parse()?);
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => bail!("HTTP {}", response.status()),
        Err(error) => Err(error.into()),
    }
}

/// A page of the server's own host.
async fn own(address: SocketAddr, name: &str) -> Result<Socket> {
    connect(address, name, &format!("http://{address}")).await
}

async fn talk(address: SocketAddr, name: &str) -> Result<String> {
    let mut socket = own(address, name).await?;
    socket.send(Message::text("hello")).await?;
    until_closed(socket).await
}

async fn send(address: SocketAddr, name: &str, message: Message) -> Result<String> {
    let mut socket = own(address, name).await?;
    waiting("timer", sleep(Duration::from_millis(100))).await;
    // An error means that the server has closed already: what it said is still to be read.
    let _ = socket.send(message).await;
    until_closed(socket).await
}

async fn freeze(address: SocketAddr) -> Result<String> {
    let socket = own(address, "erin").await?;
    waiting("frozen", sleep(Duration::from_millis(450))).await;
    until_closed(socket).await
}

async fn say_nothing(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let answer = stream.read_to_end(&mut Vec::new()).await?;
    Ok(if answer == 0 { "closed without a word".into() } else { format!("{answer} bytes") })
}

async fn until_closed(mut socket: Socket) -> Result<String> {
    let mut seen = String::from("not closed");
    while let Some(message) = socket.next().await {
        if let Message::Close(Some(frame)) = message? {
            seen = match retry_after(&frame) {
                Some(retry) => format!("closed 1012, come back in {} s", retry.as_secs()),
                None => format!("closed {} {}", frame.code, frame.reason),
            };
        }
    }
    Ok(seen)
}
