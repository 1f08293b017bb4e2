//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/blocking_call.rs"]
mod blocking_call;
#[path = "../../../examples/traps/blocking_pool_exhausted.rs"]
mod blocking_pool_exhausted;

#[tokio::test]
async fn a_blocking_call_stops_the_heartbeat() {
    assert_eq!(blocking_call::beside_a_heartbeat(blocking_call::wrong).await, 0);
}

#[tokio::test]
async fn an_offloaded_call_does_not() {
    // It returns when it has seen 3; on a busy machine there may be more by then.
    assert!(blocking_call::beside_a_heartbeat(blocking_call::right).await.is_ok_and(|beats| beats >= 3));
}

#[test]
fn endless_work_on_all_blocking_threads_keeps_files_waiting() {
    use blocking_pool_exhausted::{with_two_threads, wrong};
    assert!(with_two_threads("wrong", wrong()).unwrap().0.is_err());
}

#[test]
fn endless_work_on_threads_of_its_own_does_not() {
    use blocking_pool_exhausted::{right, with_two_threads};
    assert!(matches!(with_two_threads("right", right()).unwrap().0, Ok(Ok(_))));
}
