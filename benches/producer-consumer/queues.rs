//! `priority_queue` and `lossy_queue`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::{Future, ready};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use ::producer_consumer::{Overflow, PriorityQueue, latest_queue, lossy_queue};
use benches::{Bench, Flavour, Table, figure, short, time};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio::task::{JoinSet, yield_now};

pub(crate) fn tables(bench: &mut Bench) {
    priority_queue_tables(bench);
    lossy_queue_tables(bench);
}

const CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const PRIORITIES: usize = 4;

async fn all<F: Future<Output = ()> + Send + 'static>(tasks: impl IntoIterator<Item = F>) {
    tasks.into_iter().collect::<JoinSet<()>>().join_all().await;
}

async fn by_priority_queue(n: usize, sides: usize) {
    let queue = Arc::new(PriorityQueue::new(CAPACITY, 64));
    let receivers = (0..sides).map(|_| {
        let queue = queue.clone();
        async move { while queue.recv().await.is_some() {} }
    });
    let receivers: JoinSet<()> = receivers.collect();
    let senders = (0..sides).map(|_| {
        let queue = queue.clone();
        async move {
            for item in 0..n / sides {
                // Nobody closes it before.
                let _ = queue.send((item % PRIORITIES) as u8, item).await;
            }
        }
    });
    all(senders).await;
    queue.close();
    receivers.join_all().await;
}

/// A heap, and a semaphore for each side. Whoever is urgent goes first, however long the others have waited.
struct Heap {
    items: Mutex<BinaryHeap<Reverse<(u8, usize)>>>,
    room: Semaphore,
    ready: Semaphore,
}

async fn by_heap(n: usize, sides: usize) {
    let (room, ready) = (Semaphore::new(CAPACITY.get()), Semaphore::new(0));
    let heap = Arc::new(Heap { items: Mutex::default(), room, ready });
    let receivers = (0..sides).map(|_| {
        let heap = heap.clone();
        async move {
            for _ in 0..n / sides {
                if let Ok(permit) = heap.ready.acquire().await {
                    permit.forget();
                }
                let item = heap.items.lock().unwrap_or_else(PoisonError::into_inner).pop();
                assert!(item.is_some());
                heap.room.add_permits(1);
            }
        }
    });
    let receivers: JoinSet<()> = receivers.collect();
    let senders = (0..sides).map(|_| {
        let heap = heap.clone();
        async move {
            for item in 0..n / sides {
                if let Ok(permit) = heap.room.acquire().await {
                    permit.forget();
                }
                let item = Reverse(((item % PRIORITIES) as u8, item));
                heap.items.lock().unwrap_or_else(PoisonError::into_inner).push(item);
                heap.ready.add_permits(1);
            }
        }
    });
    all(senders).await;
    receivers.join_all().await;
}

/// A channel for each priority, and `select!` in the order of the priorities.
async fn by_select(n: usize) {
    let [a, b, c, d] = [(); PRIORITIES].map(|()| mpsc::channel::<usize>(CAPACITY.get() / PRIORITIES));
    let senders = [a.0, b.0, c.0, d.0];
    let (mut a, mut b, mut c, mut d) = (a.1, b.1, c.1, d.1);
    let receive = tokio::spawn(async move {
        let mut count = 0;
        loop {
            tokio::select! {
                biased;
                Some(_) = a.recv() => {}
                Some(_) = b.recv() => {}
                Some(_) = c.recv() => {}
                Some(_) = d.recv() => {}
                else => return count,
            }
            count += 1;
        }
    });
    let send = tokio::spawn(async move {
        for item in 0..n {
            let _ = senders[item % PRIORITIES].send(item).await;
        }
    });
    let _ = send.await;
    assert_eq!(receive.await.ok(), Some(n));
}

async fn by_mpsc(n: usize) {
    let (sender, mut receiver) = mpsc::channel(CAPACITY.get());
    let receive = tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let send = async move {
        for item in 0..n {
            let _ = sender.send(item).await;
        }
    };
    all([send]).await;
    let _ = receive.await;
}

async fn by_async_channel(n: usize, sides: usize) {
    let (sender, receiver) = async_channel::bounded(CAPACITY.get());
    let receivers = (0..sides).map(|_| {
        let receiver = receiver.clone();
        async move { while receiver.recv().await.is_ok() {} }
    });
    let receivers: JoinSet<()> = receivers.collect();
    let senders = (0..sides).map(|_| {
        let sender = sender.clone();
        async move {
            for item in 0..n / sides {
                let _ = sender.send(item).await;
            }
        }
    });
    all(senders).await;
    drop((sender, receiver));
    receivers.join_all().await;
}

fn priority_queue_tables(bench: &mut Bench) {
    for n in [10_000, 1_000_000].map(|n| bench.size(n)) {
        let title = |n| format!("{} items of 4 priorities, 1 sender and 1 receiver", short(n));
        let table = Table::new("priority_queue", title(n), "ns/item", Flavour::CurrentThread, n)
            .grown_from(title(10_000))
            .recipe("priority_queue", time(move || by_priority_queue(n, 1)))
            .peer("BinaryHeap and semaphores, no ageing", time(move || by_heap(n, 1)))
            .peer("4 tokio mpsc, biased select!, no ageing", time(move || by_select(n)))
            .peer("async-channel, no priorities", time(move || by_async_channel(n, 1)))
            .floor("tokio mpsc, no priorities", time(move || by_mpsc(n)));
        let job = format!("priority_queue {n}");
        bench.measure(if n > 10_000 {
            table
        } else {
            table.python("asyncio.PriorityQueue, no ageing", &job)
        });
    }
    let n = bench.size(100_000);
    let title = format!("{} items of 4 priorities, 4 senders and 4 receivers", short(n));
    let table = Table::new("priority_queue", title, "ns/item", Flavour::MultiThread, n)
        .recipe("priority_queue", time(move || by_priority_queue(n, 4)))
        .peer("BinaryHeap and semaphores, no ageing", time(move || by_heap(n, 4)))
        .peer("async-channel, no priorities", time(move || by_async_channel(n, 4)));
    bench.measure(table);

    // An urgent item comes for each one that is received: how many are before a patient one that came first?
    let title = "urgent items received before a patient one, of 10 k that keep coming".to_string();
    let table = Table::new("priority_queue", title, "items", Flavour::CurrentThread, 1)
        .recipe(
            "priority_queue, stride 64",
            figure(|| async {
                let queue = PriorityQueue::new(CAPACITY, 64);
                let _ = queue.send(1, true).await;
                let mut before = 0;
                for _ in 0..10_000 {
                    let _ = queue.send(0, false).await;
                    if queue.recv().await == Some(true) {
                        break;
                    }
                    before += 1;
                }
                (f64::from(before), String::new())
            }),
        )
        .peer(
            "BinaryHeap, no ageing",
            figure(|| {
                let mut heap = BinaryHeap::from([Reverse((1, 0))]);
                let mut before = 0;
                for item in 0..10_000 {
                    heap.push(Reverse((0, item)));
                    if matches!(heap.pop(), Some(Reverse((1, _)))) {
                        break;
                    }
                    before += 1;
                }
                ready((f64::from(before), "it is not received at all".to_string()))
            }),
        )
        .floor("first in, first out", figure(|| ready((0.0, String::new()))));
    bench.measure(table);
}

/// What a sender does between two turns of the receiver: twice what the queue holds.
const BURST: usize = 2 * CAPACITY.get();

/// Sends `n` items in bursts while `receive` runs, and returns what that returns.
async fn in_bursts<F, S>(n: usize, send: S, receive: F) -> usize
where
    F: Future<Output = usize> + Send + 'static,
    S: Fn(usize) + Send + 'static,
{
    let receiving = tokio::spawn(receive);
    all([async move {
        for item in 0..n {
            send(item);
            if item % BURST == BURST - 1 {
                yield_now().await;
            }
        }
    }])
    .await;
    receiving.await.unwrap_or_default()
}

async fn by_lossy_queue(n: usize, overflow: Overflow) {
    let (sender, mut receiver) = lossy_queue(CAPACITY, overflow);
    let receive = async move {
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        received + receiver.lost() as usize
    };
    let seen = in_bursts(n, move |item| _ = sender.send(item), receive).await;
    assert_eq!(seen, n);
}

async fn by_broadcast(n: usize) {
    let (sender, mut receiver) = broadcast::channel(CAPACITY.get());
    let receive = async move {
        let mut seen = 0;
        loop {
            match receiver.recv().await {
                Ok(_) => seen += 1,
                Err(broadcast::error::RecvError::Lagged(lost)) => seen += lost as usize,
                Err(broadcast::error::RecvError::Closed) => return seen,
            }
        }
    };
    let seen = in_bursts(n, move |item| _ = sender.send(item), receive).await;
    assert_eq!(seen, n);
}

async fn by_force_send(n: usize) {
    let (sender, receiver) = async_channel::bounded(CAPACITY.get());
    let receive = async move {
        let mut received = 0;
        while receiver.recv().await.is_ok() {
            received += 1;
        }
        received
    };
    in_bursts(n, move |item| _ = sender.force_send(item), receive).await;
}

/// The end is told by an item without a number.
async fn by_deque(n: usize) {
    let shared = Arc::new((Mutex::new((VecDeque::new(), 0)), Notify::new()));
    let other = shared.clone();
    let receive = async move {
        let mut received = 0;
        loop {
            let popped = other.0.lock().unwrap_or_else(PoisonError::into_inner).0.pop_front();
            match popped {
                Some(None) => {
                    return received + other.0.lock().unwrap_or_else(PoisonError::into_inner).1;
                }
                Some(Some(_)) => received += 1,
                None => other.1.notified().await,
            }
        }
    };
    let send = move |item| {
        let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.len() == CAPACITY.get() {
            state.0.pop_front();
            state.1 += 1;
        }
        state.0.push_back(Some(item));
        if item == n - 1 {
            state.0.push_back(None);
        }
        drop(state);
        shared.1.notify_one();
    };
    let seen = in_bursts(n, send, receive).await;
    assert_eq!(seen, n);
}

/// 100 keys in turn.
async fn by_latest_queue(n: usize) {
    let (sender, mut receiver) = latest_queue(CAPACITY, Overflow::DropOldest, |item: &usize| item % 100);
    let receive = async move {
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        received + receiver.lost() as usize
    };
    let seen = in_bursts(n, move |item| _ = sender.send(item), receive).await;
    assert_eq!(seen, n);
}

/// A map of what is new, taken as a whole: without an order, and with nothing that tells of the end.
async fn by_map(n: usize) {
    let shared = Arc::new((Mutex::new(HashMap::new()), Notify::new()));
    let other = shared.clone();
    let receive = async move {
        let mut received = 0;
        loop {
            let taken = std::mem::take(&mut *other.0.lock().unwrap_or_else(PoisonError::into_inner));
            received += taken.len();
            if taken.values().any(|item| *item == n - 1) {
                return received;
            }
            if taken.is_empty() {
                other.1.notified().await;
            }
        }
    };
    let send = move |item| {
        shared.0.lock().unwrap_or_else(PoisonError::into_inner).insert(item % 100, item);
        shared.1.notify_one();
    };
    in_bursts(n, send, receive).await;
}

fn lossy_queue_tables(bench: &mut Bench) {
    for (n, flavour) in [
        (10_000, Flavour::CurrentThread),
        (1_000_000, Flavour::CurrentThread),
        (1_000_000, Flavour::MultiThread),
    ] {
        let n = bench.size(n);
        let title = |n| format!("{} items, twice as many at once as the queue holds", short(n));
        let table = Table::new("lossy_queue", title(n), "ns/item", flavour, n)
            .recipe("DropOldest", time(move || by_lossy_queue(n, Overflow::DropOldest)))
            .recipe("DropNewest", time(move || by_lossy_queue(n, Overflow::DropNewest)))
            .peer("tokio broadcast, Lagged", time(move || by_broadcast(n)))
            .peer("async-channel force_send, no count", time(move || by_force_send(n)))
            .floor("Mutex<VecDeque> and Notify", time(move || by_deque(n)));
        let table = if flavour == Flavour::CurrentThread { table.grown_from(title(10_000)) } else { table };
        let job = format!("lossy_queue {n} {CAPACITY}");
        bench.measure(if n > 10_000 { table } else { table.python("deque(maxlen) and Event", &job) });
    }
    let n = bench.size(1_000_000);
    let title = format!("{} items of 100 keys, the latest of each", short(n));
    let table = Table::new("lossy_queue", title, "ns/item", Flavour::CurrentThread, n)
        .recipe("latest_queue", time(move || by_latest_queue(n)))
        .floor("Mutex<HashMap> and Notify, no order", time(move || by_map(n)));
    bench.measure(table);
}
