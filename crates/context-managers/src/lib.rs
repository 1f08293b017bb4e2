//! Acquire, use, release: cleanup that runs whatever happens.
