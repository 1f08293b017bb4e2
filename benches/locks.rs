//! The locks family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "locks/calls.rs"]
mod calls;
#[path = "locks/shared_state.rs"]
mod shared_state;
#[path = "locks/waiting.rs"]
mod waiting;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("locks", &["arc-swap", "futures", "tokio"]);
    shared_state::tables(&mut bench);
    waiting::tables(&mut bench);
    calls::tables(&mut bench);
    bench.finish();
}
