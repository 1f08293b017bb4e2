//! The streams family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "streams/generator.rs"]
mod generator;
#[path = "streams/merge.rs"]
mod merge;

use benches::Bench;

fn main() {
    let mut bench =
        Bench::new("streams", &["async-stream", "futures", "futures-concurrency", "tokio", "tokio-stream"]);
    generator::tables(&mut bench);
    merge::tables(&mut bench);
    bench.finish();
}
