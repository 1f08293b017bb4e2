//! What is lost when a pending operation is dropped, as `select!` and `timeout` do: tried for each of them.
//!
//! Each row waits, is given up, and is tried again. What the second try finds says what the first one has cost. The picture
//! shows the cost of one of them: a caller that gives up and asks again is served after one that came later.
//!
//! ```console
//! cargo run --example cancel_safety
//! ```

use std::pin::pin;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, poll};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking, yield_now};
use tokio::time::{Instant, interval, sleep, timeout};

const NOTHING: &str = "nothing";
const PLACE: &str = "its place in the queue";

/// Polls once, finds it pending, and drops it: what `select!` does with the branch that does not win.
async fn give_up<F: Future>(operation: F) {
    let mut operation = pin!(operation);
    assert!(poll!(&mut operation).is_pending(), "it had nothing to wait for");
}

/// `first` waits before `second`, is given up, and waits again. Whose turn is it after `free`?
async fn lost_in_a_queue<A, B>(wait: impl Fn() -> A, second: B, free: impl FnOnce()) -> &'static str
where
    A: Future,
    B: Future,
{
    let mut second = pin!(second);
    let mut first = Box::pin(wait());
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    drop(first);
    let mut first = pin!(wait());
    assert!(poll!(&mut first).is_pending());
    free();
    if poll!(&mut first).is_ready() { NOTHING } else { PLACE }
}

// ANCHOR: channels
async fn channels() -> Vec<(&'static str, &'static str)> {
    let (sender, mut receiver) = mpsc::channel(1);
    give_up(receiver.recv()).await;
    sender.try_send(1).expect("there is room");
    let received = if receiver.recv().await == Some(1) { NOTHING } else { "the item" };

    sender.try_send(2).expect("there is room");
    give_up(sender.send(3)).await;
    receiver.recv().await;
    let sent = if receiver.try_recv() == Ok(3) { NOTHING } else { "the message" };

    sender.try_send(4).expect("there is room");
    let take = || assert_eq!(receiver.try_recv(), Ok(4));
    let reserved = lost_in_a_queue(|| sender.reserve(), sender.reserve(), take).await;

    let (sender, mut receiver) = oneshot::channel();
    give_up(&mut receiver).await;
    sender.send(5).expect("the receiver is there");
    let answer = if receiver.await == Ok(5) { NOTHING } else { "the answer" };

    let (sender, mut receiver) = broadcast::channel(1);
    give_up(receiver.recv()).await;
    sender.send(6).expect("the receiver is there");
    let broadcast = if receiver.recv().await == Ok(6) { NOTHING } else { "the item" };

    let (sender, mut receiver) = watch::channel(0);
    give_up(receiver.changed()).await;
    sender.send_replace(7);
    let changed = if receiver.changed().await.is_ok() { NOTHING } else { "the change" };

    vec![
        ("mpsc::Receiver::recv", received),
        ("mpsc::Sender::send", sent),
        ("mpsc::Sender::reserve", reserved),
        ("oneshot::Receiver, by &mut", answer),
        ("broadcast::Receiver::recv", broadcast),
        ("watch::Receiver::changed", changed),
    ]
}
// ANCHOR_END: channels

// ANCHOR: locks
async fn locks() -> Vec<(&'static str, &'static str)> {
    let mutex = Mutex::new(());
    let guard = mutex.lock().await;
    let lock = lost_in_a_queue(|| mutex.lock(), mutex.lock(), || drop(guard)).await;

    let locked = RwLock::new(());
    let guard = locked.write().await;
    let write = lost_in_a_queue(|| locked.write(), locked.write(), || drop(guard)).await;

    let semaphore = Semaphore::new(0);
    let give = || semaphore.add_permits(1);
    let acquire = lost_in_a_queue(|| semaphore.acquire(), semaphore.acquire(), give).await;

    let notify = Notify::new();
    let one = || notify.notify_one();
    let notified = lost_in_a_queue(|| notify.notified(), notify.notified(), one).await;

    let barrier = Barrier::new(2);
    give_up(barrier.wait()).await;
    // Only one is here.
    let alone = poll!(pin!(barrier.wait())).is_ready();
    let arrival = if alone { "the count: it goes on as one who has come" } else { NOTHING };

    vec![
        ("Mutex::lock", lock),
        ("RwLock::read, write", write),
        ("Semaphore::acquire", acquire),
        ("Notify::notified", notified),
        ("Barrier::wait", arrival),
    ]
}
// ANCHOR_END: locks

// ANCHOR: tasks
async fn tasks() -> Vec<(&'static str, &'static str)> {
    let mut handle = tokio::spawn(async {
        yield_now().await;
        1
    });
    give_up(&mut handle).await;
    let by_reference = if handle.await.ok() == Some(1) { NOTHING } else { "the output" };

    let (sender, receiver) = oneshot::channel();
    let task = async {
        yield_now().await;
        sender.send(2)
    };
    give_up(tokio::spawn(task)).await;
    let by_value = if receiver.await == Ok(2) { "the output: the task goes on" } else { "the task" };

    let mut set = JoinSet::new();
    set.spawn(yield_now());
    give_up(set.join_next()).await;
    let joined = if set.join_next().await.is_some() { NOTHING } else { "an output" };

    let (gate, closed) = std::sync::mpsc::channel::<()>();
    let (sender, receiver) = oneshot::channel();
    let blocking = move || {
        closed.iter().for_each(drop);
        sender.send(3)
    };
    give_up(spawn_blocking(blocking)).await;
    drop(gate);
    let blocking = if receiver.await == Ok(3) { "the output: the work goes on" } else { "the work" };

    vec![
        ("JoinHandle, by &mut", by_reference),
        ("JoinHandle, by value", by_value),
        ("JoinSet::join_next", joined),
        ("spawn_blocking", blocking),
    ]
}
// ANCHOR_END: tasks

// ANCHOR: time
async fn time() -> Vec<(&'static str, &'static str)> {
    const SECOND: Duration = Duration::from_secs(1);
    // Half a second was waited before it was given up.
    let lost = |start: Instant| start.elapsed() > SECOND * 5 / 4;
    let start = Instant::now();
    // `select!` in a loop: the sleep is made anew at each turn.
    _ = timeout(SECOND / 2, sleep(SECOND)).await;
    sleep(SECOND).await;
    let anew = if lost(start) { "the time it has waited" } else { NOTHING };

    let start = Instant::now();
    let mut kept = pin!(sleep(SECOND));
    _ = timeout(SECOND / 2, &mut kept).await;
    kept.await;
    let kept = if lost(start) { "the time it has waited" } else { NOTHING };

    let start = Instant::now();
    let mut ticks = interval(SECOND);
    ticks.tick().await;
    _ = timeout(SECOND / 2, ticks.tick()).await;
    ticks.tick().await;
    let tick = if lost(start) { "a tick" } else { NOTHING };

    vec![("sleep", anew), ("sleep, pinned, by &mut", kept), ("Interval::tick", tick)]
}
// ANCHOR_END: time

// ANCHOR: io
async fn io() -> std::io::Result<Vec<(&'static str, &'static str)>> {
    let (mut client, mut server) = duplex(64);
    let mut bytes = [0; 4];
    give_up(server.read(&mut bytes)).await;
    client.write_all(b"abcd").await?;
    let read = if server.read(&mut bytes).await? == 4 { NOTHING } else { "bytes" };

    client.write_all(b"ab").await?;
    give_up(server.read_exact(&mut bytes)).await;
    client.write_all(b"cdef").await?;
    server.read_exact(&mut bytes).await?;
    let exact = if &bytes == b"abcd" { NOTHING } else { "the bytes it has read" };

    let (mut client, server) = duplex(64);
    let mut reader = BufReader::new(server);
    client.write_all(b"half a ").await?;
    let mut line = String::new();
    give_up(reader.read_line(&mut line)).await;
    client.write_all(b"line\n").await?;
    reader.read_line(&mut line).await?;
    let read_line = if line == "half a line\n" { NOTHING } else { "the bytes it has read" };

    let mut lines = reader.lines();
    client.write_all(b"half a ").await?;
    give_up(lines.next_line()).await;
    client.write_all(b"line\n").await?;
    let next_line =
        if lines.next_line().await?.as_deref() == Some("half a line") { NOTHING } else { "bytes" };

    let (mut client, mut server) = duplex(2);
    give_up(client.write_all(b"abcd")).await;
    client.shutdown().await?;
    let mut written = Vec::new();
    server.read_to_end(&mut written).await?;
    let write_all = match written.len() {
        0 => "all of it",
        4 => NOTHING,
        _ => "what is not yet written, and how much that is",
    };

    let (mut from, mut source) = duplex(64);
    let (mut sink, mut to) = duplex(2);
    from.write_all(b"abcd").await?;
    give_up(copy(&mut source, &mut sink)).await;
    drop(from);
    let mut rest = Vec::new();
    source.read_to_end(&mut rest).await?;
    drop(sink);
    let mut copied = Vec::new();
    to.read_to_end(&mut copied).await?;
    let copied = if copied.len() + rest.len() < 4 { "what it has read and not yet written" } else { NOTHING };

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    give_up(listener.accept()).await;
    let _client = TcpStream::connect(listener.local_addr()?).await?;
    let accept = if listener.accept().await.is_ok() { NOTHING } else { "the connection" };

    let mut stream = pin!(futures::stream::once(yield_now()));
    give_up(stream.next()).await;
    let next = if stream.next().await.is_some() { NOTHING } else { "the item" };

    Ok(vec![
        ("AsyncReadExt::read", read),
        ("AsyncReadExt::read_exact", exact),
        ("AsyncBufReadExt::read_line", read_line),
        ("Lines::next_line", next_line),
        ("AsyncWriteExt::write_all", write_all),
        ("io::copy", copied),
        ("TcpListener::accept", accept),
        ("StreamExt::next", next),
    ])
}
// ANCHOR_END: io

// ANCHOR: queue
/// Three users of a lock. The first one that waits looks up from its wait after 10 ms, and goes on with it.
async fn queue(keeps_its_place: bool) {
    let mutex = Mutex::new(());
    let ms = Duration::from_millis;
    let work = async || waiting("io", sleep(ms(20))).await;
    let holder = async {
        let _guard = mutex.lock().await;
        work().await;
    };
    let first = async {
        let mut turn = pin!(waiting("lock", mutex.lock()));
        _ = timeout(ms(10), &mut turn).await;
        if !keeps_its_place {
            turn.set(waiting("lock", mutex.lock()));
        }
        let _guard = turn.await;
        work().await;
    };
    let second = async {
        waiting("timer", sleep(ms(5))).await;
        let _guard = waiting("lock", mutex.lock()).await;
        work().await;
    };
    tokio::join!(holder.lane("holder"), first.lane("first"), second.lane("second"));
}
// ANCHOR_END: queue

fn print(title: &str, rows: Vec<(&str, &str)>) {
    println!("{title}");
    for (operation, lost) in rows {
        println!("  {operation:<28} loses {lost}");
    }
}

// Nothing here waits for time but what is tried in `time` and `queue`.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    print("channels", channels().await);
    print("locks", locks().await);
    print("tasks", tasks().await);
    print("input and output", io().await?);
    print("time", time().await);
    let ((), anew) = record("asks again", queue(false)).await;
    let ((), kept) = record("keeps its place", queue(true)).await;
    args.show(&anew.beside(kept))
}
