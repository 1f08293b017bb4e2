//! Two transfers between the same accounts, at the same time, in a real SQLite file: one of them is sent back and tries again.
//!
//! The picture varies with the machine's load: the database is a real file.
//!
//! ```console
//! cargo run --example transaction
//! cargo run --example transaction -- --begin "BEGIN IMMEDIATE"    # the second one waits instead
//! cargo run --example transaction -- --amount 120                 # is refused
//! ```

use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use db_fanout::{ATTEMPTS, Failed, Open, transaction};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, query, query_scalar, raw_sql};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::time::sleep;

/// Move money from the same account twice, at the same time, and draw what happened.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all transferred or refused, 1 a transfer failed, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// What each transfer moves from account 1, which holds 150, to account 2
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(i64).range(1..))]
    amount: i64,
    /// How a transaction begins
    #[arg(long, default_value = "BEGIN", value_parser = ["BEGIN", "BEGIN IMMEDIATE"])]
    begin: String,
    #[command(flatten)]
    picture: PictureArgs,
}

#[derive(Debug, thiserror::Error)]
#[error("account 1 holds only {0}")]
struct TooLittle(i64);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let begin = if args.begin == "BEGIN" { "BEGIN" } else { "BEGIN IMMEDIATE" };
    let folder = tempfile::tempdir().context("no room for files")?;
    let file = SqliteConnectOptions::new().filename(folder.path().join("bank.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(2).min_connections(2);
    let pool = pool.connect_with(file.journal_mode(SqliteJournalMode::Wal)).await?;
    raw_sql("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL); INSERT INTO accounts VALUES (1, 150), (2, 0)")
        .execute(&pool)
        .await?;

    let both = async {
        tokio::join!(
            transfer(&pool, begin, args.amount, "transfer 1", Duration::from_millis(40)),
            transfer(&pool, begin, args.amount, "transfer 2", Duration::from_millis(90)),
        )
    };
    let (results, picture) = record("transaction", async {
        tokio::select! {
            results = both => Some(results),
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => None,
        }
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;
    let balances: Vec<i64> =
        query_scalar("SELECT balance FROM accounts ORDER BY id").fetch_all(&pool).await?;
    println!("account 1 holds {}, account 2 holds {}", balances[0], balances[1]);
    pool.close().await;
    Ok(match results {
        None => ExitCode::from(130),
        Some((one, other)) => ExitCode::from(u8::from(!(one && other))),
    })
}

/// Says how it went, and whether that was well.
async fn transfer(pool: &SqlitePool, begin: &'static str, amount: i64, name: &str, think: Duration) -> bool {
    let attempts = Cell::new(0);
    let call = transaction(pool, begin, ATTEMPTS, |open: Open<Sqlite>| {
        attempts.set(attempts.get() + 1);
        move_money(open, amount, think).try_lane(format!("attempt {}", attempts.get()))
    });
    let result = call.try_lane(name).await;
    match &result {
        Ok(()) => println!("{name}: committed by attempt {}", attempts.get()),
        Err(Failed::Refused(error)) => println!("{name}: refused: {error}"),
        Err(error) => println!("{name}: failed: {error}"),
    }
    matches!(result, Ok(()) | Err(Failed::Refused(_)))
}

/// Reads, thinks, and writes: what it has read must still be true then.
async fn move_money(mut open: Open<Sqlite>, amount: i64, think: Duration) -> Result<(), Failed<TooLittle>> {
    let balance: i64 =
        query_scalar("SELECT balance FROM accounts WHERE id = 1").fetch_one(&mut *open).await?;
    waiting("timer", sleep(think)).await;
    if balance < amount {
        return Err(Failed::Refused(TooLittle(balance)));
    }
    let change = "UPDATE accounts SET balance = balance + ? WHERE id = ?";
    query(change).bind(-amount).bind(1).execute(&mut *open).await?;
    query(change).bind(amount).bind(2).execute(&mut *open).await?;
    Ok(())
}
