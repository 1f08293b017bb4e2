//! The streams family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "streams/fan_out.rs"]
mod fan_out;
#[path = "streams/generator.rs"]
mod generator;
#[path = "streams/merge.rs"]
mod merge;
#[path = "streams/pacing.rs"]
mod pacing;

use benches::Bench;

fn main() {
    let mut bench = Bench::new(
        "streams",
        &["async-channel", "async-stream", "futures", "futures-concurrency", "tokio", "tokio-stream"],
    );
    generator::tables(&mut bench);
    merge::tables(&mut bench);
    fan_out::tables(&mut bench);
    pacing::tables(&mut bench);
    bench.finish();
}
