//! Acquire, use, release: cleanup that runs whatever happens.

pub mod reaper;

pub use self::reaper::{Counts, Fault, Limits, Place, Reaped, Reaper};
