//! The mistake: a pool that takes back a connection whose user gave up in the middle of an answer.
//!
//! Symptom: the next user gets the answer to somebody else's question, and so does everybody after.
//! Cause: the connection goes back to the pool when it is dropped, and a check that it is open finds nothing wrong.
//! Fix: only the word of a user who has read the answer makes a connection fit for reuse: `put_back`.
//!
//! The picture varies with the machine's load: the connections are real.
//!
//! ```console
//! cargo run --example trap_pool_returns_dirty
//! ```

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use clap::Parser;
use context_managers::{Manage, Pool, Rules};
use support::api::Api;
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

type Connection = BufReader<TcpStream>;

async fn connect(server: SocketAddr) -> io::Result<Connection> {
    TcpStream::connect(server).await.map(BufReader::new)
}

// ANCHOR: wrong
/// deadpool: `recycle` is asked before each reuse, and the connection is open.
struct Recycling(SocketAddr);

impl deadpool::managed::Manager for Recycling {
    type Type = Connection;
    type Error = io::Error;

    async fn create(&self) -> io::Result<Connection> {
        connect(self.0).await
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<io::Error> {
        Ok(connection.get_ref().peer_addr().map(drop)?)
    }
}

/// The first user gives up in the middle of an answer; what do the next two get?
pub async fn wrong(api: &Api) -> anyhow::Result<[String; 2]> {
    let pool = deadpool::managed::Pool::builder(Recycling(api.address())).max_size(1).build()?;
    let first = async {
        let mut connection: deadpool::managed::Object<Recycling> =
            pool.get().await.map_err(io::Error::other)?;
        ask(&mut connection, "/users/1?latency=60").await
    };
    give_up(api, first.lane("user 1")).await;
    let next = async |user| {
        let mut connection = pool.get().await.map_err(io::Error::other)?;
        ask(&mut connection, &format!("/users/{user}?latency=20")).await
    };
    Ok([next(2).lane("user 2").await?, next(3).lane("user 3").await?])
}
// ANCHOR_END: wrong

/// bb8 asks twice: `has_broken` when a connection comes back, `is_valid` when it goes out.
struct Valid(SocketAddr);

impl bb8::ManageConnection for Valid {
    type Connection = Connection;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Connection> {
        connect(self.0).await
    }

    async fn is_valid(&self, connection: &mut Connection) -> io::Result<()> {
        connection.get_ref().peer_addr().map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !matches!(connection.get_ref().take_error(), Ok(None))
    }
}

/// The same with bb8.
pub async fn wrong_with_bb8(api: &Api) -> anyhow::Result<[String; 2]> {
    let pool = bb8::Pool::builder().max_size(1).build(Valid(api.address())).await?;
    let first = async {
        let mut connection = pool.get().await.map_err(io::Error::other)?;
        ask(&mut connection, "/users/1?latency=60").await
    };
    give_up(api, first).await;
    let next = async |user| {
        let mut connection = pool.get().await.map_err(io::Error::other)?;
        ask(&mut connection, &format!("/users/{user}?latency=20")).await
    };
    Ok([next(2).await?, next(3).await?])
}

// ANCHOR: right
struct Connect(SocketAddr);

impl Manage for Connect {
    type Resource = Connection;
    type Error = io::Error;

    async fn create(&self) -> io::Result<Connection> {
        connect(self.0).await
    }
}

/// Whoever has read an answer to its end puts the connection back; any other end closes it.
pub async fn right(api: &Api) -> anyhow::Result<[String; 2]> {
    let pool = Pool::new(Connect(api.address()), Rules { size: NonZeroUsize::MIN, ..Rules::default() });
    let get = async |user, latency| {
        let mut connection = pool.checkout().await.map_err(io::Error::other)?;
        let answer = ask(&mut connection, &format!("/users/{user}?latency={latency}")).await?;
        connection.put_back();
        io::Result::Ok(answer)
    };
    give_up(api, get(1, 60).lane("user 1")).await;
    Ok([get(2, 20).lane("user 2").await?, get(3, 20).lane("user 3").await?])
}
// ANCHOR_END: right

/// Drops the call when its request has reached the server, and before the answer comes.
async fn give_up(api: &Api, call: impl Future) {
    let gauge = api.gauge();
    let before = gauge.total();
    tokio::select! {
        biased;
        _ = gauge.until(|counts| counts.total > before) => {}
        _ = call => {}
    }
}

/// Sends a request over HTTP/1.1 and reads the answer's body.
async fn ask(connection: &mut Connection, path: &str) -> io::Result<String> {
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

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    let api = Api::start().await?;
    println!("one connection; user 1 gives up in the middle of an answer");
    let (answers, left) = record("deadpool", wrong(&api)).await;
    let [two, three] = answers?;
    println!("deadpool: user 2 gets {two}, user 3 gets {three}");
    let [two, three] = wrong_with_bb8(&api).await?;
    println!("bb8:      user 2 gets {two}, user 3 gets {three}");
    let (answers, right) = record("pool", right(&api)).await;
    let [two, three] = answers?;
    println!("pool:     user 2 gets {two}, user 3 gets {three}");
    args.show(&left.beside(right))?;
    api.stop().await;
    Ok(())
}
