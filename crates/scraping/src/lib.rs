//! Fetching politely: clients, bodies, robots.txt, pacing.

pub mod address_guard;
pub mod bounded_body;
pub mod fetch_all;
pub mod host_pacing;
pub mod http_client;
pub mod polite_frontier;
pub mod robots;

pub use self::address_guard::{AddressGuard, Reason, Refused, is_public};
pub use self::bounded_body::{BodyBudget, BodyError, BoundedBody};
pub use self::fetch_all::{FetchError, Missing, Page, fetch_all, fetch_page};
pub use self::host_pacing::{Answer, HostPace, retry_after};
pub use self::http_client::{HttpClient, HttpError, Limit, Limits, TimedOut};
pub use self::polite_frontier::{Politeness, Visit, polite_frontier};
pub use self::robots::{Access, Fetched, ROBOTS_BYTES, Robots};
