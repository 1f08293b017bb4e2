//! The locks family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "locks/calls.rs"]
mod calls;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("locks", &["futures", "tokio"]);
    calls::tables(&mut bench);
    bench.finish();
}
