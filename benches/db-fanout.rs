//! The db-fanout family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "db-fanout/writes.rs"]
mod writes;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("db-fanout", &["rusqlite", "sqlx", "tokio"]);
    writes::tables(&mut bench);
    bench.finish();
}
