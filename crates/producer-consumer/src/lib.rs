//! Queues, pools, batching: handing work from task to task.

pub mod batcher;
pub mod pipeline;
pub mod work_queue;
pub mod worker_pool;

pub use self::batcher::Batcher;
pub use self::pipeline::{feed, stage, stage_in_order};
pub use self::work_queue::{Batch, Closed, Lease, Slot, WorkQueue};
pub use self::worker_pool::{DeadLetter, Failure, worker_pool};
