//! A database, a folder and two child processes, each released: after success, an error, a panic and a caller that gave up.
//!
//! The picture varies with the machine's load: the time that real files and processes take is measured.
//!
//! ```console
//! cargo run --example bracket
//! cargo run --example bracket -- --items 1000 --patience 60000    # and press Ctrl-C
//! ```

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use context_managers::{Owner, bracket};
use futures::FutureExt;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::fs;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Use a database, a folder and two child processes; each is released, whatever happens to the work.
#[derive(Parser)]
#[command(
    after_help = "Exit codes: 0 all was released, 1 something was not, 2 bad arguments, 130 stopped by Ctrl-C."
)]
struct Args {
    /// What each job has to do: rows to insert, files to write, lines to send
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    items: u32,
    /// Milliseconds after which the caller of the last job gives up
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    patience: u64,
    /// Be the child process: answer each line after 5 ms, and take 30 ms to say goodbye
    #[arg(long, hide = true)]
    child: bool,
    #[command(flatten)]
    picture: PictureArgs,
}

/// How many resources were acquired, and how many released.
static ACQUIRED: AtomicUsize = AtomicUsize::new(0);
static RELEASED: AtomicUsize = AtomicUsize::new(0);

fn released(what: &str) -> anyhow::Result<()> {
    RELEASED.fetch_add(1, Ordering::Relaxed);
    println!("released: {what}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.child {
        return child().await;
    }
    let place = tempfile::tempdir().context("no room for files")?;
    let owner = Owner::new(Handle::current());
    let ((stopped, report), picture) = record("bracket", async {
        let stopped = tokio::select! {
            () = work(&owner, &args, place.path()) => false,
            // An error means that signals cannot be caught: then there is nothing to wait for.
            Ok(()) = tokio::signal::ctrl_c() => true,
        };
        // Everything that used the owner is gone: what it took over is finished before the program ends.
        (stopped, owner.finish().await)
    })
    .await;
    args.picture.show(&picture).context("cannot write the picture")?;

    let [acquired, released] = [&ACQUIRED, &RELEASED].map(|count| count.load(Ordering::Relaxed));
    println!("{acquired} acquired, {released} released, {} of them by the owner", report.finished);
    for failure in &report.failures {
        println!("the owner heard of: {failure}");
    }
    Ok(ExitCode::from(match (stopped, acquired == released) {
        (_, false) => 1,
        (true, true) => 130,
        (false, true) => 0,
    }))
}

/// Four jobs, at the same time.
async fn work(owner: &Owner, args: &Args, place: &Path) {
    let ledger = ledger(owner, place.join("ledger.db"), args.items).try_lane("ledger");
    let import = import(owner, place.join("import"), args.items).try_lane("import");
    let render = AssertUnwindSafe(render(owner, args.items).try_lane("render")).catch_unwind();
    let export = export(owner, args.items).try_lane("export");
    let export = timeout(Duration::from_millis(args.patience), export);
    let (ledger, import, render, export) = tokio::join!(ledger, import, render, export);
    match ledger {
        Ok(rows) => println!("ledger: {rows} rows"),
        Err(error) => println!("ledger: {error:#}"),
    }
    match import {
        Ok(()) => println!("import: done"),
        Err(error) => println!("import: {error:#}"),
    }
    match render {
        Ok(Ok(())) => println!("render: done"),
        Ok(Err(error)) => println!("render: {error:#}"),
        Err(panic) => println!("render: panicked: {}", panic.downcast_ref().unwrap_or(&"?")),
    }
    match export {
        Ok(Ok(())) => println!("export: done"),
        Ok(Err(error)) => println!("export: {error:#}"),
        Err(_) => println!("export: given up"),
    }
}

/// Succeeds. A database is released by closing it, which writes what is left of its journal.
async fn ledger(owner: &Owner, file: PathBuf, rows: u32) -> anyhow::Result<i64> {
    let open = async {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Normal);
        let mut database = SqliteConnection::connect_with(&options).await?;
        sqlx::query("CREATE TABLE entries (amount INTEGER NOT NULL)").execute(&mut database).await?;
        ACQUIRED.fetch_add(1, Ordering::Relaxed);
        Ok(database)
    };
    let insert = async |database: &mut SqliteConnection| {
        for amount in 0..rows {
            sqlx::query("INSERT INTO entries (amount) VALUES (?)")
                .bind(amount)
                .execute(&mut *database)
                .await?;
        }
        Ok(sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(database).await?)
    };
    let close = |database: SqliteConnection| {
        let close = async {
            database.close().await?;
            released("the database is closed")
        };
        close.lane("close the database")
    };
    Ok(bracket(owner, open, insert, close).await?)
}

/// Fails half way. A folder is released by removing it.
async fn import(owner: &Owner, folder: PathBuf, files: u32) -> anyhow::Result<()> {
    let create = async {
        fs::create_dir(&folder).await?;
        ACQUIRED.fetch_add(1, Ordering::Relaxed);
        Ok(folder.clone())
    };
    let write = async |folder: &mut PathBuf| {
        for number in 0..files {
            let name = if number == files / 2 { "missing/file".into() } else { number.to_string() };
            fs::write(folder.join(&name), "imported")
                .await
                .with_context(|| format!("cannot write {name}"))?;
        }
        Ok(())
    };
    let remove = |folder: PathBuf| {
        let remove = async move {
            fs::remove_dir_all(folder).await?;
            released("the folder is removed")
        };
        remove.lane("remove the folder")
    };
    Ok(bracket(owner, create, write, remove).await?)
}

/// Panics half way. (Not `panic!`, which would print its message a second time.)
async fn render(owner: &Owner, lines: u32) -> anyhow::Result<()> {
    let ask = async |helper: &mut Helper| {
        for number in 0..lines.div_ceil(2) {
            helper.ask(number).await?;
        }
        std::panic::resume_unwind(Box::new("a page of negative width"))
    };
    Ok(bracket(owner, async { Helper::start() }, ask, |helper| helper.end("render").lane("end the child"))
        .await?)
}

/// Its caller gives up before it is done.
async fn export(owner: &Owner, lines: u32) -> anyhow::Result<()> {
    let ask = async |helper: &mut Helper| {
        for number in 0..lines {
            helper.ask(number).await?;
        }
        Ok(())
    };
    Ok(bracket(owner, async { Helper::start() }, ask, |helper| helper.end("export").lane("end the child"))
        .await?)
}

/// A child process that answers lines. If even its release is lost, it is killed.
struct Helper {
    process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    fn start() -> anyhow::Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        program.arg("--child").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C in a terminal goes to the whole group; the child ends when it is told to.
        #[cfg(unix)]
        program.process_group(0);
        let mut process = program.spawn().context("cannot start a child process")?;
        let questions = process.stdin.take().context("its input is a pipe")?;
        let answers = BufReader::new(process.stdout.take().context("its output is a pipe")?).lines();
        ACQUIRED.fetch_add(1, Ordering::Relaxed);
        Ok(Helper { process, questions, answers })
    }

    async fn ask(&mut self, number: u32) -> anyhow::Result<String> {
        self.questions.write_all(format!("{number}\n").as_bytes()).await?;
        self.answers.next_line().await?.context("the child has ended")
    }

    /// Closes its input, upon which it ends, and waits for that.
    async fn end(self, whose: &str) -> anyhow::Result<()> {
        let Helper { mut process, questions, answers } = self;
        drop((questions, answers));
        let status = process.wait().await?;
        released(&format!("the child of {whose} has ended, {status}"))
    }
}

async fn child() -> anyhow::Result<ExitCode> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut answers = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        sleep(Duration::from_millis(5)).await;
        // Nobody may want the answer any more.
        let _ = answers.write_all(format!("{line} is drawn\n").as_bytes()).await;
        let _ = answers.flush().await;
    }
    sleep(Duration::from_millis(30)).await;
    Ok(ExitCode::SUCCESS)
}
