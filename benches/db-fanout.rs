//! The db-fanout family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "db-fanout/job_queue.rs"]
mod job_queue;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("db-fanout", &["sqlx", "tokio"]);
    job_queue::tables(&mut bench);
    bench.finish();
}
