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

use clap::Parser;
use futures::{SinkExt, StreamExt};
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::io::{DuplexStream, duplex};
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
pub async fn page(origin: &str, server: impl AsyncFnOnce(DuplexStream)) -> String {
    let (theirs, ours) = duplex(4096);
    let browser = async {
        let mut request = "ws://bank.example/account".into_client_request().expect("it is a URL");
        for (name, value) in [("Origin", origin), ("Cookie", "session=alice")] {
            request.headers_mut().insert(name, value.parse().expect("it is a header"));
        }
        match client_async(request, theirs).await {
            Ok((mut socket, _)) => {
                // An error means that the server has gone: then there is no answer either.
                let _ = socket.send(Message::text("balance")).await;
                match socket.next().await {
                    Some(Ok(message)) => message.to_string(),
                    _ => "no answer".into(),
                }
            }
            Err(Error::Http(response)) => format!("HTTP {}", response.status()),
            Err(error) => error.to_string(),
        }
    };
    let (seen, ()) = tokio::join!(browser.lane("page"), server(ours).lane("server"));
    seen
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (seen, left) = record("no check", page("https://evil.example", wrong)).await;
    println!("wrong: https://evil.example reads: {seen}");
    let (seen, right_picture) = record("Server", page("https://evil.example", right)).await;
    println!("right: https://evil.example reads: {seen}");
    println!("right: https://bank.example reads: {}", page("https://bank.example", right).await);
    args.show(&left.beside(right_picture))
}
