//! Wait until a shared value is as you need it, and change it in the same step.
//!
//! Use it when tasks wait for different things about one value: room for so much, a balance, a phase. For a queue use a
//! channel, for a number of permits a semaphore, for a switch `event`: those have less to get wrong and serve in turn.
//!
//! | | |
//! |---|---|
//! | Order | each change wakes all who wait; who looks first and finds the value ready has it, and no turn is kept: a newcomer may be first |
//! | Errors | as [`Shared`]: [`Unusable`] when the value may be half changed, or when a closure asks for the value that it holds |
//! | Cancellation | a wait that is dropped has changed nothing, and takes nobody's wake-up with it |
//! | Panics | a panic of a closure is its caller's panic; one of `ready` harms nobody else; one of a change poisons the value, and all who wait are told |
//! | Memory | the value and O(waiters), each inside its own future |
//! | Backpressure | waiting is the purpose; a change costs O(waiters), as each of them looks again |
//! | Clock | none of its own: put a `timeout` around a wait that may take for ever |
//!
//! Closures run under a lock that blocks the thread: keep them short. What changes the value by another way, such as an atomic
//! inside it, wakes nobody. The condition variable is Hoare's (1974); that the look and the change are one step leaves no
//! room for the mistake of using it with `if` instead of `while`.
//!
//! ```
//! use locks::Condition;
//!
//! #[tokio::main]
//! async fn main() {
//!     let account = Condition::new(30);
//!     let withdraw = account.when(|balance| *balance >= 100, |balance| *balance -= 100);
//!     let deposit = async { account.change(|balance| *balance += 90) };
//!     assert_eq!(tokio::join!(withdraw, deposit), (Ok(()), Ok(())));
//!     assert_eq!(account.change(|balance| *balance), Ok(20));
//! }
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use super::shared_state::{Shared, Unusable};

/// A value that tasks wait for: put it into an `Arc`, or borrow it.
#[derive(Debug, Default)]
pub struct Condition<T> {
    value: Shared<T>,
    changed: Notify,
}

impl<T> Condition<T> {
    /// Shares `value`.
    pub const fn new(value: T) -> Self {
        Condition { value: Shared::new(value), changed: Notify::const_new() }
    }

    /// Waits until `ready` says that the value is, and calls `act` with it before anybody else can have it.
    ///
    /// `ready` is called once at first and again after each change.
    ///
    /// # Errors
    ///
    /// [`Unusable`], and then `act` was not called.
    pub async fn when<R>(
        &self,
        mut ready: impl FnMut(&T) -> bool,
        act: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Unusable> {
        let mut act = Some(act);
        loop {
            // A value that is always ready must not keep the thread from other tasks.
            consume_budget().await;
            // Before the look: what changes after it is not missed.
            let changed = self.changed.notified();
            if let Some(result) = self.look(&mut ready, &mut act)? {
                return Ok(result);
            }
            changed.await;
        }
    }

    /// Calls `change` with the value while nobody else has it, and wakes all who wait, also when it panics.
    ///
    /// # Errors
    ///
    /// [`Unusable`], and then `change` was not called.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, Unusable> {
        let mut wake = Wake(None);
        self.value.with(|value| {
            wake.0 = Some(&self.changed);
            change(value)
        })
    }

    /// Puts `value` in the place of the old one, as [`Shared::replace`] does, and wakes all who wait.
    ///
    /// # Errors
    ///
    /// [`Unusable::Reentered`] only.
    pub fn replace(&self, value: T) -> Result<T, Unusable> {
        let old = self.value.replace(value)?;
        self.changed.notify_waiters();
        Ok(old)
    }

    /// What `act` returned, if the value was ready for it.
    fn look<R>(
        &self,
        ready: &mut impl FnMut(&T) -> bool,
        act: &mut Option<impl FnOnce(&mut T) -> R>,
    ) -> Result<Option<R>, Unusable> {
        let mut wake = Wake(None);
        let looked = self.value.with(|value| {
            // A look leaves nothing half changed, so that its panic must not pass through the lock, which would be poisoned.
            let is_ready = catch_unwind(AssertUnwindSafe(|| ready(value)));
            is_ready.map(|is_ready| {
                let act = if is_ready { act.take() } else { None };
                wake.0 = act.is_some().then_some(&self.changed);
                act.map(|act| act(value))
            })
        })?;
        looked.map_or_else(|panic| resume_unwind(panic), Ok)
    }
}

/// Wakes all who wait when it is dropped, which is after the lock was freed: also when a change panicked, for they are then
/// refused instead of waiting for ever. Who was refused has changed nothing, and wakes nobody.
struct Wake<'a>(Option<&'a Notify>);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if let Some(changed) = self.0 {
            changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn order_look_and_act_are_one_step() {
        let tokens = Arc::new(Condition::new(0_u32));
        let takers = (0..100).map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.when(|tokens| *tokens >= 1, |tokens| *tokens -= 1).await })
        });
        let takers: Vec<_> = takers.collect();
        tokio::task::yield_now().await;
        for _ in 0..20 {
            assert_eq!(tokens.change(|tokens| *tokens += 5), Ok(()));
            tokio::task::yield_now().await;
        }
        assert!(join_all(takers).await.into_iter().all(|taken| taken.unwrap() == Ok(())));
        assert_eq!(tokens.change(|tokens| *tokens), Ok(0));
    }

    #[tokio::test]
    async fn order_those_who_wait_for_different_things_wake_each_other() {
        let room = Condition::new(0_usize);
        let put = async |n: usize| room.when(|used| used + n <= 3, |used| *used += n).await;
        let take = async |n: usize| room.when(|used| *used >= n, |used| *used -= n).await;
        let all = async { tokio::join!(take(3), put(2), take(2), put(1), put(2)) };
        assert_eq!(all.await, (Ok(()), Ok(()), Ok(()), Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn errors_name_a_closure_that_asks_for_what_it_holds() {
        let value = Condition::new(7);
        let inner = |_: &mut i32| (value.change(|_| ()), value.when(|_| true, |_| ()).now_or_never());
        let refused = Err(Unusable::Reentered);
        assert_eq!(value.when(|_| true, inner).await, Ok((refused, Some(refused))));
    }

    #[tokio::test]
    async fn cancellation_takes_nothing_with_it() {
        let value = Condition::new(0);
        let mut first = Box::pin(value.when(|value| *value == 1, |value| *value = 0));
        let mut second = Box::pin(value.when(|value| *value == 1, |value| *value = 0));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        assert_eq!(value.change(|value| *value = 1), Ok(()));
        // It was woken, and does not run.
        drop(first);
        assert_eq!(second.now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn panics_of_a_look_harm_nobody_and_those_of_a_change_are_told() {
        let value = Condition::new(0);
        let panics = |_: &i32| -> bool { resume_unwind(Box::new("not `panic!`, which prints")) };
        let look = AssertUnwindSafe(value.when(panics, |_| ())).catch_unwind();
        assert!(look.await.is_err());
        assert_eq!(value.change(|value| *value), Ok(0));

        let mut waiting = Box::pin(value.when(|value| *value == 1, |_| ()));
        assert!(poll!(&mut waiting).is_pending());
        let halfway = || value.change(|_| resume_unwind(Box::new("halfway")));
        assert!(catch_unwind(AssertUnwindSafe(halfway)).is_err());
        assert_eq!(waiting.now_or_never(), Some(Err(Unusable::Poisoned)));
        assert_eq!(value.replace(1), Ok(0));
        assert_eq!(value.when(|value| *value == 1, |_| ()).await, Ok(()));
    }

    #[tokio::test]
    async fn memory_and_backpressure_of_many_who_wait() {
        let value = Arc::new(Condition::new(false));
        let wait = |value: Arc<Condition<bool>>| async move { value.when(|open| *open, |_| ()).await };
        let tasks: Vec<_> = (0..10_000).map(|_| tokio::spawn(wait(value.clone()))).collect();
        assert_eq!(value.change(|open| *open = true), Ok(()));
        assert!(join_all(tasks).await.into_iter().all(|waited| waited.unwrap() == Ok(())));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
