//! Async iteration: making streams, joining, pacing and sharing them.

pub mod chunks;
pub mod fan_out;
pub mod generator;
pub mod lossy_channel;
pub mod merge;
pub mod ordered_merge;
pub mod pace;
pub mod paginate;
pub mod stall_guard;

pub use self::chunks::{Chunks, chunks};
pub use self::fan_out::FanOut;
pub use self::generator::{Items, by_hand, by_macro, by_unfold};
pub use self::lossy_channel::{Event, Receiver, Sender, WhenFull, lossy_channel};
pub use self::merge::{Merge, merge};
pub use self::ordered_merge::{OrderedMerge, OrderedMergeError, ordered_merge};
pub use self::pace::{Pace, debounce, sample, throttle};
pub use self::paginate::{Page, PageError, Paginate, Position, paginate};
pub use self::stall_guard::{StallGuard, Stalled};
