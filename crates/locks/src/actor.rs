//! Let one task own the state, send it typed requests, and get typed replies.
//!
//! Use it when a change of the state waits for something, a file or a connection, and must not overlap with another. When no
//! change waits, a `Mutex` is shorter and faster.
//!
//! | | |
//! |---|---|
//! | Order | one request at a time, in the order in which they got a place in the mailbox; callers wait for a place first come, first served |
//! | Errors | a handler's own errors are part of its reply; [`AskError`] says whether the request was begun |
//! | Cancellation | a caller that leaves before its turn takes its request along, after that the request is finished without it; [`stop`](Actor::stop) finishes what was accepted; dropping the actor aborts it at its next await and is not waited for |
//! | Panics | a handler's panic is an error for its caller and ends the actor, because the state may be half changed; `stop` returns it too |
//! | Memory | O(capacity + callers that wait), and the state |
//! | Backpressure | a full mailbox makes callers wait; a request whose caller has left keeps its place until its turn |
//! | Clock | `tokio::time`, for the limit of `stop` |
//!
//! ```
//! struct Add(u64);
//! impl locks::Request<u64> for Add {
//!     type Reply = u64;
//!     async fn handle(self, sum: &mut u64) -> u64 { *sum += self.0; *sum }
//! }
//!
//! #[tokio::main]
//! async fn main() {
//!     let actor = locks::Actor::start(1, 8.try_into().unwrap());
//!     assert_eq!(actor.address().ask(Add(4)).await, Ok(5));
//! }
//! ```

use std::any::Any;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What can be asked of an actor that owns an `S`.
pub trait Request<S>: Send + 'static {
    /// What comes back.
    type Reply: Send + 'static;

    /// Does it: an `async fn` in the `impl`. One that asks its own actor waits for itself for ever.
    fn handle(self, state: &mut S) -> impl Future<Output = Self::Reply> + Send;
}

/// A task that owns an `S`. Dropping it aborts the task.
#[derive(Debug)]
#[must_use = "dropping the actor aborts its task"]
pub struct Actor<S> {
    address: Address<S>,
    task: AbortOnDropHandle<Result<S, String>>,
}

/// Where to send requests. Clones lead to the same actor, and none of them keeps it alive.
#[derive(Debug)]
pub struct Address<S> {
    /// The task holds the receiver, and drops it when it ends.
    mailbox: mpsc::Sender<Job<S>>,
    stopping: CancellationToken,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor takes no more requests, or has ended. This one has changed nothing.
    #[error("the request was not begun: the actor has stopped")]
    NotBegun,
    /// The actor was aborted in the middle of it. It may be done in part.
    #[error("the request was begun and not finished: the actor was aborted")]
    Unfinished,
    /// Its handler panicked with this message. It may be done in part.
    #[error("the request was begun and not finished: {0}")]
    Panicked(String),
}

/// Why an actor that was stopped has no state to return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// A handler had panicked with this message.
    #[error("a request panicked: {0}")]
    Panicked(String),
    /// It had not finished by then, and was aborted.
    #[error("the actor did not finish its requests within {0:?}")]
    Late(Duration),
    /// Its runtime was shut down.
    #[error("the runtime of the actor was shut down")]
    Shutdown,
}

type Job<S> = Box<dyn for<'a> FnOnce(&'a mut S) -> BoxFuture<'a, Result<(), String>> + Send>;
type Jobs<S> = mpsc::Receiver<Job<S>>;

impl<S: Send + 'static> Actor<S> {
    /// Starts a task that owns `state`. At most `capacity` requests wait in its mailbox.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime.
    pub fn start(state: S, capacity: NonZeroUsize) -> Self {
        let (mailbox, jobs) = mpsc::channel(capacity.get().min(Semaphore::MAX_PERMITS));
        let stopping = CancellationToken::new();
        let task = tokio::spawn(work(state, jobs, stopping.clone()));
        Actor { address: Address { mailbox, stopping }, task: AbortOnDropHandle::new(task) }
    }

    /// Where to send requests.
    pub fn address(&self) -> Address<S> {
        self.address.clone()
    }

    /// Takes no more requests, finishes those in the mailbox, and returns the state. After `limit` the task is aborted, and
    /// its end is awaited: a handler that never awaits holds it up. Dropping the call aborts the task.
    pub async fn stop(mut self, limit: Duration) -> Result<S, StopError> {
        self.address.stopping.cancel();
        let in_time = timeout(limit, &mut self.task).await;
        let late = in_time.is_err();
        self.task.abort(); // a task that has ended does not notice
        let ended = match in_time {
            Ok(ended) => ended,
            Err(_) => (&mut self.task).await,
        };
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(panicked)) => Err(StopError::Panicked(panicked)),
            Err(Ok(panic)) => Err(StopError::Panicked(message(&*panic))),
            Err(Err(_)) => Err(if late { StopError::Late(limit) } else { StopError::Shutdown }),
        }
    }
}

impl<S: Send + 'static> Address<S> {
    /// Waits for a place in the mailbox, and then for the reply. Dropping the call withdraws a request that was not begun; one
    /// that was begun is finished.
    pub async fn ask<R: Request<S>>(&self, request: R) -> Result<R::Reply, AskError> {
        let place = self.stopping.run_until_cancelled(self.mailbox.reserve()).await;
        let Some(Ok(place)) = place else { return Err(AskError::NotBegun) };
        let (caller, answer) = oneshot::channel();
        place.send(job(request, Slot { caller: Some(caller), answer: Err(AskError::NotBegun) }));
        answer.await.unwrap_or(Err(AskError::Unfinished))
    }
}

impl<S> Clone for Address<S> {
    fn clone(&self) -> Self {
        Address { mailbox: self.mailbox.clone(), stopping: self.stopping.clone() }
    }
}

async fn work<S>(mut state: S, mut jobs: Jobs<S>, stopping: CancellationToken) -> Result<S, String> {
    while let Some(Some(job)) = stopping.run_until_cancelled(jobs.recv()).await {
        job(&mut state).await?;
    }
    jobs.close();
    while let Some(job) = jobs.recv().await {
        job(&mut state).await?;
    }
    Ok(state)
}

fn job<S: Send, R: Request<S>>(request: R, slot: Slot<R::Reply>) -> Job<S> {
    Box::new(move |state| {
        let turn = async move {
            let mut slot = slot;
            if slot.caller.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return Ok(());
            }
            slot.answer = Err(AskError::Unfinished);
            let handled = AssertUnwindSafe(async { request.handle(state).await }).catch_unwind().await;
            let handled = handled.map_err(|panic| message(&*panic));
            let ended = handled.as_ref().map(|_| ()).map_err(String::clone);
            slot.answer = handled.map_err(AskError::Panicked);
            ended
        };
        turn.boxed()
    })
}

/// The way back to a caller, who gets the answer that it holds when it is dropped.
struct Slot<T> {
    caller: Option<oneshot::Sender<Result<T, AskError>>>,
    answer: Result<T, AskError>,
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Err(AskError::Unfinished));
        let _ = self.caller.take().map(|caller| caller.send(answer)); // the caller may have left
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use futures::poll;
    use tokio::runtime::Handle;
    use tokio::time::{Instant, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Appends a letter, which takes 10 ms.
    struct Append(char);

    impl Request<String> for Append {
        type Reply = usize;

        async fn handle(self, text: &mut String) -> usize {
            text.push(self.0);
            sleep(10 * MS).await;
            assert_ne!(self.0, '!', "no shouting");
            text.len()
        }
    }

    /// Another request, with another reply.
    struct Read;

    impl Request<String> for Read {
        type Reply = String;

        async fn handle(self, text: &mut String) -> String {
            text.clone()
        }
    }

    fn start(capacity: usize) -> (Actor<String>, Address<String>) {
        let capacity = NonZeroUsize::new(capacity).expect("tests use capacities above zero");
        let actor = Actor::start(String::new(), capacity);
        let address = actor.address();
        (actor, address)
    }

    #[tokio::test(start_paused = true)]
    async fn order_one_at_a_time() {
        let (_actor, address) = start(2);
        let replies = join_all("abcdef".chars().map(|letter| address.ask(Append(letter)))).await;
        assert_eq!(replies, [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5), Ok(6)]);
        assert_eq!(address.ask(Read).await, Ok("abcdef".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_withdraws_what_was_not_begun_and_finishes_what_was() {
        let (actor, address) = start(8);
        let asks = "abc".chars().map(|letter| timeout(MS, address.ask(Append(letter))));
        assert!(join_all(asks).await.iter().all(Result::is_err));
        assert_eq!(address.ask(Append('d')).await, Ok(2));
        assert_eq!(actor.stop(Duration::MAX).await, Ok("ad".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_stop_finishes_what_was_accepted() {
        let (actor, address) = start(2);
        let asks = join_all("abcd".chars().map(|letter| address.ask(Append(letter))));
        let stop = async {
            sleep(5 * MS).await;
            actor.stop(Duration::MAX).await
        };
        let (replies, state) = tokio::join!(asks, stop);
        // One is at work, two are in the mailbox, and one waits for a place.
        assert_eq!(replies, [Ok(1), Ok(2), Ok(3), Err(AskError::NotBegun)]);
        assert_eq!((state, address.ask(Read).await), (Ok("abc".into()), Err(AskError::NotBegun)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_by_drop_says_who_was_begun() {
        let (actor, address) = start(8);
        let asks = join_all("ab".chars().map(|letter| address.ask(Append(letter))));
        let dropped = async {
            sleep(5 * MS).await;
            drop(actor);
        };
        let (replies, ()) = tokio::join!(asks, dropped);
        assert_eq!(replies, [Err(AskError::Unfinished), Err(AskError::NotBegun)]);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_errors_reach_the_caller_and_the_owner() {
        let (actor, address) = start(8);
        let replies = join_all("a!b".chars().map(|letter| address.ask(Append(letter)))).await;
        let AskError::Panicked(message) = replies[1].clone().unwrap_err() else { panic!("{replies:?}") };
        assert!(message.contains("no shouting"), "{message}");
        assert_eq!((&replies[0], &replies[2]), (&Ok(1), &Err(AskError::NotBegun)));
        assert_eq!(address.ask(Read).await, Err(AskError::NotBegun));
        assert_eq!(actor.stop(MS).await, Err(StopError::Panicked(message)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_say_what_became_of_the_request() {
        let (actor, address) = start(1);
        let late = actor.stop(Duration::ZERO);
        assert_eq!(tokio::join!(address.ask(Append('a')), late).0, Err(AskError::NotBegun));
        assert_eq!(AskError::NotBegun.to_string(), "the request was not begun: the actor has stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_of_the_limit() {
        let (actor, address) = start(8);
        let start = Instant::now();
        let asks = join_all("abc".chars().map(|letter| address.ask(Append(letter))));
        let stop = async {
            sleep(5 * MS).await;
            actor.stop(10 * MS).await
        };
        let (replies, state) = tokio::join!(asks, stop);
        assert_eq!(replies, [Ok(1), Err(AskError::Unfinished), Err(AskError::NotBegun)]);
        assert_eq!((state, start.elapsed()), (Err(StopError::Late(10 * MS)), 15 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_backpressure_are_those_of_the_capacity() {
        let (actor, address) = start(2);
        let mut asks: Vec<_> = "abcde".chars().map(|letter| Box::pin(address.ask(Append(letter)))).collect();
        for ask in &mut asks {
            assert!(poll!(ask).is_pending());
        }
        assert_eq!(address.mailbox.capacity(), 0);
        asks.truncate(3);
        assert_eq!(join_all(asks).await, [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(actor.stop(MS).await, Ok("abc".into()));
    }

    #[tokio::test]
    async fn backpressure_with_the_largest_capacity() {
        let actor = Actor::start(String::new(), NonZeroUsize::MAX);
        let address = actor.address();
        let read = tokio::spawn(async move { address.ask(Read).await });
        assert_eq!(read.await.unwrap(), Ok(String::new()));
    }
}
