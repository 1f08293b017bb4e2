//! Databases: many queries at once, transactions, streams of rows.

pub mod bulk_insert;
#[cfg(feature = "postgres")]
pub mod job_queue;
pub mod row_loader;
pub mod row_stream;
pub mod sqlite_writer;
pub mod transaction;
pub mod user_page;

pub use self::bulk_insert::{Rejected, Report, Stopped, bulk_insert};
#[cfg(feature = "postgres")]
pub use self::job_queue::JobQueue;
pub use self::row_loader::{RowLoader, rows_by_key};
pub use self::row_stream::{Unread, row_stream};
pub use self::sqlite_writer::{WriteError, Writer, sqlite_writer};
pub use self::transaction::{ATTEMPTS, Failed, Open, transaction};
pub use self::user_page::{AcquireError, FanOut, Lease, NoPlace};
