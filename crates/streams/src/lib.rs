//! Async iteration: making streams, joining, pacing and sharing them.

pub mod generator;
pub mod merge;
pub mod ordered_merge;
pub mod paginate;

pub use generator::{Items, by_hand, by_macro, by_unfold};
pub use merge::{Merge, merge};
pub use ordered_merge::{OrderedMerge, OrderedMergeError, ordered_merge};
pub use paginate::{Page, PageError, Paginate, Position, paginate};
