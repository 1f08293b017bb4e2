//! Share a budget of bytes or cost between callers that take as much of it as they need.
//!
//! Use it when the units of work differ in size: bodies in memory, rows of a batch, cost of a query. When all are alike use
//! `concurrency_limit`.
//!
//! | | |
//! |---|---|
//! | Order | first come, first served: a large request at the head gathers what becomes free, and no later one overtakes it |
//! | Errors | more than the whole budget is [`TooHeavy`] at once, rather than a wait without end |
//! | Cancellation | a caller that gives up while it waits gives back what it had gathered, and the next moves up |
//! | Panics | none of its own; a [`Share`] that is dropped by a panic goes back |
//! | Memory | O(callers that wait), each inside its own future |
//! | Backpressure | callers wait, as many as there are; what is given out is never above the budget |
//! | Clock | none of its own |
//!
//! A share can shrink while its work does, but not grow: two that hold half the budget each and want more would wait for
//! each other for ever. Take the most that you may need, then [`give_back`](Share::give_back).
//!
//! ```
//! use semaphores::WeightedLimit;
//!
//! #[tokio::main]
//! async fn main() {
//!     let memory = WeightedLimit::new(1000.try_into().unwrap());
//!     let mut share = memory.acquire(600).await.unwrap();
//!     share.give_back(500);
//!     assert_eq!((share.weight(), memory.free()), (100, 900));
//!     assert!(memory.acquire(1001).await.is_err());
//! }
//! ```

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget. Clones share it.
#[derive(Clone, Debug)]
pub struct WeightedLimit {
    permits: Arc<Semaphore>,
    budget: usize,
    /// What one permit stands for: 1, unless the budget is so large that a request for all of it would not fit a `u32`.
    unit: usize,
}

/// A part of the budget. Dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    permit: OwnedSemaphorePermit,
    weight: usize,
    unit: usize,
}

/// A request for more than the whole budget, which could never be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight of {weight} is above the whole budget of {budget}")]
pub struct TooHeavy {
    /// What was asked for.
    pub weight: usize,
    /// What there is.
    pub budget: usize,
}

impl WeightedLimit {
    /// A budget that nobody has taken from yet.
    ///
    /// Above `u32::MAX` (4 GiB, if it counts bytes) it is given out in units of a few: shares are rounded up to whole units,
    /// and the rest of the last unit is not used.
    pub fn new(budget: NonZeroUsize) -> Self {
        let budget = budget.get();
        let unit = budget.div_ceil(Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        WeightedLimit { permits: Arc::new(Semaphore::new(budget / unit)), budget, unit }
    }

    /// Waits until `weight` of the budget is free, and takes it. A weight of zero takes nothing and does not wait.
    ///
    /// To let a request that is too large run alone instead, ask for `weight.min(limit.budget())`.
    ///
    /// # Errors
    ///
    /// [`TooHeavy`] if `weight` is above the whole budget.
    pub async fn acquire(&self, weight: usize) -> Result<Share, TooHeavy> {
        let WeightedLimit { permits, budget, unit } = self;
        if weight > *budget {
            return Err(TooHeavy { weight, budget: *budget });
        }
        // Not more than there are: what is left of a budget that does not divide into units has no permit.
        let count = weight.div_ceil(*unit).min(*budget / *unit);
        let count = u32::try_from(count).expect("the unit was chosen so that all permits fit");
        let permit = permits.clone().acquire_many_owned(count).await;
        let permit = permit.expect("nobody closes the semaphore, which is private");
        Ok(Share { permit, weight, unit: *unit })
    }

    /// The whole budget.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// What is free at this moment. What a waiting request has gathered is not.
    pub fn free(&self) -> usize {
        self.permits.available_permits() * self.unit
    }
}

impl Share {
    /// What is left of it.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Gives `weight` of it back at once, because so much of the work is done. More than is left counts as all of it.
    pub fn give_back(&mut self, weight: usize) {
        self.weight = self.weight.saturating_sub(weight);
        let surplus = self.permit.num_permits().saturating_sub(self.weight.div_ceil(self.unit));
        drop(self.permit.split(surplus));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use futures::future::{FutureExt, join, join_all};
    use futures::poll;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn limit(budget: usize) -> WeightedLimit {
        WeightedLimit::new(NonZeroUsize::new(budget).expect("tests use a budget above zero"))
    }

    #[tokio::test(start_paused = true)]
    async fn order_a_large_request_is_not_overtaken() {
        let (limit, served) = (limit(10), RefCell::new(Vec::new()));
        let call = async |(number, weight)| {
            let _share = limit.acquire(weight).await;
            served.borrow_mut().push(number);
            sleep(Duration::from_millis(10)).await;
        };
        // The third needs all; the small ones behind it would fit at once.
        join_all([4, 4, 10, 1, 1].into_iter().enumerate().map(call)).await;
        assert_eq!(*served.borrow(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn order_a_large_request_is_served_under_a_stream_of_small_ones() {
        let (limit, stop, start) = (limit(10), Cell::new(false), Instant::now());
        let greedy = async |_| {
            while !stop.get() {
                let _share = limit.acquire(1).await;
                sleep(Duration::from_millis(10)).await;
            }
        };
        let large = async {
            sleep(Duration::from_millis(5)).await;
            let share = limit.acquire(10).await;
            stop.set(true);
            (share.map(|share| share.weight()), start.elapsed())
        };
        let (large, _) = join(large, join_all((0..20).map(greedy))).await;
        assert_eq!(
            large,
            (Ok(10), Duration::from_millis(20)),
            "served after the twenty that were there before"
        );
    }

    #[tokio::test]
    async fn errors_more_than_there_is() {
        let error = limit(5).acquire(6).await.unwrap_err();
        assert_eq!(error, TooHeavy { weight: 6, budget: 5 });
        assert_eq!(error.to_string(), "a weight of 6 is above the whole budget of 5");
        assert_eq!(limit(5).acquire(5).await.unwrap().weight(), 5);
        let nothing = limit(5).acquire(0).await.unwrap();
        assert_eq!(nothing.weight(), 0);
    }

    #[tokio::test]
    async fn cancellation_gives_back_what_was_gathered() {
        let limit = limit(10);
        let held = limit.acquire(4).await.unwrap();
        let mut large = Box::pin(limit.acquire(8));
        let mut small = Box::pin(limit.acquire(5));
        assert!(poll!(&mut large).is_pending());
        assert!(poll!(&mut small).is_pending());
        assert_eq!(limit.free(), 0, "the large one has gathered six");
        drop(large);
        assert_eq!(small.await.unwrap().weight(), 5);
        drop(held);
        assert_eq!(limit.free(), 10);
    }

    #[tokio::test]
    async fn panics_give_the_share_back() {
        let budget = limit(10);
        let inner = budget.clone();
        let task = tokio::spawn(async move {
            let _share = inner.acquire(10).await;
            std::panic::resume_unwind(Box::new("broken"));
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(budget.free(), 10);
    }

    #[tokio::test]
    async fn backpressure_eases_as_work_shrinks() {
        let limit = limit(10);
        let mut share = limit.acquire(10).await.unwrap();
        let mut next = Box::pin(limit.acquire(4));
        assert!(poll!(&mut next).is_pending());
        share.give_back(3);
        assert!(poll!(&mut next).is_pending());
        share.give_back(2);
        assert_eq!(next.await.unwrap().weight(), 4);
        assert_eq!((share.weight(), limit.free()), (5, 5));
        share.give_back(usize::MAX);
        share.give_back(1);
        assert_eq!((share.weight(), limit.free()), (0, 10));
    }

    #[tokio::test]
    async fn memory_of_budgets_above_four_gibibytes() {
        for budget in [u32::MAX as usize, u32::MAX as usize + 1, 10_000_000_001, usize::MAX] {
            let limit = limit(budget);
            let free = limit.free();
            assert!(free <= budget && budget - free < limit.unit, "{budget}");
            let mut all = limit.acquire(budget).await.unwrap();
            assert_eq!((all.weight(), limit.free()), (budget, 0));
            assert!(limit.acquire(1).now_or_never().is_none());
            all.give_back(budget - 1);
            assert_eq!((all.weight(), limit.free()), (1, free - limit.unit));
            drop(all);
            assert_eq!(limit.free(), free);
        }
    }
}
