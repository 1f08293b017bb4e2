//! Bound what retries and hedges add to the load: a share of the calls, over all callers.
//!
//! Use it wherever many callers retry the same service. When it is down, three attempts each are three times the load, at
//! the worst moment; a budget makes that a few per cent. It is shared: a `static`, a field of the client, an `Arc`.
//!
//! | | |
//! |---|---|
//! | Order | first come, first served; nobody queues |
//! | Errors | exhausted: [`withdraw`](RetryBudget::withdraw) returns `None` at once, and the caller returns the error that it has |
//! | Cancellation | none of its own, no method waits; an [`Extra`] that is dropped before its attempt starts goes back |
//! | Panics | none |
//! | Memory | O(1): one counter |
//! | Backpressure | in any span of time, extra attempts ≤ `burst` + `percent` % of the calls that began in it + those that were allowed before and had not started |
//! | Clock | none: only calls refill it, so an idle program does not save up for a storm |
//!
//! A token bucket that calls fill and retries empty, after Finagle's `RetryBudget` and gRPC's retry throttling. Finagle's
//! deposits expire and gRPC counts successes; here every call counts and the bucket is small, which needs no clock.
//!
//! [`retry`](super::retry()) and [`hedge`](super::hedge()) use it by themselves. Nested in each other, each needs a
//! budget of its own: in one that they share, a call would count twice.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use timeouts::RetryBudget;
//!
//! static BUDGET: RetryBudget = RetryBudget::new(20, NonZeroUsize::MIN);
//!
//! BUDGET.withdraw().expect("a new budget is full").start();
//! assert!(BUDGET.withdraw().is_none());
//! (0..5).for_each(|_| BUDGET.deposit());
//! assert_eq!(BUDGET.available(), 1);
//! ```

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One extra attempt, in hundredths: what a call deposits is `percent` of them.
const ATTEMPT: usize = 100;

/// How many extra attempts all callers may make.
#[derive(Debug)]
pub struct RetryBudget {
    balance: AtomicUsize,
    percent: usize,
    most: usize,
}

impl RetryBudget {
    /// A full budget: `burst` extra attempts at once, and `percent` more for every 100 calls. It never holds more than
    /// `burst`. With a `percent` of zero, it is never refilled.
    #[must_use]
    pub const fn new(percent: usize, burst: NonZeroUsize) -> Self {
        let most = burst.get().saturating_mul(ATTEMPT);
        RetryBudget { balance: AtomicUsize::new(most), percent, most }
    }

    /// Counts a call, once, whatever becomes of it.
    pub fn deposit(&self) {
        self.add(self.percent);
    }

    /// Takes one extra attempt out of the budget, or returns `None` when it holds none.
    #[must_use = "dropped, it goes back into the budget: call `start` when the attempt starts"]
    pub fn withdraw(&self) -> Option<Extra<'_>> {
        let taken = self.balance.fetch_update(Relaxed, Relaxed, |balance| balance.checked_sub(ATTEMPT));
        taken.ok().map(|_| Extra { budget: Some(self) })
    }

    /// How many extra attempts it holds now. Others may take them before the caller does.
    #[must_use]
    pub fn available(&self) -> usize {
        self.balance.load(Relaxed) / ATTEMPT
    }

    fn add(&self, hundredths: usize) {
        // A full budget is not written to: as long as the service is well, callers on many threads only read it.
        let fuller =
            |balance: usize| (balance < self.most).then(|| balance.saturating_add(hundredths).min(self.most));
        let _ = self.balance.fetch_update(Relaxed, Relaxed, fuller);
    }
}

/// Leave to make one extra attempt. Dropping it gives it back.
#[derive(Debug)]
pub struct Extra<'a> {
    budget: Option<&'a RetryBudget>,
}

impl Extra<'_> {
    /// Says that the attempt starts now: the budget is spent.
    pub fn start(mut self) {
        self.budget = None;
    }
}

impl Drop for Extra<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.budget {
            budget.add(ATTEMPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: NonZeroUsize = NonZeroUsize::new(5).unwrap();

    fn spend_all(budget: &RetryBudget) -> usize {
        std::iter::from_fn(|| budget.withdraw().map(Extra::start)).count()
    }

    #[test]
    fn order_is_first_come_first_served() {
        let budget = RetryBudget::new(0, NonZeroUsize::MIN);
        let first = budget.withdraw();
        assert!(first.is_some());
        assert!(budget.withdraw().is_none());
    }

    #[test]
    fn errors_an_exhausted_budget_says_so_at_once() {
        let budget = RetryBudget::new(10, FIVE);
        assert_eq!(spend_all(&budget), 5);
        assert!(budget.withdraw().is_none());
    }

    #[test]
    fn cancellation_before_the_attempt_gives_it_back() {
        let budget = RetryBudget::new(0, FIVE);
        let extra = budget.withdraw();
        assert_eq!(budget.available(), 4);
        drop(extra);
        assert_eq!((budget.available(), spend_all(&budget)), (5, 5));
    }

    #[test]
    fn backpressure_is_the_burst_and_the_share_of_the_calls() {
        let budget = RetryBudget::new(20, FIVE);
        let calls = |n| (0..n).for_each(|_| budget.deposit());
        calls(1_000);
        assert_eq!(spend_all(&budget), 5, "calls made before do not add to the burst");
        calls(4);
        assert_eq!(spend_all(&budget), 0, "a fraction is no attempt");
        calls(1);
        assert_eq!(spend_all(&budget), 1);
    }

    #[test]
    fn memory_is_one_counter_that_cannot_overflow() {
        let budget = RetryBudget::new(usize::MAX, NonZeroUsize::MAX);
        let extra = budget.withdraw();
        budget.deposit();
        drop(extra);
        budget.deposit();
        assert_eq!(budget.available(), usize::MAX / ATTEMPT);
    }
}
