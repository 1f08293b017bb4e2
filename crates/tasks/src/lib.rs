//! Creation, lifetime, shutdown: who owns a task, and how it ends.

pub mod context;
pub mod periodic;
pub mod supervisor;

pub use self::context::{blocking_in_context, in_context};
pub use self::periodic::{MissedTickBehavior, Periodic, Tick, ZeroPeriod};
pub use self::supervisor::{Cause, Failure, GaveUp, Restarts, supervise};
