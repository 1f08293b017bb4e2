//! Concurrent execution and errors: many futures, one result.

pub mod gather;
pub mod race;
pub mod try_gather;

pub use self::gather::gather;
pub use self::race::{Lost, Won, quorum, race};
pub use self::try_gather::{Failed, try_gather};
