//! Databases: many queries at once, transactions, streams of rows.

pub mod user_page;

pub use self::user_page::{AcquireError, FanOut, Lease, NoPlace};
