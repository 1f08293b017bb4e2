//! A server that answers with the bytes it is given, and counts its connections.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections that were made.
    pub connections: usize,
    /// Connections that are open.
    pub open: usize,
    /// Requests that were read.
    pub requests: usize,
}

/// It runs until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    counts: Arc<watch::Sender<Counts>>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    pub async fn until(&self, condition: impl FnMut(&Counts) -> bool) {
        self.counts.subscribe().wait_for(condition).await.expect("`self` keeps the sender");
    }
}

/// An answer with a body.
pub fn answer(head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    Some(bytes)
}

pub fn redirect(location: &str) -> Option<Vec<u8>> {
    answer(&format!("302 Found\r\nlocation: {location}"), b"")
}

/// Answers each path with these bytes; `None` says nothing for ever.
pub async fn serve(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Server {
    start(answer, None).await
}

pub async fn serve_tls(
    answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    tls: TlsAcceptor,
) -> Server {
    start(answer, Some(tls)).await
}

type Answer = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

async fn start(
    answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    tls: Option<TlsAcceptor>,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let counts = Arc::new(watch::Sender::new(Counts::default()));
    let (shared, answer): (_, Arc<Answer>) = (counts.clone(), Arc::new(answer));
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (counts, answer, tls) = (shared.clone(), answer.clone(), tls.clone());
            counts.send_modify(|counts| {
                counts.connections += 1;
                counts.open += 1;
            });
            connections.spawn(async move {
                let open = Open(counts);
                match tls {
                    None => talk(socket, &open, &*answer).await,
                    Some(tls) => {
                        if let Ok(socket) = tls.accept(socket).await {
                            talk(socket, &open, &*answer).await;
                        }
                    }
                }
            });
        }
    });
    Server { address, counts, _accepting: accepting }
}

struct Open(Arc<watch::Sender<Counts>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

async fn talk(mut socket: impl AsyncRead + AsyncWrite + Unpin, open: &Open, answer: &Answer) {
    let mut seen = Vec::new();
    loop {
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            seen.drain(..end + 4);
            open.0.send_modify(|counts| counts.requests += 1);
            let path = head.split(' ').nth(1).unwrap_or_default();
            if let Some(bytes) = answer(path)
                && (socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err())
            {
                return;
            }
        }
        match socket.read_buf(&mut seen).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
