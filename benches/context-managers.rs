//! The context-managers family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "context-managers/owned.rs"]
mod owned;
#[path = "context-managers/pool.rs"]
mod pool;
#[path = "context-managers/reaper.rs"]
mod reaper;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("context-managers", &["bb8", "deadpool", "tokio", "tokio-util"]);
    owned::tables(&mut bench);
    pool::tables(&mut bench);
    reaper::tables(&mut bench);
    bench.finish();
}
