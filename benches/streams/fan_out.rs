//! `fan_out` and `lossy_channel`.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::streams::{Event, FanOut, Receiver, Sender, WhenFull, lossy_channel};
use benches::{Bench, Flavour, Measure, Table, short, stopwatch, time};
use futures::{FutureExt, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::yield_now;

pub(crate) fn tables(bench: &mut Bench) {
    fan_out_tables(bench);
    lossy_channel_tables(bench);
}

const CAPACITY: NonZeroUsize = NonZeroUsize::new(32).unwrap();
const SHARDS: usize = 4;

type Seen = Arc<AtomicUsize>;

/// `rounds` times `burst` items go to `n` receivers, each of which is a task; the next burst follows when all have this one.
fn delivered<P, R, F>(
    [n, rounds, burst]: [usize; 3],
    make: impl Fn(usize) -> (P, Vec<R>) + Send + Sync + 'static,
    publish: impl Fn(&mut P, usize) + Send + Sync + 'static,
    read: impl Fn(R, Seen) -> F + Send + Sync + 'static,
) -> Measure
where
    P: Send + 'static,
    R: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let parts = Arc::new((make, publish, read));
    stopwatch(move || {
        let parts = parts.clone();
        async move {
            let (make, publish, read) = &*parts;
            let (mut publisher, receivers) = make(n);
            let seen = Seen::default();
            let reading = receivers.into_iter().map(|receiver| tokio::spawn(read(receiver, seen.clone())));
            let reading: Vec<_> = reading.collect();
            yield_now().await;
            let start = Instant::now();
            for round in 1..=rounds {
                (0..burst).for_each(|item| publish(&mut publisher, item));
                while seen.load(Relaxed) < round * burst * n {
                    yield_now().await;
                }
            }
            let elapsed = start.elapsed();
            drop(publisher);
            for reading in reading {
                // A reader ends when the publisher is gone.
                let _ = reading.await;
            }
            elapsed
        }
    })
}

fn by_fan_out(work: [usize; 3], when_full: WhenFull) -> Measure {
    let make = move |n| {
        let fan_out = FanOut::new();
        let receivers = (0..n).map(|_| fan_out.subscribe(CAPACITY, when_full)).collect();
        (fan_out, receivers)
    };
    delivered(work, make, publish, async |mut receiver: Receiver<usize>, seen: Seen| {
        while let Some(Event::Item(_)) = receiver.next().await {
            seen.fetch_add(1, Relaxed);
        }
    })
}

fn by_fan_out_that_blocks(work: [usize; 3]) -> Measure {
    let make = |n| {
        let fan_out = FanOut::new();
        let receivers = (0..n).map(|_| fan_out.subscribe_blocking(CAPACITY, Duration::MAX)).collect();
        (fan_out, receivers)
    };
    delivered(work, make, publish, async |mut receiver: Receiver<usize>, seen: Seen| {
        while let Some(Event::Item(_)) = receiver.next().await {
            seen.fetch_add(1, Relaxed);
        }
    })
}

/// A few tasks subscribe, and each hands on to its share of the sinks.
fn by_shards(work: [usize; 3]) -> Measure {
    let make = |n| {
        let fan_out = FanOut::new();
        let shard = |_| (fan_out.subscribe(CAPACITY, WhenFull::DropOldest), n / SHARDS);
        let receivers = (0..SHARDS).map(shard).collect();
        (fan_out, receivers)
    };
    delivered(work, make, publish, async |(mut receiver, share): (Receiver<usize>, usize), seen: Seen| {
        let mut sinks = vec![VecDeque::new(); share];
        while let Some(Event::Item(item)) = receiver.next().await {
            for sink in &mut sinks {
                sink.push_back(item);
                if sink.len() == CAPACITY.get() {
                    black_box(&*sink);
                    sink.clear();
                }
            }
            seen.fetch_add(share, Relaxed);
        }
    })
}

fn publish(fan_out: &mut FanOut<usize>, item: usize) {
    // Nobody is full, so it is done at once.
    while fan_out.publish(item).now_or_never().is_none() {}
}

fn by_broadcast(work: [usize; 3]) -> Measure {
    let make = |n| {
        let (sender, _) = broadcast::channel(CAPACITY.get());
        let receivers = (0..n).map(|_| sender.subscribe()).collect();
        (sender, receivers)
    };
    let publish = |sender: &mut broadcast::Sender<usize>, item| drop(sender.send(item));
    delivered(work, make, publish, async |mut receiver: broadcast::Receiver<usize>, seen: Seen| {
        loop {
            match receiver.recv().await {
                Ok(_) => _ = seen.fetch_add(1, Relaxed),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    })
}

fn by_mpsc_each(work: [usize; 3]) -> Measure {
    let make = |n| (0..n).map(|_| mpsc::channel(CAPACITY.get())).unzip();
    let publish = |senders: &mut Vec<mpsc::Sender<usize>>, item| {
        senders.retain(|sender| sender.try_send(item).is_ok());
    };
    delivered(work, make, publish, async |mut receiver: mpsc::Receiver<usize>, seen: Seen| {
        while receiver.recv().await.is_some() {
            seen.fetch_add(1, Relaxed);
        }
    })
}

/// Every task is woken, and gets nothing.
fn by_wake_up_alone(work: [usize; 3]) -> Measure {
    let make = |n| {
        let (one, other) = (0..n).map(|_| Arc::new(Notify::new())).map(|it| (it.clone(), it)).unzip();
        (Bells(one), other)
    };
    let publish = |bells: &mut Bells, _| bells.0.iter().for_each(|bell| bell.notify_one());
    delivered(work, make, publish, async |bell: Arc<Notify>, seen: Seen| {
        loop {
            bell.notified().await;
            if Arc::strong_count(&bell) == 1 {
                return;
            }
            seen.fetch_add(1, Relaxed);
        }
    })
}

struct Bells(Vec<Arc<Notify>>);

impl Drop for Bells {
    fn drop(&mut self) {
        for bell in self.0.drain(..) {
            bell.notify_one();
        }
    }
}

fn fan_out_tables(bench: &mut Bench) {
    for (n, rounds, burst, flavour) in [
        (1_000, 20, 1, Flavour::CurrentThread),
        (10_000, 4, 1, Flavour::CurrentThread),
        (1_000, 4, 16, Flavour::CurrentThread),
        (1_000, 20, 1, Flavour::MultiThread),
        (10_000, 4, 1, Flavour::MultiThread),
    ] {
        let n = bench.size(n);
        let how = if burst == 1 { "one item at a time".into() } else { format!("{burst} items at a time") };
        let title = |n| format!("{} subscribers, each a task, {how}", short(n));
        let work = [n, rounds, burst];
        let mut table = Table::new("fan_out", title(n), "ns/delivery", flavour, n * rounds * burst)
            .grown_from(title(1_000))
            .recipe("fan_out, drop oldest", by_fan_out(work, WhenFull::DropOldest))
            .recipe("fan_out, block", by_fan_out_that_blocks(work))
            .recipe("fan_out to 4 tasks that own the sinks", by_shards(work))
            .peer("tokio broadcast", by_broadcast(work))
            .peer("a tokio mpsc each", by_mpsc_each(work));
        if burst == 1 {
            table = table.floor("a wake-up each, no item", by_wake_up_alone(work));
        }
        if flavour == Flavour::CurrentThread {
            table = table.python("a queue each", &format!("fan_out {n} {rounds} {burst}"));
        }
        bench.measure(table);
    }

    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items, one of two subscribers stalls", short(n));
        let table = Table::new("fan_out", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("fan_out, drop oldest", time(move || stalled_fan_out(n, WhenFull::DropOldest)))
            .recipe("fan_out, drop newest", time(move || stalled_fan_out(n, WhenFull::DropNewest)))
            .recipe("fan_out, disconnect", time(move || stalled_fan_out(n, WhenFull::Disconnect)))
            .peer("tokio broadcast", time(move || stalled_broadcast(n)))
            .peer("an unbounded tokio mpsc each", time(move || stalled_unbounded(n)));
        bench.measure(table);
    }
}

async fn stalled_fan_out(n: usize, when_full: WhenFull) -> usize {
    let fan_out = FanOut::new();
    let _stalled = fan_out.subscribe(CAPACITY, when_full);
    let mut reads = fan_out.subscribe(CAPACITY, when_full);
    let mut seen = 0;
    for item in 0..n {
        fan_out.publish(item).await;
        seen += usize::from(reads.next().await.is_some());
    }
    seen
}

async fn stalled_broadcast(n: usize) -> usize {
    let (sender, _stalled) = broadcast::channel(CAPACITY.get());
    let mut reads = sender.subscribe();
    let mut seen = 0;
    for item in 0..n {
        let _ = sender.send(item);
        seen += usize::from(reads.recv().await.is_ok());
    }
    seen
}

async fn stalled_unbounded(n: usize) -> usize {
    let ((stalled, _kept), (sender, mut reads)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let mut seen = 0;
    for item in 0..n {
        let _ = (stalled.send(item), sender.send(item));
        seen += usize::from(reads.recv().await.is_some());
    }
    seen
}

/// How many items come at once.
const BURST: usize = 16;

/// `n` items in bursts that fit; the next one comes when the receiver has said that it has all of this one.
fn in_bursts<S, R, F>(
    n: usize,
    make: impl Fn() -> (S, R) + Send + Sync + 'static,
    send: impl Fn(&mut S, usize) + Send + Sync + 'static,
    read: impl Fn(R, Arc<Notify>) -> F + Send + Sync + 'static,
) -> Measure
where
    S: Send + 'static,
    R: Send + 'static,
    F: Future<Output = usize> + Send + 'static,
{
    let parts = Arc::new((make, send, read));
    time(move || {
        let parts = parts.clone();
        async move {
            let (make, send, read) = &*parts;
            let (mut sender, receiver) = make();
            let turn = Arc::new(Notify::new());
            let reading = tokio::spawn(read(receiver, turn.clone()));
            for item in 1..=n {
                send(&mut sender, item);
                if item.is_multiple_of(BURST) {
                    turn.notified().await;
                }
            }
            drop(sender);
            assert!(reading.await.is_ok_and(|seen| seen == n));
        }
    })
}

/// Counts an item, and says so at the end of a burst.
fn saw(seen: &mut usize, turn: &Notify) {
    *seen += 1;
    if seen.is_multiple_of(BURST) {
        turn.notify_one();
    }
}

async fn read_lossy(mut receiver: Receiver<usize>, turn: Arc<Notify>) -> usize {
    let mut seen = 0;
    while let Some(Event::Item(_)) = receiver.next().await {
        saw(&mut seen, &turn);
    }
    seen
}

fn lossy_channel_tables(bench: &mut Bench) {
    let send_lossy = |sender: &mut Sender<usize>, item| _ = sender.send(item);
    for n in [1_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items, 16 at a time, none lost", short(n));
        let table = Table::new("lossy_channel", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe(
                "lossy_channel, drop oldest",
                in_bursts(n, || lossy_channel(CAPACITY, WhenFull::DropOldest), send_lossy, read_lossy),
            )
            .peer(
                "tokio broadcast, one receiver",
                in_bursts(
                    n,
                    || broadcast::channel(CAPACITY.get()),
                    |sender, item| _ = sender.send(item),
                    async |mut receiver: broadcast::Receiver<usize>, turn: Arc<Notify>| {
                        let mut seen = 0;
                        while receiver.recv().await.is_ok() {
                            saw(&mut seen, &turn);
                        }
                        seen
                    },
                ),
            )
            .peer(
                "async-channel force_send",
                in_bursts(
                    n,
                    || async_channel::bounded(CAPACITY.get()),
                    |sender, item| _ = sender.force_send(item),
                    async |receiver: async_channel::Receiver<usize>, turn: Arc<Notify>| {
                        let mut seen = 0;
                        while receiver.recv().await.is_ok() {
                            saw(&mut seen, &turn);
                        }
                        seen
                    },
                ),
            )
            .peer(
                "tokio mpsc try_send",
                in_bursts(
                    n,
                    || mpsc::channel(CAPACITY.get()),
                    |sender, item| _ = sender.try_send(item),
                    async |mut receiver: mpsc::Receiver<usize>, turn: Arc<Notify>| {
                        let mut seen = 0;
                        while receiver.recv().await.is_some() {
                            saw(&mut seen, &turn);
                        }
                        seen
                    },
                ),
            )
            .python("a deque and an event", &format!("lossy_channel {n}"));
        bench.measure(table);
    }
    for n in [1_000, 10_000, 100_000] {
        let n = bench.size(n);
        let title = |n| format!("{} items to a receiver that stalls", short(n));
        let lossy = |when_full| {
            move || async move {
                let (mut sender, _stalled) = lossy_channel(CAPACITY, when_full);
                (0..n).filter(|item| sender.send(*item)).count()
            }
        };
        let table = Table::new("lossy_channel", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(1_000))
            .recipe("lossy_channel, drop oldest", time(lossy(WhenFull::DropOldest)))
            .recipe("lossy_channel, drop newest", time(lossy(WhenFull::DropNewest)))
            .peer(
                "tokio broadcast, one receiver",
                time(move || async move {
                    let (sender, _stalled) = broadcast::channel(CAPACITY.get());
                    (0..n).filter(|item| sender.send(*item).is_ok()).count()
                }),
            )
            .peer(
                "async-channel force_send",
                time(move || async move {
                    let (sender, _stalled) = async_channel::bounded(CAPACITY.get());
                    (0..n).filter(|item| sender.force_send(*item).is_ok()).count()
                }),
            );
        bench.measure(table);
    }
}
