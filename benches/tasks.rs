//! The tasks family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "tasks/background.rs"]
mod background;
#[path = "tasks/supervisor.rs"]
mod supervisor;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("tasks", &["tokio", "tokio-util", "tracing"]);
    background::tables(&mut bench);
    supervisor::tables(&mut bench);
    bench.finish();
}
