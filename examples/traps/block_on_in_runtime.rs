//! The mistake: calling async code from a synchronous function with `block_on`, while a runtime is running above it.
//!
//! Symptom: it works in the unit test and in a script, and panics in the server.
//! Cause: the thread is driving a runtime already. Blocked, it could not run the very task that it waits for, so tokio refuses.
//! Fix: make the function `async`; where it cannot be, call it from `spawn_blocking`, whose threads may block.
//!
//! ```console
//! cargo run --example trap_block_on_in_runtime
//! ```

use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::sleep;

async fn fetch() -> u32 {
    waiting("io", sleep(Duration::from_millis(20))).lane("fetch").await;
    42
}

// ANCHOR: wrong
/// A synchronous function in the middle of a program, such as a trait's method or a callback.
fn price() -> u32 {
    let runtime = Runtime::new().expect("a runtime needs a few threads");
    runtime.block_on(fetch())
}

/// What happens when a task calls it: the panic's message.
pub async fn wrong() -> String {
    message(tokio::spawn(async { price() }).await)
}
// ANCHOR_END: wrong

// ANCHOR: handle
/// The runtime that is there is no better.
fn price_by_handle() -> u32 {
    Handle::current().block_on(fetch())
}

/// What happens when a task calls it: the panic's message.
pub async fn wrong_handle() -> String {
    message(tokio::spawn(async { price_by_handle() }).await)
}

/// A runtime that is dropped by a task, such as a client that has one of its own: the panic's message.
pub async fn wrong_drop() -> String {
    let runtime = Builder::new_current_thread().build().expect("it needs nothing");
    message(tokio::spawn(async move { drop(runtime) }).await)
}
// ANCHOR_END: handle

// ANCHOR: right
/// Async all the way up.
async fn price_async() -> u32 {
    fetch().await
}

/// A synchronous function that cannot be changed is called where blocking is allowed.
pub async fn right() -> (u32, u32) {
    let price = price_async().await;
    let by_handle = tokio::task::spawn_blocking(price_by_handle).await;
    (price, by_handle.expect("it does not panic"))
}
// ANCHOR_END: right

fn message<T>(ended: Result<T, tokio::task::JoinError>) -> String {
    match ended {
        Ok(_) => "it returned".into(),
        Err(error) => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref().copied()).unwrap_or_default();
            text.split_once(". ").map_or(text, |(sentence, _)| sentence).to_string()
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    // The panics are expected, and their messages are printed below.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    println!("wrong, a runtime of its own: {}", wrong().await);
    println!("wrong, the current runtime:  {}", wrong_handle().await);
    println!("wrong, a runtime is dropped: {}", wrong_drop().await);
    std::panic::set_hook(hook);
    let (prices, picture) = record("right", right()).await;
    println!("right, async, and on a blocking thread: {prices:?}");
    args.show(&picture)
}
