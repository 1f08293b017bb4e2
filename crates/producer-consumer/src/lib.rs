//! Queues, pools, batching: handing work from task to task.

pub mod batcher;

pub use self::batcher::Batcher;
