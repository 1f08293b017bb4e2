//! The mistake: `bytes()`, `text()` or `json()` on a body from somebody else.
//!
//! Symptom: some kilobytes on the wire take thousands of times as much memory.
//! Cause: the client decompresses, and the methods read to the end, wherever that is.
//! Fix: a cap on what arrives after decompression, and a budget for all bodies: `bounded_body`.
//!
//! The picture varies: it shows real connections.
//!
//! ```console
//! cargo run --example trap_unbounded_body
//! ```

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Client;
use scraping::{AddressGuard, BodyBudget, BodyError, HttpClient, Limits};
use support::lanes::{LaneExt, PictureArgs, try_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What one body may have.
const CAP: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("1 MiB is not zero");
const MEBIBYTES: usize = 16;

// ANCHOR: wrong
/// How many bytes are in memory.
pub async fn wrong(bomb: &[u8]) -> anyhow::Result<usize> {
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let read = async |url: String| Ok(client.get(url).send().await?.bytes().await?.len());
    serve_bomb(bomb, read).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The error, which comes when the cap is in memory.
pub async fn right(bomb: &[u8]) -> anyhow::Result<BodyError> {
    let address = |address: IpAddr| address == Ipv4Addr::LOCALHOST;
    let guard = AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() };
    let http = HttpClient::new(Client::builder(), guard, Limits::default())?;
    let budget = BodyBudget::new(CAP, CAP, &[])?;
    let read = async |url: String| budget.read(http.get(&url).await?).await.err().context("no error");
    serve_bomb(bomb, read).await
}
// ANCHOR_END: right

/// Zeros, compressed to about a thousandth.
pub fn bomb() -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for _ in 0..MEBIBYTES {
        encoder.write_all(&vec![0; 1 << 20])?;
    }
    encoder.finish()
}

/// Answers one request with the bomb, while `read` makes it.
async fn serve_bomb<T>(
    bomb: &[u8],
    read: impl AsyncFnOnce(String) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let serve = async {
        let (mut socket, _) = listener.accept().await?;
        let _ = socket.read(&mut [0; 4096]).await?;
        // The client may have left: that is its right.
        let _ = socket.write_all(&[head.as_bytes(), bomb].concat()).await;
        anyhow::Ok(socket)
    };
    let (_socket, outcome) = tokio::join!(serve.try_lane("server"), read(url).lane("client"));
    outcome
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = PictureArgs::parse();
    let bomb = bomb()?;
    println!("{} KiB on the wire", bomb.len() >> 10);
    let (bytes, left) = try_record("bytes()", wrong(&bomb)).await;
    println!("wrong: {} MiB in memory", bytes? >> 20);
    let (error, right) = try_record("bounded_body", right(&bomb)).await;
    let text = match error? {
        BodyError::TooLong { cap, .. } => format!("an error at {} MiB", cap >> 20),
        other => other.to_string(),
    };
    println!("right: {text}");
    Ok(args.show(&left.beside(right))?)
}
