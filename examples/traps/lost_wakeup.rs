//! The mistake: to look whether it is ready, and only then to begin to listen.
//!
//! Symptom: now and then a task waits for ever for what has happened already.
//! Cause: `notify_waiters` wakes those who listen. Who has looked and does not listen yet is not among them.
//! Fix: listen first, then look. `Event` does so.
//!
//! ```console
//! cargo run --example trap_lost_wakeup
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use locks::Event;
use support::lanes::{LaneExt, PictureArgs, try_record, waiting};
use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

#[derive(Default)]
struct Ready {
    is: AtomicBool,
    changed: Notify,
}

impl Ready {
    fn set(&self) {
        self.is.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// Writes a line into the log, which takes 10 ms.
async fn log(_line: &str) {
    waiting("io", sleep(Duration::from_millis(10))).await;
}

// ANCHOR: wrong
async fn wait_wrong(ready: &Ready) {
    if !ready.is.load(Ordering::SeqCst) {
        log("not ready: waiting").await; // if `set` is called here, nobody listens
        waiting("event", ready.changed.notified()).await;
    }
}
// ANCHOR_END: wrong

// ANCHOR: right
async fn wait_right(ready: &Ready) {
    let changed = ready.changed.notified(); // listens from here on
    if !ready.is.load(Ordering::SeqCst) {
        log("not ready: waiting").await;
        waiting("event", changed).await;
    }
}
// ANCHOR_END: right

// ANCHOR: recipe
async fn wait_for_event(ready: &Event) {
    if !ready.is_set() {
        log("not ready: waiting").await;
        waiting("event", ready.wait()).await;
    }
}
// ANCHOR_END: recipe

/// How long it waited, for what comes after 5 ms.
async fn time(wait: impl Future, set: impl FnOnce()) -> Result<Duration, Elapsed> {
    let start = Instant::now();
    let wait = timeout(Duration::from_millis(100), wait).try_lane("wait");
    let set = async {
        waiting("timer", sleep(Duration::from_millis(5))).await;
        set();
    };
    let (waited, ()) = tokio::join!(wait, set.lane("set"));
    waited.map(|_| start.elapsed())
}

/// How long the one who looks first waits.
pub async fn wrong() -> Result<Duration, Elapsed> {
    let ready = Ready::default();
    time(wait_wrong(&ready), || ready.set()).await
}

/// How long the one who listens first waits.
pub async fn right() -> Result<Duration, Elapsed> {
    let ready = Ready::default();
    time(wait_right(&ready), || ready.set()).await
}

/// How long the one who waits for an `Event` waits.
pub async fn recipe() -> Result<Duration, Elapsed> {
    let ready = Event::new();
    time(wait_for_event(&ready), || ready.set()).await
}

fn say(waited: &Result<Duration, Elapsed>) -> String {
    match waited {
        Ok(waited) => format!("it went on after {} ms", waited.as_millis()),
        Err(_) => "it still waits after 100 ms, and would for ever".to_string(),
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> std::io::Result<()> {
    let args = PictureArgs::parse();
    println!("ready after 5 ms:");
    let (waited, left) = try_record("look, then listen", wrong()).await;
    println!("wrong: {}", say(&waited));
    let (waited, right) = try_record("listen, then look", right()).await;
    println!("right: {}", say(&waited));
    println!("Event: {}", say(&recipe().await));
    args.show(&left.beside(right))
}
