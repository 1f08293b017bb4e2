//! Run jobs that lead to further jobs, so many at a time, until none is left.
//!
//! Use it to walk what is not known beforehand: a directory tree, the links of a site. A job that fails or panics is tried
//! again later, and does not stop the others. For items that come from elsewhere use `work_queue`.
//!
//! | | |
//! |---|---|
//! | Order | follow-up jobs before further input, the newest first; jobs to be tried again after the other follow-ups |
//! | Errors | a failed job goes back; after `tries` failures it is a [`DeadLetter`], and its follow-ups never were |
//! | Cancellation | dropping the call aborts the running jobs, and each ends at its next await without being waited for |
//! | Panics | a job's panic is a failure like an error; a panic of an iterator or of a job's `clone` is the caller's |
//! | Memory | O(workers) jobs at work, an iterator for each job whose follow-ups are not all started, the jobs to be tried again, the dead letters; in a tree of depth d at most about `workers` × d iterators |
//! | Backpressure | input and follow-ups are pulled one by one, only when a worker is free |
//! | Clock | none of its own |
//!
//! A job does not add jobs: it returns them. So no job waits for room in its own pool, and the jobs that follow from one
//! that is tried twice are there once.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use producer_consumer::worker_pool;
//!
//! #[tokio::main]
//! async fn main() {
//!     let two = NonZeroUsize::new(2).unwrap();
//!     let countdown = async |n: u32| if n == 7 { Err("seven") } else { Ok(n.checked_sub(1)) };
//!     let dead = worker_pool([3, 9], two, two, countdown).await;
//!     assert_eq!((dead.len(), dead[0].job, dead[0].tries), (1, 7, 2));
//! }
//! ```

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::task::coop::consume_budget;
use tokio::task::{JoinError, JoinSet};

/// A job that failed as often as it may.
#[derive(Debug)]
pub struct DeadLetter<J, E> {
    /// The job.
    pub job: J,
    /// How often it was tried.
    pub tries: usize,
    /// How the last try failed.
    pub failure: Failure<E>,
}

/// How a job failed.
#[derive(Debug)]
pub enum Failure<E> {
    /// It returned this error.
    Error(E),
    /// It panicked. The payload can be resumed with [`std::panic::resume_unwind`].
    Panic(Box<dyn Any + Send>),
    /// It was aborted, because its runtime was shut down.
    Aborted,
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Error(error) => error.fmt(f),
            Failure::Panic(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "panicked: {}", text.unwrap_or("no message"))
            }
            Failure::Aborted => f.write_str("aborted: its runtime was shut down"),
        }
    }
}

/// Runs `work` on each job of `input` and on each job that follows from one, as tasks, at most `workers` at a time. Returns
/// when no job is left, with those that failed `tries` times.
///
/// `work` gets a clone of the job, and returns the jobs that follow from it: a list, or an iterator that is pulled as workers
/// become free. An iterator must not block.
pub async fn worker_pool<J, W, F, N, E>(
    input: impl IntoIterator<Item = J>,
    workers: NonZeroUsize,
    tries: NonZeroUsize,
    work: W,
) -> Vec<DeadLetter<J, E>>
where
    J: Clone + Send + 'static,
    W: Fn(J) -> F + Send + Sync + 'static,
    F: Future<Output = Result<N, E>> + Send,
    N: IntoIterator<Item = J> + Send + 'static,
    E: Send + 'static,
{
    let mut backlog =
        Backlog { follow_ups: Vec::new(), again: VecDeque::new(), input: input.into_iter().fuse() };
    let work = Arc::new(work);
    let (mut running, mut jobs, mut dead) = (JoinSet::new(), HashMap::new(), Vec::new());
    loop {
        while running.len() < workers.get() {
            consume_budget().await;
            let Some((job, tried)) = backlog.next() else { break };
            // Nothing of `work` runs outside of the task, so that a panic of it ends no more than its job.
            let (work, own) = (work.clone(), job.clone());
            let task = running.spawn(async move { work(own).await });
            jobs.insert(task.id(), (job, tried + 1));
        }
        let Some(ended) = running.join_next_with_id().await else { return dead };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let failure = match ended {
            Ok((_, Ok(follow_ups))) => {
                backlog.add(follow_ups.into_iter().peekable());
                jobs.remove(&id);
                continue;
            }
            Ok((_, Err(error))) => Failure::Error(error),
            Err(error) => error.try_into_panic().map_or(Failure::Aborted, Failure::Panic),
        };
        match jobs.remove(&id) {
            Some((job, tried)) if tried >= tries.get() => {
                dead.push(DeadLetter { job, tries: tried, failure })
            }
            again => backlog.again.extend(again),
        }
    }
}

/// Jobs that were not started, with how often each was tried.
struct Backlog<N: Iterator, J, I> {
    /// None of them is at its end.
    follow_ups: Vec<Peekable<N>>,
    again: VecDeque<(J, usize)>,
    input: I,
}

impl<N: Iterator<Item = J>, J, I: Iterator<Item = J>> Backlog<N, J, I> {
    fn add(&mut self, mut newest: Peekable<N>) {
        if newest.peek().is_some() {
            self.follow_ups.push(newest);
        }
    }

    fn next(&mut self) -> Option<(J, usize)> {
        if let Some(mut newest) = self.follow_ups.pop() {
            let job = newest.next();
            self.add(newest);
            return job.map(|job| (job, 0));
        }
        self.again.pop_front().or_else(|| self.input.next().map(|job| (job, 0)))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[tokio::test(start_paused = true)]
    async fn order_is_depth_first_and_all_is_done() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let walk = {
            let seen = seen.clone();
            move |job: u32| {
                seen.lock().unwrap().push(job);
                async move { Ok::<_, ()>(if job < 10 { vec![10 * job, 10 * job + 1] } else { Vec::new() }) }
            }
        };
        assert!(worker_pool(1..=2, ONE, ONE, walk).await.is_empty());
        assert_eq!(*seen.lock().unwrap(), [1, 10, 11, 2, 20, 21]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_go_back_and_then_to_the_dead_letters() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counter = tries.clone();
        let work = move |job: u32| {
            let tries = counter.fetch_add(1, Relaxed);
            async move {
                match job {
                    1 => Err("refused"),
                    // Not `panic!`: the message would be printed though the panic is expected.
                    2 => resume_unwind(Box::new("broken")),
                    3 if tries < 5 => Err("not yet"),
                    _ => Ok(None),
                }
            }
        };
        let dead = worker_pool(1..=4, TWO, THREE, work).await;
        let mut dead: Vec<_> =
            dead.iter().map(|dead| format!("{} {} {}", dead.job, dead.tries, dead.failure)).collect();
        dead.sort();
        assert_eq!(dead, ["1 3 refused", "2 3 panicked: broken"]);
        assert!(tries.load(Relaxed) <= 3 + 3 + 3 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_before_the_first_await_are_failures_too() {
        let work = |job: u32| {
            if job == 1 {
                resume_unwind(Box::new("early"));
            }
            async { Ok::<_, ()>([]) }
        };
        let dead = worker_pool([1, 2], TWO, ONE, work).await;
        assert_eq!((dead.len(), dead[0].job), (1, 1));
        assert!(matches!(dead[0].failure, Failure::Panic(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_aborts_the_jobs() {
        let held = Arc::new(());
        let guard = held.clone();
        let work = move |_: u32| {
            let guard = guard.clone();
            async move {
                let _guard = guard;
                std::future::pending::<Result<Option<u32>, ()>>().await
            }
        };
        let call = worker_pool(0.., THREE, ONE, work);
        assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_pulls_only_for_a_free_worker() {
        let (start, pulled) = (Instant::now(), AtomicUsize::new(0));
        let input = (0..10).inspect(|_| _ = pulled.fetch_add(1, Relaxed));
        let work = |_| async {
            sleep(Duration::from_millis(10)).await;
            Ok::<_, ()>(None)
        };
        let call = worker_pool(input, TWO, ONE, work);
        let later = async {
            sleep(Duration::from_millis(15)).await;
            pulled.load(Relaxed)
        };
        let (dead, pulled) = tokio::join!(call, later);
        assert_eq!((dead.len(), pulled, start.elapsed()), (0, 4, Duration::from_millis(50)));
    }

    #[tokio::test]
    async fn memory_of_a_long_chain_is_that_of_one_job() {
        let again = VecDeque::new();
        let mut backlog = Backlog { follow_ups: Vec::new(), again, input: [].into_iter() };
        for job in 0..1000 {
            backlog.add(vec![job].into_iter().peekable());
            assert_eq!(backlog.next(), Some((job, 0)));
            assert!(backlog.follow_ups.is_empty());
        }
        let next = |job: u32| async move { Ok::<_, ()>((job < 10_000).then_some(job + 1)) };
        let chain = worker_pool([0], NonZeroUsize::MAX, ONE, next);
        assert!(tokio::spawn(chain).await.unwrap().is_empty());
    }
}
