//! Deadlines, retry, hedging: how long to wait, and what then.
