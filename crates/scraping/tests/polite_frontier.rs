//! `polite_frontier` is dropped at every suspension point, and its visits fail and panic at each of their polls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, in helper functions too")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use scraping::{Answer, Politeness, Visit, polite_frontier};
use support::sweep::{Ended, Fault, Parts, Scene, sweep};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn polite(delay: u64, per_host: usize, overall: usize, capacity: usize) -> Politeness {
    let [per_host, overall, capacity] = [per_host, overall, capacity].map(|n| NonZeroUsize::new(n).unwrap());
    Politeness { delay: ms(delay), longest: ms(1000), per_host, overall, capacity, ..Politeness::default() }
}

/// A page: its host and its number.
type Page = (usize, usize);

/// Counts pages that are alive, wherever they are.
struct Alive(Rc<Cell<usize>>, Page);

impl Alive {
    fn new(alive: &Rc<Cell<usize>>, page: Page) -> Self {
        alive.set(alive.get() + 1);
        Alive(alive.clone(), page)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn scene(parts: &Parts, per_host: usize, overall: usize) -> Scene<()> {
    let (permits, alive, seen) =
        (Arc::new(Semaphore::new(1)), Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let (other, after, left, all) = (permits.clone(), permits.clone(), alive.clone(), seen.clone());
    let (parts, fault) = (parts.clone(), parts.clone());
    let call = async move {
        let visit = |page: Alive| {
            let work = {
                let (permits, alive, seen) = (permits.clone(), alive.clone(), seen.clone());
                async move {
                    let permit = permits.acquire().await.unwrap();
                    sleep(ms(2)).await;
                    drop(permit);
                    seen.borrow_mut().push(page.1);
                    let (host, number) = page.1;
                    let link = (number < 2).then(|| Alive::new(&alive, (1 - host, number + 1)));
                    Ok(Visit { answer: Answer::Well(ms(0)), links: link, again: None })
                }
            };
            let work = parts.fallible("visit", work, || "injected");
            async move { work.await.unwrap_or(Visit { answer: Answer::Failed, links: None, again: None }) }
        };
        let input = [(0, 0), (0, 5), (1, 0)].map(|page| Alive::new(&alive, page));
        polite_frontier(
            input,
            &polite(10, per_host, overall, 100),
            |page| page.1.0,
            visit,
            |_| panic!("lost"),
        )
        .await;
    };
    Scene::new(call).alongside(async move { drop(other.acquire().await) }).check(move |ended| {
        assert_eq!((after.available_permits(), left.get()), (1, 0));
        let mut all = all.borrow().clone();
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before, "a page was visited twice");
        match (ended, fault.fault()) {
            (Ended::Returned(()), None) => {
                assert_eq!(all, [(0, 0), (0, 1), (0, 2), (0, 5), (1, 0), (1, 1), (1, 2)][..]);
            }
            (Ended::Returned(()), Some(Fault::Fail)) => assert!((4..7).contains(&all.len())),
            _ => {}
        }
    })
}

#[test]
fn cancellation_errors_and_panics_with_one_slot() {
    sweep(|parts| scene(parts, 1, 1));
}

#[test]
fn cancellation_errors_and_panics_with_three_slots() {
    sweep(|parts| scene(parts, 2, 3));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pages with any answers: each is visited or lost, no host sooner or oftener than it may, and never too many in all.
    #[test]
    fn order_and_clock_of_any_crawl(
        // Of each page: its host, its parent (or it is input), how long it takes, how often it is busy, whether it fails.
        pages in prop::collection::vec((0..5_usize, any::<Option<prop::sample::Index>>(), 0..40_u64, 0..4_usize, any::<bool>()), 1..50),
        delay in 0..30_u64,
        per_host in 1..4_usize,
        overall in 1..6_usize,
        capacity in 2..60_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let parent = |page: usize| pages[page].1.filter(|_| page > 0).map(|index| index.index(page));
        let (visits, lost) = (RefCell::new(BTreeMap::<usize, usize>::new()), RefCell::new(Vec::new()));
        let (running, last) = (RefCell::new([0; 5]), RefCell::new([None::<Instant>; 5]));
        let paused = RefCell::new([(None::<Instant>, None::<Instant>); 5]);
        let polite = polite(delay, per_host, overall, capacity);
        let visit = async |page: usize| {
            let (host, _, takes, busy, fails) = pages[page];
            let tried = *visits.borrow_mut().entry(page).and_modify(|tried| *tried += 1).or_insert(1);
            if let Some(last) = last.borrow_mut()[host].replace(Instant::now()) {
                assert!(last.elapsed() >= ms(delay), "{:?} after the last visit", last.elapsed());
            }
            // A visit that was begun at the same instant did not know.
            let (since, until) = paused.borrow()[host];
            assert!(until <= Some(Instant::now()) || since == Some(Instant::now()), "within the host's pause");
            running.borrow_mut()[host] += 1;
            assert!(running.borrow()[host] <= per_host && running.borrow().iter().sum::<usize>() <= overall);
            sleep(ms(takes)).await;
            running.borrow_mut()[host] -= 1;
            let (answer, again) = match (tried <= busy, fails) {
                (true, _) => {
                    let until = Some(Instant::now() + ms(7 * takes));
                    let longest = paused.borrow()[host].1.max(until);
                    paused.borrow_mut()[host] = (Some(Instant::now()), longest);
                    (Answer::Busy(Some(ms(7 * takes))), Some(page))
                }
                (_, true) => (Answer::Failed, None),
                _ => (Answer::Well(ms(0)), None),
            };
            let follow = again.is_none().then(|| (page + 1..pages.len()).filter(move |link| parent(*link) == Some(page)));
            Visit { answer, links: follow.into_iter().flatten(), again }
        };
        let input = (0..pages.len()).filter(|page| parent(*page).is_none());
        let call = polite_frontier(input, &polite, |page| pages[*page].0, visit, |page| lost.borrow_mut().push(page));
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3600), call).await });
        prop_assert!(ended.is_ok(), "it never ends");
        let (visits, lost) = (visits.into_inner(), lost.into_inner());
        for (page, (_, _, _, busy, _)) in pages.iter().enumerate() {
            let given_up = lost.iter().filter(|lost| **lost == page).count();
            let reached = parent(page).is_none_or(|parent| visits.contains_key(&parent) && !lost.contains(&parent));
            let tried = visits.get(&page).copied().unwrap_or_default();
            match (reached, tried) {
                (false, tried) => prop_assert_eq!((tried, given_up), (0, 0)),
                (true, 0) => prop_assert_eq!(given_up, 1),
                (true, tried) => {
                    prop_assert_eq!(tried, 3.min(*busy + 1));
                    prop_assert_eq!(given_up, usize::from(*busy >= 3));
                }
            }
        }
        prop_assert!(capacity < 2 * 50 + 5 || lost.iter().all(|page| visits.contains_key(page)));
    }
}

/// Small hosts are done at their own floor beside a large one, and the whole within 2 % of its floor.
#[tokio::test(start_paused = true)]
async fn clock_the_whole_takes_what_the_slowest_host_takes() {
    let (start, ends) = (Instant::now(), RefCell::new(BTreeMap::new()));
    let visit = async |page: Page| {
        sleep(ms(50)).await;
        ends.borrow_mut().insert(page.0, start.elapsed());
        Visit { answer: Answer::Well(ms(0)), links: None, again: None }
    };
    // The large host's pages come first.
    let pages = (0..1000)
        .map(|number| (0, number))
        .chain((1..=100).flat_map(|host| (0..10).map(move |number| (host, number))));
    polite_frontier(pages, &polite(100, 1, 64, 10_000), |page| page.0, visit, |_| panic!("lost")).await;
    let floor = ms(999 * 100 + 50);
    assert!(start.elapsed() <= floor * 102 / 100, "{:?}", start.elapsed());
    let small = ends.borrow().range(1..).map(|(_, at)| *at).max().unwrap();
    assert!(small <= ms(2000), "{small:?}");
}

/// A hundred thousand hosts, of which some have a second page.
#[tokio::test(start_paused = true)]
async fn memory_and_clock_of_a_hundred_thousand_hosts() {
    let seen = Cell::new(0);
    let visit = async |(host, number): Page| {
        seen.set(seen.get() + 1);
        sleep(ms(10)).await;
        Visit {
            answer: Answer::Well(ms(0)),
            links: (host % 100 == 0 && number < 1).then_some((host, number + 1)),
            again: None,
        }
    };
    let hosts = (0..100_000).map(|host| (host, 0));
    polite_frontier(hosts, &polite(100, 1, 64, 1_000_000), |page| page.0, visit, |_| panic!("lost")).await;
    assert_eq!(seen.get(), 101_000);
}
