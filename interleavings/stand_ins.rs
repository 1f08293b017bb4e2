//! What the model lacks, as little of it as the recipes use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::sync::{LockResult, MutexGuard};

/// The model's mutex, which tells whether it is poisoned to nobody but who locks it.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    inner: shuttle::sync::Mutex<T>,
    poisoned: AtomicBool,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex { inner: shuttle::sync::Mutex::new(value), poisoned: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let locked = self.inner.lock();
        self.poisoned.store(locked.is_err(), Ordering::Relaxed);
        locked
    }

    /// Asked by who holds the lock.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(crate) fn clear_poison(&self) {
        self.inner.clear_poison();
    }
}

/// A pointer that is read and replaced in one step each.
#[derive(Debug)]
pub(crate) struct ArcSwap<T>(shuttle::sync::Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        ArcSwap(shuttle::sync::Mutex::new(Arc::new(value)))
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.0.lock().expect("nothing panics under the lock").clone()
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *self.0.lock().expect("nothing panics under the lock"), value)
    }
}

/// A task's budget, which does not run out: here the order in which tasks run is chosen anyway.
pub(crate) mod coop {
    use std::task::{Context, Poll};

    pub(crate) struct Budget;

    pub(crate) fn poll_proceed(_: &mut Context<'_>) -> Poll<Budget> {
        Poll::Ready(Budget)
    }

    impl Budget {
        pub(crate) fn made_progress(&self) {}
    }
}

/// A clock by which no limit is ever reached.
pub(crate) mod time {
    pub(crate) use std::time::Instant;

    pub(crate) async fn timeout_at<F: Future>(_: Instant, future: F) -> Result<F::Output, ()> {
        Ok(future.await)
    }
}
