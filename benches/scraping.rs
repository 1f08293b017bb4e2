//! The scraping family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "scraping/fetch.rs"]
mod fetch;
#[path = "scraping/polite_frontier.rs"]
mod polite_frontier;
#[path = "scraping/robots.rs"]
mod robots;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("scraping", &["reqwest", "texting_robots", "tokio"]);
    fetch::tables(&mut bench);
    robots::tables(&mut bench);
    polite_frontier::tables(&mut bench);
    bench.finish();
}
