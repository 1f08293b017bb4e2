//! Concurrent execution and errors: many futures, one result.

pub mod gather;

pub use self::gather::gather;
