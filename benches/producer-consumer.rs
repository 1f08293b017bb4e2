//! The producer-consumer family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "producer-consumer/batch_loader.rs"]
mod batch_loader;
#[path = "producer-consumer/batcher.rs"]
mod batcher;
#[path = "producer-consumer/queues.rs"]
mod queues;
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
    batch_loader::tables(&mut bench);
    queues::tables(&mut bench);
    bench.finish();
}
