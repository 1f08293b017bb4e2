//! Let so many calls through in so much time, first come, first served, whatever each of them weighs.
//!
//! Use it to stay within a quota that someone else sets, such as calls a second. Where no window of time may ever hold more
//! than n, not even after a pause, use `window_limit`; where it is the calls in flight that cost, a concurrency limit.
//!
//! | | |
//! |---|---|
//! | Order | first come, first served, whatever the weights: a large request is not overtaken |
//! | Errors | [`TooLarge`] for more than the burst, which could never be granted |
//! | Cancellation | a waiter has taken nothing: when it is dropped, everything goes to those behind it, who move up |
//! | Panics | none: no code of the caller runs in here |
//! | Memory | O(waiters): a place in a queue for each; one timer for all of them |
//! | Backpressure | [`acquire`](RateLimit::acquire) waits; in any time t at most `burst + tokens × t / per` are granted |
//! | Clock | `tokio::time`, so tests can pause it |
//!
//! The bucket is counted in integers: nothing drifts, from one token a day to a million a second. tokio's timers are up to
//! two milliseconds late. A late waiter finds what has come in since, but never more than the burst: to reach its full rate
//! a limit needs a burst that lasts for two milliseconds, and at least 2.
//!
//! The token bucket is an old idea of network engineering; RFC 2697 describes one.
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use semaphores::{Rate, RateLimit};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() {
//!     let [tokens, burst] = [1000, 5].map(|n| NonZeroUsize::new(n).unwrap());
//!     let limit = RateLimit::new(Rate { tokens, per: Duration::from_secs(1), burst });
//!     for _ in 0..10 { limit.acquire(1).await.unwrap(); }
//!     assert!(limit.acquire(6).await.is_err());
//! }
//! ```

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How fast tokens come, and how many may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many tokens come, evenly spread,
    pub tokens: NonZeroUsize,
    /// in this time. Zero is no limit, and more than 584 years are taken as 584 years.
    pub per: Duration,
    /// The most that a quiet time saves up, and so the most that can be granted at once. A new limit starts with it.
    pub burst: NonZeroUsize,
}

/// The request is for more tokens than the bucket ever holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} tokens cannot be granted at once: the burst is {burst}")]
pub struct TooLarge {
    /// What was asked for.
    pub wanted: usize,
    /// What the limit allowed when it was this request's turn.
    pub burst: usize,
}

/// A token bucket. Clones share it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held by the one waiter that is first. The others queue for it, in order.
    turn: tokio::sync::Mutex<()>,
    bucket: Mutex<Bucket>,
    /// Tells the first waiter that the rate is another one.
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// In units of which a token costs `price(per)`, and of which `tokens` come in a nanosecond.
    level: u128,
    at: Instant,
}

impl RateLimit {
    /// A limit with a full bucket.
    pub fn new(rate: Rate) -> Self {
        let bucket = Bucket { rate, level: rate.full(), at: Instant::now() };
        let (turn, changed) = (tokio::sync::Mutex::new(()), Notify::new());
        RateLimit { shared: Arc::new(Shared { turn, bucket: Mutex::new(bucket), changed }) }
    }

    /// Waits for its turn, and then until there are `tokens` tokens. What is dropped before it returns has taken none.
    ///
    /// # Errors
    ///
    /// [`TooLarge`], at once or, when the burst was made smaller meanwhile, when it is this request's turn.
    pub async fn acquire(&self, tokens: usize) -> Result<(), TooLarge> {
        self.shared.bucket().check(tokens)?;
        let _turn = self.shared.turn.lock().await;
        loop {
            let wait = self.shared.bucket().take(tokens)?;
            if wait.is_zero() {
                return Ok(());
            }
            // Both ends say the same: look again. A change that came after `take` is remembered by `changed`.
            let _ = timeout(wait, self.shared.changed.notified()).await;
        }
    }

    /// Changes the rate for everybody, waiters too. Tokens that are there stay, up to the new burst.
    pub fn set_rate(&self, rate: Rate) {
        self.shared.bucket().change(rate);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // Poisoned only by a panic in here, and there is none.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rate {
    fn full(&self) -> u128 {
        self.burst.get() as u128 * price(self.per)
    }
}

impl Bucket {
    fn check(&self, wanted: usize) -> Result<(), TooLarge> {
        let burst = self.rate.burst.get();
        if wanted > burst { Err(TooLarge { wanted, burst }) } else { Ok(()) }
    }

    /// Takes the tokens, or says how long it will be until they are there.
    fn take(&mut self, tokens: usize) -> Result<Duration, TooLarge> {
        self.check(tokens)?;
        self.fill();
        let cost = tokens as u128 * price(self.rate.per);
        let missing = cost.saturating_sub(self.level);
        if missing == 0 {
            self.level -= cost;
        }
        let nanos = missing.div_ceil(self.rate.tokens.get() as u128);
        Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn fill(&mut self) {
        let now = Instant::now();
        // `at` never goes back, even where two runtimes disagree about the time.
        let elapsed = price(now.saturating_duration_since(self.at));
        self.at = self.at.max(now);
        let added = elapsed * self.rate.tokens.get() as u128;
        self.level = self.level.saturating_add(added).min(self.rate.full());
    }

    fn change(&mut self, rate: Rate) {
        self.fill();
        let (old, new) = (price(self.rate.per).max(1), price(rate.per));
        // Whole tokens and the rest of one, because the product of all might not fit. `fill` keeps to the new burst.
        self.level = self.level / old * new + self.level % old * new / old;
        self.rate = rate;
    }
}

/// Nanoseconds, of so few bits that a product with a `usize` fits.
fn price(time: Duration) -> u128 {
    time.as_nanos().min(u64::MAX.into())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::sleep;

    use super::*;

    fn rate(tokens: usize, millis: u64, burst: usize) -> Rate {
        let [tokens, burst] = [tokens, burst].map(|n| NonZeroUsize::new(n).unwrap());
        Rate { tokens, per: Duration::from_millis(millis), burst }
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_arrival_whatever_the_weights() {
        let (start, limit) = (Instant::now(), RateLimit::new(rate(1, 10, 5)));
        let call = async |tokens| {
            limit.acquire(tokens).await.unwrap();
            start.elapsed()
        };
        let ends = tokio::join!(call(5), call(4), call(1), call(1), call(5));
        assert_eq!(ends, (ms(0), ms(40), ms(50), ms(60), ms(110)));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_name_what_can_never_be_granted() {
        let limit = RateLimit::new(rate(1, 10, 5));
        assert_eq!(limit.acquire(6).await, Err(TooLarge { wanted: 6, burst: 5 }));
        assert_eq!(limit.acquire(5).await, Ok(()));
        let (refused, ()) = tokio::join!(limit.acquire(3), async { limit.set_rate(rate(1, 10, 2)) });
        assert_eq!(refused.unwrap_err().to_string(), "3 tokens cannot be granted at once: the burst is 2");
        assert_eq!(limit.acquire(2).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_moves_up_those_behind() {
        let (start, limit) = (Instant::now(), RateLimit::new(rate(1, 10, 5)));
        limit.acquire(5).await.unwrap();
        let behind = async {
            limit.acquire(1).await.unwrap();
            start.elapsed()
        };
        let (given_up, behind) = tokio::join!(timeout(ms(35), limit.acquire(5)), behind);
        assert!(given_up.is_err());
        assert_eq!(behind, ms(35));
        // What the three tokens left over were not, is not lost either.
        limit.acquire(2).await.unwrap();
        assert_eq!(start.elapsed(), ms(35));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_a_place_for_each_waiter_and_the_future_is_send() {
        let limit = RateLimit::new(rate(1, 10, 5));
        assert!(size_of_val(&limit.acquire(1)) < 512);
        let clone = limit.clone();
        tokio::spawn(async move { clone.acquire(5).await }).await.unwrap().unwrap();
        let mut waiter = pin!(limit.acquire(1));
        assert!(timeout(ms(9), &mut waiter).await.is_err(), "clones share the bucket");
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_follows_a_change_of_the_rate() {
        let (start, limit) = (Instant::now(), RateLimit::new(rate(1, 86_400_000, 2)));
        limit.acquire(2).await.unwrap();
        let change = async {
            sleep(ms(100)).await;
            limit.set_rate(rate(1, 10, 1));
        };
        tokio::join!(change, async { limit.acquire(1).await.unwrap() });
        assert_eq!(start.elapsed(), ms(110));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_loses_and_gains_nothing_in_the_long_run() {
        let (start, limit) = (Instant::now(), RateLimit::new(rate(3, 1000, 2)));
        for _ in 0..2 + 3 * 3600 {
            limit.acquire(1).await.unwrap();
        }
        let late = start.elapsed() - Duration::from_secs(3600);
        assert!(late < ms(1), "{late:?}");
        sleep(Duration::from_secs(86_400 * 365 * 100)).await;
        assert_eq!(limit.shared.bucket().take(2), Ok(Duration::ZERO));
        assert_ne!(limit.shared.bucket().take(1), Ok(Duration::ZERO));
    }
}
