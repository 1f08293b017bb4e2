//! Creation, lifetime, shutdown: who owns a task, and how it ends.

pub mod background;
pub mod cancellation;
pub mod context;
pub mod periodic;
pub mod shutdown;
pub mod supervisor;

pub use self::background::{Background, NoResult, background};
pub use self::cancellation::{Cancellation, Cancelled, Overstayed};
pub use self::context::{blocking_in_context, in_context};
pub use self::periodic::{MissedTickBehavior, Periodic, Tick, ZeroPeriod};
pub use self::shutdown::{Phase, Report, Shutdown, Stopping, signals};
pub use self::supervisor::{Cause, Failure, GaveUp, Restarts, supervise};
