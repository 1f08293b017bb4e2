//! Fetching politely: clients, bodies, robots.txt, pacing.

pub mod address_guard;
pub mod bounded_body;
pub mod fetch_all;
pub mod http_client;

pub use address_guard::{AddressGuard, Reason, Refused, is_public};
pub use bounded_body::{BodyBudget, BodyError, BoundedBody};
pub use fetch_all::{FetchError, Missing, Page, fetch_all, fetch_page};
pub use http_client::{HttpClient, HttpError, Limit, Limits, TimedOut};
