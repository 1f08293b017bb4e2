//! The context-managers family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "context-managers/owned.rs"]
mod owned;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("context-managers", &["tokio", "tokio-util"]);
    owned::tables(&mut bench);
    bench.finish();
}
