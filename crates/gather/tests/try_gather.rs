//! `try_gather` is dropped at every suspension point; its tasks fail, panic and linger, and none outlives the call.

use std::sync::Arc;
use std::time::Duration;

use gather::{Failed, try_gather};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

fn children(
    parts: &Parts,
    permits: &Arc<Semaphore>,
) -> Vec<impl Future<Output = Result<u64, &'static str>> + Send + 'static> {
    let child = |i| {
        let permits = permits.clone();
        let work = async move {
            let _permit = permits.acquire().await;
            sleep(Duration::from_millis(i)).await;
            Ok(i)
        };
        parts.fallible(format!("child {i}"), work, || "injected")
    };
    (0..4).map(child).collect()
}

#[test]
fn cancellation_errors_and_panics_leave_no_task_behind() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(2));
        let (after, other, parts) = (permits.clone(), permits.clone(), parts.clone());
        let children = children(&parts, &permits);
        Scene::new(try_gather(children)).alongside(async move { drop(other.acquire_many(2).await) }).check(
            move |ended| {
                assert_eq!(after.available_permits(), 2);
                match (ended, parts.fault()) {
                    (Ended::Returned(result), Some(Fault::Fail)) => {
                        assert!(matches!(result, Err(Failed::Error { error: "injected", .. })), "{result:?}");
                    }
                    (Ended::Returned(result), None) => assert_eq!(result, Ok(vec![0, 1, 2, 3])),
                    _ => {}
                }
            },
        )
    });
}

/// Both a real error and an injected panic: the panic must come through, whichever is first.
#[test]
fn panics_win_over_an_error_at_any_time() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(4));
        let mut children: Vec<_> = children(parts, &permits);
        let failing = parts.fallible("failing", std::future::ready(Err("failed")), || "injected");
        children.truncate(2);
        let all =
            children.into_iter().map(futures::FutureExt::boxed).chain([futures::FutureExt::boxed(failing)]);
        let parts = parts.clone();
        Scene::new(try_gather(all.collect::<Vec<_>>())).returns_panics().check(move |ended| {
            // A task that is aborted before its poll does not panic any more: then the error is the result.
            if let (Ended::Returned(result), fault) = (ended, parts.fault()) {
                assert!(result.is_err(), "{result:?}");
                assert_ne!(fault, Some(Fault::Panic), "a panic was swallowed");
            }
        })
    });
}
