//! The mistake: calling an `async fn` without awaiting what it returns.
//!
//! Symptom: nothing happens, and nothing fails.
//! Cause: the call only makes a future, and a future does nothing until it is polled.
//! Fix: `.await`. The compiler warns of it (`unused_must_use`); make it an error, as this workspace does.
//!
//! ```console
//! cargo run --example trap_forgotten_await
//! ```

use std::cell::RefCell;
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// Writes a line to the log, which takes 10 ms.
async fn save(log: &RefCell<Vec<&'static str>>, line: &'static str) {
    waiting("io", sleep(Duration::from_millis(10))).await;
    log.borrow_mut().push(line);
}

// ANCHOR: wrong
/// The lines that are in the log in the end.
#[allow(clippy::no_effect)]
#[expect(unused_must_use, reason = "the mistake: unused implementer of `Future` that must be used")]
pub async fn wrong() -> Vec<&'static str> {
    let log = RefCell::default();
    save(&log, "called").lane("called");
    async {
        save(&log, "in a block").lane("in a block").await;
    };
    save(&log, "awaited").lane("awaited").await;
    log.into_inner()
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The lines that are in the log in the end.
pub async fn right() -> Vec<&'static str> {
    let log = RefCell::default();
    save(&log, "called").lane("called").await;
    async {
        save(&log, "in a block").lane("in a block").await;
    }
    .await;
    save(&log, "awaited").lane("awaited").await;
    log.into_inner()
}
// ANCHOR_END: right

// ANCHOR: silent
/// What the lint does not see: a future that has a name, or that is mapped into a list.
pub fn silent() -> Vec<&'static str> {
    let log = RefCell::default();
    let _saved = save(&log, "named");
    let list: Vec<_> = ["one", "two"].into_iter().map(|line| save(&log, line)).collect();
    assert_eq!(list.len(), 2);
    drop(list);
    log.take()
}
// ANCHOR_END: silent

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    let (lines, left) = record("not awaited", wrong()).await;
    println!("wrong: the log has {lines:?}");
    println!("wrong, and no warning: the log has {:?}", silent());
    let (lines, right) = record("awaited", right()).await;
    println!("right: the log has {lines:?}");
    args.show(&left.beside(right))
}
