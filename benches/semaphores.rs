//! The semaphores family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "semaphores/concurrency_limit.rs"]
mod concurrency_limit;
#[path = "semaphores/rate_limit.rs"]
mod rate_limit;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("semaphores", &["governor", "leaky-bucket", "tokio", "tower"]);
    concurrency_limit::tables(&mut bench);
    rate_limit::tables(&mut bench);
    bench.finish();
}
