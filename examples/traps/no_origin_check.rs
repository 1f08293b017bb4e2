//! The mistake: a WebSocket server that knows its user by a cookie, and does not look at the Origin.
//!
//! Symptom: a page of somebody else opens a socket in the user's browser, and reads and sends in the user's name.
//! Cause: the same-origin rule of browsers does not hold for WebSockets: they connect anywhere, and send the cookies along.
//! Fix: refuse pages of other origins before the upgrade: `Server`.
//!
//! ```console
//! cargo run --example trap_no_origin_check
//! ```

#![allow(clippy::result_large_err, reason = "tungstenite's callback has it so")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Parser;
use futures::{SinkExt, StreamExt};
use support::lanes::{LaneExt, PictureArgs, try_record};
use tokio::io::{DuplexStream, duplex};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};
use websocket_broadcast::{Rules, Server};

/// The user of the cookie, which the browser sends whatever page asks.
fn user(request: &Request) -> Option<String> {
    let cookie = request.headers().get("Cookie")?.to_str().ok()?;
    cookie.strip_prefix("session=").map(String::from)
}

async fn answer(mut socket: WebSocketStream<DuplexStream>, user: &str) {
    if let Some(Ok(_)) = socket.next().await {
        sleep(Duration::from_millis(20)).await;
        // An error means that the page has gone.
        let _ = socket.send(Message::text(format!("{user} has 1200 EUR"))).await;
    }
}

// ANCHOR: wrong
/// A server that asks who it is, and not whose page.
pub async fn wrong(stream: DuplexStream) {
    let mut known = None;
    let check = |request: &Request, response: Response| {
        known = user(request);
        Ok(response)
    };
    if let Ok(socket) = accept_hdr_async(stream, check).await {
        answer(socket, known.as_deref().unwrap_or("nobody")).await;
    }
}
// ANCHOR_END: wrong

// ANCHOR: right
/// A server for pages of its own host.
pub async fn right(stream: DuplexStream) {
    let server = Server::new(Rules::default());
    if let Ok((socket, known, _place)) = server.accept(stream, IpAddr::V4(Ipv4Addr::LOCALHOST), user).await {
        answer(socket, &known).await;
    }
}
// ANCHOR_END: right

/// What a page of this origin learns, in the browser of a user who is logged in.
pub async fn page(origin: &str, server: impl AsyncFnOnce(DuplexStream)) -> Result<String, Error> {
    let (theirs, ours) = duplex(4096);
    let browser = async {
        let mut request = "ws://bank.example/account".into_client_request()?;
        for (name, value) in [("Origin", origin), ("Cookie", "session=alice")] {
            request.headers_mut().insert(name, value.parse()?);
        }
        let (mut socket, _) = client_async(request, theirs).await?;
        socket.send(Message::text("balance")).await?;
        let answer = socket.next().await.unwrap_or(Err(Error::ConnectionClosed));
        Ok(answer?.to_string())
    };
    let (seen, ()) = tokio::join!(browser.try_lane("page"), server(ours).lane("server"));
    seen
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let say = |which: &str, origin: &str, seen: Result<String, Error>| match seen {
        Ok(answer) => println!("{which}: {origin} reads: {answer}"),
        Err(error) => println!("{which}: {origin} gets: {error}"),
    };
    let [evil, own] = ["https://evil.example", "https://bank.example"];
    let (seen, left) = try_record("no check", page(evil, wrong)).await;
    say("wrong", evil, seen);
    let (seen, of_server) = try_record("Server", page(evil, right)).await;
    say("right", evil, seen);
    say("right", own, page(own, right).await);
    args.show(&left.beside(of_server))
}
