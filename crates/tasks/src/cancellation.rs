//! Ask a tree of tasks to stop, tell them why, and give them a time limit for their cleanup.
//!
//! Use it when work must learn why it is stopped, or must clean up with awaits before it ends. Where no reason is needed
//! take `tokio_util::sync::CancellationToken`, which this is built on; for the end of a whole program see `shutdown`.
//!
//! | | |
//! |---|---|
//! | Order | the first reason wins, for ever; it reaches every descendant that was not cancelled before, and never a parent |
//! | Errors | [`Cancelled`] carries the reason, [`Overstayed`] the reason and the grace |
//! | Cancellation | every wait may be dropped and begun again; dropping `run` or `run_with_grace` drops the work with it |
//! | Panics | the work runs on the caller's task, so its panic is the caller's panic |
//! | Memory | a node and at most one copy of the reason for each token; a token keeps its ancestors' nodes until it is dropped |
//! | Backpressure | none: nothing is queued |
//! | Clock | `tokio::time`, for the grace |
//!
//! Work stops where it awaits: work that computes without an await sees no request and cannot be cut off.
//!
//! ```
//! use tasks::Cancellation;
//!
//! #[tokio::main]
//! async fn main() {
//!     let server = Cancellation::new();
//!     let request = server.child();
//!     server.cancel("deploy");
//!     let stopped = request.run(std::future::pending::<()>()).await.unwrap_err();
//!     assert_eq!(stopped.to_string(), "cancelled: deploy");
//!     assert!(!request.cancel("too late"));
//! }
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A request to stop, made or not yet made. Clones are the same request; a [`child`](Self::child) follows its parent.
///
/// Dropping it cancels nothing.
#[derive(Debug)]
pub struct Cancellation<R> {
    node: Arc<Node<R>>,
}

#[derive(Debug)]
struct Node<R> {
    token: CancellationToken,
    /// Never changes once it is there: who has seen a reason sees the same one again.
    reason: OnceLock<R>,
    parent: Option<Arc<Node<R>>>,
}

/// The work was dropped, because it was to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled: {reason}")]
pub struct Cancelled<R> {
    /// Why.
    pub reason: R,
}

/// The work was asked to stop, did not end within its grace, and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled: {reason}; did not stop within {grace:?} and was aborted")]
pub struct Overstayed<R> {
    /// Why it was asked.
    pub reason: R,
    /// How long it had.
    pub grace: Duration,
}

impl<R: Clone> Cancellation<R> {
    /// A request that was not made yet, without a parent.
    pub fn new() -> Self {
        let node = Node { token: CancellationToken::new(), reason: OnceLock::new(), parent: None };
        Cancellation { node: Arc::new(node) }
    }

    /// A request that is made when this one is, with the same reason, and can also be made alone.
    pub fn child(&self) -> Self {
        let (token, parent) = (self.node.token.child_token(), Some(self.node.clone()));
        Cancellation { node: Arc::new(Node { token, reason: OnceLock::new(), parent }) }
    }

    /// Makes the request. Returns whether `reason` counts: it does not when there is one already.
    pub fn cancel(&self, reason: R) -> bool {
        // What an ancestor has asked for came first.
        let first = self.reason().is_none() && self.node.reason.set(reason).is_ok();
        self.node.token.cancel();
        first
    }

    /// Why to stop; `None` as long as nobody has asked. Work that computes calls this from time to time.
    pub fn reason(&self) -> Option<R> {
        if !self.node.token.is_cancelled() {
            return None;
        }
        let (mut node, mut below) = (&self.node, Vec::new());
        while node.reason.get().is_none() {
            below.push(node);
            node = node.parent.as_ref()?;
        }
        let mut reason = node.reason.get()?;
        // From the top down, so that no descendant has a reason which its parent does not come to have.
        for node in below.into_iter().rev() {
            reason = node.reason.get_or_init(|| reason.clone());
        }
        Some(reason.clone())
    }

    /// Waits for the request, and returns the reason.
    pub async fn cancelled(&self) -> R {
        self.node.token.cancelled().await;
        self.reason().expect("a reason is set before its token is cancelled")
    }

    /// Runs `work` until it ends or is to stop, whichever is first; then it is dropped where it awaits.
    ///
    /// When both happen at once its output counts. Work that is to stop from the start is not begun.
    ///
    /// # Errors
    ///
    /// [`Cancelled`] with the reason.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Cancelled<R>> {
        if let Some(reason) = self.reason() {
            return Err(Cancelled { reason });
        }
        tokio::select! {
            biased;
            output = work => Ok(output),
            reason = self.cancelled() => Err(Cancelled { reason }),
        }
    }

    /// Runs `work`, which watches this request itself and ends on its own, after its cleanup. If it is still at work `grace`
    /// after the request it is dropped where it awaits. What it returns in time is the result, asked to stop or not.
    ///
    /// # Errors
    ///
    /// [`Overstayed`] when it had to be dropped.
    pub async fn run_with_grace<F: Future>(
        &self,
        grace: Duration,
        work: F,
    ) -> Result<F::Output, Overstayed<R>> {
        let mut work = pin!(work);
        let reason = tokio::select! {
            biased;
            output = &mut work => return Ok(output),
            reason = self.cancelled() => reason,
        };
        timeout(grace, work).await.map_err(|_| Overstayed { reason, grace })
    }

    /// A plain token for code that wants one. It follows this request; cancelling it has no effect here.
    pub fn token(&self) -> CancellationToken {
        self.node.token.child_token()
    }
}

impl<R> Clone for Cancellation<R> {
    fn clone(&self) -> Self {
        Cancellation { node: self.node.clone() }
    }
}

impl<R: Clone> Default for Cancellation<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// One after another: dropping a long line of ancestors by recursion would overflow the stack.
impl<R> Drop for Node<R> {
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.parent.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use futures::FutureExt;
    use futures::channel::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn order_the_first_reason_wins_and_does_not_rise() {
        let parent = Cancellation::new();
        let (child, other) = (parent.child(), parent.clone().child());
        assert!(child.cancel("child"));
        parent.token().cancel();
        assert_eq!((parent.cancelled().now_or_never(), other.reason()), (None, None));
        assert!(parent.cancel("parent"));
        assert!(!parent.cancel("again") && !child.cancel("again") && !other.cancel("again"));
        let reasons = [&parent, &child, &child.child(), &other, &parent.child()].map(Cancellation::reason);
        assert_eq!(reasons, ["parent", "child", "child", "parent", "parent"].map(Some));
        assert_eq!(other.cancelled().now_or_never(), Some("parent"));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_carry_the_reason() {
        let stop = Cancellation::new();
        let asked = async {
            sleep(MS).await;
            stop.cancel("deploy")
        };
        let (stopped, _) = tokio::join!(stop.run(pending::<()>()), asked);
        assert_eq!(stopped, Err(Cancelled { reason: "deploy" }));
        let overstayed = stop.run_with_grace(5 * MS, pending::<()>()).await.unwrap_err();
        assert_eq!(overstayed.to_string(), "cancelled: deploy; did not stop within 5ms and was aborted");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_leaves_time_for_cleanup() {
        let (stop, start, cleaned) = (Cancellation::new(), Instant::now(), Cell::new(false));
        let work = async {
            let stopped = stop.run(pending::<()>()).await;
            sleep(3 * MS).await;
            cleaned.set(true);
            stopped
        };
        let asked = async {
            sleep(MS).await;
            stop.cancel("deploy")
        };
        let (ended, _) = tokio::join!(stop.run_with_grace(5 * MS, work), asked);
        assert_eq!((ended, cleaned.get()), (Ok(Err(Cancelled { reason: "deploy" })), true));
        assert_eq!(start.elapsed(), 4 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_prefers_an_output_and_begins_nothing_late() {
        let stop = Cancellation::new();
        let work = stop.run(async { stop.cancel("now") });
        assert_eq!(work.await, Ok(true));
        assert!(stop.run(async { unreachable!("it is too late") }).await.is_err());

        let (stop, (sender, receiver)) = (Cancellation::new(), oneshot::channel());
        let both_at_once = async { (sender.send("output"), stop.cancel("now")) };
        let (ended, _) = tokio::join!(stop.run(receiver), both_at_once);
        assert_eq!(ended, Ok(Ok("output")));
    }

    #[tokio::test]
    async fn panics_are_the_callers() {
        let stop = Cancellation::<&str>::new();
        let work = stop.run_with_grace(MS, async { std::panic::resume_unwind(Box::new("boom")) });
        let panic = std::panic::AssertUnwindSafe(work).catch_unwind().await;
        assert_eq!(panic.map(|_: Result<(), _>| ()).unwrap_err().downcast_ref(), Some(&"boom"));
    }

    #[test]
    fn memory_is_a_node_for_each_token() {
        let root = Cancellation::new();
        let mut last = root.child();
        for _ in 0..100_000 {
            last = last.child();
        }
        root.cancel("all");
        assert_eq!(last.reason(), Some("all"));
        drop(last);
        assert_eq!(Arc::strong_count(&root.node), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_can_have_no_end() {
        let stop = Cancellation::new();
        stop.cancel("stop");
        let work = stop.run_with_grace(Duration::MAX, async { sleep(1_000_000 * MS).await });
        assert_eq!(work.await, Ok(()));
        assert!(stop.run_with_grace(Duration::ZERO, pending::<()>()).await.is_err());
    }
}
