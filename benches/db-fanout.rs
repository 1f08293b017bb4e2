//! The db-fanout family beside its peers: see `benches/lib.rs` for how to run it.

use benches::Bench;

fn main() {
    let bench = Bench::new("db-fanout", &["tokio"]);
    bench.finish();
}
