//! Creation, lifetime, shutdown: who owns a task, and how it ends.

pub mod background;
pub mod cancellation;
pub mod shutdown;

pub use self::background::{Background, NoResult, background};
pub use self::cancellation::{Cancellation, Cancelled, Overstayed};
pub use self::shutdown::{Phase, Report, Shutdown, Stopping, signals};
