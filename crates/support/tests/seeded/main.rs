//! The sweep on trial: each module holds bugs that real programs had, and each bug has a corrected twin.
//!
//! A scene is written once, with a `const FIXED: bool` that makes the difference. The sweep must find the bug, at the
//! kind of point where it hides, and must find nothing in the twin.

mod cleanup;
mod items;
mod permits;
mod tasks;

use std::time::Duration;

use support::sweep::{Parts, Report, Scene, explore};
use tokio::task::JoinError;
use tokio::time::{Sleep, sleep};

/// Asserts that a sweep finds `bug`, at a point whose name contains `at`, and nothing in `twin`.
fn proves<T: 'static>(bug: impl Fn(&Parts) -> Scene<T>, twin: impl Fn(&Parts) -> Scene<T>, at: &str) {
    let report = explore(bug);
    println!("bug: {report}");
    assert!(report.violations.iter().any(|(point, _)| point.contains(at)), "not found at {at}: {report}");

    let report = explore(twin);
    println!("twin: {report}");
    assert!(report.violations.is_empty(), "a false alarm: {report}");
    let Report { points, triggers, triggered_points, .. } = report;
    assert!(points + triggers + triggered_points >= 5, "hardly tried: {report}");
}

/// Work that takes a while: a request, a query, a write.
fn work() -> Sleep {
    sleep(Duration::from_millis(2))
}

/// Half of that, so that it ends while somebody works.
fn moment() -> Sleep {
    sleep(Duration::from_millis(1))
}

/// Passes a child's panic on to the caller, and its abortion as `None`.
fn passed_on<T>(joined: Result<T, JoinError>) -> Option<T> {
    joined.map_err(|error| error.try_into_panic().map(|panic| std::panic::resume_unwind(panic))).ok()
}
