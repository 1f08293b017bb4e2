//! Limits: how many at a time, and how many a second.

pub mod rate_limit;
pub mod window_limit;

pub use rate_limit::{Rate, RateLimit, TooLarge};
pub use window_limit::{WindowLimit, WindowPermit};
