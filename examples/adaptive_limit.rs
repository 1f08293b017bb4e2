//! A limit that finds a server's capacity, and follows it when half of the server fails. In virtual time.
//!
//! ```console
//! cargo run --example adaptive_limit
//! cargo run --example adaptive_limit -- --capacity 4
//! ```

use std::cell::Cell;
use std::time::Duration;

use clap::Parser;
use futures::future::join_all;
use semaphores::{AdaptiveLimit, Rules, Verdict};
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::time::{Instant, sleep};

/// Twelve clients before a simulated server, under a limit that finds its capacity and follows it. In virtual time.
#[derive(Parser)]
struct Args {
    /// How many calls the server works on at full speed; half as many after 200 ms
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(u32).range(2..=100))]
    capacity: u32,
    #[command(flatten)]
    picture: PictureArgs,
}

/// Answers in 10 ms, and more slowly when more calls run than it has capacity for.
struct Server {
    capacity: u32,
    start: Instant,
    running: Cell<u32>,
}

impl Server {
    async fn call(&self) {
        let failed = self.start.elapsed() >= Duration::from_millis(200);
        let capacity = if failed { self.capacity / 2 } else { self.capacity };
        self.running.set(self.running.get() + 1);
        let load = f64::from(self.running.get()) / f64::from(capacity);
        waiting("io", sleep(Duration::from_millis(10).mul_f64(load.max(1.0)))).await;
        self.running.set(self.running.get() - 1);
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let [least, most] = [1, 100].map(|bound: usize| bound.try_into().expect("both are above zero"));
    let limit = AdaptiveLimit::new(Rules { least, most, target: Duration::from_millis(12) });
    let server = Server { capacity: args.capacity, start: Instant::now(), running: Cell::new(0) };
    let elapsed = || server.start.elapsed();

    let client = async || {
        while elapsed() < Duration::from_millis(400) {
            waiting("permit", limit.run(|| server.call(), |()| Verdict::Fine)).await;
            level("limit", limit.limit());
        }
    };
    let report = async {
        println!("   time  limit");
        for _ in 0..10 {
            sleep(Duration::from_millis(40)).await;
            println!("{:>4} ms  {:>5}", elapsed().as_millis(), limit.limit());
        }
    };
    let clients = (1..=12).map(|number| client().lane(format!("client {number}")));
    let ((_, ()), picture) =
        record("adaptive_limit", async { tokio::join!(join_all(clients), report) }).await;
    args.picture.show(&picture)?;
    Ok(())
}
