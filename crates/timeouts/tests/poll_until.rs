//! `poll_until` is dropped at every suspension point, its polls fail and panic; its limit is never overrun.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Parts, Scene, sweep};
use timeouts::{Polling, Unmet, poll_until};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

type State = Result<u64, &'static str>;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn scene(parts: &Parts, limit: u64) -> Scene<Result<State, Unmet<State>>> {
    let permits = Rc::new(Semaphore::new(1));
    let (other, after, parts) = (permits.clone(), permits.clone(), parts.clone());
    let call = async move {
        let count = Cell::new(0);
        let poll = || {
            let (permits, count) = (&permits, &count);
            let poll = async move {
                let _permit = permits.acquire().await;
                sleep(ms(2)).await;
                count.set(count.get() + 1);
                Ok(count.get())
            };
            parts.fallible("poll", poll, || "injected")
        };
        let rules = Polling { limit: ms(limit), pause: ms(5)..=ms(5) };
        poll_until("four", rules, poll, |state| *state == Ok(4) || state.is_err()).await
    };
    let other = async move { drop(other.acquire().await) };
    Scene::new(call).alongside(other).check(move |ended| {
        assert_eq!(after.available_permits(), 1);
        match ended {
            Ended::Returned(Ok(state)) => assert!(matches!(state, Ok(4) | Err("injected"))),
            Ended::Returned(Err(unmet)) => assert_eq!((limit, unmet.polls, unmet.last), (18, 3, Some(Ok(3)))),
            _ => {}
        }
    })
}

#[test]
fn cancellation_when_the_condition_is_met() {
    sweep(|parts| scene(parts, 100));
}

#[test]
fn cancellation_when_it_is_not() {
    sweep(|parts| scene(parts, 18));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the pauses, and however long each poll: the limit is kept to the millisecond, and the last state is right.
    #[test]
    fn clock_the_limit_is_never_overrun(
        limit in 1..300_u64,
        pause in 0..40_u64,
        spread in 0..40_u64,
        polls in prop::collection::vec(0..50_u64, 1..20),
        enough in 1..30_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (ended, took, seen) = runtime.block_on(async {
            let (start, seen) = (Instant::now(), Cell::new(0));
            let poll = || {
                let (polls, seen) = (&polls, &seen);
                async move {
                    sleep(ms(polls[seen.get() % polls.len()])).await;
                    seen.set(seen.get() + 1);
                    seen.get()
                }
            };
            let rules = Polling { limit: ms(limit), pause: ms(pause)..=ms(pause + spread) };
            let ended = poll_until("enough", rules, poll, |count| *count == enough).await;
            (ended, start.elapsed(), seen.get())
        });
        // A pause that is no whole number of milliseconds may shift the clock by a part of one.
        prop_assert!(took <= ms(limit + 1), "{took:?}");
        match ended {
            Ok(count) => prop_assert_eq!(count, enough),
            Err(unmet) => {
                prop_assert!(took >= ms(limit));
                prop_assert_eq!(unmet.last.unwrap_or(0), seen);
                prop_assert!(unmet.polls == seen || unmet.polls == seen + 1);
            }
        }
    }
}
