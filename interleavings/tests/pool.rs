//! `pool`: nobody waits for ever, no more resources exist than may, and a closed pool keeps none, whoever runs when.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use interleavings::{found, search, search_all};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::thread;

struct Resource(Arc<AtomicUsize>);

impl Resource {
    fn new(exist: &Arc<AtomicUsize>, most: usize) -> Self {
        assert!(exist.fetch_add(1, Ordering::Relaxed) < most, "more resources than there are places");
        Resource(exist.clone())
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        // To close something takes a while.
        thread::yield_now();
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pool of so many resources, and so many users that put theirs back, that drop theirs, and that give up when they have to wait. So
/// many close it meanwhile.
macro_rules! case {
    ($recipe:ident, $size:expr, $put_back:expr, $drop:expr, $give_up:expr, $close:expr) => {
        move || {
            use interleavings::$recipe::{Manage, Pool, Rules};
            struct Resources(Arc<AtomicUsize>);
            impl Manage for Resources {
                type Resource = Resource;
                type Error = std::convert::Infallible;
                async fn create(&self) -> Result<Resource, Self::Error> {
                    let resource = Resource::new(&self.0, $size);
                    yield_now().await;
                    Ok(resource)
                }
                async fn is_healthy(&self, _: &mut Resource) -> bool {
                    yield_now().await;
                    true
                }
            }
            block_on(async {
                let exist = Arc::new(AtomicUsize::new(0));
                let size = NonZeroUsize::new($size).expect("not zero");
                let pool = Pool::new(Resources(exist.clone()), Rules { size, ..Rules::default() });
                let mut tasks: Vec<_> = (0..$put_back + $drop + $give_up)
                    .map(|user| {
                        let pool = pool.clone();
                        spawn(async move {
                            let mut checkout = Box::pin(pool.checkout());
                            let resource = if user < $put_back + $drop {
                                checkout.await
                            } else if let std::task::Poll::Ready(resource) = futures::poll!(&mut checkout) {
                                resource
                            } else {
                                yield_now().await;
                                return;
                            };
                            assert!($close > 0 || resource.is_ok(), "refused, and nobody closed it");
                            yield_now().await;
                            if user < $put_back {
                                let _ = resource.map(|resource| resource.put_back());
                            }
                        })
                    })
                    .collect();
                tasks.extend((0..$close).map(|_| {
                    let pool = pool.clone();
                    spawn(async move { pool.close() })
                }));
                for task in tasks {
                    task.await.expect("nobody panics");
                }
                if $close > 0 {
                    assert!(pool.checkout().await.is_err());
                    assert_eq!(exist.load(Ordering::Relaxed), 0, "a closed pool keeps a resource");
                } else {
                    // All places are free.
                    let all = (0..$size).map(|_| pool.checkout());
                    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
                }
            });
        }
    };
}

#[test]
fn pool_by_chance() {
    search("pool of 2, 2 put back, 1 drops, 2 give up", 50_000, case!(pool, 2, 2, 1, 2, 0));
    search(
        "pool of 1, 2 put back, 1 drops, 1 gives up, and it is closed",
        50_000,
        case!(pool, 1, 2, 1, 1, 1),
    );
}

#[test]
fn pool_in_every_order() {
    search_all("pool of 1, 1 puts back and 1 gives up", 1_000_000, case!(pool, 1, 1, 0, 1, 0));
    search_all("pool of 1, 1 puts back, and it is closed", 1_000_000, case!(pool, 1, 1, 0, 0, 1));
}

#[test]
fn mistakes_of_pool_are_found() {
    found("looks, then puts back", 10_000, case!(pool_looks_then_puts_back, 1, 2, 1, 1, 1));
    found("takes, then closes", 10_000, case!(pool_takes_then_closes, 1, 2, 1, 1, 1));
    found("frees the place first", 10_000, case!(pool_frees_the_place_first, 2, 2, 1, 2, 0));
}
