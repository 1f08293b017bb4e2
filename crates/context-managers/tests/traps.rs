//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use support::api::Api;

#[path = "../../../examples/traps/async_drop.rs"]
mod async_drop;
#[path = "../../../examples/traps/block_on_in_runtime.rs"]
mod block_on_in_runtime;
#[path = "../../../examples/traps/child_not_reaped.rs"]
mod child_not_reaped;
#[path = "../../../examples/traps/pool_returns_dirty.rs"]
mod pool_returns_dirty;

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

/// The names of the users in the answers.
fn answers_to(answers: [String; 2]) -> [u32; 2] {
    answers.map(|answer| {
        let id = answer.trim_start_matches(|character: char| !character.is_ascii_digit());
        id.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("an answer has an id")
    })
}

#[tokio::test]
async fn pools_that_take_back_on_drop_give_the_answers_to_others() {
    let api = Api::start().await.expect("a port is free");
    let wrong = pool_returns_dirty::wrong(&api).await.expect("the connection is open");
    assert_eq!(answers_to(wrong), [1, 2]);
    let wrong = pool_returns_dirty::wrong_with_bb8(&api).await.expect("the connection is open");
    assert_eq!(answers_to(wrong), [1, 2]);
}

#[tokio::test]
async fn a_pool_that_is_told_gives_each_its_own_answer() {
    let api = Api::start().await.expect("a port is free");
    let right = pool_returns_dirty::right(&api).await.expect("the server answers");
    assert_eq!(answers_to(right), [2, 3]);
}

#[tokio::test]
async fn a_dropped_child_runs_on() {
    assert!(child_not_reaped::wrong(false).await.expect("cat can be started"));
}

#[tokio::test]
async fn a_child_with_kill_on_drop_ends() {
    assert!(!child_not_reaped::wrong(true).await.expect("cat can be started"));
}

#[tokio::test]
async fn a_child_with_a_reaper_has_ended_when_it_is_drained() {
    let (answers, counts) = child_not_reaped::right().await.expect("cat can be started");
    assert!(!answers);
    assert_eq!(counts, context_managers::Counts { cleaned: 1, ..Default::default() });
}
