//! Every trap of the family: that the wrong way still goes wrong, and that the right way does not.
//!
//! What runs here is the code of the examples, which the book prints.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]

use std::time::Duration;

use tokio::time::Instant;

#[path = "../../../examples/traps/buffer_unordered.rs"]
mod buffer_unordered;
#[path = "../../../examples/traps/buffered_head.rs"]
mod buffered_head;
#[path = "../../../examples/traps/collect_ignores_limit.rs"]
mod collect_ignores_limit;
#[path = "../../../examples/traps/join_all_abort.rs"]
mod join_all_abort;
#[path = "../../../examples/traps/limit_zero.rs"]
mod limit_zero;
#[path = "../../../examples/traps/sequential.rs"]
mod sequential;
#[path = "../../../examples/traps/try_join_handles.rs"]
mod try_join_handles;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn buffer_unordered_stalls_while_its_consumer_is_busy() {
    assert_eq!(buffer_unordered::wrong().await, ms(500));
}

#[tokio::test(start_paused = true)]
async fn map_concurrent_runs_on_while_its_consumer_is_busy() {
    assert_eq!(buffer_unordered::right().await, ms(100));
}

#[tokio::test(start_paused = true)]
async fn buffered_waits_for_its_slow_head() {
    assert_eq!(buffered_head::wrong(1000).await, ms(10_101));
}

#[tokio::test(start_paused = true)]
async fn map_ordered_runs_past_a_slow_head() {
    let took = buffered_head::right(1000).await;
    assert!(took >= ms(2725), "{took:?}: 10.9 s of work cannot be done faster four at a time");
    assert!(took <= ms(2740), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn try_join_leaves_spawned_siblings_running() {
    use try_join_handles::{Seen, look, wrong};
    let seen = Seen { failed_after: ms(20), still_running: 2, uploaded_later: 2 };
    assert_eq!(look(wrong).await, seen);
}

#[tokio::test(start_paused = true)]
async fn try_gather_leaves_nothing_running() {
    use try_join_handles::{Seen, look, right};
    let seen = Seen { failed_after: ms(20), still_running: 0, uploaded_later: 0 };
    assert_eq!(look(right).await, seen);
}

#[tokio::test(start_paused = true)]
async fn try_join_over_futures_leaves_nothing_running() {
    use try_join_handles::{Seen, Uploaded, look, upload};
    let seen = look(async |uploaded: Uploaded| {
        let upload = |milliseconds| upload(milliseconds, uploaded.clone());
        tokio::try_join!(upload(50), upload(20), upload(80)).map(drop)
    });
    assert_eq!(seen.await, Seen { failed_after: ms(20), still_running: 0, uploaded_later: 0 });
}

#[tokio::test(start_paused = true)]
async fn try_join_over_bare_handles_hides_the_error() {
    use try_join_handles::{Uploaded, upload};
    let spawn = |milliseconds| tokio::spawn(upload(milliseconds, Uploaded::default()));
    let joined = tokio::try_join!(spawn(20), spawn(50));
    assert!(matches!(joined, Ok((Err(_), Ok(())))), "{joined:?}");
}

#[tokio::test(start_paused = true)]
async fn join_all_panics_when_a_task_was_aborted() {
    let error = tokio::spawn(join_all_abort::wrong()).await.expect_err("join_all panics");
    let panic = error.into_panic();
    let message = panic.downcast_ref::<String>().expect("the panic has a formatted message");
    assert!(message.contains("was cancelled"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn join_next_keeps_the_other_results() {
    assert_eq!(join_all_abort::right().await, (vec![1, 3], 1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_hangs() {
    assert!(limit_zero::wrong().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_means_something_else_in_each_crate() {
    let expected = [
        ("futures: buffered", None),
        ("futures: buffer_unordered", None),
        ("futures: for_each_concurrent", Some(ms(10))),
        ("futures-buffered: buffered_unordered", None),
        ("futures-buffered: for_each_concurrent", None),
        ("tokio: Semaphore", None),
    ];
    assert_eq!(limit_zero::with_zero().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_hangs_without_input_too() {
    use futures::StreamExt;
    let nothing = futures::stream::empty::<std::future::Ready<()>>().buffered(0).count();
    assert!(tokio::time::timeout(ms(3_600_000), nothing).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_cannot_be_zero_ends() {
    let start = Instant::now();
    assert_eq!(limit_zero::right().await.ok(), Some(vec![1, 2, 3]));
    assert_eq!(start.elapsed(), ms(30), "one at a time");
}

#[tokio::test(start_paused = true)]
async fn collect_ignores_the_limit_and_the_order() {
    assert_eq!(collect_ignores_limit::wrong().await, (vec![8, 7, 6, 5, 4, 3, 2, 1], 8));
}

#[tokio::test(start_paused = true)]
async fn for_each_keeps_the_limit() {
    use collect_ignores_limit::{Gauge, LIMIT, fetch};
    use futures_concurrency::prelude::*;
    let gauge = &Gauge::default();
    let pages: Vec<u64> = (1..=8).collect();
    let fetch = async |page| _ = fetch(gauge, page).await;
    pages.into_co_stream().limit(Some(LIMIT)).for_each(fetch).await;
    assert_eq!(gauge.peak(), 2);
}

#[tokio::test(start_paused = true)]
async fn map_ordered_keeps_the_limit_and_the_order() {
    assert_eq!(collect_ignores_limit::right().await, ((1..=8).collect(), 2));
}

#[tokio::test(start_paused = true)]
async fn sequential_awaits_take_the_sum() {
    assert_eq!(sequential::wrong().await, ms(30 + 50 + 3 * 20));
}

#[tokio::test(start_paused = true)]
async fn awaits_together_take_the_longest() {
    assert_eq!(sequential::right().await, ms(50 + 20));
}
