//! `heartbeat` is dropped at every suspension point; any pattern of frames; halves in two tasks on two threads.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message, protocol::Role};
use websocket_broadcast::{Heartbeat, Lost};

const PERIOD: Duration = Duration::from_millis(10);
/// A masked, empty text.
const TEXT: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];

async fn heartbeat(stream: DuplexStream) -> Heartbeat<DuplexStream> {
    Heartbeat::new(WebSocketStream::from_raw_socket(stream, Role::Server, None).await, PERIOD)
}

/// Messages come, then silence. Each `next` is a future of its own, so that its drop may lose none: what was not taken
/// before the drop is there afterwards.
fn scene(room: usize) -> Scene<usize> {
    let (mut theirs, ours) = duplex(room);
    let taken = Rc::new(Cell::new(0));
    let seen = taken.clone();
    let call = async move {
        let mut heartbeat = heartbeat(ours).await;
        loop {
            match heartbeat.next().await {
                Some(Ok(_)) => taken.set(taken.get() + 1),
                Some(Err(Lost::Silent(_))) => {}
                Some(Err(error)) => panic!("{error}"),
                None => return taken.get(),
            }
        }
    };
    let client = async move {
        for millis in [0, 5, 15, 9] {
            sleep(Duration::from_millis(millis)).await;
            theirs.write_all(&TEXT).await.ok();
        }
        theirs.read_to_end(&mut Vec::new()).await.ok();
    };
    Scene::new(call).alongside(client).check(move |ended| {
        assert!(seen.get() <= 4);
        if let Ended::Returned(count) = ended {
            assert_eq!(count, 4);
        }
    })
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| scene(64));
}

#[test]
fn cancellation_at_every_point_with_a_ping_that_does_not_fit() {
    sweep(|_| scene(1));
}

/// A sender in another task is blocked, and the reader pings past it again and again: whoever waits must be woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_halves_on_two_threads_lose_no_wake_up() {
    for _ in 0..20 {
        let (theirs, ours) = duplex(16);
        let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let (mut sink, mut stream) = Heartbeat::new(socket, Duration::from_millis(1)).split();
        let sending = tokio::spawn(async move {
            for _ in 0..50 {
                if sink.send(Message::binary(vec![7; 100])).await.is_err() {
                    return;
                }
            }
        });
        // Silence is possible on a busy machine, and only ends the reading.
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut messages = 0;
        while messages < 50 {
            // The limit is only there so that a lost wake-up fails instead of hanging.
            let message = timeout(Duration::from_secs(60), client.next()).await.expect("a lost wake-up");
            messages += usize::from(message.unwrap().unwrap().is_binary());
            client.flush().await.unwrap();
        }
        sending.await.unwrap();
        drop(client);
        reading.await.unwrap();
    }
}

/// The ping leaves although the sender's half waits with a full socket for longer than both periods.
#[tokio::test(start_paused = true)]
async fn backpressure_a_peer_that_answers_late_but_in_time_lives() {
    let (theirs, ours) = duplex(8);
    let (mut sink, mut stream) = heartbeat(ours).await.split();
    let sending = tokio::spawn(async move { sink.send(Message::binary(vec![7; 100])).await });
    let reading = tokio::spawn(async move {
        let mut pongs = 0;
        loop {
            match stream.next().await {
                Some(Ok(message)) => pongs += usize::from(message.is_pong()),
                _ => return pongs,
            }
        }
    });
    let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    sleep(PERIOD + PERIOD / 2).await;
    assert!(client.next().await.unwrap().unwrap().is_binary());
    assert!(client.next().await.unwrap().unwrap().is_ping());
    client.flush().await.unwrap();
    sending.await.unwrap().unwrap();
    drop(client);
    assert_eq!(reading.await.unwrap(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Frames at any times, a reader that looks away at any times: nobody is lost who sent or answered within a period,
    /// and everybody is lost two periods after they fell silent.
    #[test]
    fn clock_silence_is_found_when_it_is_there(
        gaps in prop::collection::vec(0..19_u64, 0..20),
        away in prop::collection::vec(0..40_u64, 0..20),
        answers in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (theirs, ours) = duplex(4096);
            let mut heartbeat = heartbeat(ours).await;
            let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            let total = gaps.len();
            let client = async {
                for gap in gaps {
                    let _ = timeout(Duration::from_millis(gap), async {
                        while let Some(Ok(_)) = client.next().await {
                            if answers { client.flush().await.unwrap(); }
                        }
                    }).await;
                    client.send(Message::Ping(Bytes::new())).await.unwrap();
                }
                let last = Instant::now();
                std::future::pending::<()>().await;
                last
            };
            let reader = async {
                let (mut pings, mut away, mut last) = (0, away.into_iter(), Instant::now());
                loop {
                    match heartbeat.next().await {
                        Some(Ok(message)) => { pings += usize::from(message.is_ping()); last = Instant::now(); }
                        Some(Err(Lost::Silent(_))) => return (pings, last.elapsed()),
                        other => panic!("{other:?}"),
                    }
                    sleep(Duration::from_millis(away.next().unwrap_or(0))).await;
                }
            };
            let (pings, silent) = tokio::select! { seen = reader => seen, _ = client => unreachable!("it waits for ever") };
            assert_eq!(pings, total, "nobody was given up who sent within two periods");
            assert!(silent >= 2 * PERIOD && silent <= 2 * PERIOD + Duration::from_millis(41), "{silent:?}");
        });
    }
}
