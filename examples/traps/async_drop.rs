//! The mistake: asynchronous work in `Drop`, where nothing can be awaited.
//!
//! Symptom: with `block_on` a panic, which in the middle of another panic ends the process; with `tokio::spawn` the goodbye
//! is sometimes never said, because the runtime ended first.
//! Cause: `Drop` is not asynchronous. It can only start something, and whoever starts something has to wait for it somewhere.
//! Fix: `bracket`, which awaits the release, and whose owner is awaited at the end of the program.
//!
//! ```console
//! cargo run --example trap_async_drop
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use context_managers::{Owner, bracket};
use support::lanes::{LaneExt, Picture, PictureArgs, record, waiting};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};

/// How often a session said goodbye.
type Goodbyes = Arc<AtomicU32>;

async fn goodbye(count: Goodbyes) -> Result<(), Infallible> {
    waiting("io", sleep(Duration::from_millis(20))).await;
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// What a session is used for.
async fn work() -> Result<(), Infallible> {
    waiting("io", sleep(Duration::from_millis(10))).await;
    Ok(())
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("the operating system grants a timer and an event queue")
}

// ANCHOR: wrong_block_on
struct Blocking(Goodbyes);

impl Drop for Blocking {
    fn drop(&mut self) {
        let _ = Handle::current().block_on(goodbye(self.0.clone()));
    }
}

/// Ends a session, and returns what the panic says.
pub fn wrong_block_on() -> String {
    let ended = runtime().block_on(async {
        let session = Blocking(Goodbyes::default());
        tokio::spawn(async move {
            let _ = work().await;
            drop(session);
        })
        .await
    });
    let panic = ended.expect_err("block_on panics within a runtime").into_panic();
    panic.downcast_ref::<&str>().map_or_else(String::new, ToString::to_string)
}
// ANCHOR_END: wrong_block_on

// ANCHOR: wrong_spawn
struct Spawning(Goodbyes);

impl Drop for Spawning {
    fn drop(&mut self) {
        drop(tokio::spawn(goodbye(self.0.clone()).lane("goodbye")));
    }
}

/// Ends a session at the end of the program, and returns how often it said goodbye.
pub fn wrong_spawn() -> (u32, Picture) {
    let count = Goodbyes::default();
    let session = Spawning(count.clone());
    let main = async move {
        let _ = work().lane("work").await;
        drop(session);
    };
    let ((), picture) = runtime().block_on(record("spawned in Drop", main));
    (count.load(Ordering::Relaxed), picture)
}
// ANCHOR_END: wrong_spawn

// ANCHOR: right
/// Two sessions, one of them given up in the middle, and the end of the program.
pub fn right() -> (u32, Picture) {
    let count = Goodbyes::default();
    let main = async {
        let owner = Owner::new(Handle::current());
        let session = || {
            let open = async { Ok(count.clone()) };
            let close = |count| goodbye(count).lane("goodbye");
            bracket(&owner, open, async |_| work().lane("work").await, close)
        };
        let _ = session().await;
        let _ = timeout(Duration::from_millis(5), session()).await;
        assert!(owner.finish().await.failures.is_empty());
    };
    let ((), picture) = runtime().block_on(record("bracket", main));
    (count.load(Ordering::Relaxed), picture)
}
// ANCHOR_END: right

fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    // The panic is expected, and its message is printed below.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let panic = wrong_block_on();
    std::panic::set_hook(hook);
    println!("block_on in Drop: panicked: {}", panic.split_once(". ").map_or(panic.as_str(), |it| it.0));
    let (said, left) = wrong_spawn();
    println!("spawn in Drop: 1 session, {said} goodbyes");
    let (said, right) = right();
    println!("bracket: 2 sessions, {said} goodbyes");
    args.show(&left.beside(right))
}
