//! The techniques of the chapter "Testing async code", each in a test that runs. The book prints them from here.

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use futures::{FutureExt, poll};
use support::api::{Api, Fault};
use support::sweep::{Ended, Parts, Report, Scene, explore, sweep};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinError, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

// ANCHOR: first
#[tokio::test]
async fn a_test_is_an_async_function() {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move { sender.send(7) });
    assert_eq!(receiver.await, Ok(7));
}
// ANCHOR_END: first

// ANCHOR: flavours
#[test]
fn the_same_on_one_thread_and_on_two() {
    for mut runtime in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let task = tokio::spawn(async { 7 });
            assert_eq!(task.await.unwrap(), 7);
        });
    }
}
// ANCHOR_END: flavours

// ANCHOR: task_panic
#[tokio::test]
async fn a_panic_fails_the_test_only_if_the_task_is_awaited() {
    let task = tokio::spawn(async { resume_unwind(Box::new("out of paper")) });
    let ended: Result<(), JoinError> = task.await;
    assert!(ended.unwrap_err().is_panic()); // without this await the test would pass and say nothing
}
// ANCHOR_END: task_panic

// ANCHOR: paused
#[tokio::test(start_paused = true)]
async fn an_hour_of_heartbeats_takes_no_time() {
    let start = Instant::now();
    let mut beats = 0;
    while start.elapsed() < HOUR {
        sleep(60 * SECOND).await;
        beats += 1;
    }
    assert_eq!(beats, 60);
}
// ANCHOR_END: paused

// ANCHOR: hang
#[tokio::test(start_paused = true)]
async fn a_hang_is_found_at_once() {
    let (sender, receiver) = oneshot::channel::<()>();
    let hangs = async {
        receiver.await.ok();
        drop(sender); // too late: the receiver waits for this very line
    };
    assert!(timeout(HOUR, hangs).await.is_err());
}
// ANCHOR_END: hang

// ANCHOR: paused_io
#[tokio::test(start_paused = true)]
async fn a_paused_clock_runs_ahead_of_a_socket() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    // The runtime sees no task to poll, and does not know that a packet may come: it jumps to the next timer.
    assert!(timeout(HOUR, listener.accept()).await.is_err());
}
// ANCHOR_END: paused_io

// ANCHOR: duplex
#[tokio::test(start_paused = true)]
async fn a_pipe_in_memory_keeps_time() {
    let (mut client, mut server) = duplex(64);
    tokio::spawn(async move {
        sleep(30 * SECOND).await;
        server.write_all(b"late").await
    });
    let start = Instant::now();
    let mut answer = String::new();
    timeout(60 * SECOND, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!((answer.as_str(), start.elapsed()), ("late", 30 * SECOND));
}
// ANCHOR_END: duplex

// ANCHOR: pending
#[tokio::test]
async fn not_yet_is_a_poll_and_not_a_sleep() {
    let limit = Semaphore::new(1);
    let permit = limit.acquire().await.unwrap();
    let mut waits = pin!(limit.acquire());
    assert!(poll!(&mut waits).is_pending());
    drop(permit);
    assert!(poll!(&mut waits).is_ready());
}
// ANCHOR_END: pending

// ANCHOR: leak
#[tokio::test]
async fn nothing_is_left_running() {
    let metrics = Handle::current().metrics();
    let task = AbortOnDropHandle::new(tokio::spawn(pending::<()>()));
    assert_eq!(metrics.num_alive_tasks(), 1);
    drop(task);
    yield_now().await; // an aborted task ends at its next turn
    assert_eq!(metrics.num_alive_tasks(), 0);
}
// ANCHOR_END: leak

// ANCHOR: transfer
struct Bank {
    ours: Cell<i64>,
    theirs: Cell<i64>,
    journal: Semaphore,
}

async fn wrong(bank: Rc<Bank>) {
    bank.ours.set(bank.ours.get() - 10);
    let _entry = bank.journal.acquire().await; // dropped here, the money is gone
    bank.theirs.set(bank.theirs.get() + 10);
}

async fn right(bank: Rc<Bank>) {
    let _entry = bank.journal.acquire().await;
    bank.ours.set(bank.ours.get() - 10);
    bank.theirs.set(bank.theirs.get() + 10); // no await between the two
}
// ANCHOR_END: transfer

// ANCHOR: sweep
fn swept<F: Future<Output = ()> + 'static>(transfer: impl Fn(Rc<Bank>) -> F) -> Report {
    explore(|_| {
        let bank = Bank { ours: Cell::new(50), theirs: Cell::new(50), journal: Semaphore::new(1) };
        let bank = Rc::new(bank);
        let (busy, after) = (bank.clone(), bank.clone());
        Scene::new(transfer(bank))
            .alongside(async move {
                let _entry = busy.journal.acquire().await;
                sleep(5 * SECOND).await;
            })
            .check(move |_| assert_eq!(after.ours.get() + after.theirs.get(), 100))
    })
}

#[test]
fn a_sweep_finds_the_await_in_the_wrong_place() {
    let places: Vec<_> = swept(wrong).violations.into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["suspended:1", "waiting:1", "woken:1"]);
    assert_eq!(swept(right).violations, []);
}
// ANCHOR_END: sweep

// ANCHOR: faults
/// Saves on two disks, and takes the first back when the second fails.
async fn save_both(parts: Parts, saved: Rc<Cell<i32>>) -> Result<(), &'static str> {
    let write = |disk| parts.fallible(disk, async { sleep(SECOND).map(Ok).await }, || "disk full");
    let (first, second) = (write("first disk"), write("second disk"));
    first.await?;
    saved.set(saved.get() + 1);
    second.await.inspect_err(|_| saved.set(saved.get() - 1))?;
    saved.set(saved.get() + 1);
    Ok(())
}

#[test]
fn each_disk_fails_at_each_of_its_polls() {
    let report = sweep(|parts| {
        let saved = Rc::new(Cell::new(0));
        Scene::new(save_both(parts.clone(), saved.clone())).check(move |ended| match ended {
            Ended::Returned(Ok(())) => assert_eq!(saved.get(), 2),
            Ended::Returned(Err(error)) => assert_eq!((error, saved.get()), ("disk full", 0)),
            Ended::Dropped | Ended::Panicked(_) => {}
        })
    });
    assert_eq!(report.triggers, 8); // two disks, two polls each, failing and panicking
}
// ANCHOR_END: faults

/// reqwest wants a provider of cryptography, also where nothing is encrypted.
fn client() -> reqwest::Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build()
}

// ANCHOR: server
#[tokio::test]
async fn a_client_asks_again_after_a_503() {
    let api = Api::start().await.unwrap();
    api.fault("/users", Fault::new().status(503).first(2));
    let url = api.url("/users/7");
    let client = client().unwrap();
    while client.get(&url).send().await.unwrap().status() == 503 {}
    assert_eq!(api.gauge().total(), 3); // counted by the server
}
// ANCHOR_END: server

// ANCHOR: together
#[tokio::test]
async fn two_requests_are_under_way_at_once() {
    let api = Api::start().await.unwrap();
    // The server answers when two requests are in flight. One after the other, they would wait for an hour.
    let url = api.url("/users/7?hold=2,3600000");
    let client = client().unwrap();
    let (first, second) = tokio::join!(client.get(&url).send(), client.get(&url).send());
    assert!(first.unwrap().status().is_success() && second.unwrap().status().is_success());
    assert_eq!(api.gauge().peak(), 2);
}
// ANCHOR_END: together
