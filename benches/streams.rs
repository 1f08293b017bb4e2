//! The streams family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "streams/fan_out.rs"]
mod fan_out;
#[path = "streams/pacing.rs"]
mod pacing;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("streams", &["async-channel", "futures", "tokio", "tokio-stream"]);
    fan_out::tables(&mut bench);
    pacing::tables(&mut bench);
    bench.finish();
}
