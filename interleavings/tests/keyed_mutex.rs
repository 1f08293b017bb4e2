//! `keyed_mutex`: one at a time, nobody waits for ever, and no key stays behind, whoever runs when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};

// ANCHOR: case
/// So many callers take the lock, and so many give up when they have to wait for it.
macro_rules! case {
    ($recipe:ident, $stay:expr, $give_up:expr) => {
        move || {
            block_on(async {
                use interleavings::$recipe::KeyedMutex;
                let (mutex, inside) = (KeyedMutex::new(), Arc::new(AtomicBool::new(false)));
                let callers = (0..$stay + $give_up).map(|caller| {
                    let (mutex, inside) = (mutex.clone(), inside.clone());
                    spawn(async move {
                        let mut lock = Box::pin(mutex.lock("key"));
                        let guard = if caller < $stay {
                            lock.await
                        } else if let std::task::Poll::Ready(guard) = futures::poll!(&mut lock) {
                            guard
                        } else {
                            yield_now().await;
                            return;
                        };
                        assert!(!inside.swap(true, Ordering::Relaxed), "two at a time");
                        yield_now().await;
                        inside.store(false, Ordering::Relaxed);
                        drop(guard);
                    })
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.expect("nobody panics");
                }
                assert_eq!(mutex.keys_in_use(), 0);
            });
        }
    };
}
// ANCHOR_END: case

// ANCHOR: search
#[test]
fn keyed_mutex_by_chance() {
    search("keyed_mutex, 3 stay and 2 give up", 100_000, case!(keyed_mutex, 3, 2));
}

#[test]
fn keyed_mutex_in_every_order() {
    search_all("keyed_mutex, 2 stay", 1_000_000, case!(keyed_mutex, 2, 0));
    search_all("keyed_mutex, 1 stays and 1 gives up", 1_000_000, case!(keyed_mutex, 1, 1));
}

#[test]
fn mistakes_of_keyed_mutex_are_found() {
    found("looks, then enters", 1_000, case!(keyed_mutex_looks_then_enters, 3, 2));
    found("looks, then forgets", 1_000, case!(keyed_mutex_looks_then_forgets, 3, 2));
}
// ANCHOR_END: search
