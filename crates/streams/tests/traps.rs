//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/chained_merge.rs"]
mod chained_merge;
#[path = "../../../examples/traps/lagged_broadcast.rs"]
mod lagged_broadcast;

#[tokio::test]
async fn a_chained_merge_gives_its_last_source_half_of_the_turns() {
    use chained_merge::{always_ready, shares, wrong};
    assert_eq!(shares(wrong(always_ready())).await, [200, 200, 400, 800]);
}

#[tokio::test]
async fn merge_gives_each_source_its_turn() {
    use chained_merge::{always_ready, right, shares};
    assert_eq!(shares(right(always_ready())).await, [400; 4]);
}

#[tokio::test]
async fn one_merge_over_all_is_fair_in_other_crates_too() {
    use chained_merge::{always_ready, shares};
    use futures::StreamExt;
    use futures_concurrency::stream::Merge;
    assert_eq!(shares(futures::stream::select_all(always_ready())).await, [400; 4]);
    assert_eq!(shares(always_ready().merge()).await, [400; 4]);
    assert_eq!(shares(Vec::from(always_ready()).merge()).await, [400; 4]);
    // Chooses at random where to begin.
    let map: tokio_stream::StreamMap<_, _> = always_ready().into_iter().enumerate().collect();
    let taken = shares(map.map(|(_, item)| item)).await;
    assert!(taken.iter().all(|taken| (300..500).contains(taken)), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lagged_broadcast_ends_a_while_let_ok() {
    use lagged_broadcast::{Seen, wrong};
    assert_eq!(wrong().await, Seen { handled: 4, lost: 0 });
}

#[tokio::test(start_paused = true)]
async fn fan_out_tells_what_was_lost_and_goes_on() {
    use lagged_broadcast::{Seen, right};
    assert_eq!(right().await, Seen { handled: 17, lost: 3 });
}

/// The error is no error of the channel: whoever handles it gets the rest.
#[tokio::test]
async fn a_lagged_broadcast_goes_on_when_the_error_is_handled() {
    use tokio::sync::broadcast::{self, error::RecvError};
    let (sender, mut receiver) = broadcast::channel(4);
    (0..10).for_each(|event| _ = sender.send(event).expect("there is a receiver"));
    drop(sender);
    let (mut events, mut lost) = (Vec::new(), 0);
    loop {
        match receiver.recv().await {
            Ok(event) => events.push(event),
            Err(RecvError::Lagged(count)) => lost += count,
            Err(RecvError::Closed) => break,
        }
    }
    assert_eq!((events, lost), (vec![6, 7, 8, 9], 6));
}
