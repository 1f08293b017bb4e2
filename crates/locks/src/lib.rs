//! Sharing state: locks, waiting for a change, and doing without.

pub mod keyed_mutex;
pub mod single_flight;

pub use keyed_mutex::{KeyGuard, KeyedMutex};
pub use single_flight::{NoAnswer, SingleFlight};
