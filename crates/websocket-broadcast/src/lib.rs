//! WebSockets: one message to many clients, slow ones among them.

pub mod drain;
pub mod frame_writer;
pub mod hang_up;
pub mod heartbeat;
pub mod hub;
pub mod server;

pub use self::drain::{Drain, Ending, Leaving, Report, retry_after};
pub use self::frame_writer::{BatchLimit, WriteError, write_frames};
pub use self::hang_up::{close_code, hang_up, hang_up_stream};
pub use self::heartbeat::{Heartbeat, Lost};
pub use self::hub::{Delivery, Hub, QueueLimit, Subscription};
pub use self::server::{Place, Refused, Rules, Server};
