//! Queues, pools, batching: handing work from task to task.
