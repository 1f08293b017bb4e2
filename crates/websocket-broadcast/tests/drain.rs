//! `drain` is dropped at every suspension point, its tasks with it; so is a farewell.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::{SinkExt, StreamExt, stream};
use support::sweep::{Ended, Scene, sweep};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};
use websocket_broadcast::{Drain, Ending, Leaving, Report};

const LIMIT: Duration = Duration::from_millis(20);

async fn socket(stream: DuplexStream, role: Role) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, role, None).await
}

/// Counts itself for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Alive(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| {
        let alive = Arc::new(AtomicUsize::new(0));
        let (count, report) = (alive.clone(), Rc::new(Cell::new(None)));
        let (seen, streams): (_, Vec<_>) = (report.clone(), (0..3).map(|_| duplex(8)).collect());
        let (theirs, ours): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
        let call = async move {
            let drain = Drain::new(LIMIT);
            for (number, stream) in ours.into_iter().enumerate() {
                let alive = Alive::new(&count);
                let serve = |leaving: Leaving| async move {
                    let _alive = alive;
                    let socket = socket(stream, Role::Server).await;
                    leaving.begun().await;
                    // One that needs longer than the limit, one that panics while it leaves.
                    match number {
                        0 => sleep(2 * LIMIT).await,
                        1 => std::panic::resume_unwind(Box::new("injected")),
                        _ => {}
                    }
                    leaving.farewell(socket, stream::iter([Message::text("more than the room")])).await;
                };
                drain.spawn(serve).expect("it has not begun");
            }
            sleep(Duration::from_millis(2)).await;
            report.set(Some(drain.drain(LIMIT).await));
        };
        let mut scene = Scene::new(call);
        for mut stream in theirs {
            scene = scene.alongside(async move { drop(stream.read_to_end(&mut Vec::new()).await) });
        }
        scene.check(move |ended| {
            assert_eq!(alive.load(SeqCst), 0);
            if let Ended::Returned(()) = ended {
                assert_eq!(seen.take(), Some(Report { left: 1, cut: 1, panicked: 1 }));
            }
        })
    });
}

#[test]
fn cancellation_of_a_farewell_at_every_point() {
    sweep(|_| {
        let (theirs, ours) = duplex(8);
        let call = async move {
            let (drain, (hand_over, taken)) = (Drain::new(LIMIT), tokio::sync::oneshot::channel());
            drain.spawn(|leaving| async move { drop(hand_over.send(leaving)) }).expect("it has not begun");
            let leaving = taken.await.expect("the task sends it");
            drop(drain);
            let queue = stream::iter(["a", "b", "longer than the room"]).map(Message::text);
            leaving.farewell(socket(ours, Role::Server).await, queue).await
        };
        let client = async move {
            let mut client = socket(theirs, Role::Client).await;
            // It reads only when the server has taken this, which is more than the room.
            client.send(Message::text("more than the room")).await.ok();
            while let Some(Ok(_)) = client.next().await {}
        };
        Scene::new(call).alongside(client).check(|ended| {
            if let Ended::Returned(left) = ended {
                assert!(left);
            }
        })
    });
}

#[test]
fn cancellation_of_waiting_for_the_beginning_at_every_point() {
    sweep(|_| {
        let drain = Rc::new(Drain::new(LIMIT));
        let (other, hand_over) = (drain.clone(), tokio::sync::oneshot::channel());
        let call = async move {
            let (sender, taken) = hand_over;
            drain.spawn(|leaving| async move { drop(sender.send(leaving)) }).expect("it has not begun");
            let leaving = taken.await.expect("the task sends it");
            leaving.begun().await;
        };
        let end = async move {
            sleep(Duration::from_millis(5)).await;
            let _ = other.drain(LIMIT).await;
        };
        Scene::new(call).alongside(end)
    });
}

/// Tasks are started from other threads while the draining begins: each is either refused or waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_a_task_is_refused_or_joined() {
    for _ in 0..200 {
        let (drain, alive) = (Arc::new(Drain::new(LIMIT)), Arc::new(AtomicUsize::new(0)));
        let (started, mut starting) = mpsc::channel(1);
        let spawning = tokio::spawn({
            let (drain, alive) = (drain.clone(), alive.clone());
            async move {
                loop {
                    let alive = Alive::new(&alive);
                    let serve = |leaving: Leaving| async move {
                        leaving.begun().await;
                        drop(alive);
                    };
                    if drain.spawn(serve) == Err(Ending) {
                        return;
                    }
                    let _ = started.try_send(());
                    tokio::task::yield_now().await;
                }
            }
        });
        starting.recv().await.unwrap();
        let report = drain.drain(Duration::from_secs(60)).await;
        // The one that is being refused holds its own.
        assert!(alive.load(SeqCst) <= 1);
        assert!(report.left >= 1 && report.cut == 0, "{report:?}");
        spawning.await.unwrap();
        assert_eq!(alive.load(SeqCst), 0);
    }
}

/// A drop that panics while its task is cut off is counted, and the others are still joined.
#[tokio::test(start_paused = true)]
async fn panics_of_a_drop_are_counted() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("in a drop"));
        }
    }
    let drain = Drain::new(LIMIT);
    let bad = |_| async {
        let _bad = Bad;
        std::future::pending().await
    };
    drain.spawn(bad).unwrap();
    drain.spawn(|_| std::future::pending()).unwrap();
    assert_eq!(drain.drain(LIMIT).await, Report { left: 0, cut: 1, panicked: 1 });
    assert_eq!(drain.drain(LIMIT).await, Report { left: 0, cut: 1, panicked: 1 });
}

#[tokio::test(start_paused = true)]
async fn memory_a_hundred_thousand_tasks_end_at_once() {
    let drain = Drain::new(LIMIT);
    for _ in 0..100_000 {
        drain.spawn(|leaving| async move { leaving.begun().await }).unwrap();
    }
    assert_eq!(drain.drain(LIMIT).await, Report { left: 100_000, cut: 0, panicked: 0 });
}
