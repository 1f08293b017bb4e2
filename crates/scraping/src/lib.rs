//! Fetching politely: clients, bodies, robots.txt, pacing.

pub mod robots;

pub use robots::{Access, Fetched, ROBOTS_BYTES, Robots};
