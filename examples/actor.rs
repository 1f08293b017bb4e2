//! An account whose bookings go to a file: one task owns both, so that no two bookings mix, and none is half done.
//!
//! ```console
//! cargo run --example actor
//! cargo run --example actor -- 100 -30 -80 20 --ledger ledger.txt
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::join_all;
use locks::{Actor, Request};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Book amounts from many callers at once into one ledger file, and check that file and balance agree.
#[derive(Parser)]
#[command(after_help = "Exit codes: 0 all agrees, 1 not, 2 bad arguments, 130 stopped by Ctrl-C.")]
struct Args {
    /// Amounts to book: a negative one is refused when there is not enough
    #[arg(default_values = ["100", "-30", "-80", "20", "-40", "-50"], allow_negative_numbers = true)]
    amounts: Vec<i64>,
    /// Where to write the bookings; it is replaced. Without it, a temporary file
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    picture: PictureArgs,
}

struct Account {
    balance: i64,
    ledger: File,
}

struct Book(i64);

#[derive(Debug, thiserror::Error)]
enum NotBooked {
    #[error("only {0} there")]
    TooLittle(i64),
    #[error("the amount is too large")]
    TooMuch,
    #[error(transparent)]
    Ledger(#[from] std::io::Error),
}

impl Request<Account> for Book {
    type Reply = Result<i64, NotBooked>;

    async fn handle(self, account: &mut Account) -> Self::Reply {
        let write = async {
            let balance = account.balance.checked_add(self.0).ok_or(NotBooked::TooMuch)?;
            if balance < 0 {
                return Err(NotBooked::TooLittle(account.balance));
            }
            // Between the look at the balance and its change the task waits for the disk. Nobody else gets in between.
            account.ledger.write_all(format!("{}\n", self.0).as_bytes()).await?;
            account.ledger.sync_data().await?;
            account.balance = balance;
            Ok(balance)
        };
        write.try_lane(format!("booking {}", self.0)).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = args.ledger.unwrap_or_else(|| folder.path().join("ledger.txt"));
    let ledger = File::create(&path).await.with_context(|| format!("cannot write {}", path.display()))?;

    let (outcome, picture) = record("actor", async {
        let account = Actor::start(Account { balance: 0, ledger }, 4.try_into()?);
        let callers = args.amounts.iter().enumerate().map(|(number, amount)| {
            let address = account.address();
            let ask = async move { anyhow::Ok(waiting("queue", address.ask(Book(*amount))).await??) };
            ask.try_lane(format!("caller {}", number + 1))
        });
        let replies = tokio::select! {
            replies = join_all(callers) => Some(replies),
            Ok(()) = tokio::signal::ctrl_c() => None,
        };
        // What was accepted is still written.
        anyhow::Ok((replies, account.stop(Duration::from_secs(10)).await?))
    })
    .await;
    let (replies, account) = outcome?;

    for (amount, reply) in args.amounts.iter().zip(replies.iter().flatten()) {
        match reply {
            Ok(balance) => println!("{amount:>5}  booked, now {balance}"),
            Err(error) => println!("{amount:>5}  refused: {error:#}"),
        }
    }
    let ledger = tokio::fs::read_to_string(&path).await.context("cannot read the ledger")?;
    let sum = ledger.lines().map(str::parse::<i64>).sum::<Result<i64, _>>()?;
    println!("balance {}, sum of the ledger {sum}", account.balance);
    args.picture.show(&picture).context("cannot write the picture")?;
    ensure!(account.balance == sum, "the ledger and the balance differ");
    Ok(ExitCode::from(if replies.is_none() { 130 } else { 0 }))
}
