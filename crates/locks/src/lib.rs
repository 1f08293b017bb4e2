//! Sharing state: locks, waiting for a change, and doing without.
