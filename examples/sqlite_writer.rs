//! Many callers each store single rows in a real SQLite file and wait until they are committed; a reader reads meanwhile.
//!
//! The picture varies with the machine's load: the database is a real file.
//!
//! ```console
//! cargo run --example sqlite_writer
//! cargo run --example sqlite_writer -- --callers 500 --rows 100
//! ```

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use db_fanout::{WriteError, Writer, sqlite_writer};
use futures::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{QueryBuilder, Sqlite, query, query_scalar};
use support::lanes::{LaneExt, PictureArgs, level, record, waiting};
use tokio::time::sleep;

/// Store visits in SQLite, each acknowledged after its commit, and draw how they were grouped.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all stored, 1 a row was not, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// How many callers write at the same time
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    callers: i64,
    /// How many rows each of them writes, one after the other, with a short pause before each
    #[arg(long, default_value = "6", value_parser = clap::value_parser!(i64).range(1..=100_000))]
    rows: i64,
    #[command(flatten)]
    picture: PictureArgs,
}

type Visit = (i64, i64);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir().context("no room for files")?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("visits.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().min_connections(2).max_connections(2);
    let pool = pool.connect_with(file.journal_mode(SqliteJournalMode::Wal)).await?;
    query("CREATE TABLE visits (caller INTEGER NOT NULL, n INTEGER NOT NULL)").execute(&pool).await?;

    let groups = Cell::new(0);
    let statement = |visits: &[Visit]| {
        groups.set(groups.get() + 1);
        level("rows in a group", visits.len());
        let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new("INSERT INTO visits ");
        insert.push_values(visits, |mut row, (caller, n)| _ = row.push_bind(*caller).push_bind(*n));
        insert
    };
    let (waiting_rows, at_once) =
        (NonZeroUsize::MIN.saturating_add(999), NonZeroUsize::MIN.saturating_add(999));
    let (writer, writing) = sqlite_writer(pool.clone(), waiting_rows, at_once, statement);
    let over = Cell::new(false);
    let reading = async {
        let mut reads = 0;
        while !over.get() {
            let _: i64 = query_scalar("SELECT count(*) FROM visits").fetch_one(&pool).await?;
            reads += 1;
        }
        sqlx::Result::<usize>::Ok(reads)
    };
    let calling = async {
        let calls = (1..=args.callers).map(|caller| {
            let calls = visit(&writer, caller, args.rows);
            calls.try_lane(format!("caller {caller}"))
        });
        let results = join_all(calls).await;
        over.set(true);
        // The last one: the writing ends when all is written.
        drop(writer);
        results.into_iter().collect::<Result<Vec<()>, WriteError>>()
    };
    let work = async { tokio::join!(calling, reading.try_lane("reader"), writing.lane("writer")) };
    let (result, picture) = record("sqlite_writer", async {
        tokio::select! {
            result = work => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    let Some((written, read, ())) = result else { return Ok(ExitCode::from(130)) };
    written?;
    let reads = read?;
    let rows = args.callers * args.rows;
    println!("{rows} rows acknowledged in {} commits; read {reads} times meanwhile", groups.get());
    pool.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Caller n pauses for 3 n ms, so that they do not come together.
async fn visit(writer: &Writer<Visit>, caller: i64, rows: i64) -> Result<(), WriteError> {
    for n in 0..rows {
        waiting("timer", sleep(Duration::from_millis(3 * (caller as u64 % 8)))).await;
        waiting("queue", writer.write((caller, n))).await?;
    }
    Ok(())
}
