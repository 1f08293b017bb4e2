//! Queues, pools, batching: handing work from task to task.

pub mod batch_loader;
pub mod batcher;
pub mod lossy_queue;
pub mod pipeline;
pub mod priority_queue;
pub mod work_queue;
pub mod worker_pool;

pub use self::batch_loader::{BatchLoader, LoadError};
pub use self::batcher::Batcher;
pub use self::lossy_queue::{
    LossyReceiver, LossySender, Overflow, Received, ReceiverGone, latest_queue, lossy_queue,
};
pub use self::pipeline::{feed, stage, stage_in_order};
pub use self::priority_queue::{Place, PriorityQueue, Rejected};
pub use self::work_queue::{Batch, Closed, Lease, Slot, WorkQueue};
pub use self::worker_pool::{DeadLetter, Failure, worker_pool};
