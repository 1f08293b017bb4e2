//! Acquire, use, release: cleanup that runs whatever happens.

pub mod pool;
pub mod reaper;

pub use self::pool::{CheckoutError, Manage, Pool, Pooled, Rules};
pub use self::reaper::{Counts, Fault, Limits, Place, Reaped, Reaper};
