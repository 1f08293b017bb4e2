//! `supervisor`: `supervise` is dropped and stopped at every suspension point; its task fails and panics at each of its polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use support::sweep::{Ended, Parts, Scene, sweep};
use tasks::{Cause, Failure, Restarts, supervise};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn scene(parts: &Parts, limit: usize) -> Scene<Option<Option<u64>>> {
    fastrand::seed(7);
    let restarts = Restarts { limit, pause: ms(3), ..Restarts::default() };
    let permits = Rc::new(Semaphore::new(1));
    let (after, other) = (permits.clone(), permits.clone());
    let reported = Rc::new(Cell::new(0));
    let seen = reported.clone();
    let stop = CancellationToken::new();
    let ask = stop.clone();
    let parts = parts.clone();
    let call = async move {
        let worker = |run| {
            let permits = permits.clone();
            let work = async move {
                let _permit = permits.acquire().await;
                sleep(ms(2)).await;
                if run == 1 { Err("first") } else { Ok(run) }
            };
            parts.fallible("worker", work, || "injected")
        };
        let report = |failure: &Failure<_>| {
            reported.set(reported.get() + 1);
            assert_eq!(failure.run, reported.get());
        };
        stop.run_until_cancelled(supervise(restarts, worker, report)).await.map(Result::ok)
    };
    Scene::new(call)
        .alongside(async move { drop(other.acquire().await) })
        .stop(move || ask.cancel())
        .returns_panics()
        .check(move |ended| {
            assert_eq!(after.available_permits(), 1);
            match ended {
                Ended::Returned(Some(Some(run))) => assert_eq!(seen.get() + 1, run),
                Ended::Returned(Some(None)) => assert_eq!(seen.get(), limit as u64 + 1),
                _ => {}
            }
        })
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_one() {
    sweep(|parts| scene(parts, 1));
}

#[test]
fn cancellation_errors_and_panics_with_a_limit_of_three() {
    sweep(|parts| scene(parts, 3));
}

#[tokio::test(start_paused = true)]
async fn cancellation_by_a_token_ends_a_pause_of_an_hour() {
    let hour = Duration::from_secs(3600);
    let restarts = Restarts { pause: hour, longest_pause: hour, ..Restarts::default() };
    let stop = CancellationToken::new();
    let start = Instant::now();
    let ask = async {
        sleep(ms(5)).await;
        stop.cancel();
    };
    let call = stop.run_until_cancelled(supervise(restarts, async |_| Err::<(), _>("no"), |_| ()));
    assert_eq!(tokio::join!(call, ask).0, None);
    assert_eq!(start.elapsed(), ms(5));
}

/// A task that fails at once, for ever and without a pause, leaves others their turn.
#[tokio::test]
async fn backpressure_of_no_pause_still_lets_others_run() {
    let restarts =
        Restarts { limit: usize::MAX, within: Duration::ZERO, pause: Duration::ZERO, ..Restarts::default() };
    let endless = tokio::spawn(supervise(restarts, async |_| Err::<(), _>("no"), |_| ()));
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!endless.is_finished());
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

/// A panic while a run's future is dropped belongs to that run.
#[tokio::test(start_paused = true)]
async fn panics_in_the_drop_of_a_run_are_causes() {
    struct Run;
    impl Future for Run {
        type Output = Result<(), &'static str>;
        fn poll(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            std::task::Poll::Ready(Err("failed"))
        }
    }
    impl Drop for Run {
        fn drop(&mut self) {
            resume_unwind(Box::new("dropped"));
        }
    }
    let restarts = Restarts { limit: 0, ..Restarts::default() };
    let gave_up = supervise(restarts, |_| Run, |_| ()).await.unwrap_err();
    assert_eq!(gave_up.failures[0].cause, Cause::Panic("dropped".into()));
}

/// The pitfall of the page: pauses that add up to more than the window.
#[tokio::test(start_paused = true)]
async fn errors_never_reach_the_limit_when_the_pauses_are_longer_than_the_window() {
    let too_short = Restarts { limit: 20, ..Restarts::default() };
    let endless = supervise(too_short, async |_| Err::<(), _>("no"), |_| ());
    assert!(timeout(Duration::from_secs(86_400), endless).await.is_err());
    let long_enough = Restarts { longest_pause: Duration::from_secs(2), ..too_short };
    assert!(supervise(long_enough, async |_| Err::<(), _>("no"), |_| ()).await.is_err());
}

#[derive(Clone, Copy, Debug)]
enum End {
    Value,
    Error,
    Panic,
}

/// How many runs there are and which of them stand in the report, by the book.
fn model(runs: &[(u64, End)], limit: usize, within: u64) -> (usize, Option<Vec<usize>>) {
    let (mut now, mut recent) = (0, VecDeque::new());
    for (run, (length, end)) in (1..).zip(runs) {
        now += length;
        if matches!(end, End::Value) {
            return (run, None);
        }
        recent.push_back((now, run));
        recent.retain(|(at, _)| now - at <= within);
        if recent.len() > limit {
            return (run, Some(recent.into_iter().map(|(_, run)| run).collect()));
        }
    }
    (runs.len() + 1, None)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any course of a task under any limit: the runs and the report are those of the model.
    #[test]
    fn errors_are_counted_as_in_the_model(
        runs in prop::collection::vec(
            (0..30_u64, prop_oneof![1 => Just(End::Value), 8 => Just(End::Error), 3 => Just(End::Panic)]),
            0..40,
        ),
        limit in 0..6_usize,
        within in 0..100_u64,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let reported = RefCell::new(Vec::new());
        let worker = |run: u64| {
            let (length, end) = runs.get(run as usize - 1).copied().unwrap_or((0, End::Value));
            async move {
                if length > 0 {
                    sleep(ms(length)).await;
                }
                match end {
                    End::Value => Ok(run as usize),
                    End::Error => Err("error"),
                    End::Panic => resume_unwind(Box::new("panic")),
                }
            }
        };
        let restarts = Restarts { limit, within: ms(within), pause: Duration::ZERO, ..Restarts::default() };
        let report = |failure: &Failure<_>| reported.borrow_mut().push(failure.run as usize);
        let ended = runtime.block_on(supervise(restarts, worker, report));
        let (last, given_up) = model(&runs, limit, within);
        match (ended, given_up) {
            (Ok(run), None) => {
                prop_assert_eq!(run, last);
                prop_assert!(reported.borrow().iter().copied().eq(1..last));
            }
            (Err(gave_up), Some(recent)) => {
                prop_assert!(gave_up.failures.iter().map(|failure| failure.run as usize).eq(recent));
                prop_assert!(reported.borrow().iter().copied().eq(1..=last));
                for failure in gave_up.failures {
                    let expected = match runs[failure.run as usize - 1].1 {
                        End::Error => Cause::Error("error"),
                        _ => Cause::Panic("panic".into()),
                    };
                    prop_assert_eq!(failure.cause, expected);
                }
            }
            (ended, given_up) => prop_assert!(false, "{:?} and not {:?}", ended, given_up),
        }
    }
}
