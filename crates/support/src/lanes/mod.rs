//! Records which future waited for what and until when, and draws it.
//!
//! An example names a lane where it would name a span, and says what a wait is for:
//!
//! ```
//! use std::time::Duration;
//! use support::lanes::{LaneExt, Style, record, waiting};
//! use tokio::{join, sync::Semaphore, time::sleep};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let limit = Semaphore::new(1);
//! let fetch = async |n: u64| {
//!     let _permit = waiting("permit", limit.acquire()).await;
//!     sleep(Duration::from_millis(n * 10)).await
//! };
//! let both = async { join!(fetch(1).lane("fetch 1"), fetch(2).lane("fetch 2")) };
//! let (_, picture) = record("gather", both).await;
//!
//! assert_eq!(picture.caption(), "2 fetches, 1 at a time: all ok; 30 ms one by one");
//! println!("{}", picture.text(100, Style::UNICODE));
//! # }
//! ```
//!
//! **Who owns whom.** A lane belongs to the lane in which `.lane()` was called, even when it is then given to
//! `tokio::spawn`; one that is first polled by a lane further inside, `timeout(limit, work.lane("work")).try_lane("call")`,
//! belongs to that one. In a spawned task that has no lane of its own there is no such lane to see: what is named there belongs
//! to the root of the recording that runs in the same runtime, unless several do, and then it is not recorded.
//!
//! **Outside [`record`]** every wrapper hands each poll through and notes nothing.
//!
//! **What counts as started.** A lane that was never polled, or that never got past waiting for a permit or a lock, has
//! not started. **At a time** counts lanes that wait for neither a permit, a lock nor a queue.
//!
//! **What counts as a leak.** A lane that is alive when [`record`] returns, or that runs on after its owner's end. A task
//! that was aborted with its owner is dropped by the runtime a moment later; that is not a leak. [`record`] lets the
//! runtime do so before it returns. How a lane ends after that cannot be seen: it is shown as still running.
//!
//! **Recordings nest**: lanes named inside an inner [`record`] belong to the inner picture only.
//!
//! **A closed pipe** (`... | head -1`) ends the process with code 141 and without a message, once something was recorded:
//! `println!` alone would panic.
//!
//! **Time** is `tokio::time`, so that under a paused clock a run draws the same picture every time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod facts;
mod record;
mod svg;
mod terminal;
mod trace;

pub use record::{Lane, LaneExt, Waiting, level, record, try_record, waiting};

use facts::Panel;

/// Columns of a picture that does not go to a terminal.
const COLUMNS: usize = 100;

/// What a future waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A socket, a file, another process: what a lane waits for when nobody says otherwise.
    Io,
    /// A moment in time.
    Timer,
    /// A permit of a semaphore or a pool.
    Permit,
    /// A mutex or another lock.
    Lock,
    /// Room in a queue, or an item from it.
    Queue,
    /// Its children: what a lane waits for while lanes of its own are alive, when nobody says otherwise.
    Join,
    /// Anything else, in the caller's words.
    Other(&'static str),
}

impl Reason {
    /// The word in the legend: `io`, `timer`, `permit`, `lock`, `queue`, `join`, or the caller's own.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Io => "io",
            Reason::Timer => "timer",
            Reason::Permit => "permit",
            Reason::Lock => "lock",
            Reason::Queue => "queue",
            Reason::Join => "join",
            Reason::Other(name) => name,
        }
    }
}

impl From<&'static str> for Reason {
    fn from(name: &'static str) -> Self {
        match name {
            "io" => Reason::Io,
            "timer" => Reason::Timer,
            "permit" => Reason::Permit,
            "lock" => Reason::Lock,
            "queue" => Reason::Queue,
            "join" => Reason::Join,
            other => Reason::Other(other),
        }
    }
}

/// How a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// It returned.
    Ok,
    /// It returned an error.
    Error,
    /// It was dropped before it returned.
    Cancelled,
    /// It returned because its time was up.
    TimedOut,
    /// It panicked.
    Panicked,
}

/// What a lane did for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// It had been named and not yet polled.
    NotStarted,
    /// It was suspended.
    Waiting(Reason),
    /// One poll of its own code took a millisecond or more: it kept a thread of the runtime from everything else.
    Busy,
}

/// A part of a lane's bar. Times count from the start of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What the lane did.
    pub activity: Activity,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
}

/// What is known of one lane. Times count from the start of the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneFacts {
    /// The name that it was given.
    pub name: String,
    /// 0 for the root, 1 for the lanes named in it, and so on.
    pub depth: usize,
    /// The place of its owner in [`Picture::lanes`]; `None` for the root.
    pub owner: Option<usize>,
    /// How it ended; `None` when it was still running.
    pub end: Option<End>,
    /// The error, for a lane made by [`LaneExt::try_lane`] that returned one.
    pub message: Option<String>,
    /// Whether it did more than wait for its first poll, a permit or a lock.
    pub started: bool,
    /// When it was named.
    pub from: Duration,
    /// When it ended, or when the recording did.
    pub to: Duration,
    /// How often it was polled.
    pub polls: u64,
    /// Whether it outlived its owner or the recording.
    pub leaked: bool,
    /// What it did from `from` to `to`, without gaps.
    pub spans: Vec<Span>,
}

impl LaneFacts {
    /// How long it waited for `reason` in all.
    pub fn waited(&self, reason: impl Into<Reason>) -> Duration {
        self.time_in(Activity::Waiting(reason.into()))
    }

    /// How long it kept a thread busy, counting polls of a millisecond or more.
    pub fn busy(&self) -> Duration {
        self.time_in(Activity::Busy)
    }

    fn time_in(&self, activity: Activity) -> Duration {
        self.spans.iter().filter(|span| span.activity == activity).map(|span| span.to - span.from).sum()
    }
}

/// How a picture looks in a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Nothing but ASCII: a letter of a name that is not becomes a question mark.
    pub ascii: bool,
    /// Colour, as escape sequences. Nothing is told by colour alone.
    pub colour: bool,
}

impl Style {
    /// Unicode without colour.
    pub const UNICODE: Style = Style { ascii: false, colour: false };
    /// ASCII without colour.
    pub const ASCII: Style = Style { ascii: true, colour: false };
}

/// A recorded run, or several on one time axis.
#[derive(Clone, Debug)]
pub struct Picture {
    panels: Vec<Panel>,
}

impl Picture {
    /// What happened, in a sentence computed from the run. Of several runs: one line each, opened by its title.
    pub fn caption(&self) -> String {
        match &self.panels[..] {
            [only] => only.caption(),
            panels => {
                let lines = panels.iter().map(|panel| format!("{}: {}", panel.title(), panel.caption()));
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Every lane, each after its owner, siblings in the order in which they were named.
    pub fn lanes(&self) -> Vec<LaneFacts> {
        let mut all: Vec<LaneFacts> = Vec::new();
        for panel in &self.panels {
            let before = all.len();
            all.extend(panel.lanes.iter().cloned().map(|mut lane| {
                lane.owner = lane.owner.map(|owner| owner + before);
                lane
            }));
        }
        all
    }

    /// The picture for a terminal: no line is wider than `width`, which is taken as 24 when it is less.
    pub fn text(&self, width: usize, style: Style) -> String {
        terminal::draw(&self.panels, width, style)
    }

    /// The picture as an SVG file that needs nothing else, follows the reader's light or dark scheme, and runs no script.
    pub fn svg(&self) -> String {
        svg::draw(&self.panels)
    }

    /// The run as trace-event JSON, for <https://ui.perfetto.dev> or `chrome://tracing`.
    pub fn trace(&self) -> String {
        trace::write(&self.panels)
    }

    /// This run above `right` on one time axis, each with its own caption: the wrong way beside the right one.
    pub fn beside(mut self, right: Picture) -> Picture {
        self.panels.extend(right.panels);
        self
    }
}

/// What to do with the picture of an example.
#[derive(clap::Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(about = None, long_about = None)]
pub struct PictureArgs {
    /// Write the picture to FILE as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the run to FILE as trace-event JSON, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Draw the picture with ASCII only
    #[arg(long)]
    pub ascii: bool,
}

impl PictureArgs {
    /// Prints the picture after an empty line, as wide as the terminal, and writes the files that were asked for.
    ///
    /// Colour goes to a terminal only, and to none when `NO_COLOR` is set. What is not a terminal gets 100 columns. That
    /// nobody reads the output on is no error.
    ///
    /// # Errors
    /// Standard output or a file cannot be written; a file's error names it.
    pub fn show(&self, picture: &Picture) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into());
        let colour = out.is_terminal() && out.current_choice() != anstream::ColorChoice::Never;
        let text = picture.text(width.unwrap_or(COLUMNS), Style { ascii: self.ascii, colour });
        match writeln!(out, "\n{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        if let Some(file) = &self.svg {
            write(file, &picture.svg())?;
        }
        if let Some(file) = &self.trace {
            write(file, &picture.trace())?;
        }
        Ok(())
    }
}

fn write(file: &Path, content: &str) -> io::Result<()> {
    fs::write(file, content)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", file.display())))
}
