//! The mistake: a new client for each request.
//!
//! Symptom: as many connections as requests, each with its own handshake, and a pool that is thrown away.
//! Cause: the pool of connections belongs to the client.
//! Fix: one client for the whole program. Clones share its pool.
//!
//! The picture varies: it shows real connections.
//!
//! ```console
//! cargo run --example trap_client_per_request
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;

use clap::Parser;
use reqwest::Client;
use scraping::{AddressGuard, HttpClient, Limits};
use support::lanes::{LaneExt, PictureArgs, try_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many requests are made, one after the other.
const REQUESTS: usize = 6;

// ANCHOR: wrong
/// How many connections the server has seen.
pub async fn wrong() -> anyhow::Result<usize> {
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    count_connections(async |url| {
        for _ in 0..REQUESTS {
            let client = Client::new();
            client.get(&url).send().await?.text().await?;
        }
        Ok(())
    })
    .await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// How many connections the server has seen.
pub async fn right() -> anyhow::Result<usize> {
    let address = |address: IpAddr| address == Ipv4Addr::LOCALHOST;
    let guard = AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() };
    count_connections(async |url| {
        let http = HttpClient::new(Client::builder(), guard, Limits::default())?;
        for _ in 0..REQUESTS {
            http.get(&url).await?.text().await?;
        }
        Ok(())
    })
    .await
}
// ANCHOR_END: right

/// Serves until `fetch` and all connections have ended.
async fn count_connections(fetch: impl AsyncFnOnce(String) -> anyhow::Result<()>) -> anyhow::Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut fetch = pin!(fetch(format!("http://{}/", listener.local_addr()?)));
    let (mut connections, mut made) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            biased;
            socket = listener.accept() => {
                made += 1;
                connections.spawn(answer(socket?.0).lane(format!("connection {made}")));
            }
            result = &mut fetch => break result?,
        }
    }
    connections.join_all().await;
    Ok(made)
}

/// Answers each request until the other side closes the connection.
async fn answer(mut socket: TcpStream) {
    let mut request = [0; 4096];
    while socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
        if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    let (connections, left) = try_record("a client per request", wrong()).await;
    println!("wrong: {REQUESTS} requests, {} connections", connections?);
    let (connections, right) = try_record("one client", right()).await;
    println!("right: {REQUESTS} requests, {} connection", connections?);
    Ok(args.show(&left.beside(right))?)
}
