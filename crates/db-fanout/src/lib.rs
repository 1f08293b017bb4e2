//! Databases: many queries at once, transactions, streams of rows.

pub mod bulk_insert;
pub mod sqlite_writer;
pub mod transaction;

pub use self::bulk_insert::{Rejected, Report, Stopped, bulk_insert};
pub use self::sqlite_writer::{WriteError, Writer, sqlite_writer};
pub use self::transaction::{ATTEMPTS, Failed, Open, transaction};
