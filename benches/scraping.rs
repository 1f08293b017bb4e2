//! The scraping family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "scraping/polite_frontier.rs"]
mod polite_frontier;
#[path = "scraping/robots.rs"]
mod robots;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("scraping", &["texting_robots", "tokio"]);
    robots::tables(&mut bench);
    polite_frontier::tables(&mut bench);
    bench.finish();
}
