//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use support::api::Api;

#[path = "../../../examples/traps/child_not_reaped.rs"]
mod child_not_reaped;
#[path = "../../../examples/traps/pool_returns_dirty.rs"]
mod pool_returns_dirty;

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
