//! Databases: many queries at once, transactions, streams of rows.

pub mod transaction;

pub use self::transaction::{Failed, Open, Retries, transaction};
