//! `ExitStack` is closed, dropped and broken at every point: each cleanup runs once, in order, and each failure is heard of.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_managers::{ExitStack, Failed, Failure, Owner, Unclean, bracket};
use futures::poll;
use proptest::prelude::*;
use support::sweep::{Ended, Fault, Scene, sweep};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// The numbers of the cleanups that have run.
type Log = Arc<Mutex<Vec<usize>>>;

/// A cleanup that notes its number.
async fn note(log: Log, number: usize) -> Result<(), Infallible> {
    yield_now().await;
    log.lock().expect("nobody panics under the lock").push(number);
    Ok(())
}

/// Three cleanups, the middle one of which can break; each gives a permit back that a bystander waits for.
#[test]
fn cancellation_of_close_at_every_point() {
    let report = sweep(|parts| {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        let permits = Arc::new(Semaphore::new(3));
        let mut stack = ExitStack::new(&owner);
        for number in 0..3 {
            let permit = permits.clone().try_acquire_owned().expect("there are three");
            let log = log.clone();
            let cleanup = async move {
                log.lock().unwrap().push(number);
                let _permit = permit;
                sleep(2 * MS).await;
                yield_now().await;
                Ok(())
            };
            let cleanup = parts.fallible(format!("cleanup {number}"), cleanup, || "injected");
            stack.push(number.to_string(), cleanup);
        }
        let (seen, other) = (parts.clone(), permits.clone());
        let everything = async move { drop(other.acquire_many(3).await) };
        Scene::new(stack.close()).outlived().returns_panics().alongside(everything).check(move |how| {
            let report = owner.report();
            assert_eq!((permits.available_permits(), owner.running()), (3, 0));
            let ran = log.lock().unwrap().clone();
            assert!(ran.is_sorted_by(|a, b| a > b), "{ran:?}");
            // A cleanup that was broken at its first poll could not note that.
            assert!(ran.len() == 3 || ran.len() == 2 && seen.fault().is_some(), "{ran:?}");
            match (how, seen.fault()) {
                (Ended::Returned(result), fault) => {
                    assert_eq!((result.is_ok(), report.finished), (fault.is_none(), 0));
                }
                (_, None) => assert_eq!((report.finished, report.failures.len()), (1, 0)),
                (_, Some(fault)) => {
                    let text = report.failures[0].to_string();
                    assert!(text.starts_with("1 cleanup failed: ") && report.failures.len() == 1, "{text}");
                    assert_eq!(text.ends_with(": injected"), fault == Fault::Fail, "{text}");
                }
            }
        })
    });
    assert!(report.points >= 13 && report.triggered_points > 30, "{report}");
}

/// As the resource of a bracket, a stack is closed before the call returns, whatever became of the body.
#[test]
fn cancellation_of_a_stack_in_a_bracket() {
    let report = sweep(|parts| {
        let (owner, log) = (Owner::new(Handle::current()), Log::default());
        let (caller, ran, pushed) = (owner.clone(), log.clone(), Log::default());
        let (count, parts, seen) = (pushed.clone(), parts.clone(), parts.clone());
        let call = async move {
            let body = async |stack: &mut ExitStack| {
                for number in 0..3 {
                    sleep(MS).await;
                    let log = log.clone();
                    count.lock().unwrap().push(number);
                    stack.push(number.to_string(), async move {
                        yield_now().await;
                        log.lock().unwrap().push(number);
                        Ok::<_, &str>(())
                    });
                }
                parts.child("body", sleep(MS)).await;
                Ok(7)
            };
            let stack = async { Ok(ExitStack::new(&caller)) };
            let close = async |stack: ExitStack| stack.close().await.map_err(|unclean| unclean.to_string());
            bracket(&caller, stack, body, close).await
        };
        Scene::new(call).outlived().check(move |how| {
            let (ran, mut pushed) = (ran.lock().unwrap().clone(), pushed.lock().unwrap().clone());
            pushed.reverse();
            assert_eq!(ran, pushed);
            match how {
                Ended::Returned(result) => assert_eq!(result, Ok(7)),
                Ended::Panicked(_) => assert_eq!(seen.fault(), Some(Fault::Panic)),
                Ended::Dropped => {}
            }
            assert_eq!(owner.running(), 0);
        })
    });
    assert!(report.points >= 9, "{report}");
}

// ANCHOR: bracket
/// Awaited after an error, a panic or success; taken over in this order when the call is dropped.
async fn in_a_bracket(owner: &Owner, log: &Log) -> Result<(), Failed<(), Unclean>> {
    let body = async |stack: &mut ExitStack| {
        for (number, name) in ["folder", "database in the folder"].into_iter().enumerate() {
            stack.push(name, note(log.clone(), number));
        }
        Ok(())
    };
    bracket(owner, async { Ok(ExitStack::new(owner)) }, body, ExitStack::close).await
}
// ANCHOR_END: bracket

#[tokio::test]
async fn order_of_a_stack_in_a_bracket() {
    let (owner, log) = (Owner::new(Handle::current()), Log::default());
    in_a_bracket(&owner, &log).await.unwrap();
    assert_eq!(*log.lock().unwrap(), [1, 0]);
}

/// Ten thousand cleanups that never wait let others run in between.
#[tokio::test]
async fn order_of_many_cleanups_and_everybody_else() {
    let mut stack = ExitStack::new(&Owner::new(Handle::current()));
    for _ in 0..10_000 {
        stack.push("", async { Ok::<_, Infallible>(()) });
    }
    let mut call = Box::pin(stack.close());
    assert!(poll!(&mut call).is_pending());
    assert!(call.await.is_ok());
}

/// Push, hand over, drop: in whatever order the stacks end, no cleanup runs twice and none is forgotten.
#[tokio::test(start_paused = true)]
async fn order_of_stacks_that_were_handed_over() {
    let (owner, log) = (Owner::new(Handle::current()), Log::default());
    let push = |stack: &mut ExitStack, number| {
        stack.push("", note(log.clone(), number));
    };
    let mut first = ExitStack::new(&owner);
    push(&mut first, 1);
    let mut second = first.pop_all();
    push(&mut first, 2);
    let third = second.pop_all();
    drop(second);
    first.close().await.unwrap();
    assert_eq!(*log.lock().unwrap(), [2]);
    drop(third);
    assert_eq!(owner.finish().await.finished, 1);
    assert_eq!(*log.lock().unwrap(), [2, 1]);
}

/// A cleanup that pushes onto another stack, closes it, and drops a third.
#[tokio::test]
async fn order_of_cleanups_that_use_stacks() {
    let (owner, log) = (Owner::new(Handle::current()), Log::default());
    let mut stack = ExitStack::new(&owner);
    for number in 0..3 {
        let (owner, log) = (owner.clone(), log.clone());
        stack.push("outer", async move {
            let [mut closed, mut dropped] = [ExitStack::new(&owner), ExitStack::new(&owner)];
            closed.push("closed", note(log.clone(), number));
            dropped.push("dropped", note(log.clone(), 10 + number));
            closed.close().await
        });
    }
    stack.close().await.unwrap();
    assert_eq!(owner.finish().await.finished, 3);
    let mut ran = log.lock().unwrap().clone();
    ran.sort_unstable();
    assert_eq!(ran, [0, 1, 2, 10, 11, 12]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Failure,
    Panic,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever cleanups there are, and whenever `close` is dropped: all run, from the last to the first, and those that
    /// fail are named in that order.
    #[test]
    fn errors_of_any_stack_dropped_anywhere(
        cleanups in prop::collection::vec(
            (0..3_usize, prop_oneof![2 => Just(End::Well), 1 => Just(End::Failure), 1 => Just(End::Panic)]),
            0..12,
        ),
        polls in 0..40_usize,
    ) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (owner, log) = (Owner::new(Handle::current()), Log::default());
            let mut stack = ExitStack::new(&owner);
            for (number, (waits, end)) in cleanups.iter().copied().enumerate() {
                let log = log.clone();
                stack.push(number.to_string(), async move {
                    for _ in 0..waits {
                        yield_now().await;
                    }
                    log.lock().unwrap().push(number);
                    match end {
                        End::Well => Ok(()),
                        End::Failure => Err("failed"),
                        End::Panic => std::panic::resume_unwind(Box::new("failed")),
                    }
                });
            }
            let mut call = Box::pin(stack.close());
            let mut result = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(ended) = poll!(&mut call) {
                    result = Some(ended);
                    break;
                }
            }
            drop(call);
            let report = owner.finish().await;
            let backwards = || (0..cleanups.len()).rev();
            prop_assert_eq!(&*log.lock().unwrap(), &backwards().collect::<Vec<_>>());
            let failed: Vec<_> = backwards().filter(|number| cleanups[*number].1 != End::Well).collect();
            let text = match result {
                Some(result) => result.err().map(|unclean| unclean.to_string()),
                None => report.failures.first().map(ToString::to_string),
            };
            let expected = failed.iter().map(|number| match cleanups[*number].1 {
                End::Panic => format!("{number}: panicked: failed"),
                _ => format!("{number}: failed"),
            });
            let start = format!("{} cleanup{} failed: ", failed.len(), if failed.len() == 1 { "" } else { "s" });
            let expected = start + &expected.collect::<Vec<_>>().join("; ");
            prop_assert_eq!(text, (!failed.is_empty()).then_some(expected));
            Ok(())
        })?;
    }
}

/// A stack that hangs can be given up on, and is then reported as lost.
#[test]
fn cancellation_of_a_cleanup_that_hangs() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let owner = Owner::new(runtime.handle().clone());
    runtime.block_on(async {
        let mut stack = ExitStack::new(&owner);
        stack.push("never runs", async { Ok::<_, &str>(()) });
        stack.push("hangs", std::future::pending::<Result<(), &str>>());
        drop(stack);
        assert!(timeout(10 * MS, owner.finish()).await.is_err());
        assert_eq!(owner.running(), 1);
    });
    drop(runtime);
    assert!(matches!(owner.report().failures[..], [Failure::Lost]));
}
