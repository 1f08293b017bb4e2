//! Let no window of time ever hold more than n calls, wherever the window begins.
//!
//! Use it against a server that counts calls per window and punishes each one too many. `rate_limit` is smoother and needs
//! less memory, but a full bucket plus what comes in meanwhile make up to twice its burst in one window.
//!
//! | | |
//! |---|---|
//! | Order | first come, first served |
//! | Errors | none |
//! | Cancellation | a waiter has taken nothing; dropping a [`WindowPermit`] counts its call, finished or not |
//! | Panics | a permit dropped by a panic counts as any other; no code of the caller runs in here |
//! | Memory | O(n): the end of each call of the last window; and a place in a queue for each waiter |
//! | Backpressure | [`acquire`](WindowLimit::acquire) waits; at most `calls` permits are out or younger than the window |
//! | Clock | `tokio::time`, so tests can pause it |
//!
//! **When does a call count?** Whoever counts on the other side does so when the call arrives, some time between its start
//! and its answer. So a place is taken from the grant until one window *after the permit was dropped*. Keep the permit until
//! the answer is there, and no window at the other side holds more than n, however long calls are on their way: a permit is
//! granted a window after the end of the call that had the place before. The price is the latency: n calls for each window
//! *plus* latency. Drop the permit at once, and it is the starts that are counted.
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use semaphores::WindowLimit;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() {
//!     let limit = WindowLimit::new(NonZeroUsize::MIN, Duration::from_millis(20));
//!     let permit = limit.acquire().await;
//!     let answered = tokio::time::Instant::now();
//!     drop(permit);
//!     let _permit = limit.acquire().await;
//!     assert!(answered.elapsed() >= Duration::from_millis(20));
//! }
//! ```

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// At most so many calls in any window of time. Clones share it.
#[derive(Clone, Debug)]
pub struct WindowLimit {
    shared: Arc<Shared>,
}

/// Leave for one call. Dropping it says that the call is over; its place is free one window later. One that is leaked keeps
/// its place.
#[derive(Debug)]
#[must_use = "keep it until the answer is there, or drop it at once to count the start of the call"]
pub struct WindowPermit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: NonZeroUsize,
    window: Duration,
    /// Held by the one waiter that is first. The others queue for it, in order.
    turn: tokio::sync::Mutex<()>,
    log: Mutex<Log>,
    /// Tells the first waiter that a permit was dropped.
    dropped: Notify,
}

#[derive(Debug, Default)]
struct Log {
    /// Permits that are out.
    running: usize,
    /// When permits were dropped, oldest first, as far as it is less than a window ago.
    ended: VecDeque<Instant>,
}

impl WindowLimit {
    /// A limit of `calls` in any window of length `window`. Without a length, only the calls at a time are limited.
    pub fn new(calls: NonZeroUsize, window: Duration) -> Self {
        let (turn, log, dropped) = (tokio::sync::Mutex::new(()), Mutex::default(), Notify::new());
        WindowLimit { shared: Arc::new(Shared { calls, window, turn, log, dropped }) }
    }

    /// Waits for its turn, and then for a place. What is dropped before it returns has taken none.
    pub async fn acquire(&self) -> WindowPermit {
        let _turn = self.shared.turn.lock().await;
        while let Some(wait) = self.shared.take() {
            // Both ends say the same: look again. A permit dropped since then is remembered by `dropped`.
            let _ = timeout(wait, self.shared.dropped.notified()).await;
        }
        WindowPermit { shared: self.shared.clone() }
    }
}

impl Shared {
    /// Takes a place, or says how long it will be until there may be one.
    fn take(&self) -> Option<Duration> {
        let (now, mut log) = (Instant::now(), self.log());
        let age = |end: &Instant| now.saturating_duration_since(*end);
        while log.ended.front().is_some_and(|end| age(end) >= self.window) {
            log.ended.pop_front();
        }
        if log.running + log.ended.len() < self.calls.get() {
            log.running += 1;
            return None;
        }
        // When all permits are out, the next thing to happen is that one is dropped.
        Some(log.ended.front().map_or(Duration::MAX, |oldest| self.window - age(oldest)))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Poisoned only by a panic in here, and there is none.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WindowPermit {
    fn drop(&mut self) {
        let mut log = self.shared.log();
        log.running -= 1;
        log.ended.push_back(Instant::now());
        drop(log);
        self.shared.dropped.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_that_of_arrival() {
        let (start, limit) = (Instant::now(), WindowLimit::new(TWO, WINDOW));
        let call = async || {
            drop(limit.acquire().await);
            start.elapsed()
        };
        let ends = tokio::join!(call(), call(), call(), call(), call());
        assert_eq!(ends, (ms(0), ms(0), ms(100), ms(100), ms(200)));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_no_window_holds_more_wherever_it_begins() {
        let limit = WindowLimit::new(TWO, WINDOW);
        let mut starts = Vec::new();
        for pause in [0, 90, 0, 20, 0, 0, 300, 99, 0, 0] {
            sleep(ms(pause)).await;
            drop(limit.acquire().await);
            starts.push(Instant::now());
        }
        assert!(starts.windows(3).all(|three| three[2] - three[0] >= WINDOW), "{starts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_starts_when_the_permit_is_dropped() {
        let (start, limit) = (Instant::now(), WindowLimit::new(NonZeroUsize::MIN, WINDOW));
        let call = async {
            let _permit = limit.acquire().await;
            sleep(ms(70)).await;
        };
        let next = async {
            drop(limit.acquire().await);
            start.elapsed()
        };
        let ((), next) = tokio::join!(call, next);
        assert_eq!(next, ms(170));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_a_waiter_takes_nothing() {
        let (start, limit) = (Instant::now(), WindowLimit::new(NonZeroUsize::MIN, WINDOW));
        drop(limit.acquire().await);
        let behind = async {
            drop(limit.acquire().await);
            start.elapsed()
        };
        let (given_up, behind) = tokio::join!(timeout(ms(50), limit.acquire()), behind);
        assert!(given_up.is_err());
        assert_eq!(behind, ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_count_as_calls_and_the_future_is_send() {
        let (start, limit) = (Instant::now(), WindowLimit::new(NonZeroUsize::MIN, WINDOW));
        let clone = limit.clone();
        let breaks = tokio::spawn(async move {
            let _permit = clone.acquire().await;
            std::panic::resume_unwind(Box::new("broken"));
        });
        assert!(breaks.await.is_err());
        drop(limit.acquire().await);
        assert_eq!(start.elapsed(), ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_one_window() {
        let limit = WindowLimit::new(NonZeroUsize::MAX, WINDOW);
        for _ in 0..1000 {
            drop(limit.acquire().await);
            sleep(ms(10)).await;
        }
        assert_eq!(limit.shared.log().ended.len(), 10);
    }
}
