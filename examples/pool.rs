//! Five users share two connections; one is given up in the middle of an answer, so it is replaced and never reused.
//!
//! The picture varies with the machine's load: the connections are real.
//!
//! ```console
//! cargo run --example pool
//! cargo run --example pool -- --size 1
//! ```

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use context_managers::{Manage, Pool, Rules};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Five users share a few connections to a server; the second gives up in the middle of its answer.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all others were served, 1 a request failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// How many connections there may be
    #[arg(long, default_value = "2")]
    size: NonZeroUsize,
    /// Milliseconds that the second user has patience for; its answer takes 400
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    patience: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

struct Connect {
    server: SocketAddr,
    made: AtomicUsize,
}

struct Connection {
    number: usize,
    stream: BufReader<TcpStream>,
}

impl Manage for Connect {
    type Resource = Connection;
    type Error = io::Error;

    async fn create(&self) -> io::Result<Connection> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        println!("connection {number} is opened");
        let stream = BufReader::new(TcpStream::connect(self.server).await?);
        Ok(Connection { number, stream })
    }

    /// An idle connection has nothing to say: what can be read is its end, or an answer that nobody waited for.
    async fn is_healthy(&self, connection: &mut Connection) -> bool {
        let read = connection.stream.get_ref().try_read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        println!("connection {} is closed", self.number);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let api = Api::start().await.context("cannot start the local server")?;
    let connect = Connect { server: api.address(), made: AtomicUsize::new(0) };
    let pool = Pool::new(connect, Rules { size: args.size, ..Rules::default() });

    let (result, picture) = record("pool", async {
        let [one, three, four, five] = [(1, 100), (3, 100), (4, 60), (5, 60)]
            .map(|(user, latency)| serve(&pool, user, latency).try_lane(format!("user {user}")));
        let two = async {
            let call = serve(&pool, 2, 400).lane("user 2");
            match timeout(Duration::from_millis(args.patience), call).await {
                Ok(result) => result,
                Err(_) => {
                    println!("user 2: gave up");
                    Ok(())
                }
            }
        };
        let all = async { tokio::try_join!(one, two, three, four, five) };
        tokio::select! {
            result = all => result.map(Some),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
        }
    })
    .await;
    pool.close();
    args.picture.show(&picture).context("cannot write the picture")?;
    api.stop().await;
    Ok(if result?.is_some() { ExitCode::SUCCESS } else { ExitCode::from(130) })
}

/// Asks for a user's page over one of the connections.
async fn serve(pool: &Arc<Pool<Connect>>, user: u32, latency: u32) -> anyhow::Result<()> {
    let mut connection = waiting("permit", pool.checkout()).await.context("no connection")?;
    // Dropped here, by an error or by a user who gives up, the connection is closed: its answer may still be on the way.
    let answer = ask(&mut connection.stream, &format!("/users/{user}?latency={latency}")).await?;
    println!("user {user}: {answer} over connection {}", connection.number);
    connection.put_back();
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
