//! Limits: how many at a time, and how many a second.

pub mod adaptive_limit;
pub mod concurrency_limit;
pub mod keyed_limit;
pub mod rate_limit;
pub mod weighted_limit;
pub mod window_limit;

pub use self::adaptive_limit::{AdaptiveLimit, Rules, Verdict};
pub use self::concurrency_limit::{ConcurrencyLimit, Held};
pub use self::keyed_limit::{KeyPermit, KeyedLimit};
pub use self::rate_limit::{Rate, RateLimit, TooLarge};
pub use self::weighted_limit::{Share, TooHeavy, WeightedLimit};
pub use self::window_limit::{WindowLimit, WindowPermit};
