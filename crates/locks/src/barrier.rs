//! Let a number of tasks wait for each other, round after round; one that gives up is not counted.
//!
//! Use it when all must have finished a step before anyone begins the next: rounds of a simulation, phases of a load test.
//! To wait once for the end of all tasks join them, as `gather` does; to let many go at a moment use `event`.
//!
//! | | |
//! |---|---|
//! | Order | who arrives last leads the round and goes on at once; in which order the others go on is not promised |
//! | Errors | none: a round that lacks somebody waits |
//! | Cancellation | a wait that is dropped before its round is full leaves its place free; one that is dropped later has taken part |
//! | Panics | none: no code of the caller's runs inside |
//! | Memory | O(participants), each inside its own future |
//! | Backpressure | waiting is the purpose: nobody is more than one round ahead |
//! | Clock | none of its own: put a `timeout` around a wait for somebody who may be gone |
//!
//! tokio's own [`Barrier`](tokio::sync::Barrier) counts a wait that was dropped as if it were there, which its documentation
//! calls not cancel safe.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use locks::Barrier;
//!
//! #[tokio::main]
//! async fn main() {
//!     let barrier = Barrier::new(NonZeroUsize::new(2).unwrap());
//!     let (first, last) = tokio::join!(barrier.wait(), barrier.wait());
//!     assert_eq!((first.leads, last.leads), (false, true));
//!     assert_eq!((first.number, last.number), (0, 0));
//! }
//! ```

use std::num::NonZeroUsize;

use tokio::sync::watch;
use tokio::task::coop::consume_budget;

/// Where a number of tasks meet: put it into an `Arc`, or borrow it.
#[derive(Debug)]
pub struct Barrier {
    participants: NonZeroUsize,
    /// Those who wait are its receivers.
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    round: u64,
    arrived: usize,
}

/// A round that was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Counts the rounds from 0.
    pub number: u64,
    /// Whether this participant arrived last, which is so for one of each round.
    pub leads: bool,
}

impl Barrier {
    /// A barrier that lets go when so many wait.
    pub fn new(participants: NonZeroUsize) -> Self {
        Barrier { participants, state: watch::Sender::new(State { round: 0, arrived: 0 }) }
    }

    /// Arrives, at its first poll, and waits until the round is full.
    pub async fn wait(&self) -> Round {
        // Alone at a barrier for one, a loop must not keep the thread from other tasks.
        consume_budget().await;
        let (mut round, mut state) = (Round { number: 0, leads: false }, self.state.subscribe());
        self.state.send_if_modified(|state| {
            round.number = state.round;
            state.arrived += 1;
            round.leads = state.arrived == self.participants.get();
            if round.leads {
                *state = State { round: state.round + 1, arrived: 0 };
            }
            round.leads
        });
        if !round.leads {
            let _place = Place { barrier: self, round: round.number };
            // An error means that the sender is gone, and `self` is borrowed.
            let _ = state.wait_for(|state| state.round > round.number).await;
        }
        round
    }
}

/// A place in a round, free again when it is dropped before the round is full.
struct Place<'a> {
    barrier: &'a Barrier,
    round: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.barrier.state.send_if_modified(|state| {
            state.arrived -= usize::from(state.round == self.round);
            // Nobody waits for this: no wake-up.
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use futures::{FutureExt, poll};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[tokio::test]
    async fn order_the_last_of_each_round_leads() {
        let barrier = Barrier::new(NonZeroUsize::new(3).unwrap());
        for number in 0..4 {
            let rounds = join_all((0..3).map(|_| barrier.wait())).await;
            let expected = [false, false, true].map(|leads| Round { number, leads });
            assert_eq!(rounds, expected);
        }
        assert!(Barrier::new(NonZeroUsize::MIN).wait().await.leads);
        assert_eq!(Barrier::new(NonZeroUsize::MAX).wait().now_or_never(), None);
    }

    #[tokio::test]
    async fn cancellation_leaves_no_ghost() {
        let barrier = Barrier::new(TWO);
        assert_eq!(barrier.wait().now_or_never(), None);
        // With a ghost, this one would not wait.
        let mut first = Box::pin(barrier.wait());
        assert!(poll!(&mut first).is_pending());
        assert_eq!(barrier.wait().now_or_never(), Some(Round { number: 0, leads: true }));
        // The round is full: it has taken part, and its drop takes nothing from the next one.
        drop(first);
        assert_eq!(barrier.wait().now_or_never(), None);
        let (first, last) = tokio::join!(barrier.wait(), barrier.wait());
        assert_eq!((first.number, last.number), (1, 1));
    }

    #[tokio::test]
    async fn backpressure_nobody_is_more_than_one_round_ahead() {
        let (barrier, slowest) = (Arc::new(Barrier::new(TWO)), Arc::new([const { AtomicUsize::new(0) }; 2]));
        let tasks = [0, 1].map(|number| {
            let (barrier, steps) = (barrier.clone(), slowest.clone());
            tokio::spawn(async move {
                for step in 1..=100 {
                    steps[number].store(step, Ordering::Relaxed);
                    barrier.wait().await;
                    assert!(steps[1 - number].load(Ordering::Relaxed) >= step);
                }
            })
        });
        assert!(join_all(tasks).await.into_iter().all(|task| task.is_ok()));
    }

    #[tokio::test]
    async fn memory_of_a_wait_is_freed_with_it() {
        let barrier = Barrier::new(NonZeroUsize::new(101).unwrap());
        let mut waits: Vec<_> = (0..100).map(|_| Box::pin(barrier.wait())).collect();
        for wait in &mut waits {
            assert!(poll!(wait).is_pending());
        }
        assert_eq!((barrier.state.receiver_count(), barrier.state.borrow().arrived), (100, 100));
        drop(waits);
        assert_eq!((barrier.state.receiver_count(), barrier.state.borrow().arrived), (0, 0));
    }
}
