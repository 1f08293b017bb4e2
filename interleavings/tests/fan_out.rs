//! `fan_out` and `lossy_channel`: all see the same order, who joins sees all from then on, who blocks loses nothing, and nobody
//! waits for ever, whoever runs when.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use interleavings::lossy_channel::Event;
use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};

/// So many publishers of so many items, subscribers with much room, one with little that holds them up, one that joins and one that leaves.
macro_rules! case {
    ($recipe:ident, $publishers:expr, $items:expr, $others:expr) => {
        move || {
            block_on(async {
                use interleavings::lossy_channel::WhenFull;
                use interleavings::$recipe::FanOut;
                let fan_out = Arc::new(FanOut::new());
                let (one, many) = (NonZeroUsize::MIN, NonZeroUsize::MIN.saturating_add(99));
                let roomy = fan_out.subscribe(many, WhenFull::DropOldest);
                let slow = fan_out.subscribe_blocking(one, Duration::MAX);
                let slow = spawn(slow.collect::<Vec<_>>());
                let publishers = (0..$publishers).map(|publisher| {
                    let fan_out = fan_out.clone();
                    spawn(async move {
                        for item in 0..$items {
                            fan_out.publish((publisher, item)).await;
                        }
                    })
                });
                let publishers: Vec<_> = publishers.collect();
                let late = ($others > 0).then(|| {
                    let fan_out = fan_out.clone();
                    spawn(async move {
                        let late = fan_out.subscribe(many, WhenFull::DropOldest);
                        // Nobody can be later than this one.
                        fan_out.publish((100, 0)).await;
                        drop(fan_out);
                        late.collect::<Vec<_>>().await
                    })
                });
                let leaves = ($others > 1).then(|| {
                    let mut leaves = fan_out.subscribe_blocking(one, Duration::MAX);
                    spawn(async move {
                        let _ = futures::poll!(leaves.next());
                        yield_now().await;
                    })
                });
                for publisher in publishers {
                    publisher.await.expect("nobody panics");
                }
                drop(fan_out);
                let all: Vec<_> = roomy.collect().await;
                assert_eq!(all.len(), $publishers * $items + usize::from($others > 0), "an item is lost");
                assert!(all.iter().all(|event| matches!(event, Event::Item(_))));
                assert_eq!(slow.await.expect("nobody panics"), all, "another order, or cut off");
                if let Some(late) = late {
                    let late = late.await.expect("nobody panics");
                    assert!(
                        all.ends_with(&late) && late.contains(&Event::Item((100, 0))),
                        "joined, and missed some"
                    );
                }
                if let Some(leaves) = leaves {
                    leaves.await.expect("nobody panics");
                }
            });
        }
    };
}

/// So many items are published while one subscriber reads.
macro_rules! one {
    ($recipe:ident, $items:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::FanOut;
                let fan_out = FanOut::new();
                let reader =
                    spawn(fan_out.subscribe_blocking(NonZeroUsize::MIN, Duration::MAX).collect::<Vec<_>>());
                for item in 0..$items {
                    fan_out.publish(item).await;
                }
                drop(fan_out);
                assert!(reader.await.expect("nobody panics").into_iter().eq((0..$items).map(Event::Item)));
            });
        }
    };
}

/// So many items are sent, each when there is room, while they are waited for, and then the end.
macro_rules! channel {
    ($recipe:ident, $items:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::{Event, WhenFull, lossy_channel};
                let (mut sender, receiver) = lossy_channel(NonZeroUsize::MIN, WhenFull::DropNewest);
                let sends = spawn(async move {
                    for item in 0..$items {
                        sender.room().await;
                        assert!(sender.send(item));
                    }
                });
                let all: Vec<_> = receiver.collect().await;
                assert!(all.into_iter().eq((0..$items).map(Event::Item)));
                sends.await.expect("nobody panics");
            });
        }
    };
}

#[test]
fn fan_out_by_chance() {
    search("fan_out, 2 publish, 1 joins, 1 leaves", 100_000, case!(fan_out, 2, 1, 2));
    search("lossy_channel, 3 items", 10_000, channel!(lossy_channel, 3));
}

#[test]
fn fan_out_in_every_order() {
    search_all("fan_out, 1 item", 1_000_000, one!(fan_out, 1));
    search_all("lossy_channel, 1 item", 1_000_000, channel!(lossy_channel, 1));
}

#[test]
fn mistakes_of_fan_out_are_found() {
    found("waits, then locks", 10_000, case!(fan_out_waits_then_locks, 2, 1, 0));
    found("takes, then forgets", 10_000, case!(fan_out_takes_then_forgets, 2, 1, 2));
    found("looks, then waits", 10_000, channel!(lossy_channel_looks_then_waits, 2));
}
