//! Queues, pools, batching: handing work from task to task.

pub mod work_queue;

pub use self::work_queue::{Batch, Closed, Lease, Slot, WorkQueue};
