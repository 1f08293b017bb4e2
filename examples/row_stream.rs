//! An export that does not fit into memory, and a look at its first rows, over the only connection that there is.
//!
//! ```console
//! cargo run --example row_stream
//! cargo run --release --example row_stream -- --rows 1000000
//! ```
//!
//! The picture varies with the machine: the times are those of a real database and a real file.

use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;
use db_fanout::{Unread, row_stream};
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{SqlitePool, query, query_scalar};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Write a table of a SQLite database to a file, row by row, and show how much memory that takes.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all rows were written, 1 something failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// How many rows the table has
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(i64).range(1_000..=100_000_000))]
    rows: i64,
    #[command(flatten)]
    picture: PictureArgs,
}

/// Rows that are written to the file at a time.
const CHUNK: usize = 5_000;
const READINGS: &str = "SELECT id, sensor, value FROM readings ORDER BY id";

type Reading = (i64, String, f64);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir().context("no room for files")?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("readings.db"));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(file.create_if_missing(true)).await?;
    let export = folder.path().join("export.csv");
    let work = async {
        fill(&pool, args.rows).await?;
        let before = memory();
        let (done, picture) = record("row_stream", async {
            let first = async {
                let mut connection = waiting("permit", pool.acquire()).await?;
                let rows: i64 =
                    query_scalar("SELECT count(*) FROM readings").fetch_one(&mut *connection).await?;
                anyhow::Ok(rows)
            };
            // Each waits for the one before: there is one connection.
            tokio::try_join!(
                look(&pool).try_lane("first 3 rows"),
                write(&pool, File::create(&export).await?).try_lane("export"),
                first.try_lane("count"),
            )
        })
        .await;
        let (first, (written, bytes), count) = done?;
        ensure!(written == count, "{written} of {count} rows were written");
        for (id, sensor, value) in first {
            println!("reading {id}: {sensor} {value:.1}");
        }
        println!("{written} rows, {bytes} bytes");
        match (before, memory()) {
            (Some(before), Some(after)) => {
                println!("{} KiB more memory than before", after.saturating_sub(before))
            }
            _ => println!("this system does not tell how much memory that took"),
        }
        args.picture.show(&picture).context("cannot write the picture")
    };
    let done = tokio::select! {
        done = work => done.map(|()| ExitCode::SUCCESS),
        // An error means that signals cannot be caught: then there is nothing to wait for.
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    };
    pool.close().await;
    done
}

async fn fill(pool: &SqlitePool, rows: i64) -> anyhow::Result<()> {
    query("CREATE TABLE readings (id INTEGER PRIMARY KEY, sensor TEXT NOT NULL, value REAL NOT NULL)")
        .execute(pool)
        .await?;
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO readings SELECT i, 'sensor ' || (i % 10), (i * 7919 % 1000) / 10.0 FROM n";
    query(fill).bind(rows).execute(pool).await?;
    Ok(())
}

/// The first rows of the same query. The rest is not read.
async fn look(pool: &SqlitePool) -> anyhow::Result<Vec<Reading>> {
    let connection = waiting("permit", pool.acquire()).await?;
    let mut rows = pin!(row_stream::<_, Reading>(connection, query(READINGS), Unread::Skip));
    let mut first = Vec::new();
    while first.len() < 3 {
        let Some(row) = rows.try_next().await? else { break };
        first.push(row);
    }
    Ok(first)
}

/// Writes all rows, a chunk at a time; returns how many rows and bytes.
async fn write(pool: &SqlitePool, mut file: File) -> anyhow::Result<(i64, usize)> {
    let connection = waiting("permit", pool.acquire()).await?;
    let mut rows = pin!(row_stream::<_, Reading>(connection, query(READINGS), Unread::Skip));
    let (mut written, mut bytes, mut text) = (0, 0, Vec::new());
    loop {
        let chunk = async {
            text.clear();
            for _ in 0..CHUNK {
                let Some((id, sensor, value)) = rows.try_next().await? else { return anyhow::Ok(false) };
                writeln!(text, "{id},{sensor},{value:.1}")?;
                written += 1;
            }
            Ok(true)
        };
        let more = chunk.try_lane("read").await?;
        bytes += text.len();
        file.write_all(&text).try_lane("write").await?;
        if !more {
            break;
        }
    }
    file.sync_all().await?;
    Ok((written, bytes))
}

/// KiB that the process has, where the system tells.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
