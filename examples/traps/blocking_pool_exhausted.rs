//! The mistake: `spawn_blocking` for work that goes on as long as the program.
//!
//! Symptom: one day `tokio::fs`, the lookup of host names and every other `spawn_blocking` wait for ever, without an error.
//! Cause: they share one pool of threads, and each endless job keeps one of them. The default is 512; here it is 2.
//! Fix: a `std::thread` for what never ends, and an `Offload` with a limit for what does.
//!
//! The picture varies: it shows real files.
//!
//! ```console
//! cargo run --example trap_blocking_pool_exhausted
//! ```

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use support::lanes::{LaneExt, Picture, PictureArgs, record, waiting};
use tokio::fs;
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Listens to a device as long as there is one.
fn listen(device: Receiver<()>) {
    device.iter().for_each(drop);
}

/// Two devices, and the ends at which they are unplugged.
fn devices() -> (Vec<Sender<()>>, Vec<Receiver<()>>) {
    (0..2).map(|_| channel()).unzip()
}

async fn read() -> io::Result<usize> {
    let manifest = waiting("io", fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).await?;
    Ok(manifest.len())
}

// ANCHOR: wrong
/// Listens to two devices, and reads a file within 100 ms.
pub async fn wrong() -> Result<io::Result<usize>, Elapsed> {
    let (_plugged_in, devices) = devices();
    for device in devices {
        spawn_blocking(|| listen(device));
    }
    timeout(Duration::from_millis(100), read()).try_lane("read").await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// Listens to two devices, and reads a file.
pub async fn right() -> Result<io::Result<usize>, Elapsed> {
    let (_plugged_in, devices) = devices();
    for device in devices {
        thread::spawn(|| listen(device));
    }
    timeout(Duration::from_secs(60), read()).try_lane("read").await
}
// ANCHOR_END: right

/// Runs `body` where there are two threads for blocking work.
pub fn with_two_threads<T>(title: &str, body: impl Future<Output = T>) -> io::Result<(T, Picture)> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    Ok(runtime.block_on(record(title, body)))
}

fn main() -> io::Result<()> {
    let args = PictureArgs::parse();
    let (read, left) = with_two_threads("spawn_blocking", wrong())?;
    println!("wrong: {}", if read.is_ok() { "the file was read" } else { "no file after 100 ms" });
    let (read, right) = with_two_threads("std::thread", right())?;
    println!("right: {}", if read.is_ok() { "the file was read" } else { "no file after 60 s" });
    args.show(&left.beside(right))
}
