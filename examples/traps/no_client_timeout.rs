//! The mistake: a client as it comes, before a server that accepts and never answers.
//!
//! Symptom: the call waits for ever, and so does all that waits for it.
//! Cause: reqwest has no limit for an answer unless it is given one, and a connection that is open looks healthy.
//! Fix: a limit for the header, one for each piece of the body, one for the whole: `http_client`.
//!
//! ```console
//! cargo run --example trap_no_client_timeout
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Parser;
use reqwest::Client;
use scraping::{AddressGuard, HttpClient, HttpError, Limits};
use support::lanes::{LaneExt, PictureArgs, try_record};
use tokio::net::TcpListener;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

const HOUR: Duration = Duration::from_secs(3600);

/// A server that says nothing: the system accepts the connection, and nobody reads the request.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, format!("http://{address}/"))
}

// ANCHOR: wrong
/// Whether there is an answer, or an error of the client, within an hour.
pub async fn wrong() -> Result<reqwest::Result<u16>, Elapsed> {
    let (_listener, url) = silent().await;
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let status = async { Ok(client.get(&url).send().await?.status().as_u16()) };
    timeout(HOUR, status).try_lane("request").await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The same within an hour, by a client with limits.
pub async fn right() -> Result<Result<u16, HttpError>, Elapsed> {
    let (_listener, url) = silent().await;
    let address = |address: IpAddr| address == Ipv4Addr::LOCALHOST;
    let guard = AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() };
    // The clock of this example is paused, and could overtake a connection that is being made.
    let limits = Limits { header: Duration::from_secs(10), connect: HOUR, ..Limits::default() };
    let Ok(http) = HttpClient::new(Client::builder(), guard, limits) else { return Ok(Ok(0)) };
    let status = async { Ok(http.get(&url).await?.status().as_u16()) };
    timeout(HOUR, status.try_lane("request")).await
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (answer, left) = try_record("no limit", wrong()).await;
    println!("wrong: {}", answer.map_or("no answer after an hour".into(), |answer| format!("{answer:?}")));
    let (answer, right) = try_record("header limit", right()).await;
    match answer {
        Ok(Err(error)) => println!("right: {error}"),
        other => println!("right: {other:?}"),
    }
    args.show(&left.beside(right))
}
