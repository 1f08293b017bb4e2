//! The producer-consumer family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "producer-consumer/batcher.rs"]
mod batcher;
#[path = "producer-consumer/work_queue.rs"]
mod work_queue;

use benches::Bench;

fn main() {
    let mut bench = Bench::new(
        "producer-consumer",
        &["async-channel", "crossfire", "flume", "futures", "kanal", "tokio", "tokio-stream"],
    );
    work_queue::tables(&mut bench);
    batcher::tables(&mut bench);
    bench.finish();
}
