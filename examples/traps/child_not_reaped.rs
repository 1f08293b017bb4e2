//! The mistake: a child process whose owner is dropped, in the belief that the process ends with it.
//!
//! Symptom: the process runs on, and nobody holds it any more.
//! Cause: dropping tokio's `Child` neither kills the process nor waits for it, as in the standard library.
//! Fix: `kill_on_drop` for the signal; a reaper where the end must be awaited, because something is to be done after it.
//!
//! The picture varies with the machine's load: the processes are real.
//!
//! ```console
//! cargo run --example trap_child_not_reaped
//! ```

use std::future::pending;
use std::io;
use std::num::NonZeroUsize;
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use context_managers::{Counts, Limits, Reaper};
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::join;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A process that answers each line with the same line, in a folder of its own.
fn echo(folder: &TempDir, kill_on_drop: bool) -> io::Result<Child> {
    let mut command = Command::new("cat");
    command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.kill_on_drop(kill_on_drop).spawn()
}

// ANCHOR: wrong
/// Owns a process and its folder until it is dropped. Does the process still answer then?
pub async fn wrong(kill_on_drop: bool) -> io::Result<bool> {
    let own = async |child: Child, folder: TempDir| {
        let _owned = (child, folder);
        pending().await
    };
    still_answers(kill_on_drop, own, async || ()).await
}
// ANCHOR_END: wrong

// ANCHOR: right
/// The reaper ends the process, waits for it, and then removes its folder, which nobody uses any more.
pub async fn right() -> io::Result<(bool, Counts)> {
    let limits = Limits { capacity: FOUR, at_once: FOUR, each: Duration::from_secs(5) };
    let end = |(mut child, folder): (Child, TempDir)| {
        let end = async move {
            child.kill().await?;
            folder.close()
        };
        end.try_lane("reaper")
    };
    let reaper = Reaper::new(limits, end, |name, fault| eprintln!("{name}: {fault:?}"));
    let own = async |child, folder| {
        if let Some(place) = reaper.reserve().await {
            let _guard = place.guard("cat", (child, folder));
            pending().await
        }
    };
    let drained = async || _ = reaper.drain().await;
    let answers = still_answers(true, own, drained).await?;
    Ok((answers, reaper.counts()))
}
// ANCHOR_END: right

const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Gives a process to an owner, drops the owner after a while, and asks the process whether it is there.
async fn still_answers(
    kill_on_drop: bool,
    own: impl AsyncFnOnce(Child, TempDir),
    end: impl AsyncFnOnce(),
) -> io::Result<bool> {
    let folder = TempDir::new()?;
    let mut child = echo(&folder, kill_on_drop)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let (sender, dropped) = oneshot::channel::<()>();
    let owner = async move {
        let _ = timeout(Duration::from_millis(50), own(child, folder).lane("owner")).await;
        end().await;
        drop(sender);
    };
    let process = async move {
        let mut stdout = BufReader::new(stdout);
        let _ = waiting("io", dropped).await;
        // A process that has ended neither takes the line nor gives one.
        let _ = stdin.write_all(b"still there?\n").await;
        let answers = stdout.read_line(&mut String::new()).await? > 0;
        // A process that is there: give it some time to be seen, and end it.
        let _ = waiting("timer", timeout(Duration::from_millis(30), stdout.read_u8())).await;
        drop(stdin);
        stdout.read_to_end(&mut Vec::new()).await?;
        Ok(answers)
    };
    join!(process.try_lane("process"), owner).0
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args = PictureArgs::parse();
    let say = |answers| if answers { "still answers" } else { "has ended" };
    let (answers, left) = record("dropped", wrong(false)).await;
    println!("dropped:              the process {}", say(answers?));
    println!("with kill_on_drop:    the process {}", say(wrong(true).await?));
    let (seen, right) = record("reaper", right()).await;
    let (answers, counts) = seen?;
    println!("guarded by a reaper:  the process {}, and {} was waited for", say(answers), counts.cleaned);
    args.show(&left.beside(right))
}
