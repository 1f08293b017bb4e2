//! `tracing` for the examples: one line per event on stderr, chosen by `RUST_LOG`.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Instant;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;

/// Prints events to stderr. `RUST_LOG` chooses which: a level (`debug`) or levels by target
/// (`warn,hyper=info,gather=trace`); without it, warnings and errors. Colour appears only on a terminal, and
/// never with `NO_COLOR`. A second call, or one after another subscriber was set, changes nothing.
pub fn init() {
    let value = env::var_os("RUST_LOG").unwrap_or_default().to_string_lossy().into_owned();
    let (targets, problem) = targets(&value);
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = tracing_subscriber::fmt::layer()
        .compact()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_timer(SinceStart(Instant::now()))
        .with_filter(targets);
    let first = tracing_subscriber::registry().with(layer).try_init().is_ok();
    if first && let Some(problem) = problem {
        eprintln!("{problem}");
    }
}

/// What to print, and what is wrong with the value if it had to be replaced.
fn targets(value: &str) -> (Targets, Option<String>) {
    let default = Targets::new().with_default(LevelFilter::WARN);
    if value.trim().is_empty() {
        return (default, None);
    }
    match value.parse() {
        Ok(targets) => (targets, None),
        Err(error) => (default, Some(format!("RUST_LOG={value}: {error}; using RUST_LOG=warn"))),
    }
}

/// Milliseconds since the program started: short, and enough to see what came after what.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>5} ms", self.0.elapsed().as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use tracing::Level;

    /// Not a test of its own: what the other tests run in a process of its own, whose stderr they read.
    #[test]
    #[ignore = "run by the other tests"]
    fn child() {
        init();
        init();
        tracing::warn!(user = 7, "slow answer");
        tracing::info!("detail");
    }

    fn stderr_of_child(rust_log: Option<&str>) -> Vec<String> {
        let program = env::current_exe().expect("the test's own program");
        let mut command = Command::new(program);
        command.args(["telemetry::tests::child", "--exact", "--ignored", "--nocapture"]);
        command.env_remove("RUST_LOG").env_remove("NO_COLOR").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(rust_log.map(|value| ("RUST_LOG", value)));
        let output = command.spawn().and_then(|child| child.wait_with_output()).expect("the child runs");
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).expect("stderr is text");
        stderr.lines().map(str::to_owned).collect()
    }

    #[test]
    fn warnings_are_the_default_and_lines_are_short() {
        let lines = stderr_of_child(None);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (milliseconds, event) = lines[0].split_once(" ms  WARN ").expect("time, then level");
        assert!(milliseconds.trim().parse::<u64>().is_ok(), "{lines:?}");
        assert_eq!(event, "support::telemetry::tests: slow answer user=7", "no colour codes: not a terminal");
    }

    #[test]
    fn rust_log_chooses_by_level_and_target() {
        assert_eq!(stderr_of_child(Some("info")).len(), 2);
        assert_eq!(stderr_of_child(Some("error,support=info")).len(), 2);
        assert_eq!(stderr_of_child(Some("info,support=off")).len(), 0);
        assert_eq!(stderr_of_child(Some(" ")).len(), 1);
    }

    #[test]
    fn a_malformed_value_is_one_line_and_the_default() {
        let lines = stderr_of_child(Some("support=loud"));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("RUST_LOG=support=loud: "), "{lines:?}");
        assert!(lines[0].ends_with("; using RUST_LOG=warn"), "{lines:?}");
        assert!(lines[1].contains("slow answer"), "{lines:?}");
    }

    #[test]
    fn the_default_lets_no_information_through() {
        let (targets, problem) = targets("");
        assert!(targets.would_enable("any", &Level::WARN) && !targets.would_enable("any", &Level::INFO));
        assert_eq!(problem, None);
    }
}
