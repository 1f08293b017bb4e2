//! Give calls inside calls one budget, and say whose limit ran out.
//!
//! Use it when a request has a limit and its parts have limits of their own: pass the [`Deadline`] down. For a single call
//! use `timeout`.
//!
//! | | |
//! |---|---|
//! | Order | [`Deadline::run_all`] starts its calls in input order and returns one result for each, in that order |
//! | Errors | [`Expired`] names what was cut off, and whose limit ran out: its own or that of a caller further up |
//! | Cancellation | at the deadline the call is dropped before `run` returns; dropping `run` or `run_all` drops the calls |
//! | Panics | a call's panic is the caller's; the other calls of `run_all` are dropped |
//! | Memory | O(1) a deadline; `run_all`: O(n) calls and outputs, and one timer for all |
//! | Backpressure | none: all calls start at once |
//! | Clock | `tokio::time`; a deadline is a moment, so time between two calls counts too |
//!
//! A deadline that has passed still polls a call once, so what is ready at once is never refused. An output that is there is
//! returned, however late. Nothing is cut off between two awaits.
//!
//! ```
//! use std::{future::pending, time::Duration};
//! use timeouts::Deadline;
//!
//! #[tokio::main]
//! async fn main() {
//!     let request = Deadline::after("request", Duration::from_millis(5));
//!     let orders = request.within("orders", Duration::from_secs(2));
//!     let expired = orders.run(pending::<()>()).await.unwrap_err();
//!     assert_eq!((&*expired.operation, &*expired.owner), ("orders", "request"));
//! }
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use gather::gather::gather;
use tokio::time::{Instant, sleep_until};

use super::timeout::cut;

/// What no deadline exceeds, because an `Instant` ends somewhere: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The moment by which an operation has to end. Clones are the same moment.
#[derive(Clone, Debug)]
pub struct Deadline {
    operation: Cow<'static, str>,
    owner: Cow<'static, str>,
    limit: Duration,
    at: Instant,
}

/// An operation was cut off at its deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} was cut off: the {limit:?} of {owner} ran out{}", if late.is_zero() { String::new() } else { format!(" {late:?} ago") })]
pub struct Expired {
    /// What was cut off.
    pub operation: Cow<'static, str>,
    /// Whose limit it was: the operation itself, or one that it is part of.
    pub owner: Cow<'static, str>,
    /// The limit of the owner, from its beginning.
    pub limit: Duration,
    /// How long after the deadline it was cut off. More than a few milliseconds: something computes without awaiting.
    pub late: Duration,
}

impl Deadline {
    /// A deadline for `operation`, which counts from now.
    pub fn after(operation: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        let (operation, now) = (operation.into(), Instant::now());
        // 30 years from now can be told on every system.
        let at = now + limit.min(FAR);
        Deadline { owner: operation.clone(), operation, limit, at }
    }

    /// The deadline of a part of this operation: its own limit from now, or what remains of this, whichever ends first.
    pub fn within(&self, operation: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        let own = Deadline::after(operation, limit);
        if own.at < self.at { own } else { Deadline { operation: own.operation, ..self.clone() } }
    }

    /// What is left. Zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The moment itself, for what takes one, such as [`tokio::time::timeout_at`].
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Runs `call`, and drops it when it still waits at the deadline.
    pub async fn run<F: Future>(&self, call: F) -> Result<F::Output, Expired> {
        cut(pin!(call), || sleep_until(self.at)).await.map_err(|()| self.expired())
    }

    /// Runs all `calls` on the caller's task under one timer. What has ended by the deadline is kept.
    pub async fn run_all<F: Future>(
        &self,
        calls: impl IntoIterator<Item = F>,
    ) -> Vec<Result<F::Output, Expired>> {
        let calls: Vec<F> = calls.into_iter().collect();
        let mut outputs: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
        // Collected, because a closure over a reference kept across an await could not be shown to be `Send`.
        let filled: Vec<_> = outputs.iter_mut().zip(calls).map(|(output, call)| fill(output, call)).collect();
        let ended = self.run(gather(filled)).await.map(drop);
        // Where everything ended every place is filled, and the error is never made.
        let expired = || ended.clone().err().unwrap_or_else(|| self.expired());
        outputs.into_iter().map(|output| output.ok_or_else(expired)).collect()
    }

    fn expired(&self) -> Expired {
        let late = Instant::now().saturating_duration_since(self.at);
        let (operation, owner) = (self.operation.clone(), self.owner.clone());
        Expired { operation, owner, limit: self.limit, late }
    }
}

async fn fill<F: Future>(output: &mut Option<F::Output>, call: F) {
    *output = Some(call.await);
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::Arc;
    use std::task::Poll;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    async fn after(milliseconds: u64) -> u64 {
        sleep(ms(milliseconds)).await;
        milliseconds
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_input_order_and_what_is_done_is_kept() {
        let deadline = Deadline::after("page", ms(25));
        let results = deadline.run_all([40, 10, 30, 20].map(after)).await;
        let done: Vec<_> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
        assert_eq!(done, [None, Some(10), None, Some(20)]);
        assert_eq!(deadline.run_all([ready(1)]).await, [Ok(1)]);
        assert!(deadline.run_all(std::iter::empty::<std::future::Ready<()>>()).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_say_whose_limit_ran_out() {
        let request = Deadline::after("request", ms(50));
        let own = request.within("user", ms(10)).run(after(60)).await.unwrap_err();
        assert_eq!(own.to_string(), "user was cut off: the 10ms of user ran out");
        let inner = request.within("orders", ms(500)).within("order 7", ms(90));
        assert_eq!(inner.remaining(), ms(40));
        let outer = inner.run(after(60)).await.unwrap_err();
        assert_eq!(outer.to_string(), "order 7 was cut off: the 50ms of request ran out");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_time_between_calls_counts_and_a_blocked_thread_is_reported() {
        let deadline = Deadline::after("request", ms(50));
        sleep(ms(45)).await;
        assert!(deadline.run(after(6)).await.is_err());
        assert_eq!((deadline.remaining(), deadline.run(ready(1)).await), (Duration::ZERO, Ok(1)));
        let endless = Deadline::after("request", Duration::MAX).within("part", Duration::MAX);
        assert_eq!(endless.run(after(5)).await, Ok(5));
        let computing = async {
            // One poll moves the clock, as code that computes does.
            poll_fn(|context| Poll::Ready(pin!(advance(ms(50))).poll(context).is_ready())).await;
            pending::<()>().await;
        };
        assert_eq!(Deadline::after("hash", ms(10)).run(computing).await.unwrap_err().late, ms(40));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_calls() {
        let held = Arc::new(());
        let forever = |_| {
            let held = held.clone();
            async move {
                let _held = held;
                pending::<()>().await;
            }
        };
        let deadline = Deadline::after("request", ms(5));
        assert!(timeout(ms(2), deadline.run_all((0..40).map(forever))).await.is_err());
        assert!(deadline.run(forever(0)).await.is_err());
        assert!(deadline.run_all((0..40).map(forever)).await.iter().all(Result::is_err));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers() {
        let call = async {
            let calls = (0..3).map(|i| async move { assert_ne!(i, 1, "broken") });
            Deadline::after("request", ms(5)).run_all(calls).await.len()
        };
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_output_for_each_call_and_the_future_is_send() {
        let call = async { Deadline::after("all", ms(50)).run_all((0..10_000).map(|_| after(9))).await };
        assert_eq!(tokio::spawn(call).await.unwrap().iter().flatten().count(), 10_000);
    }
}
