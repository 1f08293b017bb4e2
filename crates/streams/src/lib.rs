//! Async iteration: making streams, joining, pacing and sharing them.

pub mod chunks;
pub mod fan_out;
pub mod lossy_channel;
pub mod pace;
pub mod stall_guard;

pub use chunks::{Chunks, chunks};
pub use fan_out::FanOut;
pub use lossy_channel::{Event, Receiver, Sender, WhenFull, lossy_channel};
pub use pace::{Pace, debounce, sample, throttle};
pub use stall_guard::{StallGuard, Stalled};
