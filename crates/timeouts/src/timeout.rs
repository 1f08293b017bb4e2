//! Give an operation a limit: cut it off there, or hand it to an owner who lets it finish.
//!
//! Use it around a single call that may take too long. For calls inside calls that share one budget use `deadline`.
//!
//! | | |
//! |---|---|
//! | Order | the operation is polled before its timer: an output that is there is returned |
//! | Errors | [`TimedOut`] names the operation, its limit and the time it took; [`Limit::run`] also reports an output that came late |
//! | Cancellation | at the limit the operation is dropped before the call returns, except by [`timeout_or_detach`], which hands it over; dropping any call drops the operation |
//! | Panics | the operation's panic is the caller's |
//! | Memory | the operation and one timer; [`timeout_or_detach`] boxes the operation |
//! | Backpressure | none: one operation, started at once |
//! | Clock | `tokio::time`; [`timeout`] makes its timer, and starts to count, when the operation first has to wait; a [`Limit`] counts from its creation |
//!
//! An operation that computes without ever awaiting cannot be cut off by anyone. [`timeout`] never looks at the clock when
//! the operation is ready at its first poll, which makes that case cheap and blind; [`Limit::run`] does, and says how late it was.
//!
//! ```
//! use std::{future::pending, time::Duration};
//! use timeouts::timeout;
//!
//! #[tokio::main]
//! async fn main() {
//!     let error = timeout("fetch users/7", Duration::from_millis(5), pending::<()>()).await.unwrap_err();
//!     assert_eq!((error.operation.as_ref(), error.limit), ("fetch users/7", Duration::from_millis(5)));
//! }
//! ```

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep};

/// An operation took longer than its limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} took {took:?}, its limit is {limit:?}")]
pub struct TimedOut {
    /// What took so long.
    pub operation: Cow<'static, str>,
    /// How long it could have taken.
    pub limit: Duration,
    /// How long it ran. Well above the limit, something computes without awaiting.
    pub took: Duration,
}

/// Runs `future`, and drops it when it still waits after `limit`. It is polled at least once, with a limit of zero too.
pub async fn timeout<F: Future>(
    operation: impl Into<Cow<'static, str>>,
    limit: Duration,
    future: F,
) -> Result<F::Output, TimedOut> {
    let result = cut(pin!(future), || expiry(limit)).await;
    result.map_err(|took| TimedOut { operation: operation.into(), limit, took })
}

/// As [`timeout`], but what still waits after `limit` is given to `keep`, in the state it is in, to be run to its end.
///
/// `keep` gives it to an owner: `|work| drop(tracker.spawn(work))` with a `TaskTracker`, or with a `JoinSet`, which also
/// gets the output. Only the limit hands over: dropping this call drops the operation.
pub async fn timeout_or_detach<F: Future>(
    operation: impl Into<Cow<'static, str>>,
    limit: Duration,
    future: F,
    keep: impl FnOnce(Pin<Box<F>>),
) -> Result<F::Output, TimedOut> {
    let mut future = Box::pin(future);
    match cut(future.as_mut(), || expiry(limit)).await {
        Ok(output) => Ok(output),
        Err(took) => {
            keep(future);
            Err(TimedOut { operation: operation.into(), limit, took })
        }
    }
}

/// A limit that can be moved while an operation runs, by anyone who can borrow it: the operation itself, or another task.
#[derive(Debug)]
pub struct Limit {
    operation: Cow<'static, str>,
    start: Instant,
    /// The receivers are in the running calls.
    limit: watch::Sender<Duration>,
}

/// There is no output, or it came after the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{timed_out}")]
pub struct Late<T> {
    /// What took how long.
    pub timed_out: TimedOut,
    /// The output, if the operation ended by itself: it computed past the limit, where it could not be cut off.
    pub output: Option<T>,
}

impl Limit {
    /// A limit that counts from now.
    pub fn new(operation: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        Limit { operation: operation.into(), start: Instant::now(), limit: watch::Sender::new(limit) }
    }

    /// Moves the limit. It still counts from the creation: `limit.set(limit.elapsed() + more)` gives `more` from now.
    pub fn set(&self, limit: Duration) {
        self.limit.send_replace(limit);
    }

    /// The time since the creation.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs `future`, and drops it when it still waits at the limit. An output that came after the limit is reported.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Late<F::Output>> {
        let (output, limit) = match cut(pin!(future), || self.expiry()).await {
            Ok(output) => (Some(output), *self.limit.borrow()),
            Err(limit) => (None, limit),
        };
        let took = self.elapsed();
        match output {
            Some(output) if took <= limit => Ok(output),
            output => {
                let timed_out = TimedOut { operation: self.operation.clone(), limit, took };
                Err(Late { timed_out, output })
            }
        }
    }

    /// Returns the limit that was reached.
    async fn expiry(&self) -> Duration {
        let mut limits = self.limit.subscribe();
        loop {
            let limit = *limits.borrow_and_update();
            tokio::select! {
                biased;
                // Never an error: the sender is in `self`.
                _ = limits.changed() => {}
                () = sleep(limit.saturating_sub(self.elapsed())) => return limit,
            }
        }
    }
}

/// Returns what it really took.
fn expiry(limit: Duration) -> impl Future<Output = Duration> {
    let start = Instant::now();
    async move {
        sleep(limit).await;
        start.elapsed()
    }
}

/// Runs `future` until the timer, which is made when `future` is first pending, returns.
pub(super) async fn cut<F: Future, T: Future>(
    mut future: Pin<&mut F>,
    make_timer: impl FnOnce() -> T,
) -> Result<F::Output, T::Output> {
    let first = poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    if let Poll::Ready(output) = first.await {
        return Ok(output);
    }
    let mut polled = true;
    // Otherwise an operation that uses up the task's budget at each poll is never cut off.
    let mut timer = pin!(unconstrained(make_timer()));
    poll_fn(|context| {
        let output = if take(&mut polled) { Poll::Pending } else { future.as_mut().poll(context) };
        if let Poll::Ready(output) = output {
            return Poll::Ready(Ok(output));
        }
        timer.as_mut().poll(context).map(Err)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::task::JoinSet;
    use tokio::task::coop::consume_budget;
    use tokio::time::advance;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    async fn after(milliseconds: u64) -> u64 {
        sleep(ms(milliseconds)).await;
        milliseconds
    }

    /// Moves the clock within one poll, as code that computes and never awaits does.
    fn compute(milliseconds: u64) -> impl Future<Output = u64> {
        poll_fn(move |_| {
            assert!(advance(ms(milliseconds)).now_or_never().is_none());
            Poll::Ready(milliseconds)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn order_an_output_that_is_there_is_returned() {
        assert_eq!(timeout("now", Duration::ZERO, ready(1)).now_or_never(), Some(Ok(1)));
        assert_eq!(timeout("long", Duration::MAX, after(60_000)).await, Ok(60_000));
        assert_eq!(Limit::new("long", Duration::MAX).run(after(60_000)).await, Ok(60_000));
        assert_eq!(timeout("both at once", ms(5), after(5)).await, Ok(5));
        assert_eq!(tokio::spawn(timeout("is Send", ms(5), after(3))).await.unwrap(), Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_operation_limit_and_time() {
        let error = timeout("import", ms(10), after(60)).await.unwrap_err();
        assert_eq!(error, TimedOut { operation: "import".into(), limit: ms(10), took: ms(10) });
        assert_eq!(error.to_string(), "import took 10ms, its limit is 10ms");
        let computing = async {
            sleep(ms(4)).await;
            compute(50).await;
            pending::<()>().await;
        };
        assert_eq!(timeout("import", ms(10), computing).await.unwrap_err().took, ms(54));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_report_an_output_that_came_late() {
        let late = Limit::new("hash", ms(10)).run(compute(50)).await.unwrap_err();
        assert_eq!((late.output, late.timed_out.took), (Some(50), ms(50)));
        assert_eq!(timeout("hash", ms(10), compute(50)).await, Ok(50));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_work_or_hands_it_over() {
        let held = Arc::new(());
        let work = || {
            let held = held.clone();
            async move { after(30).map(|done| (done, held)).await.0 }
        };
        assert!(timeout("drop", ms(10), work()).await.is_err());
        assert!(Limit::new("drop", ms(10)).run(work()).await.is_err());
        assert_eq!(Arc::strong_count(&held), 1);
        let mut owner = JoinSet::new();
        let call = timeout_or_detach("keep", ms(10), work(), |work| drop(owner.spawn(work)));
        assert!(call.await.is_err());
        assert_eq!(owner.join_next().await.unwrap().unwrap(), 30);
        let mut call = Box::pin(timeout_or_detach("keep", ms(10), work(), |_| unreachable!()));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_a_limit_can_be_moved_both_ways() {
        let limit = Limit::new("upload", ms(10));
        let parts = async {
            for _ in 0..5 {
                after(8).await;
                limit.set(limit.elapsed() + ms(10));
            }
            pending::<()>().await;
        };
        assert_eq!(limit.run(parts).await.unwrap_err().timed_out.took, ms(50));
        let limit = Limit::new("upload", Duration::MAX);
        let shorten = async {
            after(20).await;
            limit.set(ms(5));
        };
        let (late, ()) = tokio::join!(limit.run(pending::<()>()), shorten);
        assert_eq!((late.unwrap_err().timed_out.took, limit.elapsed()), (ms(20), ms(20)));
    }

    #[tokio::test]
    async fn clock_work_that_uses_up_the_budget_is_cut_off() {
        async fn greedy() -> u64 {
            loop {
                consume_budget().await;
            }
        }
        assert!(timeout("greedy", ms(5), greedy()).await.is_err());
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let broken = poll_fn(|_| -> Poll<()> { std::panic::resume_unwind(Box::new("broken")) });
        let call = tokio::spawn(timeout("broken", ms(5), broken));
        assert_eq!(call.await.unwrap_err().into_panic().downcast_ref(), Some(&"broken"));
    }

    #[test]
    fn memory_is_the_work_and_a_timer() {
        assert!(std::mem::size_of_val(&timeout("small", ms(5), pending::<()>())) <= 512);
    }
}
