//! Sessions with a server that must be ended by a goodbye, whoever drops them; the goodbyes are drained at the end.
//!
//! The picture varies with the machine's load: the sessions are real connections.
//!
//! ```console
//! cargo run --example reaper
//! cargo run --example reaper -- --limit 500    # long enough for the slow goodbye
//! ```

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use context_managers::{Counts, Fault, Limits, Reaped, Reaper};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::join;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Open four sessions, use them, give one up, and say goodbye on each.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 every session has had its turn, 1 the local server fails, 2 bad arguments, 130 Ctrl-C."
)]
struct Args {
    /// How many sessions there may be at a time, goodbyes included
    #[arg(long, default_value = "3")]
    capacity: NonZeroUsize,
    /// Milliseconds that a goodbye may take
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    limit: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

struct Session {
    number: u32,
    connection: BufReader<TcpStream>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    let limits =
        Limits { capacity: args.capacity, at_once: args.capacity, each: Duration::from_millis(args.limit) };
    let goodbye = |mut session: Session| {
        let name = format!("goodbye {}", session.number);
        // The server is slow to part with the third.
        let latency = if session.number == 3 { 400 } else { 30 };
        let goodbye = async move {
            let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            let goodbye = format!("GET /echo?latency={latency} {head}");
            session.connection.write_all(goodbye.as_bytes()).await?;
            // To the end: an answer that nobody waited for may come before.
            session.connection.read_to_end(&mut Vec::new()).await?;
            println!("session {}: the server has said goodbye", session.number);
            Ok(())
        };
        goodbye.try_lane(name)
    };
    let report = |name: &str, fault: Fault<io::Error>| match fault {
        Fault::Failed(error) => println!("{name}: no goodbye: {error}"),
        Fault::TimedOut(limit) => println!("{name}: no goodbye within {limit:?}"),
        Fault::Panicked(_) => println!("{name}: a bug in the goodbye"),
    };

    let (result, picture) = record("sessions", async {
        let reaper = Reaper::new(limits, goodbye, report);
        let sessions = async {
            let one = call(&reaper, api.address(), 1, 40, 0);
            // Given up while its user thinks: nobody is left who could say goodbye.
            let two = timeout(
                Duration::from_millis(60),
                call(&reaper, api.address(), 2, 20, 60_000).lane("session 2"),
            );
            let (three, four) =
                (call(&reaper, api.address(), 3, 80, 0), call(&reaper, api.address(), 4, 20, 0));
            let (one, two, three, four) =
                join!(one.lane("session 1"), two, three.lane("session 3"), four.lane("session 4"));
            if two.is_err() {
                println!("session 2: given up");
            }
            one.and(three).and(four)
        };
        let result = tokio::select! {
            result = sessions => result.map(Some),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
        };
        // Also after Ctrl-C: what it dropped gets its goodbye.
        let Counts { cleaned, failed, timed_out, panicked, .. } = waiting("join", reaper.drain()).await;
        println!(
            "drained: {cleaned} said goodbye, {failed} failed, {timed_out} timed out, {panicked} panicked"
        );
        result
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(if result?.is_some() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

/// Opens a session, sends a request that takes so many milliseconds, thinks about the answer, and forgets the session.
async fn call(
    reaper: &Reaper<Session>,
    server: SocketAddr,
    number: u32,
    latency: u64,
    thinks: u64,
) -> anyhow::Result<()> {
    let place = waiting("permit", reaper.reserve()).await.context("nobody drains it before")?;
    let connection = BufReader::new(TcpStream::connect(server).await?);
    let mut session: Reaped<Session> =
        place.guard(format!("session {number}"), Session { number, connection });
    let answer = ask(&mut session.connection, &format!("/users/{number}?latency={latency}")).await?;
    println!("session {number}: {answer}");
    waiting("timer", sleep(Duration::from_millis(thinks))).await;
    Ok(())
}

/// Sends a request over HTTP/1.1 and reads the answer's body.
async fn ask(connection: &mut BufReader<TcpStream>, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    String::from_utf8(body).map_err(io::Error::other)
}
