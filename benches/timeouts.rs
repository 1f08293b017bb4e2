//! The timeouts family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "timeouts/retry.rs"]
mod retry;
#[path = "timeouts/timeout.rs"]
mod timeout;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("timeouts", &["backon", "tokio", "tower"]);
    timeout::tables(&mut bench);
    retry::tables(&mut bench);
    bench.finish();
}
