//! `window_limit` is dropped at every suspension point, compared with a model, and counted by a real server.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use proptest::prelude::*;
use semaphores::WindowLimit;
use support::api::Api;
use support::sweep::{Scene, sweep};
use tokio::time::{Instant, sleep, sleep_until, timeout};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limit(calls: usize, window: Duration) -> WindowLimit {
    WindowLimit::new(NonZeroUsize::new(calls).expect("tests use a limit above zero"), window)
}

/// A subject that makes a call of 7 ms, behind one caller and before another.
fn scene(calls: usize) -> Scene<()> {
    let limit = limit(calls, ms(50));
    let (first, subject, behind) = (limit.clone(), limit.clone(), limit.clone());
    let begun = Rc::new(RefCell::new(Vec::new()));
    let [one, two, three] = [(); 3].map(|()| begun.clone());
    let call = async |limit: WindowLimit, begun: Rc<RefCell<Vec<Instant>>>| {
        let _permit = limit.acquire().await;
        begun.borrow_mut().push(Instant::now());
        sleep(ms(7)).await;
    };
    Scene::new(call(subject, two))
        .alongside(async move {
            for _ in 0..3 {
                call(first.clone(), one.clone()).await;
            }
        })
        .alongside(async move {
            sleep(ms(1)).await;
            call(behind.clone(), three.clone()).await;
            call(behind, three).await;
        })
        .check(move |_| {
            let begun = begun.borrow();
            for some in begun.windows(calls + 1) {
                assert!(some[calls] - some[0] >= ms(50), "{begun:?}");
            }
            let all: Vec<_> = (0..calls).map(|_| limit.acquire().now_or_never()).collect();
            assert!(all.iter().all(Option::is_some), "an hour later every place is free");
            assert!(limit.acquire().now_or_never().is_none(), "and there is no further one");
        })
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| scene(1));
    sweep(|_| scene(2));
}

#[test]
fn cancellation_while_every_permit_is_out() {
    sweep(|_| {
        let limit = limit(2, ms(5));
        let (subject, behind) = (limit.clone(), limit.clone());
        Scene::new(async move { drop(subject.acquire().await) })
            .alongside(async move {
                let (one, two) = (limit.acquire().await, limit.acquire().await);
                sleep(ms(20)).await;
                drop(two);
                sleep(ms(20)).await;
                drop(one);
            })
            .alongside(async move {
                sleep(ms(1)).await;
                drop(behind.acquire().await);
            })
    });
}

#[tokio::test(start_paused = true)]
async fn clock_takes_the_longest_and_the_shortest_window() {
    let endless = limit(2, Duration::MAX);
    drop(endless.acquire().await);
    drop(endless.acquire().await);
    assert!(timeout(Duration::from_secs(86_400 * 365), endless.acquire()).await.is_err());
    let none = limit(1, Duration::ZERO);
    let permit = none.acquire().await;
    assert!(timeout(ms(5), none.acquire()).await.is_err(), "one at a time");
    drop(permit);
    for _ in 0..100_000 {
        drop(none.acquire().await);
    }
    let wide = limit(usize::MAX, Duration::MAX);
    let permits = join_all((0..1000).map(|_| wide.acquire())).await;
    assert_eq!(permits.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn backpressure_of_permits_dropped_in_another_order() {
    let (start, limit) = (Instant::now(), limit(3, ms(100)));
    let [first, second, third] = [limit.acquire().await, limit.acquire().await, limit.acquire().await];
    let drops = async {
        sleep(ms(10)).await;
        drop(third);
        sleep(ms(10)).await;
        drop(first);
        sleep(ms(100)).await;
        drop(second);
    };
    let calls = async {
        let mut ends = Vec::new();
        for _ in 0..3 {
            drop(limit.acquire().await);
            ends.push(start.elapsed());
        }
        ends
    };
    let ((), ends) = tokio::join!(drops, calls);
    assert_eq!(ends, [ms(110), ms(120), ms(210)]);
}

/// What the page says: when starts are counted, calls that take differently long arrive closer together than a window.
#[tokio::test(start_paused = true)]
async fn clock_of_starts_lets_arrivals_meet_and_that_of_ends_does_not() {
    for (hold, apart) in [(false, ms(10)), (true, ms(100))] {
        let limit = &limit(1, ms(100));
        let call = async |on_its_way: u64| {
            let permit = limit.acquire().await;
            let permit = hold.then_some(permit);
            sleep(ms(on_its_way)).await;
            drop(permit);
            Instant::now()
        };
        let (one, two) = tokio::join!(call(90), call(0));
        assert_eq!(two - one, apart);
    }
}

/// Real requests of different latency, more callers than places, some of whom give up before they have a place: the server
/// has seen no window with more than the limit.
#[tokio::test]
async fn backpressure_is_confirmed_by_the_server() {
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (api, client) = (Api::start().await.unwrap(), reqwest::Client::new());
    let limit = limit(5, ms(60));
    let calls = (1..=30).map(|id| {
        let (limit, client) = (&limit, &client);
        let url = api.url(&format!("/users/{id}?latency=0..25"));
        async move {
            if id % 4 == 0 {
                // Queues, and leaves before its place comes unless it comes at once.
                let _ = timeout(ms(1), limit.acquire()).await.map(drop);
            }
            let _permit = limit.acquire().await;
            client.get(url).send().await.unwrap().error_for_status().unwrap();
        }
    });
    join_all(calls).await;
    assert_eq!(api.gauge().total(), 30);
    assert!(api.gauge().busiest_window(ms(60)) <= 5, "{}", api.gauge().busiest_window(ms(60)));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backpressure_survives_threads() {
    let limit = limit(8, ms(1));
    let (out, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..16).map(|caller| {
        let (limit, out, peak) = (limit.clone(), out.clone(), peak.clone());
        tokio::spawn(async move {
            for call in 0..20 {
                let permit = tokio::select! {
                    biased;
                    permit = limit.acquire() => permit,
                    () = tokio::task::yield_now(), if (caller + call) % 3 == 0 => continue,
                };
                peak.fetch_max(out.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                out.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    assert!(peak.load(Ordering::Relaxed) <= 8);
}

/// A call in a run: when it was asked for, granted, and over.
#[derive(Clone, Copy, Debug)]
struct Call {
    granted: Duration,
    over: Duration,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any arrivals, lengths of calls and impatience: no window holds more than the limit, wherever in its time each call
    /// counts; grants come in order; and nobody who is first waits once a place is free.
    #[test]
    fn backpressure_and_order_hold_for_any_calls(
        calls in prop::collection::vec((0..30_u64, 0..40_u64, prop_oneof![Just(1_000_000), 0..90_u64]), 1..50),
        most in 1..5_usize,
        window in 0..70_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let granted = runtime.block_on(async {
            let (start, limit, log) = (Instant::now(), limit(most, ms(window)), RefCell::new(Vec::new()));
            let (limit, log) = (&limit, &log);
            let mut begin = start;
            let calls = calls.into_iter().enumerate().map(|(caller, (pause, length, patience))| {
                begin += ms(pause);
                async move {
                    sleep_until(begin).await;
                    let Ok(permit) = timeout(ms(patience), limit.acquire()).await else { return };
                    let granted = start.elapsed();
                    let place = log.borrow().len();
                    log.borrow_mut().push((caller, begin - start, Call { granted, over: Duration::MAX }));
                    sleep(ms(length)).await;
                    log.borrow_mut()[place].2.over = start.elapsed();
                    drop(permit);
                }
            });
            join_all(calls).await;
            log.take()
        });
        prop_assert!(granted.is_sorted_by_key(|(caller, ..)| *caller), "{granted:?}");
        for (place, (_, asked, call)) in granted.iter().enumerate() {
            // At its grant so many places were taken: by calls that run, or were over less than a window ago.
            let taken = |at: Duration, upto: usize| {
                granted[..upto].iter().filter(|(.., other)| other.over.saturating_add(ms(window)) > at).count()
            };
            prop_assert!(taken(call.granted, place) < most, "{granted:?}");
            // A millisecond earlier there was none, unless it came later than that, or somebody was before it.
            let before = call.granted.saturating_sub(ms(1));
            let first_since = place.checked_sub(1).map_or(Duration::ZERO, |last| granted[last].2.granted);
            if before >= *asked && before > first_since && window > 0 {
                let taken = taken(before, place);
                prop_assert!(taken >= most || call.granted == *asked, "{granted:?}");
            }
        }
    }
}
