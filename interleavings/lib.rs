//! Recipes under every order in which their tasks can run.
//!
//! A test on a real runtime sees the orders that the machine happens to choose. Here the recipes' own files, copied by
//! `build.rs`, are compiled against a model of `tokio` and of `std::sync` in which [`shuttle`] chooses who runs next at
//! every lock, wait and wake-up. [`search`] tries orders by chance, and [`search_all`] tries all there are of a small case.
//!
//! That the search can fail is tested too: each recipe is also compiled with a mistake in it, which must be [`found`].
//!
//! The model has no time: a limit is never reached. Every atomic is as strict as there is, so that a mistake in an `Ordering` is
//! not found. The pointer of `snapshot` is a lock here. `actor` is missing: it relies on what tokio's `mpsc` does with an item
//! whose place was reserved before the channel was closed, which it delivers, and which the model drops.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

macro_rules! recipes {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[allow(unused, missing_docs, clippy::all, reason = "a recipe is checked where it stands")]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

recipes! {
    barrier
    barrier_counts_who_left
    barrier_looks_then_arrives
    barrier_looks_then_leaves
    condition
    condition_looks_then_waits
    condition_panics_in_silence
    condition_wakes_then_changes
    event
    event_counts_then_sets
    event_forgets_at_clear
    fan_out
    fan_out_takes_then_forgets
    fan_out_waits_then_locks
    keyed_mutex
    keyed_mutex_looks_then_enters
    keyed_mutex_looks_then_forgets
    lossy_channel
    lossy_channel_looks_then_waits
    offload
    offload_drops_the_output_late
    offload_frees_in_two_steps
    offload_looks_then_leaves
    pool
    pool_frees_the_place_first
    pool_looks_then_puts_back
    pool_takes_then_closes
    priority_queue
    priority_queue_looks_then_closes
    shared_state
    single_flight
    single_flight_keeps_the_key
    single_flight_looks_away
    snapshot
    snapshot_ends_its_turn_then_publishes
    snapshot_looks_then_waits
    snapshot_wakes_then_publishes
}

mod stand_ins;

/// More steps than any case needs: who takes more waits in a circle.
const MOST_STEPS: usize = 10_000;

/// Runs `case` in `orders` orders, half of them by chance and half by priorities that change now and then.
///
/// # Panics
///
/// If the case panics or waits for ever in one of them.
pub fn search(name: &str, orders: usize, case: impl Fn() + Send + Sync + 'static) {
    let case = Arc::new(case);
    let by_chance = case.clone();
    let mut tried = run(RandomScheduler::new(orders / 2), move || by_chance());
    tried += run(PctScheduler::new(3, orders - orders / 2), move || case());
    println!("{name}: {tried} orders by chance");
}

/// Runs `case` in every order, and checks that they are no more than `most`.
///
/// # Panics
///
/// If the case panics or waits for ever in one of them, and if there are more.
pub fn search_all(name: &str, most: usize, case: impl Fn() + Send + Sync + 'static) {
    let tried = run(DfsScheduler::new(Some(most), false), case);
    assert!(tried < most, "{name}: more than {most} orders");
    println!("{name}: all {tried} orders");
}

/// In how many orders at most a mistake is found.
///
/// # Panics
///
/// If it is not.
pub fn found(name: &str, orders: usize, case: impl Fn() + Send + Sync + 'static) {
    let ended = catch_unwind(AssertUnwindSafe(|| run(RandomScheduler::new(orders), case)));
    assert!(ended.is_err(), "{name}: not found in {orders} orders");
    println!("{name}: found");
}

fn run(scheduler: impl Scheduler + 'static, case: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(MOST_STEPS);
    config.failure_persistence = FailurePersistence::Print;
    Runner::new(scheduler, config).run(case)
}
