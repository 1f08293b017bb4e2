//! Acquire, use, release: cleanup that runs whatever happens.

pub mod bracket;
pub mod exit_stack;
pub mod shield;

pub use bracket::{Failed, bracket};
pub use exit_stack::{ExitStack, Unclean};
pub use shield::{AnyError, Failure, Owner, OwnerReport, shield};
