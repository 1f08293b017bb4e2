//! Fetching politely: clients, bodies, robots.txt, pacing.

pub mod host_pacing;
pub mod polite_frontier;
pub mod robots;

pub use host_pacing::{Answer, HostPace, retry_after};
pub use polite_frontier::{Politeness, Visit, polite_frontier};
pub use robots::{Access, Fetched, ROBOTS_BYTES, Robots};
