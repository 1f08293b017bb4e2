//! Visit the pages of many hosts, each host at its own pace and all of them at once, until none is left.
//!
//! Use it for a crawl. The visits run on the caller's task, and may borrow. Where no host must be spared use `worker_pool`.
//!
//! | | |
//! |---|---|
//! | Order | a host's pages in the order in which they were found, and one that is tried again comes first; between hosts the one that has been ready for the longest |
//! | Errors | none of its own: a [`Visit`] says what the host answered; a page is handed to `lost` when there is no room for it, and when it was tried `tries` times |
//! | Cancellation | dropping the call drops the running visits and all pages; nothing is spawned |
//! | Panics | a panic of a visit, or of another closure, is the caller's; everything else is dropped first |
//! | Memory | O(`capacity` + `overall`): pages and hosts together fill the capacity; a host is forgotten when it has no page and its delay has passed |
//! | Backpressure | input is pulled while half of the capacity is free; a page that follows and finds no room is `lost`; a host that waits occupies no slot |
//! | Clock | `tokio::time`: from the start of one visit to a host to the start of the next pass `delay` or more, as [`HostPace`] makes it |
//!
//! ```
//! use std::{cell::Cell, time::Duration};
//! use scraping::{Answer, Politeness, Visit, polite_frontier};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (polite, seen) = (Politeness { delay: Duration::from_millis(5), ..Politeness::default() }, Cell::new(0));
//!     let visit = async |(host, depth): (u32, u32)| {
//!         seen.set(seen.get() + 1);
//!         Visit { answer: Answer::Well(Duration::ZERO), links: (depth < 3).then_some((host, depth + 1)), again: None }
//!     };
//!     polite_frontier([(1, 1), (2, 1)], &polite, |page| page.0, visit, |lost| panic!("{lost:?}")).await;
//!     assert_eq!(seen.get(), 6);
//! }
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::host_pacing::{Answer, HostPace};

/// How hosts are treated.
#[derive(Clone, Copy, Debug)]
pub struct Politeness {
    /// The least time between the starts of two visits to a host.
    pub delay: Duration,
    /// The longest that a host can make that time, and a pause, whatever it asks for.
    pub longest: Duration,
    /// The most visits to a host at a time.
    pub per_host: NonZeroUsize,
    /// The most visits at a time.
    pub overall: NonZeroUsize,
    /// The most pages and hosts that are kept, counted together.
    pub capacity: NonZeroUsize,
    /// How often a page is tried.
    pub tries: NonZeroUsize,
}

impl Default for Politeness {
    fn default() -> Self {
        let (delay, longest, one) = (Duration::from_secs(1), Duration::from_secs(300), NonZeroUsize::MIN);
        let [per_host, overall, capacity, tries] = [0, 63, 999_999, 2].map(|more| one.saturating_add(more));
        Politeness { delay, longest, per_host, overall, capacity, tries }
    }
}

/// How a visit went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit<P, N> {
    /// What the host's answer says about its pace.
    pub answer: Answer,
    /// Pages that follow. An iterator must end, and must not block.
    pub links: N,
    /// The page itself, if it is to be tried again.
    pub again: Option<P>,
}

/// Calls `visit` with each page of `input` and each that follows from one. `host` tells a page's host. A visit that never ends
/// holds its slot for ever: give it a timeout. Panics outside a Tokio runtime with a timer.
pub async fn polite_frontier<P, K, F, N>(
    input: impl IntoIterator<Item = P>,
    politeness: &Politeness,
    host: impl Fn(&P) -> K,
    visit: impl Fn(P) -> F,
    mut lost: impl FnMut(P),
) where
    K: Eq + Hash + Clone,
    F: Future<Output = Visit<P, N>>,
    N: IntoIterator<Item = P>,
{
    let (capacity, overall) = (politeness.capacity.get(), politeness.overall.get());
    let mut hosts: Hosts<K, P> =
        Hosts { rules: *politeness, hosts: HashMap::new(), due: BTreeMap::new(), number: 0, pages: 0 };
    let (mut input, mut running) = (Some(input.into_iter()), FuturesUnordered::new());
    loop {
        while running.len() < overall {
            consume_budget().await;
            let began = Instant::now();
            let Some(next) = hosts.next(began) else { break };
            running.extend(next.map(|(key, (page, tried))| {
                let visit = visit(page);
                async move { (key, tried + 1, began, visit.await) }
            }));
        }
        let room = input.is_some() && hosts.size() < capacity.div_ceil(2);
        let free = running.len() < overall && (input.is_some() || hosts.pages > 0);
        let due = hosts.due.first_key_value().map(|(at, _)| at.0).filter(|_| free);
        tokio::select! {
            biased;
            Some((key, tried, began, Visit { answer, links, again })) = running.next() => {
                hosts.ended(key.clone(), began, answer);
                match again {
                    Some(page) if tried < politeness.tries.get() => hosts.add(key, (page, tried)),
                    again => again.into_iter().for_each(&mut lost),
                }
                for page in links {
                    consume_budget().await;
                    if hosts.size() < capacity { hosts.add(host(&page), (page, 0)) } else { lost(page) }
                }
            }
            () = consume_budget(), if room => match input.as_mut().and_then(Iterator::next) {
                Some(page) => hosts.add(host(&page), (page, 0)),
                None => input = None,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            else => return,
        }
    }
}

struct Hosts<K, P> {
    rules: Politeness,
    hosts: HashMap<K, Host<P>>,
    /// Who may start a visit when, or can be forgotten then. A host is in it at most once.
    due: BTreeMap<(Instant, u64), K>,
    number: u64,
    pages: usize,
}

struct Host<P> {
    pages: VecDeque<(P, usize)>,
    running: usize,
    listed: bool,
    pace: HostPace,
}

impl<K: Eq + Hash + Clone, P> Hosts<K, P> {
    fn size(&self) -> usize {
        self.pages + self.hosts.len()
    }

    fn add(&mut self, key: K, page: (P, usize)) {
        let pace = HostPace::new(self.rules.delay, self.rules.longest);
        let new = Host { pages: VecDeque::new(), running: 0, listed: false, pace };
        let host = self.hosts.entry(key.clone()).or_insert(new);
        host.pages.insert(if page.1 > 0 { 0 } else { host.pages.len() }, page);
        self.pages += 1;
        self.list(key);
    }

    /// `None` if no host is due, and inside of it if the one that was due has no page, or was slowed down since.
    fn next(&mut self, now: Instant) -> Option<Option<(K, (P, usize))>> {
        let key = self.due.first_entry().filter(|first| first.key().0 <= now)?.remove();
        let host = self.hosts.get_mut(&key)?;
        host.listed = false;
        let ready = host.pace.ready() <= Some(now);
        let page = if ready { host.pages.pop_front() } else { None };
        if page.is_some() {
            if host.pages.capacity() / 8 > host.pages.len() {
                host.pages.shrink_to(host.pages.len() * 2);
            }
            host.running += 1;
            host.pace.begin(now);
            self.pages -= 1;
        } else if ready {
            self.hosts.remove(&key);
        }
        self.list(key.clone());
        Some(page.map(|page| (key, page)))
    }

    fn ended(&mut self, key: K, began: Instant, answer: Answer) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        host.running -= 1;
        host.pace.ended(began, answer);
        self.list(key);
    }

    /// Puts a host among the due ones that has a page and may start one, or that nothing is left to do for.
    fn list(&mut self, key: K) {
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let wanted = host.running == 0 || !host.pages.is_empty() && host.running < self.rules.per_host.get();
        if wanted && !host.listed {
            host.listed = true;
            self.number += 1;
            self.due.insert((host.pace.ready().unwrap_or_else(Instant::now), self.number), key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::panic::AssertUnwindSafe;
    use std::rc::Rc;

    use futures::FutureExt;
    use tokio::time::sleep;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn polite(delay: u64, per_host: usize, overall: usize, capacity: usize) -> Politeness {
        let [per_host, overall, capacity] =
            [per_host, overall, capacity].map(|n| NonZeroUsize::new(n).unwrap());
        Politeness {
            delay: ms(delay),
            longest: ms(10_000),
            per_host,
            overall,
            capacity,
            ..Politeness::default()
        }
    }

    /// A page: its host and its number.
    type Page = (char, usize);

    fn well<N>(links: N) -> Visit<Page, N> {
        Visit { answer: Answer::Well(Duration::ZERO), links, again: None }
    }

    /// When each page was visited, if a visit takes `takes`.
    async fn visited(
        pages: impl IntoIterator<Item = Page>,
        polite: &Politeness,
        takes: u64,
    ) -> Vec<(char, u128)> {
        let (start, seen) = (Instant::now(), RefCell::new(Vec::new()));
        let visit = async |page: Page| {
            seen.borrow_mut().push((page.0, start.elapsed().as_millis()));
            sleep(ms(takes)).await;
            well(None)
        };
        polite_frontier(pages, polite, |page| page.0, visit, |page| panic!("{page:?} is lost")).await;
        seen.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_fair_between_hosts_and_a_waiting_host_occupies_no_slot() {
        let pages = "aaaabbc".chars().zip(0..);
        let seen = visited(pages, &polite(100, 1, 2, 1000), 10).await;
        assert_eq!(seen, [('a', 0), ('b', 0), ('c', 10), ('a', 100), ('b', 100), ('a', 200), ('a', 300)]);
        let seen = visited("aaaaab".chars().zip(0..), &polite(0, 1, 1, 1000), 10).await;
        let order: String = seen.iter().map(|(host, _)| host).collect();
        assert_eq!(order, "abaaaa", "the second host does not wait for five of the first");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_the_limits_of_a_host_and_of_all_hold() {
        let seen = visited("aaaaaabbbbbb".chars().zip(0..), &polite(20, 2, 3, 1000), 100).await;
        let from_a: Vec<_> = seen.iter().filter(|(host, _)| *host == 'a').map(|(_, at)| *at).collect();
        assert!(from_a.windows(2).all(|two| two[1] - two[0] >= 20), "{from_a:?}");
        assert!(from_a.windows(3).all(|three| three[2] - three[0] >= 100), "{from_a:?}");
        let all: Vec<_> = seen.iter().map(|(_, at)| *at).collect();
        assert!(all.windows(4).all(|four| four[3] - four[0] >= 100), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_slow_the_host_and_a_page_is_tried_so_often() {
        let (start, seen, lost) = (Instant::now(), RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let visit = async |page: Page| {
            seen.borrow_mut().push((page.1, start.elapsed().as_millis()));
            match page {
                (_, 0) => Visit { answer: Answer::Busy(Some(ms(1000))), links: None, again: Some(page) },
                (_, 1) => Visit { answer: Answer::Failed, links: None, again: None },
                _ => well(None),
            }
        };
        let pages = [('a', 0), ('a', 1), ('a', 2)];
        let lost_too = |page: Page| lost.borrow_mut().push(page.1);
        polite_frontier(pages, &polite(100, 1, 9, 1000), |page| page.0, visit, lost_too).await;
        let expected = [(0, 0), (0, 1000), (0, 2000), (1, 3000), (2, 4600)];
        assert_eq!((seen.into_inner(), lost.into_inner()), (expected.to_vec(), vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_input_is_pulled_for_half_of_the_capacity_and_links_without_room_are_lost() {
        let (pulled, lost, seen) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let endless = (0..).map(|number| ('a', number)).inspect(|_| pulled.set(pulled.get() + 1));
        let visit = async |_: Page| {
            seen.set(seen.get() + 1);
            sleep(ms(1)).await;
            well((0..20).map(|number| ('a', number)))
        };
        let lost_too = |_| lost.set(lost.get() + 1);
        let polite = polite(100, 1, 9, 10);
        let call = polite_frontier(endless, &polite, |page| page.0, visit, lost_too);
        assert!(tokio::time::timeout(ms(50), call).await.is_err());
        // One host and four pages; then one of these runs, and another is pulled. Its links fill the other half.
        assert_eq!((seen.get(), pulled.get(), lost.get()), (1, 5, 20 - 5));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_visits_and_the_pages() {
        let held = Rc::new(());
        let pages = (0..100).map(|number| (number % 7, held.clone()));
        let visit = async |page: (u8, Rc<()>)| {
            std::future::pending::<()>().await;
            Visit { answer: Answer::Failed, links: None, again: Some(page) }
        };
        let polite = polite(100, 1, 5, 1000);
        let call = polite_frontier(pages, &polite, |page| page.0, visit, drop);
        assert!(tokio::time::timeout(ms(1000), call).await.is_err());
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_are_the_callers() {
        let visit = async |page: Page| {
            sleep(ms(1)).await;
            // Not `panic!`: the message would be printed though the panic is expected.
            if page.1 == 3 { std::panic::resume_unwind(Box::new("broken")) } else { well(None) }
        };
        let polite = polite(1, 1, 5, 1000);
        let call = polite_frontier("aaaaa".chars().zip(0..), &polite, |page| page.0, visit, drop);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_hosts_are_forgotten_and_the_future_is_send() {
        let mut hosts: Hosts<u32, ()> = Hosts {
            rules: polite(100, 1, 1, 9),
            hosts: HashMap::new(),
            due: BTreeMap::new(),
            number: 0,
            pages: 0,
        };
        for key in 0..1000 {
            hosts.add(key, ((), 0));
            assert_eq!(hosts.next(Instant::now()), Some(Some((key, ((), 0)))));
            hosts.ended(key, Instant::now(), Answer::Well(Duration::ZERO));
        }
        assert_eq!((hosts.hosts.len(), hosts.due.len()), (1000, 1000));
        assert_eq!(hosts.next(Instant::now()), None);
        sleep(ms(100)).await;
        while hosts.next(Instant::now()).is_some() {}
        assert_eq!((hosts.hosts.len(), hosts.due.len(), hosts.pages), (0, 0, 0));

        let polite = Politeness {
            delay: Duration::MAX,
            longest: Duration::MAX,
            overall: NonZeroUsize::MAX,
            ..polite(1, 1, 1, 1)
        };
        let call = async move {
            polite_frontier((0..9).map(|n| ('a', n)), &polite, |page| page.0, |_| async { well(None) }, drop)
                .await
        };
        assert!(
            tokio::spawn(tokio::time::timeout(ms(10_000), call)).await.unwrap().is_err(),
            "one visit, and a wait for ever"
        );
    }
}
