//! Databases: many queries at once, transactions, streams of rows.

pub mod row_loader;
pub mod row_stream;
pub mod user_page;

pub use self::row_loader::{RowLoader, rows_by_key};
pub use self::row_stream::{Unread, row_stream};
pub use self::user_page::{AcquireError, FanOut, Lease, NoPlace};
