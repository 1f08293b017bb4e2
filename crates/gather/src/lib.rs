//! Concurrent execution and errors: many futures, one result.

pub mod batches;
pub mod gather;
pub mod map_concurrent;
pub mod map_ordered;
pub mod race;
pub mod settle;
pub mod task_group;
pub mod try_gather;

pub use self::batches::batches;
pub use self::gather::gather;
pub use self::map_concurrent::map_concurrent;
pub use self::map_ordered::{InOrder, map_ordered, map_ordered_window};
pub use self::race::{Lost, Won, quorum, race};
pub use self::settle::{Failure, Outcome, Split, settle, settle_within, split};
pub use self::task_group::{Rules, Scope, Stopped, Stopping, TaskGroup};
pub use self::try_gather::{Failed, try_gather};
