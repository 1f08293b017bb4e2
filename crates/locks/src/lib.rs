//! Sharing state: locks, waiting for a change, and doing without.
//!
//! The compiler refuses a task that holds the guard of a `std::sync::Mutex` across an await, because such a guard must not
//! move to another thread:
//!
// ANCHOR: send
//! ```compile_fail
//! use std::sync::{Arc, Mutex};
//! async fn save() {}
//! #[tokio::main]
//! async fn main() {
//!     let count = Arc::new(Mutex::new(0));
//!     let task = tokio::spawn(async move {
//!         let mut count = count.lock().unwrap();
//!         *count += 1;
//!         save().await; // error: future cannot be sent between threads safely
//!     });
//!     assert!(task.await.is_ok());
//! }
//! ```
// ANCHOR_END: send
//!
//! With [`Shared`] there is no guard to hold:
//!
// ANCHOR: passes
//! ```
//! use std::sync::Arc;
//! async fn save() {}
//! #[tokio::main]
//! async fn main() {
//!     let count = Arc::new(locks::Shared::new(0));
//!     let task = tokio::spawn(async move {
//!         count.with(|count| *count += 1).unwrap();
//!         save().await;
//!     });
//!     assert!(task.await.is_ok());
//! }
//! ```
// ANCHOR_END: passes

pub mod actor;
pub mod barrier;
pub mod condition;
pub mod event;
pub mod keyed_mutex;
pub mod shared_state;
pub mod single_flight;
pub mod snapshot;

pub use self::actor::{Actor, Address, AskError, Request, StopError};
pub use self::barrier::{Barrier, Round};
pub use self::condition::Condition;
pub use self::event::Event;
pub use self::keyed_mutex::{KeyGuard, KeyedMutex};
pub use self::shared_state::{Shared, Unusable, update};
pub use self::single_flight::{NoAnswer, SingleFlight};
pub use self::snapshot::{Snapshot, Writer};
