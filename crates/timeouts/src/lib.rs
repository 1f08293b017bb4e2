//! Deadlines, retry, hedging: how long to wait, and what then.

pub mod circuit_breaker;
pub mod deadline;
pub mod hedge;
pub mod poll_until;
pub mod retry;
pub mod retry_budget;
pub mod timeout;

pub use self::circuit_breaker::{BreakerError, BreakerRules, BreakerState, CircuitBreaker};
pub use self::deadline::{Deadline, Expired};
pub use self::hedge::{BothFailed, Latencies, NoQuantile, hedge};
pub use self::poll_until::{Polling, Unmet, poll_until};
pub use self::retry::{Failed, GaveUp, Reason, Retry, Verdict, retry};
pub use self::retry_budget::{Extra, RetryBudget};
pub use self::timeout::{Late, Limit, TimedOut, timeout, timeout_or_detach};
