//! `batches` is dropped at every suspension point, and its children break at every poll.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use gather::batches;
use support::sweep::{Ended, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::sleep;

#[test]
fn cancellation_returns_permits_at_every_point() {
    sweep(|parts| {
        let permits = Arc::new(Semaphore::new(2));
        let (after, other, parts) = (permits.clone(), permits.clone(), parts.clone());
        let call = async move {
            let work = |item: u64| {
                let permits = &permits;
                let work = async move {
                    let _permit = permits.acquire().await;
                    sleep(Duration::from_millis(item % 3)).await;
                    item
                };
                parts.child(format!("item {item}"), work)
            };
            let mut done = Vec::new();
            let results =
                batches(0..7, NonZeroUsize::new(3).expect("not zero"), work, |n| done.push(n)).await;
            (results, done)
        };
        Scene::new(call).alongside(async move { drop(other.acquire_many(2).await) }).check(move |ended| {
            assert_eq!(after.available_permits(), 2);
            if let Ended::Returned((results, done)) = ended {
                assert_eq!(results, [0, 1, 2, 3, 4, 5, 6]);
                assert_eq!(done, [3, 6, 7]);
            }
        })
    });
}
