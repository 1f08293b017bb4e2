//! The mistake: `limit` before `collect` on a concurrent stream of the crate futures-concurrency.
//!
//! Symptom: 8 fetches run at a time where the limit says 2, and the results come in the order in which they end.
//! Cause: only `for_each` and `try_for_each` ask for the limit; collecting into a `Vec` starts whatever there is.
//! Fix: `map_ordered`, which collects within its limit and in input order.
//!
//! ```console
//! cargo run --example trap_collect_ignores_limit
//! ```

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use futures_concurrency::prelude::*;
use gather::map_ordered;
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::time::sleep;

/// How many fetches may run at a time.
pub const LIMIT: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not zero");

/// How many fetches run now, and how many have run at a time.
#[derive(Default)]
pub struct Gauge {
    running: Cell<usize>,
    peak: Cell<usize>,
}

impl Gauge {
    /// How many have run at a time.
    pub fn peak(&self) -> usize {
        self.peak.get()
    }

    fn add(&self, more: isize) {
        let running = self.running.get().strict_add_signed(more);
        self.running.set(running);
        self.peak.set(self.peak.get().max(running));
        level("fetches", running);
    }
}

/// Fetches a page, the later ones faster.
pub async fn fetch(gauge: &Gauge, page: u64) -> u64 {
    gauge.add(1);
    waiting("io", sleep(Duration::from_millis(50 - 5 * page))).await;
    gauge.add(-1);
    page
}

// ANCHOR: wrong
/// The pages as they were collected, and how many fetches ran at a time.
pub async fn wrong() -> (Vec<u64>, usize) {
    let gauge = &Gauge::default();
    let pages: Vec<u64> = (1..=8)
        .collect::<Vec<_>>()
        .into_co_stream()
        .map(async |page| fetch(gauge, page).lane(format!("fetch {page}")).await)
        .limit(Some(LIMIT))
        .collect()
        .await;
    (pages, gauge.peak())
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The pages as they were collected, and how many fetches ran at a time.
pub async fn right() -> (Vec<u64>, usize) {
    let gauge = &Gauge::default();
    let fetch = |page| fetch(gauge, page).lane(format!("fetch {page}"));
    let pages = map_ordered(1..=8, LIMIT, fetch).await;
    (pages, gauge.peak())
}
// ANCHOR_END: right

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let ((pages, peak), left) = record("limit(2).collect()", wrong()).await;
    println!("wrong: {peak} fetches at a time, collected as {pages:?}");
    let ((pages, peak), right) = record("map_ordered", right()).await;
    println!("right: {peak} fetches at a time, collected as {pages:?}");
    args.show(&left.beside(right))
}
