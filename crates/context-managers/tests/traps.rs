//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/async_drop.rs"]
mod async_drop;
#[path = "../../../examples/traps/block_on_in_runtime.rs"]
mod block_on_in_runtime;

#[test]
fn block_on_in_drop_panics() {
    let message = async_drop::wrong_block_on();
    assert!(message.starts_with("Cannot start a runtime from within a runtime"), "{message}");
}

#[test]
fn a_goodbye_spawned_in_drop_is_lost_with_the_runtime() {
    assert_eq!(async_drop::wrong_spawn().0, 0);
}

#[test]
fn a_bracket_says_every_goodbye() {
    assert_eq!(async_drop::right().0, 2);
}

#[tokio::test]
async fn block_on_in_a_task_panics() {
    let start = "Cannot start a runtime from within a runtime";
    for message in [block_on_in_runtime::wrong().await, block_on_in_runtime::wrong_handle().await] {
        assert!(message.starts_with(start), "{message}");
    }
}

#[tokio::test]
async fn a_runtime_dropped_by_a_task_panics() {
    let message = block_on_in_runtime::wrong_drop().await;
    assert!(
        message.starts_with("Cannot drop a runtime in a context where blocking is not allowed"),
        "{message}"
    );
}

#[tokio::test]
async fn async_functions_and_blocking_threads_may_wait() {
    assert_eq!(block_on_in_runtime::right().await, (42, 42));
}
