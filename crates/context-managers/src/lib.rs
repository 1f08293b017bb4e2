//! Acquire, use, release: cleanup that runs whatever happens.

pub mod bracket;
pub mod exit_stack;
pub mod pool;
pub mod reaper;
pub mod shield;

pub use self::bracket::{Failed, bracket};
pub use self::exit_stack::{ExitStack, Unclean};
pub use self::pool::{CheckoutError, Manage, Pool, Pooled, Rules};
pub use self::reaper::{Counts, Fault, Limits, Place, Reaped, Reaper};
pub use self::shield::{AnyError, Failure, Owner, OwnerReport, shield};
