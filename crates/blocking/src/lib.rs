//! Sync and CPU work: keeping it off the threads that await.
