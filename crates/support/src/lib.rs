//! What the cookbook's examples and tests share. No recipe depends on it.
//!
//! | module | what it does |
//! |---|---|
//! | [`lanes`] | records which future waited for what and until when, and draws it |
//! | [`sweep`] | drops a future at every suspension point and checks that nothing leaks |
//! | [`api`] | a small local HTTP server with latency, faults and a concurrency gauge |
//! | `services` | finds or starts PostgreSQL, NATS and Redis (feature `services`) |
//! | [`telemetry`] | sets up `tracing` for the examples |

#[cfg(feature = "api")]
pub mod api;
#[cfg(doctest)]
mod compile_errors;
#[cfg(feature = "lanes")]
pub mod lanes;
#[cfg(all(feature = "services", unix))]
pub mod services;
#[cfg(feature = "sweep")]
pub mod sweep;
#[cfg(feature = "telemetry")]
pub mod telemetry;
