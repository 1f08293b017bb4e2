//! `sync_facade`, and what the page on sync and async quotes.

use std::future::{Future, ready};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use benches::{Bench, Flavour, Measure, Table, once, stopwatch, time};
use blocking::{Offload, SyncFacade};
use futures::future::join_all;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

pub(crate) fn tables(bench: &mut Bench) {
    let n = bench.size(1_000);
    let title = format!("{n} calls from sync code, one after another, of a future that is ready");
    let facade = Arc::new(SyncFacade::new().expect("a thread can be had"));
    let same = facade.clone();
    let recipe = on_a_thread(n, move || _ = facade.call(ready(7)));
    let offloaded = on_a_blocking_thread(n, move || _ = same.call(ready(7)));
    let bare =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread can be had");
    let bare = on_a_thread(n, move || _ = bare.block_on(ready(7)));
    let fresh = on_a_thread(n, || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a few file handles").block_on(ready(7));
    });
    let handle = sending(n);
    let table = Table::new("sync_facade", title, "ns/call", Flavour::CurrentThread, n)
        .recipe("sync_facade", recipe)
        .recipe("sync_facade, in spawn_blocking", offloaded)
        .peer("a new current-thread runtime for each call", fresh)
        .peer("a task on a running runtime, and a channel back", handle)
        .floor("Runtime::block_on", bare)
        .python("asyncio.run", &format!("sync_call {n}"));
    bench.measure(table);

    let n = bench.size(1_000);
    let title = format!("{n} waits of 10 ms");
    let wait = Duration::from_millis(10);
    let tasks = time(move || {
        let tasks: Vec<_> = (0..n).map(|_| tokio::spawn(sleep(wait))).collect();
        join_all(tasks)
    });
    let facade = Arc::new(SyncFacade::new().expect("a thread can be had"));
    let through = time(move || {
        let facade = facade.clone();
        spawn_blocking(move || {
            facade.call(join_all((0..n).map(|_| async move { sleep(wait).await }))).is_ok()
        })
    });
    let threads = once(move || {
        let threads: Vec<_> = (0..n).map(|_| thread::spawn(move || blocking_wait(wait))).collect();
        async move { threads.into_iter().filter_map(|thread| thread.join().ok()).count() }
    });
    let offloaded = once(move || {
        let offload = Offload::new(NonZeroUsize::new(100).expect("above zero"));
        async move { join_all((0..n).map(|_| offload.run(move |_| blocking_wait(wait)))).await.len() }
    });
    let one_by_one = once(move || {
        (0..n).for_each(|_| blocking_wait(wait));
        ready(())
    });
    let table = Table::new("sync_facade", title, "ms", Flavour::CurrentThread, 1)
        .recipe("async, called from sync code", through)
        .recipe("offload, 100 threads", offloaded)
        .peer("tasks", tasks)
        .peer("a thread for each", threads)
        .peer("sync, one after another", one_by_one)
        .floor("the longest wait", time(move || sleep(wait)))
        .python("asyncio.gather", &format!("waits {n}"));
    bench.measure(table);
}

/// What a sync client does while it waits.
fn blocking_wait(wait: Duration) {
    thread::park_timeout(wait);
}

/// Times `n` calls on a plain thread.
fn on_a_thread(n: usize, call: impl Fn() + Send + Sync + 'static) -> Measure {
    let call = Arc::new(call);
    stopwatch(move || {
        let (call, (sender, elapsed)) = (call.clone(), oneshot::channel());
        thread::spawn(move || sender.send(repeat(n, &*call)));
        async move { elapsed.await.unwrap_or_default() }
    })
}

/// Times `n` calls on a runtime's thread for blocking work.
fn on_a_blocking_thread(n: usize, call: impl Fn() + Send + Sync + 'static) -> Measure {
    let call = Arc::new(call);
    stopwatch(move || {
        let call = call.clone();
        let calls = spawn_blocking(move || repeat(n, &*call));
        async move { calls.await.unwrap_or_default() }
    })
}

fn repeat(n: usize, call: &impl Fn()) -> Duration {
    let start = Instant::now();
    (0..n).for_each(|_| call());
    start.elapsed()
}

/// What one writes without `block_on`: the future is sent to a runtime, and the answer comes back through a channel.
fn sending(n: usize) -> Measure {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a thread can be had");
    let handle = runtime.handle().clone();
    on_a_thread(n, move || {
        let _alive = &runtime;
        send(&handle, ready(7));
    })
}

fn send<F>(handle: &Handle, future: F) -> Option<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    handle.spawn(async move { _ = sender.send(future.await) });
    receiver.blocking_recv().ok()
}
