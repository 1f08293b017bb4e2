//! `rate_limit` is dropped at every suspension point, and compared with a model over any sequence of calls.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use proptest::prelude::*;
use semaphores::{Rate, RateLimit, TooLarge};
use support::sweep::{Ended, Scene, sweep};
use tokio::time::{Instant, sleep, timeout};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn rate(tokens: usize, per: Duration, burst: usize) -> Rate {
    let [tokens, burst] = [tokens, burst].map(|n| NonZeroUsize::new(n).expect("tests use no zero"));
    Rate { tokens, per, burst }
}

/// Whether `tokens` are there: takes them if so.
fn has(limit: &RateLimit, tokens: usize) -> bool {
    limit.acquire(tokens).now_or_never().is_some()
}

/// A subject that asks for `tokens` behind one waiter and before two.
fn scene(tokens: usize) -> Scene<Result<(), TooLarge>> {
    let start = Instant::now();
    let limit = RateLimit::new(rate(1, ms(10), 5));
    let (first, subject, behind) = (limit.clone(), limit.clone(), limit.clone());
    let last_at = Rc::new(Cell::new(Duration::ZERO));
    let last = last_at.clone();
    let second = Rc::new(Cell::new(false));
    let served = second.clone();
    Scene::new(async move {
        let result = subject.acquire(tokens).await;
        served.set(true);
        result
    })
    .alongside(async move {
        first.acquire(5).await.expect("no more than the burst");
        first.acquire(2).await.expect("no more than the burst");
        assert!(!second.get(), "the second was served before the first");
    })
    .alongside(async move {
        // The subject is polled for the first time after all bystanders, and before any time passes.
        sleep(ms(1)).await;
        let (one, two) = tokio::join!(behind.acquire(3), behind.acquire(1));
        one.and(two).expect("no more than the burst");
        last.set(start.elapsed());
    })
    .check(move |ended| {
        // Five were in the bucket. The subject's own count only if it got them; what it waited for meanwhile is there.
        let (got, waited) = if let Ended::Returned(Ok(())) = ended { (tokens, tokens) } else { (0, tokens) };
        let between = ms(10 * (2 + got as u64 + 4))..=ms(10 * (2 + waited as u64 + 4));
        assert!(between.contains(&last_at.get()), "{:?} is not in {between:?}", last_at.get());
        assert!(has(&limit, 5) && !has(&limit, 1), "an hour later the bucket is just full");
    })
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| scene(1));
    sweep(|_| scene(5));
}

#[test]
fn cancellation_while_the_rate_changes() {
    sweep(|_| {
        let limit = RateLimit::new(rate(1, Duration::from_secs(86_400), 3));
        let (subject, behind, other) = (limit.clone(), limit.clone(), limit.clone());
        Scene::new(async move { subject.acquire(3).await })
            .alongside(async move { behind.acquire(3).await.unwrap() })
            .alongside(async move {
                sleep(ms(2)).await;
                assert_eq!(other.acquire(2).await, Ok(()));
            })
            .alongside(async move {
                sleep(ms(5)).await;
                limit.set_rate(rate(1, ms(3), 3));
                limit.set_rate(rate(1, ms(2), 3));
            })
            .check(|ended| {
                if let Ended::Returned(result) = ended {
                    assert_eq!(result, Ok(()));
                }
            })
    });
}

#[test]
fn errors_after_a_smaller_burst_leave_the_turn_to_the_next() {
    sweep(|_| {
        let limit = RateLimit::new(rate(1, ms(10), 5));
        let (subject, behind) = (limit.clone(), limit.clone());
        Scene::new(async move {
            subject.acquire(5).await?;
            subject.acquire(5).await
        })
        .alongside(async move {
            sleep(ms(1)).await;
            behind.acquire(1).await.unwrap();
        })
        .alongside(async move {
            sleep(ms(15)).await;
            limit.set_rate(rate(1, ms(10), 2));
        })
        .check(|ended| {
            if let Ended::Returned(result) = ended {
                assert_eq!(result, Err(TooLarge { wanted: 5, burst: 2 }));
            }
        })
    });
}

#[tokio::test(start_paused = true)]
async fn clock_takes_the_longest_and_the_shortest_times() {
    for per in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(86_400 * 365)] {
        let limit = RateLimit::new(Rate { tokens: NonZeroUsize::MIN, per, burst: NonZeroUsize::MIN });
        assert_eq!(limit.acquire(1).await, Ok(()));
        assert!(timeout(Duration::from_secs(86_400 * 364), limit.acquire(1)).await.is_err());
    }
    for tokens in [NonZeroUsize::MIN, NonZeroUsize::MAX] {
        for per in [Duration::ZERO, Duration::from_nanos(1)] {
            let limit = RateLimit::new(Rate { tokens, per, burst: NonZeroUsize::MAX });
            for wanted in [0, 1, usize::MAX / 2] {
                assert_eq!(limit.acquire(wanted).await, Ok(()));
            }
        }
    }
    let largest = Rate { tokens: NonZeroUsize::MAX, per: Duration::MAX, burst: NonZeroUsize::MAX };
    let limit = RateLimit::new(largest);
    assert_eq!(limit.acquire(usize::MAX).await, Ok(()));
    sleep(Duration::from_secs(86_400 * 365 * 100)).await;
    assert!(has(&limit, 1));
    for other in [rate(1, Duration::ZERO, 1), largest, rate(1, ms(1), 7), largest, rate(1, ms(1), 7)] {
        limit.set_rate(other);
    }
    sleep(ms(7)).await;
    assert!(has(&limit, 7) && !has(&limit, 1));
}

#[tokio::test(start_paused = true)]
async fn clock_keeps_a_million_a_second() {
    let (start, limit) = (Instant::now(), RateLimit::new(rate(1_000_000, Duration::from_secs(1), 2_000)));
    for _ in 0..102_000 {
        limit.acquire(1).await.unwrap();
    }
    // One for each of the microseconds; the last wake-up comes with the clock's millisecond.
    assert_eq!(start.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn order_and_memory_of_a_hundred_thousand_waiters() {
    let (start, limit) = (Instant::now(), RateLimit::new(rate(100_000, Duration::from_secs(1), 1_000)));
    let served = AtomicUsize::new(0);
    let wait = async |place| {
        limit.acquire(1).await.unwrap();
        assert_eq!(served.fetch_add(1, Ordering::Relaxed), place);
    };
    let waits: Vec<_> = (0..100_000).map(wait).collect();
    let all = waits.into_iter().collect::<futures::stream::FuturesUnordered<_>>();
    futures::StreamExt::for_each(all, |()| std::future::ready(())).await;
    assert_eq!(start.elapsed(), ms(990));
}

/// Callers on several threads, a third of whom give up, and a rate that changes: everybody else is served, and no more
/// than the limit allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_survives_threads_and_cancellations() {
    let (start, limit) = (Instant::now(), RateLimit::new(rate(200_000, Duration::from_secs(1), 400)));
    let granted = Arc::new(AtomicUsize::new(0));
    let callers = (0..8).map(|caller| {
        let (limit, granted) = (limit.clone(), granted.clone());
        tokio::spawn(async move {
            for call in 0..600 {
                let tokens = 1 + (call * 7 + caller) % 9;
                let acquire = limit.acquire(tokens);
                if call % 3 == 0 {
                    let given_up = tokio::select! {
                        biased;
                        result = acquire => result.is_err(),
                        () = tokio::task::yield_now() => true,
                    };
                    granted.fetch_add(if given_up { 0 } else { tokens }, Ordering::Relaxed);
                } else {
                    acquire.await.unwrap();
                    granted.fetch_add(tokens, Ordering::Relaxed);
                }
                if call % 100 == 50 {
                    limit.set_rate(rate(200_000 - caller * 1_000, Duration::from_secs(1), 400));
                }
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let allowed = 400 + (start.elapsed().as_nanos() * 200_000 / 1_000_000_000) as usize;
    let granted = granted.load(Ordering::Relaxed);
    assert!(granted <= allowed, "{granted} granted, {allowed} allowed");
}

/// What happens in a run, in the order in which it does.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrives { caller: usize, tokens: usize },
    Granted { caller: usize },
    Refused { caller: usize },
    GivesUp { caller: usize },
    Changes(Rate),
}

#[derive(Clone, Debug)]
enum Step {
    /// Asks for tokens, and gives up after so many milliseconds.
    Acquire {
        tokens: usize,
        patience: u64,
    },
    Change(Rate),
}

/// Pauses in milliseconds, and what comes after each.
fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let patience = prop_oneof![Just(1_000_000), 0..60_u64];
    let acquire = (1..9_usize, patience).prop_map(|(tokens, patience)| Step::Acquire { tokens, patience });
    let change = rates().prop_map(Step::Change);
    prop::collection::vec((0..15_u64, prop_oneof![6 => acquire, 1 => change]), 1..60)
}

fn rates() -> impl Strategy<Value = Rate> {
    (1..5_usize, 1..30_u64, 1..9_usize).prop_map(|(tokens, per, burst)| rate(tokens, ms(per), burst))
}

async fn play(first: Rate, steps: Vec<(u64, Step)>) -> Vec<(Duration, Event)> {
    let (start, limit, log) = (Instant::now(), &RateLimit::new(first), &RefCell::new(Vec::new()));
    let note = &|event| log.borrow_mut().push((start.elapsed(), event));
    let mut begin = Duration::ZERO;
    let players = steps.into_iter().enumerate().map(|(caller, (pause, step))| {
        begin += ms(pause);
        async move {
            tokio::time::sleep_until(start + begin).await;
            match step {
                Step::Change(rate) => {
                    limit.set_rate(rate);
                    note(Event::Changes(rate));
                }
                Step::Acquire { tokens, patience } => {
                    note(Event::Arrives { caller, tokens });
                    let ended = timeout(ms(patience), limit.acquire(tokens)).await;
                    note(match ended {
                        Ok(Ok(())) => Event::Granted { caller },
                        Ok(Err(_)) => Event::Refused { caller },
                        Err(_) => Event::GivesUp { caller },
                    });
                }
            }
        }
    });
    join_all(players).await;
    log.take()
}

/// A bucket that is filled step by step, and who waits for it.
struct Model {
    rate: Rate,
    level: f64,
    now: Duration,
    queue: Vec<(usize, usize)>,
}

impl Model {
    /// Lets time pass. Whoever is first must not have been served before its end.
    fn wait_until(&mut self, now: Duration) {
        if now > self.now {
            self.fill(self.now.max(now - ms(1)));
            if let Some((caller, tokens)) = self.queue.first() {
                assert!(*tokens <= self.rate.burst.get(), "{caller} waits for ever");
                assert!(self.level < *tokens as f64 + 1e-6, "{caller} waits in vain");
            }
            self.fill(now);
        }
    }

    fn fill(&mut self, now: Duration) {
        let Rate { tokens, per, burst } = self.rate;
        let added = (now - self.now).as_secs_f64() / per.as_secs_f64() * tokens.get() as f64;
        self.level = (self.level + added).min(burst.get() as f64);
        self.now = now;
    }

    fn see(&mut self, event: Event) {
        match event {
            Event::Arrives { caller, tokens } => self.queue.push((caller, tokens)),
            Event::Granted { caller } => {
                let (first, tokens) = self.queue.remove(0);
                assert_eq!(caller, first, "first come, first served");
                self.level -= tokens as f64;
                assert!(self.level > -1e-6, "{caller} got tokens that were not there");
            }
            Event::Refused { caller } => {
                let tokens = self.leave(caller);
                assert!(tokens > self.rate.burst.get(), "{caller} was refused");
            }
            Event::GivesUp { caller } => _ = self.leave(caller),
            Event::Changes(rate) => {
                self.rate = rate;
                self.level = self.level.min(rate.burst.get() as f64);
            }
        }
    }

    fn leave(&mut self, caller: usize) -> usize {
        let place = self.queue.iter().position(|(waiting, _)| *waiting == caller).expect("it waits");
        self.queue.remove(place).1
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any arrivals, weights, cancellations and changes: nobody gets what is not there, nobody is overtaken, and nobody
    /// waits for longer than the bucket needs.
    #[test]
    fn backpressure_and_order_are_those_of_a_bucket(first in rates(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let events = runtime.block_on(play(first, steps));
        let mut model =
            Model { rate: first, level: first.burst.get() as f64, now: Duration::ZERO, queue: Vec::new() };
        for (at, event) in events {
            model.wait_until(at);
            model.see(event);
        }
        prop_assert!(model.queue.is_empty());
    }
}
