//! The blocking family beside its peers: see `benches/lib.rs` for how to run it.

use benches::Bench;

#[path = "blocking/facade.rs"]
mod facade;
#[path = "blocking/files.rs"]
mod files;
#[path = "blocking/watchdog.rs"]
mod watchdog;
#[path = "blocking/work.rs"]
mod work;

fn main() {
    let mut bench = Bench::new("blocking", &["rayon", "tokio"]);
    work::tables(&mut bench);
    facade::tables(&mut bench);
    files::tables(&mut bench);
    watchdog::tables(&mut bench);
    bench.finish();
}
