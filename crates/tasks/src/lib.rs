//! Creation, lifetime, shutdown: who owns a task, and how it ends.
