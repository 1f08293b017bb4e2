//! Compute on all cores with rayon while the runtime goes on, with a bounded queue in between.
//!
//! Use it for computations of 100 µs and more; shorter ones pay more for the way than for the work, so hand over many in one
//! call and let rayon split them. For work that waits for files or the network use `offload`: a waiting thread computes nothing.
//!
//! | | |
//! |---|---|
//! | Order | places are given in the order of the calls (each call's first poll); with one place, work runs in that order |
//! | Errors | [`ThreadPoolBuildError`] when the threads cannot be started; the work's own errors are its output |
//! | Cancellation | dropping a call drops work that waits for a place; work that has a place and has not begun never runs; work that runs cannot be stopped from outside: it sees [`Caller::is_gone`](super::offload::Caller::is_gone), keeps its place until it ends, and [`drain`](Offload::drain) waits for it |
//! | Panics | the work's panic is the caller's panic, and never ends the process; if the caller is gone, the latest is what `drain` returns |
//! | Memory | `threads` threads, `limit` closures or outputs, and the closure of each call that waits |
//! | Backpressure | at most `limit` in the pool, at work or next in turn; further calls wait |
//! | Clock | none of its own; a paused clock does not stand still while the pool works |
//!
//! Inside the work `par_iter`, `join` and `scope` use the threads of this pool. The pool needs no Tokio runtime: any executor
//! may poll its calls. Dropping the last clone ends the threads when they have done what was handed to them.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use blocking::cpu_pool;
//! use rayon::prelude::*;
//!
//! #[tokio::main]
//! async fn main() {
//!     let [threads, limit] = [2, 4].map(|n| NonZeroUsize::new(n).unwrap());
//!     let pool = cpu_pool(threads, limit).unwrap();
//!     let sum = pool.run(|_| (1..=1000_u64).into_par_iter().map(|n| n * n).sum::<u64>());
//!     assert_eq!(sum.await, Ok(333_833_500));
//! }
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::offload::{Offload, Threads};

/// Threads that compute. [`run`](Offload::run) hands over a computation; its result is never `NotRun`.
pub type CpuPool = Offload<Arc<ThreadPool>>;

/// Starts a pool of as many `threads`, usually the number of cores, which has at most `limit` computations at a time.
///
/// With a `limit` of twice the threads a thread that has ended one computation finds the next one waiting.
pub fn cpu_pool(threads: NonZeroUsize, limit: NonZeroUsize) -> Result<CpuPool, ThreadPoolBuildError> {
    let builder = ThreadPoolBuilder::new().num_threads(threads.get());
    // Without a handler rayon ends the process when what a closure has captured panics in its drop.
    let builder = builder.thread_name(|number| format!("cpu {number}")).panic_handler(|_| ());
    Ok(Offload::on(Arc::new(builder.build()?), limit))
}

impl Threads for Arc<ThreadPool> {
    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.spawn_fifo(job);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use rayon::prelude::*;
    use tokio::sync::oneshot;

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::new(1).unwrap();
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn pool(threads: NonZeroUsize, limit: NonZeroUsize) -> CpuPool {
        cpu_pool(threads, limit).unwrap()
    }

    #[tokio::test]
    async fn order_is_that_of_the_calls() {
        let pool = pool(TWO, ONE);
        let order = Arc::new(Mutex::new(Vec::new()));
        let calls = (0..100).map(|number| {
            let (pool, order) = (pool.clone(), order.clone());
            tokio::spawn(async move { pool.run(move |_| order.lock().unwrap().push(number)).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn errors_are_outputs() {
        let parsed = pool(TWO, TWO).run(|_| "x".parse::<u8>()).await.unwrap();
        assert!(parsed.is_err());
    }

    #[tokio::test]
    async fn cancellation_is_seen_and_what_has_not_begun_never_runs() {
        let pool = pool(ONE, TWO);
        let (started, running) = oneshot::channel();
        let spin = tokio::spawn({
            let pool = pool.clone();
            async move {
                let work = |caller: &super::super::offload::Caller| {
                    let _ = started.send(());
                    while !caller.is_gone() {
                        thread::yield_now();
                    }
                };
                pool.run(work).await
            }
        });
        running.await.unwrap();
        // It has a place, but no thread yet.
        let next = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|_| panic!("its call was dropped")).await }
        });
        tokio::task::yield_now().await;
        next.abort();
        tokio::task::yield_now().await;
        spin.abort();
        assert!(pool.drain().await.is_ok());
    }

    #[tokio::test]
    async fn panics_are_the_callers_and_end_no_process() {
        let pool = pool(TWO, TWO);
        let call = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|_| (0..9).into_par_iter().for_each(refuse)).await }
        });
        assert_eq!(call.await.unwrap_err().into_panic().downcast_ref(), Some(&"five"));
        assert_eq!(pool.run(|_| 7).await, Ok(7));
    }

    fn refuse(number: u32) {
        if number == 5 {
            resume_unwind(Box::new("five"));
        }
    }

    #[tokio::test]
    async fn memory_is_the_closure_of_each_call() {
        let (pool, held) = (pool(ONE, ONE), Arc::new(()));
        let call = |held: Arc<()>| Box::pin(pool.run(move |_| drop(held)));
        let mut calls: Vec<_> = (0..10).map(|_| call(held.clone())).collect();
        assert_eq!(Arc::strong_count(&held), 11);
        for call in calls.drain(..3) {
            assert_eq!(call.await, Ok(()));
        }
        drop(calls);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn backpressure_is_that_of_the_limit() {
        let pool = pool(TWO, TWO);
        let inside = Arc::new(AtomicUsize::new(0));
        let calls = (0..50).map(|_| {
            let (pool, inside) = (pool.clone(), inside.clone());
            let work = move |_: &super::super::offload::Caller| {
                let before = inside.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                before < 2
            };
            tokio::spawn(async move { pool.run(work).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), Ok(true));
        }
    }
}
