//! Sync and CPU work: keeping it off the threads that await.

pub mod cpu_pool;
pub mod files;
pub mod offload;
pub mod sync_facade;
pub mod watchdog;

pub use self::cpu_pool::{CpuPool, cpu_pool};
pub use self::files::{FileError, read_file, replace_file};
pub use self::offload::{BlockingThreads, Caller, NotRun, Offload, Threads};
pub use self::sync_facade::{InsideRuntime, SyncFacade};
pub use self::watchdog::{Checks, Stall, Watchdog};
