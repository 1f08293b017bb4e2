//! WebSockets: one message to many clients, slow ones among them.

pub mod frame_writer;
pub mod hub;

pub use self::frame_writer::{BatchLimit, WriteError, write_frames};
pub use self::hub::{Delivery, Hub, QueueLimit, Subscription};
