//! Deadlines, retry, hedging: how long to wait, and what then.

pub mod hedge;
pub mod retry;
pub mod retry_budget;

pub use self::hedge::{BothFailed, Latencies, NoQuantile, hedge};
pub use self::retry::{Failed, GaveUp, Reason, Retry, Verdict, retry};
pub use self::retry_budget::{Extra, RetryBudget};
