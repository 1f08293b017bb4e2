//! A paused clock that waits for SQLite.

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// While it lives the paused clock stands still: SQLite works on threads that tokio does not know of.
pub(crate) struct Still {
    _alive: oneshot::Sender<()>,
}

impl Still {
    pub(crate) fn new() -> Self {
        let (alive, gone) = oneshot::channel();
        drop(spawn_blocking(move || gone.blocking_recv()));
        Still { _alive: alive }
    }
}
