//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

#[path = "../../../examples/traps/cancelled_transaction.rs"]
mod cancelled_transaction;
#[path = "../../../examples/traps/n_plus_one.rs"]
mod n_plus_one;
#[path = "../../../examples/traps/nested_acquire.rs"]
mod nested_acquire;
#[path = "../../../examples/traps/sqlite_busy.rs"]
mod sqlite_busy;

#[tokio::test]
async fn a_loop_asks_once_for_each_row() {
    let pool = n_plus_one::shop().await.unwrap();
    let (names, queries) = n_plus_one::wrong(&pool).await.unwrap();
    assert_eq!((names.len(), queries), (40, 41));
}

#[tokio::test]
async fn rows_by_key_asks_once_for_all() {
    let pool = n_plus_one::shop().await.unwrap();
    let (names, queries) = n_plus_one::right(&pool).await.unwrap();
    assert_eq!((names, queries), (n_plus_one::wrong(&pool).await.unwrap().0, 2));
}

#[tokio::test]
async fn a_second_connection_is_waited_for_until_the_timeout() {
    let pages = nested_acquire::wrong().await.unwrap();
    // When the first gives up, its connection may still come in time for the second.
    assert!(pages.iter().any(|page| matches!(page, Err(sqlx::Error::PoolTimedOut))));
    let alone = nested_acquire::wrong_but_alone().await.unwrap();
    assert_eq!(alone.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [3, 3, 3]);
}

#[tokio::test]
async fn a_connection_that_is_handed_on_is_enough() {
    let pages = nested_acquire::right().await.unwrap();
    assert_eq!(pages.map(Result::unwrap), [3, 3]);
}

#[tokio::test]
async fn a_transaction_begun_by_hand_goes_to_the_next_user() {
    let pools = cancelled_transaction::Pools::open().await.expect("a file can be written");
    let orders = cancelled_transaction::wrong(&pools).await.expect("nobody sees an error");
    assert_eq!(orders, cancelled_transaction::Orders { user_2_sees: 2, others_see: 0 });
}

#[tokio::test]
async fn a_transaction_that_was_given_up_leaves_nothing() {
    let pools = cancelled_transaction::Pools::open().await.expect("a file can be written");
    let orders = cancelled_transaction::right(&pools).await.expect("nothing is locked");
    assert_eq!(orders, cancelled_transaction::Orders { user_2_sees: 1, others_see: 1 });
}

#[tokio::test]
async fn who_reads_before_it_writes_is_refused() {
    let (_folder, pool) = sqlite_busy::database().await.expect("a file can be written");
    let (counted, code) = sqlite_busy::wrong(&pool).await.expect("the counter can be read");
    assert_eq!((counted, code.as_str()), (1, "517"));
}

#[tokio::test]
async fn who_begins_as_a_writer_waits_for_its_turn() {
    let (_folder, pool) = sqlite_busy::database().await.expect("a file can be written");
    let (counted, code) = sqlite_busy::right(&pool).await.expect("the counter can be read");
    assert_eq!((counted, code.as_str()), (2, "none"));
}
