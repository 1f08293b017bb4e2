//! End a WebSocket service: tell every client when to come back, send what waits, join every task.
//!
//! Use it where a server with open sockets is stopped or replaced. It is one phase of a `shutdown`.
//!
//! | | |
//! |---|---|
//! | Order | all sockets leave at once: each sends what waits for its client, then 1012 and the hint, then waits for the client to end |
//! | Errors | [`Report`] counts who left in time, who was cut off, whose task panicked |
//! | Cancellation | after the limit the tasks that are left are dropped, and `drain` returns when all have ended. Dropping `drain` or the `Drain` drops the tasks at their next await without waiting for it |
//! | Panics | a task's panic ends that task and is counted; `spawn` panics outside a Tokio runtime |
//! | Memory | O(tasks alive) |
//! | Backpressure | a client that reads nothing holds up its own farewell only, and until the limit |
//! | Clock | `tokio::time`, for the limit |
//!
//! All clients come back after a restart. The hint tells each another moment, so that they do not come at once.
//!
//! ```
//! use std::time::Duration;
//! use websocket_broadcast::{Drain, Report};
//! #[tokio::main]
//! async fn main() {
//!     let drain = Drain::new(Duration::from_secs(30));
//!     drain.spawn(|leaving| async move { leaving.begun().await }).unwrap();
//!     drain.spawn(|_| std::future::pending()).unwrap();
//!     let report = drain.drain(Duration::from_millis(5)).await;
//!     assert_eq!(report, Report { left: 1, cut: 1, panicked: 0 });
//! }
//! ```

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::{FutureExt, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hang_up::hang_up;

const HINT: [&str; 2] = ["retry after ", " ms"];

/// The tasks of a service's sockets. Dropping it drops them.
#[derive(Debug)]
pub struct Drain {
    tasks: TaskTracker,
    leaving: Leaving,
    cut: CancellationToken,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    cut: AtomicUsize,
    panicked: AtomicUsize,
}

/// Tells a socket's task when to leave, and how.
#[derive(Clone, Debug)]
pub struct Leaving {
    token: CancellationToken,
    spread: Duration,
}

/// The service is ending. The task that was offered has not been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service is ending")]
pub struct Ending;

/// How the tasks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it says how many were cut off"]
pub struct Report {
    /// So many ended by themselves since the draining began.
    pub left: usize,
    /// So many had to be dropped.
    pub cut: usize,
    /// So many panicked since the service began; the panic's message was printed then.
    pub panicked: usize,
}

impl Drain {
    /// Without tasks. Clients will be told to come back at a random moment within `spread`.
    pub fn new(spread: Duration) -> Self {
        let leaving = Leaving { token: CancellationToken::new(), spread };
        Drain { tasks: TaskTracker::new(), leaving, cut: CancellationToken::new(), counts: Arc::default() }
    }

    /// Starts the task of a socket: what `task` returns.
    pub fn spawn<F>(&self, task: impl FnOnce(Leaving) -> F) -> Result<(), Ending>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Held until the task is counted: a draining that begins meanwhile waits.
        let _token = self.tasks.token();
        if self.leaving.token.is_cancelled() {
            return Err(Ending);
        }
        let (cut, counts) = (self.cut.clone(), self.counts.clone());
        let task = cut.run_until_cancelled_owned(task(self.leaving.clone()));
        self.tasks.spawn(AssertUnwindSafe(task).catch_unwind().map(move |ended| match ended {
            Ok(Some(())) => 0,
            Ok(None) => counts.cut.fetch_add(1, Relaxed),
            Err(_) => counts.panicked.fetch_add(1, Relaxed),
        }));
        Ok(())
    }

    /// Takes no further task, tells all to leave, and drops those that have not ended within `limit`.
    pub async fn drain(&self, limit: Duration) -> Report {
        let panicked = self.counts.panicked.load(Relaxed);
        let tasks = self.tasks.len();
        let cut = self.cut.clone().drop_guard();
        self.leaving.token.cancel();
        self.tasks.close();
        // Either they have ended or they are dropped now; those that are not there do not mind.
        let _ = timeout(limit, self.tasks.wait()).await;
        drop(cut);
        self.tasks.wait().await;
        let count = |count: &AtomicUsize| count.load(Relaxed);
        let (cut, all) = (count(&self.counts.cut), count(&self.counts.panicked));
        Report { left: tasks.saturating_sub(cut + all - panicked), cut, panicked: all }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl Leaving {
    /// Waits until it is time.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Sends what `queue` holds, closes with 1012 and the hint when to come back, and waits for the client to end. Returns
    /// whether it did, however long that takes: [`drain`](Drain::drain) has the limit.
    ///
    /// `queue` has to end: close the receiver of a channel before.
    pub async fn farewell<S>(&self, socket: WebSocketStream<S>, queue: impl Stream<Item = Message>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sink, mut stream) = socket.split();
        let send = async {
            let mut queue = pin!(queue);
            while let Some(message) = queue.next().await {
                if sink.feed(message).await.is_err() {
                    break;
                }
            }
            // The half has a place for one message, which `reunite` would lose.
            let _ = sink.flush().await;
        };
        // A client that is itself sending may read only when somebody takes that.
        let throw_away = async { while let Some(Ok(_)) = stream.next().await {} };
        tokio::select! {
            biased;
            () = send => {}
            () = throw_away.then(|()| pending()) => {}
        }
        let socket = sink.reunite(stream).expect("they are its halves");
        let spread = u64::try_from(self.spread.as_millis()).unwrap_or(u64::MAX);
        let [before, after] = HINT;
        let hint = format!("{before}{}{after}", fastrand::u64(0..=spread));
        hang_up(socket, CloseCode::Restart, &hint, Duration::MAX).await
    }
}

/// When the server said to come back: for the client, which got `close`.
pub fn retry_after(close: &CloseFrame) -> Option<Duration> {
    let [before, after] = HINT;
    let millis = close.reason.strip_prefix(before)?.strip_suffix(after)?;
    (close.code == CloseCode::Restart).then(|| millis.parse().ok().map(Duration::from_millis))?
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::{Instant, sleep};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn pair(room: usize) -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (theirs, ours) = duplex(room);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None);
        (client.await, WebSocketStream::from_raw_socket(ours, Role::Server, None).await)
    }

    /// The texts that a client gets, and when it is to come back.
    async fn client(mut socket: WebSocketStream<DuplexStream>) -> (Vec<String>, Option<Duration>) {
        let (mut texts, mut retry) = (Vec::new(), None);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Close(frame) => retry = frame.as_ref().and_then(retry_after),
                message => texts.push(message.to_string()),
            }
        }
        (texts, retry)
    }

    #[tokio::test(start_paused = true)]
    async fn order_what_waits_then_the_hint() {
        let drain = Drain::new(LIMIT);
        let mut clients = Vec::new();
        for _ in 0..20 {
            let (theirs, ours) = pair(16).await;
            clients.push(tokio::spawn(client(theirs)));
            let serve = |leaving: Leaving| async move {
                leaving.begun().await;
                assert!(leaving.farewell(ours, stream::iter(["a", "b"].map(Message::text))).await);
            };
            drain.spawn(serve).unwrap();
        }
        assert_eq!(drain.drain(LIMIT).await, Report { left: 20, cut: 0, panicked: 0 });
        let mut hints = Vec::new();
        for client in clients {
            let (texts, retry) = client.await.unwrap();
            assert_eq!(texts, ["a", "b"]);
            hints.push(retry.unwrap());
        }
        assert!(hints.iter().all(|hint| *hint <= LIMIT) && hints.iter().any(|hint| *hint != hints[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_are_counted_and_the_future_is_send() {
        let drain = Drain::new(LIMIT);
        drain.spawn(|leaving| async move { leaving.begun().await }).unwrap();
        drain.spawn(|_| pending()).unwrap();
        drain.spawn(|_| async { std::panic::resume_unwind(Box::new(())) }).unwrap();
        let late = |leaving: Leaving| async move {
            leaving.begun().await;
            std::panic::resume_unwind(Box::new(()));
        };
        drain.spawn(late).unwrap();
        tokio::task::yield_now().await;
        let (report, drain) = tokio::spawn(async move { (drain.drain(LIMIT).await, drain) }).await.unwrap();
        assert_eq!(report, Report { left: 1, cut: 1, panicked: 2 });
        assert_eq!(drain.spawn(|_| pending()), Err(Ending));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_after_the_limit_every_task_is_dropped_and_joined() {
        let (drain, held) = (Drain::new(LIMIT), Arc::new(()));
        for _ in 0..3 {
            let held = held.clone();
            drain
                .spawn(|_| async move {
                    pending::<()>().await;
                    drop(held);
                })
                .unwrap();
        }
        let start = Instant::now();
        assert_eq!(drain.drain(LIMIT).await.cut, 3);
        assert_eq!((start.elapsed(), Arc::strong_count(&held)), (LIMIT, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_drain_or_its_drop_drops_the_tasks() {
        for begin in [true, false] {
            let (drain, held) = (Drain::new(LIMIT), Arc::new(()));
            let guard = held.clone();
            drain
                .spawn(|_| async move {
                    pending::<()>().await;
                    drop(guard);
                })
                .unwrap();
            if begin {
                assert!(timeout(Duration::from_millis(1), drain.drain(LIMIT)).await.is_err());
                sleep(Duration::from_millis(1)).await;
            } else {
                drop(drain);
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_and_clock_a_client_that_reads_nothing_delays_nobody() {
        let drain = Drain::new(Duration::MAX);
        let (_deaf, deaf) = pair(8).await;
        let (theirs, ours) = pair(8).await;
        for socket in [deaf, ours] {
            let serve = |leaving: Leaving| async move {
                leaving.begun().await;
                leaving.farewell(socket, stream::iter([Message::text("more than the room")])).await;
            };
            drain.spawn(serve).unwrap();
        }
        let start = Instant::now();
        let client = async {
            let (texts, hint) = client(theirs).await;
            (texts.len(), hint.is_some(), start.elapsed())
        };
        let (report, seen) = tokio::join!(drain.drain(LIMIT), client);
        assert_eq!(report, Report { left: 1, cut: 1, panicked: 0 });
        assert_eq!((seen, start.elapsed()), ((1, true, Duration::ZERO), LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_the_tasks_alive_and_only_a_hint_is_one() {
        let drain = Drain::new(Duration::ZERO);
        for _ in 0..1000 {
            drain.spawn(|_| async {}).unwrap();
            tokio::task::yield_now().await;
        }
        assert!(drain.tasks.len() <= 1);
        let hint = |code, reason: &'static str| retry_after(&CloseFrame { code, reason: reason.into() });
        assert_eq!(hint(CloseCode::Restart, "retry after 17 ms"), Some(Duration::from_millis(17)));
        assert_eq!(hint(CloseCode::Away, "retry after 17 ms"), None);
        assert_eq!(hint(CloseCode::Restart, "retry after lunch"), None);
    }
}
