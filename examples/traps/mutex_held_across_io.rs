//! The mistake: a cache in a `tokio::sync::Mutex`, locked while a missing page is fetched.
//!
//! Symptom: eight requests for eight pages take eight times as long as one.
//! Cause: the lock is held for the whole fetch, so that one fetch runs at a time, and even a cached page waits for it.
//! Fix: hold the lock for the look and for the insertion, not for the fetch between them.
//!
//! ```console
//! cargo run --example trap_mutex_held_across_io
//! ```

use std::collections::HashMap;
use std::time::Duration;

use clap::Parser;
use locks::{Shared, Unusable};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Requests at once, each for a page of its own.
const REQUESTS: u32 = 8;

/// Fetches a page, which takes 50 ms.
async fn fetch(page: u32) -> String {
    waiting("io", sleep(Duration::from_millis(50))).await;
    format!("page {page}")
}

// ANCHOR: wrong
async fn get_wrong(cache: &Mutex<HashMap<u32, String>>, page: u32) -> String {
    let mut cache = waiting("lock", cache.lock()).await;
    if let Some(cached) = cache.get(&page) {
        return cached.clone();
    }
    let fetched = fetch(page).await; // nobody else gets at the cache
    cache.insert(page, fetched.clone());
    fetched
}
// ANCHOR_END: wrong

// ANCHOR: right
async fn get_right(cache: &Shared<HashMap<u32, String>>, page: u32) -> Result<String, Unusable> {
    if let Some(cached) = cache.with(|cache| cache.get(&page).cloned())? {
        return Ok(cached);
    }
    let fetched = fetch(page).await;
    cache.with(|cache| cache.insert(page, fetched.clone()))?;
    Ok(fetched)
}
// ANCHOR_END: right

/// How long all requests took.
pub async fn wrong() -> Duration {
    let (start, cache) = (Instant::now(), Mutex::default());
    let requests = (1..=REQUESTS).map(|page| get_wrong(&cache, page).lane(format!("request {page}")));
    futures::future::join_all(requests).await;
    start.elapsed()
}

/// How long all requests took.
pub async fn right() -> Duration {
    let (start, cache) = (Instant::now(), Shared::default());
    let requests = (1..=REQUESTS).map(|page| get_right(&cache, page).try_lane(format!("request {page}")));
    futures::future::join_all(requests).await;
    start.elapsed()
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (took, left) = record("locked while fetching", wrong()).await;
    println!("wrong: {REQUESTS} requests took {} ms", took.as_millis());
    let (took, right) = record("locked before and after", right()).await;
    println!("right: {REQUESTS} requests took {} ms", took.as_millis());
    args.show(&left.beside(right))
}
