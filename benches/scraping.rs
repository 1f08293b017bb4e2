//! The scraping family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "scraping/fetch.rs"]
mod fetch;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("scraping", &["reqwest", "tokio"]);
    fetch::tables(&mut bench);
    bench.finish();
}
