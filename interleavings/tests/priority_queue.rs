//! `priority_queue`: every item is received once, every receiver learns of the end, and nobody waits for ever.

use std::sync::Arc;

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn};

/// So many senders of one item each, through one place, so many receivers, and somebody who closes meanwhile. What is left then is
/// received at the end.
macro_rules! case {
    ($recipe:ident, $senders:expr, $receivers:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::PriorityQueue;
                let queue = Arc::new(PriorityQueue::new(std::num::NonZeroUsize::MIN, 1));
                let senders: Vec<_> = (0..$senders)
                    .map(|item| {
                        let queue = queue.clone();
                        spawn(async move { queue.send(item, item).await.is_ok() })
                    })
                    .collect();
                let receivers: Vec<_> = (0..$receivers)
                    .map(|_| {
                        let queue = queue.clone();
                        spawn(async move {
                            let mut received = Vec::new();
                            while let Some(item) = queue.recv().await {
                                received.push(item);
                            }
                            received
                        })
                    })
                    .collect();
                let closer = queue.clone();
                let closed = spawn(async move { closer.close() });
                let (mut sent, mut received) = (Vec::new(), Vec::new());
                for (item, sender) in (0_u8..).zip(senders) {
                    sent.extend(sender.await.expect("nobody panics").then_some(item));
                }
                for receiver in receivers {
                    received.extend(receiver.await.expect("nobody panics"));
                }
                closed.await.expect("nobody panics");
                while let Some(item) = queue.recv().await {
                    received.push(item);
                }
                received.sort_unstable();
                assert_eq!(received, sent);
            });
        }
    };
}

#[test]
fn priority_queue_by_chance() {
    search("priority_queue, 3 send and 2 receive", 100_000, case!(priority_queue, 3, 2));
}

#[test]
fn priority_queue_in_every_order() {
    search_all("priority_queue, 1 sends, and it is closed", 1_000_000, case!(priority_queue, 1, 0));
}

#[test]
fn mistakes_of_priority_queue_are_found() {
    found("looks, then closes", 10_000, case!(priority_queue_looks_then_closes, 3, 2));
}
