//! Sharing state: locks, waiting for a change, and doing without.

pub mod actor;
pub mod keyed_mutex;
pub mod single_flight;

pub use self::actor::{Actor, Address, AskError, Request, StopError};
pub use self::keyed_mutex::{KeyGuard, KeyedMutex};
pub use self::single_flight::{NoAnswer, SingleFlight};
