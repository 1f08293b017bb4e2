//! Async iteration: making streams, joining, pacing and sharing them.
