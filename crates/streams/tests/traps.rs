//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/lagged_broadcast.rs"]
mod lagged_broadcast;

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
