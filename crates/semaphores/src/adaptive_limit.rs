//! Find out how many calls a server bears at a time, and follow it when that changes.
//!
//! Use it before a server whose capacity you do not know or which changes: a shared database, another team's service. When
//! you know the number use `concurrency_limit`.
//!
//! | | |
//! |---|---|
//! | Order | permits are given first come, first served, also while the limit changes |
//! | Errors | `judge` says what a result means; an overloaded one lowers the limit, the output is the caller's either way |
//! | Cancellation | a call that is dropped gives its permit back and counts neither way |
//! | Panics | a panic of the work or of `judge` is the caller's panic; it gives the permit back and counts neither way |
//! | Memory | O(callers that wait), each inside its own future |
//! | Backpressure | at most `limit` run, between `least` and `most`; when the limit sinks, those that run go on, and the next start when there is room below it |
//! | Clock | `tokio::time` measures each call from its permit to its end |
//!
//! Additive increase, multiplicative decrease: a full round of good calls adds 1, and a call that is overloaded or slower than
//! `target` takes a tenth off. Calls that began before the last cut count no more, so that a burst of failures cuts once.
//! The limit grows only while at least half of it is in use: what nobody tried proves nothing. The idea is TCP's
//! (Van Jacobson, 1988; RFC 5681); Netflix's `concurrency-limits` brought it to calls.
//!
//! ```
//! use std::time::Duration;
//! use semaphores::{AdaptiveLimit, Rules, Verdict};
//! #[tokio::main]
//! async fn main() {
//!     let [least, most] = [10, 100].map(|n: usize| n.try_into().unwrap());
//!     let limit = AdaptiveLimit::new(Rules { least, most, target: Duration::from_millis(100) });
//!     let result = limit.run(async || Err::<(), _>("503"), |result| Verdict::from(result)).await;
//!     assert_eq!((result, limit.limit()), (Err("503"), 10)); // not below `least`
//! }
//! ```

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What is left of the limit after a sign of overload.
const KEPT: f64 = 0.9;
/// Up to here a limit is a whole number in an `f64` too. Nobody runs as many calls.
const UNLIMITED: usize =
    if Semaphore::MAX_PERMITS < u32::MAX as usize { Semaphore::MAX_PERMITS } else { u32::MAX as usize };

/// Between which bounds the limit moves, and what is too slow.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The limit is never below this, and begins here.
    pub least: NonZeroUsize,
    /// The limit is never above this. Less than `least` counts as `least`, and more than `u32::MAX` as that.
    pub most: NonZeroUsize,
    /// A call that takes longer than this is a sign of overload.
    pub target: Duration,
}

/// What a result says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It bore the call, if it was also fast enough.
    Fine,
    /// It was too much: refused, failed or timed out.
    Overloaded,
    /// Nothing: the call failed for another reason, or never reached the server.
    Ignore,
}

impl<T, E> From<&Result<T, E>> for Verdict {
    /// Takes every error for overload.
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Verdict::Fine } else { Verdict::Overloaded }
    }
}

/// A limit that moves. Clones share it.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    least: usize,
    most: usize,
    target: Duration,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    running: usize,
    /// Permits that running calls have beyond the limit. They are withheld when the calls end.
    surplus: usize,
    cuts: u64,
}

/// A call that holds a permit. Dropping it gives the permit back, or withholds it.
struct Running<'a> {
    shared: &'a Shared,
    /// How many cuts there had been when it began.
    cuts: u64,
}

impl AdaptiveLimit {
    /// A limit that begins at `rules.least`.
    pub fn new(rules: Rules) -> Self {
        let least = rules.least.get().min(UNLIMITED);
        let most = rules.most.get().clamp(least, UNLIMITED);
        let state = State { limit: least as f64, running: 0, surplus: 0, cuts: 0 };
        let (permits, state) = (Semaphore::new(least), Mutex::new(state));
        AdaptiveLimit { shared: Arc::new(Shared { least, most, target: rules.target, permits, state }) }
    }

    /// Waits for a permit, calls `work`, and learns from how long it took and what `judge` says of its output.
    ///
    /// A call that never ends says nothing: put a timeout into `work`, and judge its error as [`Verdict::Overloaded`].
    pub async fn run<F: Future>(
        &self,
        work: impl FnOnce() -> F,
        judge: impl FnOnce(&F::Output) -> Verdict,
    ) -> F::Output {
        let permit = self.shared.permits.acquire().await;
        // From here on the guard gives it back.
        permit.expect("nobody closes the semaphore, which is private").forget();
        let running = self.shared.begin();
        let start = Instant::now();
        let output = work().await;
        let slow = start.elapsed() > self.shared.target;
        running.learn(match judge(&output) {
            Verdict::Fine if slow => Verdict::Overloaded,
            verdict => verdict,
        });
        output
    }

    /// How many calls may run at this moment.
    pub fn limit(&self) -> usize {
        self.shared.state().limit as usize
    }
}

impl Shared {
    fn begin(&self) -> Running<'_> {
        let mut state = self.state();
        state.running += 1;
        Running { shared: self, cuts: state.cuts }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_> {
    fn learn(&self, verdict: Verdict) {
        let Shared { least, most, permits, .. } = self.shared;
        let mut state = self.shared.state();
        if verdict == Verdict::Ignore || self.cuts != state.cuts {
            return;
        }
        let before = state.limit as usize;
        if verdict == Verdict::Overloaded {
            state.cuts += 1;
            state.limit = (state.limit * KEPT).max(*least as f64);
            let fewer = before - state.limit as usize;
            state.surplus += fewer - permits.forget_permits(fewer);
        } else if state.running >= before.div_ceil(2) {
            state.limit = (state.limit + 1.0 / state.limit).min(*most as f64);
            let mut more = state.limit as usize - before;
            if more > 0 && state.surplus > 0 {
                (more, state.surplus) = (0, state.surplus - 1);
            }
            // Waking somebody may run any code: not under the lock.
            drop(state);
            permits.add_permits(more);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.running -= 1;
        if state.surplus > 0 {
            state.surplus -= 1;
            return;
        }
        drop(state);
        self.shared.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::AssertUnwindSafe;

    use futures::future::{FutureExt, join_all, select};
    use tokio::time::sleep;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn limit(least: usize, most: usize) -> AdaptiveLimit {
        let [least, most] = [least, most].map(|bound| NonZeroUsize::new(bound).expect("above zero"));
        AdaptiveLimit::new(Rules { least, most, target: ms(15) })
    }

    /// Answers in 10 ms, and more slowly when more than `capacity` calls run; refuses above `refuses_at`.
    struct Server {
        capacity: Cell<usize>,
        refuses_at: usize,
        running: Cell<usize>,
    }

    impl Server {
        async fn serve(&self) -> Result<(), &'static str> {
            if self.running.get() >= self.refuses_at {
                return Err("503");
            }
            self.running.set(self.running.get() + 1);
            let load = self.running.get() as f64 / self.capacity.get() as f64;
            sleep(ms(10).mul_f64(load.max(1.0))).await;
            self.running.set(self.running.get() - 1);
            Ok(())
        }
    }

    /// Sends calls from `clients` until `script` ends.
    async fn flood(limit: &AdaptiveLimit, server: &Server, clients: usize, script: impl Future<Output = ()>) {
        let client = async |_| {
            loop {
                let result = limit.run(|| server.serve(), |result| result.into()).await;
                if result.is_err() {
                    sleep(ms(1)).await;
                }
            }
        };
        let clients = join_all((0..clients).map(client));
        select(Box::pin(script), Box::pin(clients)).await;
    }

    /// Where the limit moves in the next three seconds.
    async fn range(limit: &AdaptiveLimit) -> (usize, usize) {
        let mut seen = Vec::new();
        for _ in 0..300 {
            sleep(ms(10)).await;
            seen.push(limit.limit());
        }
        (seen.iter().copied().min().unwrap_or(0), seen.iter().copied().max().unwrap_or(0))
    }

    #[tokio::test(start_paused = true)]
    async fn clock_settles_where_latency_reaches_the_target() {
        let limit = limit(1, 1000);
        let server = Server { capacity: Cell::new(20), refuses_at: usize::MAX, running: Cell::new(0) };
        // 15 ms are reached at one and a half times the capacity.
        flood(&limit, &server, 100, async {
            for (capacity, knee) in [(20, 30), (10, 15), (40, 60)] {
                server.capacity.set(capacity);
                sleep(Duration::from_secs(3)).await;
                let (low, high) = range(&limit).await;
                assert!(
                    low >= knee * 8 / 10 && high <= knee * 11 / 10,
                    "{low} to {high}, the knee is at {knee}"
                );
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn errors_settle_where_the_server_refuses() {
        let limit = limit(1, 1000);
        let server = Server { capacity: Cell::new(50), refuses_at: 20, running: Cell::new(0) };
        flood(&limit, &server, 100, async {
            sleep(Duration::from_secs(3)).await;
            let (low, high) = range(&limit).await;
            assert!(low >= 17 && high <= 21, "{low} to {high}");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn errors_in_one_burst_cut_once() {
        let limit = limit(1, 1000);
        let server = Server { capacity: Cell::new(1000), refuses_at: usize::MAX, running: Cell::new(0) };
        flood(&limit, &server, 100, sleep(Duration::from_secs(2))).await;
        let before = limit.limit();
        let failing = |milliseconds| {
            let work = move || sleep(ms(milliseconds)).map(|()| Err::<(), ()>(()));
            limit.run(work, |result| result.into())
        };
        join_all((0..40).map(|number| failing(1 + number % 7))).await;
        let after = limit.limit();
        assert!(after >= before * 9 / 10 && after < before * 95 / 100, "{before}, then {after}");
        limit.run(async || Err::<(), ()>(()), |_| Verdict::Ignore).await.unwrap_err();
        assert_eq!(limit.limit(), after);
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_first_come_first_served() {
        let (limit, begun) = (limit(2, 2), RefCell::new(Vec::new()));
        let call = |number| {
            let begun = &begun;
            let work = move || {
                begun.borrow_mut().push(number);
                sleep(ms(if number == 0 { 20 } else { 3 }))
            };
            limit.run(work, |()| Verdict::Fine)
        };
        join_all((0..20).map(call)).await;
        assert!(begun.into_inner().into_iter().eq(0..20));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_withholds_permits_when_the_limit_sinks() {
        let (limit, running) = (limit(1, 10), Cell::new(0));
        let work = async |milliseconds| {
            running.set(running.get() + 1);
            sleep(ms(milliseconds)).await;
            running.set(running.get() - 1);
        };
        while limit.limit() < 10 {
            join_all((0..10).map(|_| limit.run(|| work(1), |()| Verdict::Fine))).await;
        }
        let slow = join_all((0..30).map(|_| limit.run(|| work(50), |()| Verdict::Fine)));
        let watch = async {
            sleep(ms(5)).await;
            assert_eq!(running.get(), 10);
            sleep(ms(50)).await;
            assert_eq!((limit.limit(), running.get()), (9, 9));
            sleep(ms(50)).await;
            assert_eq!((limit.limit(), running.get()), (8, 8));
        };
        futures::join!(slow, watch);
        assert_eq!(limit.shared.permits.available_permits(), limit.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_growth_takes_from_the_surplus_first() {
        let limit = limit(1, 100);
        // After a cut that found all permits given out: four permits, room for three and almost four.
        limit.shared.permits.add_permits(3);
        (limit.shared.state().limit, limit.shared.state().surplus) = (3.9, 1);
        join_all((0..4).map(|_| limit.run(|| sleep(ms(1)), |()| Verdict::Fine))).await;
        assert_eq!((limit.limit(), limit.shared.permits.available_permits()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_a_limit_that_is_not_used_does_not_grow() {
        let limit = limit(4, 100);
        for _ in 0..100 {
            limit.run(async || sleep(ms(1)).await, |()| Verdict::Fine).await;
        }
        assert_eq!(limit.limit(), 4);
        join_all((0..100).map(|_| limit.run(|| sleep(ms(1)), |()| Verdict::Fine))).await;
        assert!(limit.limit() > 8);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_counts_neither_way() {
        let limit = limit(4, 100);
        for _ in 0..100 {
            let mut call = Box::pin(limit.run(async || sleep(ms(1000)).await, |()| Verdict::Fine));
            assert!(futures::poll!(&mut call).is_pending());
            sleep(ms(20)).await;
        }
        assert_eq!((limit.limit(), limit.shared.permits.available_permits()), (4, 4));
    }

    #[tokio::test]
    async fn panics_count_neither_way() {
        let limit = limit(4, 100);
        let panic = || -> Verdict { std::panic::resume_unwind(Box::new("broken")) };
        for _ in 0..100 {
            let call = limit.run(async || panic(), |_| Verdict::Overloaded);
            assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
            let call = limit.run(async || (), |()| panic());
            assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
        }
        assert_eq!((limit.limit(), limit.shared.permits.available_permits()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_bounds_at_the_extremes() {
        for (least, most) in [(1, 1), (5, 1), (usize::MAX, 1), (1, usize::MAX), (usize::MAX, usize::MAX)] {
            let limit = limit(least, most);
            let least = least.min(UNLIMITED);
            for verdict in [Verdict::Fine, Verdict::Overloaded, Verdict::Fine] {
                let limit = limit.clone();
                tokio::spawn(async move { limit.run(async || (), |()| verdict).await }).await.unwrap();
            }
            assert!(limit.limit() >= least && limit.limit() <= most.max(least));
            assert_eq!(limit.shared.permits.available_permits(), limit.limit());
        }
    }
}
