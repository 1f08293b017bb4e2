//! Databases: many queries at once, transactions, streams of rows.

#[cfg(feature = "postgres")]
pub mod job_queue;

#[cfg(feature = "postgres")]
pub use self::job_queue::JobQueue;
