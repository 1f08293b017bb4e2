//! Run a job at a steady rate: no drift, no overlap, and a chosen way to catch up after a stall.
//!
//! Use it for heartbeats, polling, flushes and cleanups. It is tokio's [`interval`] used with care: the way to catch up is
//! an argument and not a default, a period of zero is an error, and a tick says how many were missed.
//!
//! | | |
//! |---|---|
//! | Order | ticks are numbered from 1 and due at start, start + period, start + 2 periods; a run begins when the loop asks for it, so runs never overlap |
//! | Errors | a period of zero is [`ZeroPeriod`], where `interval` panics; the job's own errors stay in the caller's loop |
//! | Cancellation | dropping [`tick`](Periodic::tick) loses no tick: the next call returns it; a loop inside `run_until_cancelled` stops at once, in the wait as in the run |
//! | Panics | none of its own; the job runs in the caller's loop, and so does its panic |
//! | Memory | O(1): one timer, however many ticks were missed |
//! | Backpressure | when a run ends after the next is due, that one begins at once; then `Burst` makes up for every missed tick, `Skip` returns to the beat, `Delay` begins a new beat from there |
//! | Clock | `tokio::time`, with its resolution of 1 ms; up to 5 ms late does not count as missed |
//!
//! ```
//! use std::time::Duration;
//! use tasks::{MissedTickBehavior::Skip, Periodic};
//!
//! #[tokio::main]
//! async fn main() {
//!     let mut periodic = Periodic::new(Duration::from_millis(10), Skip).unwrap();
//!     let first = periodic.tick().await;
//!     tokio::time::sleep(Duration::from_millis(35)).await; // a job that takes too long
//!     let (second, third) = (periodic.tick().await, periodic.tick().await);
//!     assert!(second.due - first.due == Duration::from_millis(10) && third.missed >= 2);
//! }
//! ```

use std::time::Duration;

pub use tokio::time::MissedTickBehavior;
use tokio::time::{Instant, Interval, interval, sleep};

/// The period is zero: the job would always be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the period is zero, so the job would always be due")]
pub struct ZeroPeriod;

/// One time for the job to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Counts the ticks that were returned, from 1.
    pub number: u64,
    /// When it was due, before the jitter; `due.elapsed()` is how late the run begins.
    pub due: Instant,
    /// How many whole periods went by between the tick before and this one without a run. With `Burst` always 0.
    pub missed: u64,
}

/// The times at which a job runs. Dropping it drops its timer.
#[derive(Debug)]
pub struct Periodic {
    interval: Interval,
    jitter: Duration,
    last: Option<Tick>,
    /// The tick that waits for its jitter, here so that a dropped call does not lose it.
    next: Option<(Tick, Duration)>,
}

impl Periodic {
    /// Ticks now and then once in each `period`, which counts as 30 years if it is longer.
    ///
    /// # Errors
    ///
    /// [`ZeroPeriod`].
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime with a timer.
    pub fn new(period: Duration, catch_up: MissedTickBehavior) -> Result<Self, ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(catch_up);
        Ok(Periodic { interval, jitter: Duration::ZERO, last: None, next: None })
    }

    /// Delays each tick by a random time of less than `longest`, or than the period if that is shorter, so that many
    /// programs do not all begin at once. The delays do not add up.
    pub fn with_jitter(self, longest: Duration) -> Self {
        Periodic { jitter: longest.min(self.interval.period()), ..self }
    }

    /// Waits until the next run should begin.
    pub async fn tick(&mut self) -> Tick {
        let (tick, delay) = match self.next {
            Some(next) => next,
            None => {
                let due = self.interval.tick().await;
                *self.next.insert((self.at(due), self.jitter.mul_f64(fastrand::f64())))
            }
        };
        let left = delay.saturating_sub(tick.due.elapsed());
        if !left.is_zero() {
            sleep(left).await;
        }
        self.next = None;
        self.last = Some(tick);
        tick
    }

    fn at(&self, due: Instant) -> Tick {
        let Some(last) = self.last else { return Tick { number: 1, due, missed: 0 } };
        let periods = (due - last.due).as_nanos() / self.interval.period().as_nanos();
        let missed = u64::try_from(periods.saturating_sub(1)).unwrap_or(u64::MAX);
        Tick { number: last.number + 1, due, missed }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::MissedTickBehavior::{Burst, Delay, Skip};
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// When six runs begin, the second of which takes 35 ms and all others 3 ms, and what they missed.
    async fn begin_with(catch_up: MissedTickBehavior) -> (Vec<u128>, Vec<u64>) {
        let start = Instant::now();
        let mut periodic = Periodic::new(ms(10), catch_up).unwrap();
        let (mut begun, mut missed) = (Vec::new(), Vec::new());
        for run in 1..=6 {
            let tick = periodic.tick().await;
            assert_eq!(tick.number, run);
            begun.push(start.elapsed().as_millis());
            missed.push(tick.missed);
            sleep(ms(if run == 2 { 35 } else { 3 })).await;
        }
        (begun, missed)
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_the_beat_whatever_the_runs_take() {
        let start = Instant::now();
        let mut periodic = Periodic::new(ms(10), Skip).unwrap();
        for run in 1..=1000 {
            let tick = periodic.tick().await;
            assert_eq!((tick.number, tick.missed), (run, 0));
            assert_eq!((tick.due, start.elapsed()), (start + ms(10) * (run as u32 - 1), tick.due - start));
            sleep(ms(run % 10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_is_made_up_for_in_the_chosen_way() {
        assert_eq!(begin_with(Burst).await, ([0, 10, 45, 48, 51, 54].into(), [0; 6].into()));
        assert_eq!(begin_with(Skip).await, ([0, 10, 45, 50, 60, 70].into(), [0, 0, 0, 2, 0, 0].into()));
        assert_eq!(begin_with(Delay).await, ([0, 10, 45, 55, 65, 75].into(), [0, 0, 0, 2, 0, 0].into()));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_loses_no_tick() {
        let mut periodic = Periodic::new(ms(10), Skip).unwrap().with_jitter(ms(10));
        for run in 1..100 {
            // Dropped in the wait for the tick or in its jitter, wherever it is after so long.
            for _ in 0..run % 7 {
                if let Some(tick) = periodic.tick().now_or_never() {
                    panic!("{tick:?} has not been waited for");
                }
                advance(ms(1)).await;
                periodic.next.inspect(|(tick, _)| assert_eq!(tick.number, run));
                if periodic.next.is_some() {
                    break;
                }
            }
            assert_eq!(periodic.tick().await.number, run);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clock_jitter_stays_below_its_limit_and_does_not_add_up() {
        let start = Instant::now();
        let mut periodic = Periodic::new(ms(100), Burst).unwrap().with_jitter(ms(50));
        let mut latest = Duration::ZERO;
        for run in 0..1000 {
            let tick = periodic.tick().await;
            assert_eq!(tick.due, start + ms(100) * run);
            latest = latest.max(tick.due.elapsed());
        }
        assert!(latest <= ms(50) && latest > ms(45), "{latest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_extremes() {
        assert_eq!(Periodic::new(Duration::ZERO, Skip).err(), Some(ZeroPeriod));
        for catch_up in [Burst, Delay, Skip] {
            let longest = Periodic::new(Duration::MAX, catch_up).unwrap();
            assert_eq!(longest.with_jitter(Duration::MAX).last, None);
            let mut shortest = Periodic::new(Duration::from_nanos(1), catch_up).unwrap();
            assert_eq!((shortest.tick().await.number, shortest.tick().await.number), (1, 2));
        }
        let mut longest = Periodic::new(Duration::MAX, Skip).unwrap();
        assert_eq!(longest.tick().await.number, 1);
        assert!(longest.tick().now_or_never().is_none());
        let mut moved = Periodic::new(ms(1), Skip).unwrap();
        assert_eq!(tokio::spawn(async move { moved.tick().await.number }).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_one_timer_after_a_long_stall() {
        let mut periodic = Periodic::new(ms(10), Skip).unwrap();
        periodic.tick().await;
        advance(Duration::from_secs(3600)).await;
        assert_eq!(periodic.tick().await.missed, 0);
        assert_eq!(periodic.tick().await.missed, 359_999);
        assert_eq!(periodic.tick().await.missed, 0);
    }
}
