//! The db-fanout family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "db-fanout/user_page.rs"]
mod user_page;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("db-fanout", &["sqlx", "tokio"]);
    user_page::tables(&mut bench);
    bench.finish();
}
