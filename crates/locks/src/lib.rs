//! Sharing state: locks, waiting for a change, and doing without.

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
