//! Pace the requests to one host: slower when it struggles, and slowly faster again while all is well.
//!
//! Use it in a loop over the pages of one host. For many hosts use `polite_frontier`, which keeps one for each of them.
//!
//! | | |
//! |---|---|
//! | Order | none: one caller asks, and says what the host answered |
//! | Errors | none: a failure, or an answer that asks for patience, makes the host's pace slower |
//! | Cancellation | dropping a [`turn`](HostPace::turn) loses nothing: no request has begun, and the next turn is as early |
//! | Panics | none |
//! | Memory | O(1) |
//! | Backpressure | none of its own: the caller waits for its turn |
//! | Clock | `tokio::time`: from the start of a request to that of the next pass `delay` or more |
//!
//! A failure doubles the delay, a success takes an eighth off, down to the shortest one: about five successes make up for a
//! failure. Requests that were under way together and fail together double it once. A pause that the host asks for
//! (`Retry-After`) is kept; where it names none, it is random up to the delay, so that crawlers do not return together.
//!
//! ```
//! use std::time::Duration;
//! use scraping::{Answer, HostPace};
//!
//! #[tokio::main]
//! async fn main() {
//!     let mut pace = HostPace::new(Duration::from_millis(10), Duration::from_secs(60));
//!     let began = pace.turn().await;
//!     pace.ended(began, Answer::Failed);
//!     pace.turn().await;
//!     assert!(began.elapsed() >= Duration::from_millis(20));
//! }
//! ```

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

/// What a first failure makes of a delay that is shorter.
const SLOWED: Duration = Duration::from_millis(100);
/// For the end of a wait that no clock can tell.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// When the next request to a host may begin.
#[derive(Clone, Debug)]
pub struct HostPace {
    shortest: Duration,
    longest: Duration,
    delay: Duration,
    slowed: Option<Instant>,
    began: Option<Instant>,
    paused: Option<Instant>,
}

/// What an answer says about the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All is well. The host asks for this time between two requests (`Crawl-delay`), or for none.
    Well(Duration),
    /// The host may be in trouble: no answer in time, or a status such as 500.
    Failed,
    /// The host asks for patience (429, 503), for as long as it says, if it does: see [`retry_after`].
    Busy(Option<Duration>),
}

impl HostPace {
    /// `shortest` is the least time between the starts of two requests, `longest` the longest that the host can make of it,
    /// and of a pause, whatever it asks for.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        HostPace { shortest, longest, delay: shortest, slowed: None, began: None, paused: None }
    }

    /// Waits until a request may begin, says that it does, and returns when that was. Panics outside a Tokio runtime with a
    /// timer, if it has to wait.
    pub async fn turn(&mut self) -> Instant {
        if let Some(ready) = self.ready().filter(|ready| *ready > Instant::now()) {
            sleep_until(ready).await;
        }
        let now = Instant::now();
        self.begin(now);
        now
    }

    /// When a request may begin; `None` if that is now and always was.
    pub fn ready(&self) -> Option<Instant> {
        self.began.map(|began| after(began, self.delay)).max(self.paused)
    }

    /// Says that a request begins.
    pub fn begin(&mut self, now: Instant) {
        self.began = self.began.max(Some(now));
    }

    /// Says how a request ended that began then.
    pub fn ended(&mut self, began: Instant, answer: Answer) {
        let now = Instant::now();
        if let Answer::Well(asked) = answer {
            let faster = self.delay - self.delay / 8;
            self.delay = faster.max(asked.min(self.longest)).max(self.shortest);
        } else if self.slowed.is_none_or(|slowed| slowed <= began) {
            let slower = self.delay.saturating_mul(2).max(SLOWED).min(self.longest);
            (self.delay, self.slowed) = (slower.max(self.delay), Some(now));
        }
        if let Answer::Busy(pause) = answer {
            let random = Duration::try_from_secs_f64(self.delay.as_secs_f64() * fastrand::f64());
            let pause = pause.unwrap_or(random.unwrap_or(self.delay)).min(self.longest);
            self.paused = self.paused.max(Some(after(now, pause)));
        }
    }

    /// The time that passes now between the starts of two requests.
    pub fn delay(&self) -> Duration {
        self.delay
    }
}

/// What the header `Retry-After` asks for, in seconds or as a date, which is compared with `now`.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn after(instant: Instant, wait: Duration) -> Instant {
    instant.checked_add(wait).unwrap_or_else(|| instant + FAR)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{advance, sleep};

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[tokio::test(start_paused = true)]
    async fn clock_the_delay_counts_from_start_to_start() {
        let (mut pace, start) = (HostPace::new(ms(100), ms(5000)), Instant::now());
        for turn in 0..5 {
            assert_eq!(pace.turn().await - start, ms(100) * turn);
            sleep(ms(30)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_double_the_delay_once_for_those_under_way_and_success_makes_it_good() {
        let mut pace = HostPace::new(ms(100), ms(5000));
        let began = pace.turn().await;
        advance(ms(10)).await;
        for _ in 0..3 {
            pace.ended(began, Answer::Failed);
        }
        assert_eq!(pace.delay(), ms(200));
        for expected in [400, 800, 1600, 3200, 5000, 5000] {
            let began = pace.turn().await;
            pace.ended(began, Answer::Failed);
            assert_eq!(pace.delay(), ms(expected));
        }
        let successes = (0..40).take_while(|_| {
            pace.ended(Instant::now(), Answer::Well(Duration::ZERO));
            pace.delay() > ms(100)
        });
        assert_eq!(successes.count(), 29, "5000 ms × 0.875³⁰ is less than 100 ms");
        pace.ended(Instant::now(), Answer::Well(ms(700)));
        assert_eq!(pace.delay(), ms(700), "what the host asks for");
        pace.ended(Instant::now(), Answer::Well(Duration::MAX));
        assert_eq!(pace.delay(), ms(5000));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_that_ask_for_patience_pause_the_host() {
        let (mut pace, start) = (HostPace::new(ms(100), ms(5000)), Instant::now());
        let began = pace.turn().await;
        pace.ended(began, Answer::Busy(Some(ms(3000))));
        assert_eq!(pace.turn().await - start, ms(3000));
        pace.ended(Instant::now(), Answer::Busy(Some(Duration::MAX)));
        assert_eq!(pace.turn().await - start, ms(8000));
        let pauses: Vec<_> = (0..100)
            .map(|_| {
                let mut pace = HostPace::new(ms(1), ms(1000));
                pace.ended(Instant::now(), Answer::Busy(None));
                pace.ready().unwrap() - Instant::now()
            })
            .collect();
        assert!(pauses.iter().all(|pause| *pause <= ms(100)));
        assert!(pauses.iter().any(|pause| *pause > ms(50)) && pauses.iter().any(|pause| *pause < ms(50)));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_a_turn_loses_nothing() {
        let (mut pace, start) = (HostPace::new(ms(100), ms(5000)), Instant::now());
        pace.turn().await;
        advance(ms(60)).await;
        assert!(pace.turn().now_or_never().is_none());
        assert_eq!(pace.turn().await - start, ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_clock_bear_any_number() {
        let mut pace = HostPace::new(Duration::MAX, Duration::MAX);
        assert!(pace.turn().now_or_never().is_some());
        for answer in [
            Answer::Failed,
            Answer::Busy(None),
            Answer::Busy(Some(Duration::MAX)),
            Answer::Well(Duration::MAX),
        ] {
            pace.ended(Instant::now(), answer);
        }
        assert!(pace.turn().now_or_never().is_none());
        let mut pace = HostPace::new(Duration::ZERO, Duration::ZERO);
        pace.ended(Instant::now(), Answer::Failed);
        assert!(pace.turn().now_or_never().is_some());
    }

    #[test]
    fn errors_retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0), "the date has passed");
        assert_eq!(retry_after(&"9".repeat(30), now), Some(Duration::MAX));
        for wrong in ["", "-1", "1.5", "soon", "+1"] {
            assert_eq!(retry_after(wrong, now), None, "{wrong}");
        }
    }
}
