//! Sharing state: locks, waiting for a change, and doing without.

pub mod barrier;
pub mod condition;
pub mod event;
pub mod shared_state;
pub mod snapshot;

pub use self::barrier::{Barrier, Round};
pub use self::condition::Condition;
pub use self::event::Event;
pub use self::shared_state::{Shared, Unusable, update};
pub use self::snapshot::{Snapshot, Writer};
