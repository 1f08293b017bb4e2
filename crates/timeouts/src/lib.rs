//! Deadlines, retry, hedging: how long to wait, and what then.

pub mod circuit_breaker;
pub mod deadline;
pub mod poll_until;
pub mod timeout;

pub use circuit_breaker::{BreakerError, BreakerRules, BreakerState, CircuitBreaker};
pub use deadline::{Deadline, Expired};
pub use poll_until::{Polling, Unmet, poll_until};
pub use timeout::{Late, Limit, TimedOut, timeout, timeout_or_detach};
