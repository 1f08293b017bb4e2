//! The db-fanout family beside its peers: see `benches/lib.rs` for how to run it.

#[path = "db-fanout/job_queue.rs"]
mod job_queue;
#[path = "db-fanout/row_loader.rs"]
mod row_loader;
#[path = "db-fanout/row_stream.rs"]
mod row_stream;
#[path = "db-fanout/user_page.rs"]
mod user_page;
#[path = "db-fanout/writes.rs"]
mod writes;

use benches::Bench;

fn main() {
    let mut bench = Bench::new("db-fanout", &["rusqlite", "sqlx", "tokio"]);
    user_page::tables(&mut bench);
    row_loader::tables(&mut bench);
    row_stream::tables(&mut bench);
    writes::tables(&mut bench);
    job_queue::tables(&mut bench);
    bench.finish();
}
