//! Share a value between tasks and change it in one step, so that no lock is held across an await.
//!
//! Use it for state in memory: a counter, a ledger, a cache. [`Shared`] is for changes that need no await, which is most of
//! them. When a change itself must await use [`update`]. For one number an atomic is enough, and a value that is mostly read
//! is a `snapshot`.
//!
//! | | |
//! |---|---|
//! | Order | [`update`]: first come, first served; [`Shared`]: as the operating system's lock decides |
//! | Errors | [`update`]: an error of the change leaves the value as it was; [`Shared`] says [`Unusable`] when the value may be half changed, or when a closure asks for the value that it holds |
//! | Cancellation | [`Shared`] has no point at which it could be dropped; [`update`] dropped at any point leaves the value as it was and the lock free |
//! | Panics | a panic of a closure is its caller's panic; in [`Shared`] all later calls are refused until [`Shared::replace`]; [`update`] leaves the value as it was |
//! | Memory | the value; while [`update`] runs, one copy of it |
//! | Backpressure | [`update`] waits its turn; [`Shared`] makes the thread wait for the closure that runs, so keep closures short |
//! | Clock | none of its own |
//!
//! The guard of a lock can be held across an await by accident; what a closure borrows cannot.
//!
//! ```
//! use locks::{Shared, update};
//!
//! #[tokio::main]
//! async fn main() {
//!     let hits = Shared::new(0);
//!     hits.with(|hits| *hits += 1).unwrap();
//!     let rate = tokio::sync::Mutex::new(7);
//!     let changed = update(&rate, |rate| async move { "x".parse::<i32>().map(|more| rate + more) });
//!     assert!(changed.await.is_err());
//!     assert_eq!((hits.with(|hits| *hits), *rate.lock().await), (Ok(1), 7));
//! }
//! ```

use std::future::Future;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that tasks and threads share: put it into an `Arc` or a `static`, or borrow it.
#[derive(Debug, Default)]
pub struct Shared<T> {
    value: Mutex<T>,
    /// The thread that is inside a closure, or 0.
    inside: AtomicUsize,
}

/// Why a closure was not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// An earlier closure panicked and may have left the value half changed: see [`Shared::replace`].
    #[error("the shared value may be half changed: an earlier change of it panicked")]
    Poisoned,
    /// The call came from a closure that holds the same value already, and would have waited for itself.
    #[error("the shared value was asked for by the closure that holds it")]
    Reentered,
}

impl<T> Shared<T> {
    /// Shares `value`.
    pub const fn new(value: T) -> Self {
        Shared { value: Mutex::new(value), inside: AtomicUsize::new(0) }
    }

    /// Calls `work` with the value while nobody else has it, and returns what it returns.
    ///
    /// `work` must not take another lock that some other closure holds while it asks for this one: each would wait for the
    /// other, for ever.
    ///
    /// # Errors
    ///
    /// [`Unusable`], and then `work` was not called.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Result<R, Unusable> {
        let mut value = self.enter()?;
        if self.value.is_poisoned() {
            return Err(Unusable::Poisoned);
        }
        Ok(work(&mut value))
    }

    /// Puts `value` in the place of the old one, which is returned as it is, and makes a poisoned value usable again.
    ///
    /// # Errors
    ///
    /// [`Unusable::Reentered`] only.
    pub fn replace(&self, value: T) -> Result<T, Unusable> {
        let mut old = self.enter()?;
        self.value.clear_poison();
        Ok(mem::replace(&mut old, value))
    }

    fn enter(&self) -> Result<Inside<'_, T>, Unusable> {
        let here = this_thread();
        // What this thread wrote it sees; what others write is never this thread.
        if self.inside.load(Ordering::Relaxed) == here {
            return Err(Unusable::Reentered);
        }
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.inside.store(here, Ordering::Relaxed);
        Ok(Inside { value, inside: &self.inside })
    }
}

/// Calls `change` with a copy of the value while nobody else has it, and stores what `change` returns.
///
/// Nobody sees a value that is half changed: an error, a panic or a dropped call leaves the old one. What `change` did
/// elsewhere, such as a request, is not taken back. Others wait all the while, so that `change` should await nothing slow. A
/// `change` that asks for the same lock waits for itself, for ever.
///
/// # Errors
///
/// What `change` returns.
pub async fn update<T: Clone, F, E>(
    value: &tokio::sync::Mutex<T>,
    change: impl FnOnce(T) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut value = value.lock().await;
    let changed = change(value.clone()).await?;
    let old = mem::replace(&mut *value, changed);
    drop(value);
    // Its `Drop` may be anybody's code, which the lock need not wait for.
    drop(old);
    Ok(())
}

/// The value, held by this thread.
struct Inside<'a, T> {
    value: MutexGuard<'a, T>,
    inside: &'a AtomicUsize,
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        // Runs before the guard is dropped, and so before another thread enters.
        self.inside.store(0, Ordering::Relaxed);
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// A number that no other living thread has, and that is not 0: where a variable of its own lies.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn order_of_updates_is_the_order_of_calls() {
        let log = Arc::new(tokio::sync::Mutex::new(Vec::new()));
        let append = |number: u64, log: Arc<tokio::sync::Mutex<Vec<u64>>>| async move {
            let slowly = |mut log: Vec<u64>| async move {
                sleep(Duration::from_millis(10 - number)).await;
                log.push(number);
                Ok::<_, ()>(log)
            };
            update(&log, slowly).await
        };
        let tasks: Vec<_> = (0..8).map(|number| tokio::spawn(append(number, log.clone()))).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(*log.lock().await, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn errors_leave_the_value_as_it_was() {
        let value = tokio::sync::Mutex::new(7);
        assert_eq!(update(&value, |_| async { Err("no") }).await, Err("no"));
        assert_eq!(*value.lock().await, 7);
    }

    #[test]
    fn errors_name_a_closure_that_asks_for_what_it_holds() {
        let (value, other) = (Shared::new(1), Shared::new(2));
        let seen = value.with(|_| (value.with(|value| *value), value.replace(3), other.with(|other| *other)));
        assert_eq!(seen, Ok((Err(Unusable::Reentered), Err(Unusable::Reentered), Ok(2))));
        assert_eq!(value.with(|value| *value), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_leaves_the_value_as_it_was() {
        let value = tokio::sync::Mutex::new(7);
        let change = |_| async {
            sleep(Duration::from_millis(50)).await;
            Ok::<_, ()>(8)
        };
        assert!(timeout(Duration::from_millis(49), update(&value, change)).await.is_err());
        assert_eq!(*value.try_lock().unwrap(), 7);
    }

    #[test]
    fn panics_refuse_the_value_until_it_is_replaced() {
        static LEDGER: Shared<(i32, i32)> = Shared::new((10, 0));
        let halfway = || {
            LEDGER.with(|(from, _)| {
                *from -= 4;
                // Not `panic!`: the message would be printed though the panic is expected.
                resume_unwind(Box::new("halfway"))
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(halfway)).is_err());
        assert_eq!(LEDGER.with(|_| ()), Err(Unusable::Poisoned));
        assert_eq!(LEDGER.replace((10, 0)), Ok((6, 0)));
        assert_eq!(LEDGER.with(|(from, to)| *from + *to), Ok(10));
    }

    #[test]
    fn backpressure_and_memory_are_one_closure_at_a_time() {
        let count = Shared::new((0, false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let counted = count.with(|(count, busy)| {
                            assert!(!std::mem::replace(busy, true));
                            *count += 1;
                            *busy = false;
                        });
                        assert_eq!(counted, Ok(()));
                    }
                });
            }
        });
        assert_eq!(count.with(|(count, _)| *count), Ok(4000));
    }

    #[tokio::test]
    async fn memory_of_an_update_is_one_copy() {
        let value = tokio::sync::Mutex::new(Arc::new(()));
        let copies = |copy: Arc<()>| async move { Err::<Arc<()>, _>(Arc::strong_count(&copy)) };
        assert_eq!(update(&value, copies).await, Err(2));
        assert_eq!(Arc::strong_count(&*value.lock().await), 1);
    }
}
