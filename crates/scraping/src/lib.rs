//! Fetching politely: clients, bodies, robots.txt, pacing.

pub mod address_guard;
pub mod http_client;

pub use address_guard::{AddressGuard, Reason, Refused, is_public};
pub use http_client::{HttpClient, HttpError, Limit, Limits, TimedOut};
