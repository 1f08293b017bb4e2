//! Run blocking work on threads of its own, so much at a time, and lose sight of none of it.
//!
//! Use it for sync libraries and files. For computations use `cpu_pool`. Work that never ends, such as a loop that waits for
//! devices, belongs on a `std::thread`: here it would hold its place, and a runtime that shuts down waits for it.
//!
//! | | |
//! |---|---|
//! | Order | places are given in the order of the calls (each call's first poll); with one place, work runs in that order |
//! | Errors | [`NotRun`] when there is no runtime for the work any more; the work's own errors are its output |
//! | Cancellation | dropping a call drops work that waits for a place; work that has a place and has not begun never runs; work that runs cannot be stopped from outside: it sees [`Caller::is_gone`], keeps its place until it ends, and [`drain`](Offload::drain) waits for it |
//! | Panics | the work's panic is the caller's panic; if the caller is gone, the latest is what `drain` returns |
//! | Memory | `limit` threads with what their work holds, and the closure of each call that waits |
//! | Backpressure | at most `limit` at a time; further calls wait without a thread |
//! | Clock | none of its own; on the paused clock of a current-thread runtime no time passes while work runs |
//!
//! The threads are those of [`spawn_blocking`](tokio::task::spawn_blocking): made when needed, at most 512 for the whole
//! runtime, shared with `tokio::fs` and the lookup of host names. The limit keeps most of them free for those. Work must not
//! wait for other work of the same `Offload`: when all places are taken by such work, nothing moves.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use blocking::Offload;
//!
//! #[tokio::main]
//! async fn main() {
//!     let offload = Offload::new(NonZeroUsize::new(4).unwrap());
//!     let manifest = offload.run(|_| std::fs::read_to_string("Cargo.toml")).await.unwrap();
//!     assert!(manifest.unwrap().contains("[package]"));
//!     assert!(offload.drain().await.is_ok());
//! }
//! ```

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// A bounded number of places for work that blocks. Clones share the places.
///
/// Dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct Offload<S = BlockingThreads> {
    threads: S,
    places: Arc<Semaphore>,
    limit: u32,
    orphan: Orphan,
}

/// The latest panic that had no caller to go to.
type Orphan = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

/// Where work runs.
pub trait Threads {
    /// Runs `job`, which does not panic, on a thread that may be blocked; or drops it, if there is none any more.
    fn spawn(&self, job: impl FnOnce() + Send + 'static);
}

/// The threads for blocking work of the runtime in which the call is polled.
#[derive(Clone, Copy, Debug)]
pub struct BlockingThreads;

impl Threads for BlockingThreads {
    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(job));
        }
    }
}

/// What work knows of the call that waits for it. Clones know the same.
#[derive(Clone, Debug)]
pub struct Caller(Arc<State>);

#[derive(Debug)]
struct State {
    gone: AtomicBool,
    /// Emptied at the end of the work, or before that by the call that has the output: when it returns, the place is free.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Caller {
    /// Whether the call was dropped, so that nobody wants the output. Long work asks between its steps, and returns early.
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }

    fn release(&self) {
        // Under the lock: whichever of the two is second must not go on before the place is free.
        drop(lock(&self.0.place).take());
    }
}

/// The work was not run: the call is not polled in a Tokio runtime, or the runtime is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the blocking work was not run: no Tokio runtime here, or it is shutting down")]
pub struct NotRun;

impl Offload {
    /// At most `limit` at a time, on Tokio's threads for blocking work.
    pub fn new(limit: NonZeroUsize) -> Self {
        Offload::on(BlockingThreads, limit)
    }
}

impl<S: Threads> Offload<S> {
    /// At most `limit` at a time, on these `threads`.
    pub fn on(threads: S, limit: NonZeroUsize) -> Self {
        let limit = u32::try_from(limit.get().min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let places = Arc::new(Semaphore::new(limit as usize));
        Offload { threads, places, limit, orphan: Orphan::default() }
    }

    /// Waits for a place, runs `work` on another thread and returns its output.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Caller) -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (sender, receiver) = oneshot::channel();
        let caller = Caller(Arc::new(State { gone: AtomicBool::new(false), place: Mutex::new(Some(place)) }));
        let mut call = Call { caller: caller.clone(), receiver, orphan: self.orphan.clone() };
        let orphan = self.orphan.clone();
        self.threads.spawn(move || job(work, &caller, sender, &orphan));
        let end = (&mut call.receiver).await;
        call.caller.release();
        match end {
            Ok(Ok(Some(output))) => Ok(output),
            Ok(Err(panic)) => resume_unwind(panic),
            Ok(Ok(None)) | Err(_) => Err(NotRun),
        }
    }

    /// Waits until the work of every call made before has ended, also where the call was dropped. Calls made meanwhile wait
    /// until this is over or dropped.
    ///
    /// An error is the latest panic that had no caller, with its payload, as [`thread::JoinHandle::join`] returns it.
    pub async fn drain(&self) -> thread::Result<()> {
        let _all = self.places.acquire_many(self.limit).await.expect("the semaphore is never closed");
        let panic = lock(&self.orphan).take();
        panic.map_or(Ok(()), Err)
    }
}

/// `None` is for nobody: the caller is gone, and the work was not begun.
type End<T> = thread::Result<Option<T>>;

fn job<T>(
    work: impl FnOnce(&Caller) -> T,
    caller: &Caller,
    sender: oneshot::Sender<End<T>>,
    orphan: &Orphan,
) {
    let end = catch_unwind(AssertUnwindSafe(move || (!caller.is_gone()).then(|| work(caller))));
    // With nobody to take it, an output is dropped here and now, while its place is still taken.
    let unsent = sender.send(end).map_or_else(|end| end, |()| Ok(None));
    let dropped = unsent.and_then(|output| catch_unwind(AssertUnwindSafe(|| drop(output))));
    if let Err(panic) = dropped {
        keep(orphan, panic);
    }
    caller.release();
}

/// A call that waits for its work. Its drop tells the work.
struct Call<T> {
    caller: Caller,
    receiver: oneshot::Receiver<End<T>>,
    orphan: Orphan,
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.caller.0.gone.store(true, Ordering::Relaxed);
        self.receiver.close();
        // It was sent, and nobody has looked at it.
        if let Ok(Err(panic)) = self.receiver.try_recv() {
            keep(&self.orphan, panic);
        }
    }
}

fn keep(orphan: &Orphan, panic: Box<dyn Any + Send>) {
    let before = lock(orphan).replace(panic);
    // Not under the lock, and caught: what somebody has panicked with may have a drop of its own.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::new(1).unwrap();
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// Polls once.
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn order_is_that_of_the_calls() {
        let offload = Offload::new(ONE);
        let order = Arc::new(Mutex::new(Vec::new()));
        let call = |number| {
            let order = order.clone();
            offload.run(move |_| lock(&order).push(number))
        };
        let (mut first, mut second, mut third) = (pin!(call(1)), pin!(call(2)), pin!(call(3)));
        // The first cannot end while this is held.
        let held = lock(&order);
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        drop(held);
        let (first, second, third) = tokio::join!(first, second, third);
        assert_eq!((first, second, third), (Ok(()), Ok(()), Ok(())));
        assert_eq!(*lock(&order), [1, 2, 3]);
    }

    #[test]
    fn errors_without_a_runtime() {
        let offload = Offload::new(ONE);
        for _ in 0..2 {
            assert_eq!(poll(pin!(offload.run(|_| ()))), Poll::Ready(Err(NotRun)));
        }
    }

    #[tokio::test]
    async fn cancellation_is_seen_by_the_work_which_keeps_its_place() {
        let offload = Offload::new(ONE);
        let (started, running) = oneshot::channel();
        let held = Arc::new(());
        let guard = held.clone();
        let work = move |caller: &Caller| {
            let _ = started.send(());
            while !caller.is_gone() {
                thread::yield_now();
            }
            guard
        };
        let call = tokio::spawn({
            let offload = offload.clone();
            async move { drop(offload.run(work).await) }
        });
        running.await.unwrap();
        let mut waiting = Box::pin(offload.run(|_| panic!("its call was dropped")));
        assert!(poll(waiting.as_mut()).is_pending());
        drop(waiting);
        call.abort();
        assert!(offload.drain().await.is_ok());
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(offload.run(|_| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn panics_are_the_callers_or_those_of_drain() {
        let offload = Offload::new(ONE);
        let call = tokio::spawn({
            let offload = offload.clone();
            async move { offload.run(|_| resume_unwind(Box::new("heard"))).await }
        });
        let panic = call.await.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"heard"));
        assert!(offload.drain().await.is_ok());

        let (started, running) = oneshot::channel();
        let mut call = Box::pin(offload.run(move |caller| {
            let _ = started.send(());
            while !caller.is_gone() {
                thread::yield_now();
            }
            resume_unwind(Box::new("left behind"))
        }));
        let mut running = pin!(running);
        let call_and_start = std::future::poll_fn(|context| {
            let _: Poll<Result<(), NotRun>> = call.as_mut().poll(context);
            running.as_mut().poll(context)
        });
        call_and_start.await.unwrap();
        drop(call);
        assert_eq!(offload.drain().await.unwrap_err().downcast_ref(), Some(&"left behind"));
        assert!(offload.drain().await.is_ok());
    }

    #[tokio::test]
    async fn memory_is_the_closure_of_each_call() {
        let (offload, held) = (Offload::new(ONE), Arc::new(()));
        let call = |held: Arc<()>| Box::pin(offload.run(move |_| drop(held)));
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
        let offload = Offload::new(TWO);
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls = (0..50).map(|_| {
            let (offload, running, peak) = (offload.clone(), running.clone(), peak.clone());
            tokio::spawn(async move {
                let work = move |_: &Caller| {
                    peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                offload.run(work).await
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), Ok(()));
        }
        assert!(peak.load(Ordering::SeqCst) <= 2);
        assert_eq!(Offload::new(NonZeroUsize::MAX).run(|_| 7).await, Ok(7));
    }
}
