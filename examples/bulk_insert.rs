//! Import lines into a real SQLite file, many in each statement; a line that is there already is refused, and only that one.
//!
//! The picture varies with the machine's load: the database is a real file.
//!
//! ```console
//! cargo run --example bulk_insert
//! cargo run --example bulk_insert -- /usr/share/dict/words --at-once 10000
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use db_fanout::{Report, bulk_insert};
use indicatif::ProgressBar;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use sqlx::{QueryBuilder, Sqlite, query, query_scalar};
use support::lanes::{LaneExt, PictureArgs, level, record};

/// Import the lines of a file into a table of unique lines, with a progress bar, and say which were refused.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 imported, 1 the import stopped, 2 bad arguments or no file, 130 stopped by Ctrl-C."
)]
struct Args {
    /// The file; without it 40,000 lines are made up, five of which are there already
    file: Option<PathBuf>,
    /// How many lines go into one statement: at most 16,383, with two parameters each
    #[arg(long, default_value = "1000", value_parser = at_once)]
    at_once: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

fn at_once(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse() {
        Ok(number) if (1..=16_383).contains(&number) => {
            NonZeroUsize::new(number).ok_or_else(|| "zero".into())
        }
        _ => Err("it must be a number from 1 to 16383".to_string()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no room for files")?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("lines.db")).create_if_missing(true);
    let pool = SqlitePool::connect_with(file.journal_mode(SqliteJournalMode::Wal)).await?;
    query("CREATE TABLE lines (number INTEGER, line TEXT UNIQUE)").execute(&pool).await?;

    let lines: Box<dyn Iterator<Item = String>> = match &args.file {
        None => Box::new(
            (0..40_000).map(|n| format!("line {}", if n % 9_000 == 8_999 || n == 9_001 { n - 1 } else { n })),
        ),
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            Box::new(
                BufReader::new(file)
                    .split(b'\n')
                    .map_while(Result::ok)
                    .map(|line| String::from_utf8_lossy(&line).into_owned()),
            )
        }
    };
    let bar = ProgressBar::new_spinner().with_message("lines");
    let progress = |report: &Report| {
        level("rows", report.inserted);
        bar.set_position((report.inserted + report.rejected.len()) as u64);
    };
    let import = bulk_insert(&pool, "BEGIN IMMEDIATE", (1..).zip(lines), args.at_once, insert, progress);
    let (ended, picture) = record("bulk_insert", async {
        tokio::select! {
            result = import.try_lane("import") => Some(result),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    bar.finish_and_clear();
    args.picture.show(&picture).context("cannot write the picture")?;

    let stored: i64 = query_scalar("SELECT count(*) FROM lines").fetch_one(&pool).await?;
    println!("{stored} lines are stored");
    pool.close().await;
    let report = match ended {
        None => return Ok(ExitCode::from(130)),
        Some(Err(stopped)) => {
            eprintln!("error: {:#}", anyhow::Error::from(stopped));
            return Ok(ExitCode::FAILURE);
        }
        Some(Ok(report)) => report,
    };
    println!("{} were refused", report.rejected.len());
    for rejected in report.rejected.iter().take(5) {
        println!("line {}: {}", rejected.row + 1, rejected.source);
    }
    Ok(ExitCode::SUCCESS)
}

fn insert(lines: &[(i64, String)]) -> QueryBuilder<Sqlite> {
    let mut insert = QueryBuilder::new("INSERT INTO lines ");
    insert.push_values(lines, |mut row, (number, line)| _ = row.push_bind(*number).push_bind(line.clone()));
    insert
}
