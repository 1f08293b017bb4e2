//! `polite_frontier` and `host_pacing`: when hosts are done, and what a page costs.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use benches::{Bench, Flavour, Measure, Table, figure, time};
use futures::future::{join_all, ready};
use scraping::{Answer, HostPace, Politeness, Visit, polite_frontier};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

const DELAY: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_millis(50);
const OVERALL: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const LARGE: usize = 1_000;
const SMALL: usize = 10;
const SMALL_HOSTS: usize = 100;

/// A page: its host and its number. The large host's pages come first.
type Page = (usize, usize);

fn pages() -> impl Iterator<Item = Page> + Send {
    let small = (1..=SMALL_HOSTS).flat_map(|host| (0..SMALL).map(move |number| (host, number)));
    (0..LARGE).map(|number| (0, number)).chain(small)
}

pub(crate) fn tables(bench: &mut Bench) {
    let crawl = format!(
        "{LARGE} pages of a large host, then {SMALL} of each of {SMALL_HOSTS} small ones, 100 ms apart"
    );
    for small in [true, false] {
        let who = if small { "the small ones are" } else { "all is" };
        let title = format!("{crawl}: when {who} done");
        let longest = if small { SMALL } else { LARGE } as u32;
        let floor = DELAY * (longest - 1) + LATENCY;
        let table = Table::new("polite_frontier", title, "s", Flavour::Paused, 1)
            .recipe("polite_frontier", crawl_with(small, |ends| async move { frontier(&ends).await }))
            .peer("one queue, and a gate per host in each worker", crawl_with(small, fifo))
            .peer("a task for each host, and a semaphore", crawl_with(small, tasks))
            .floor("the largest of them, alone", figure(move || ready((floor.as_secs_f64(), String::new()))));
        bench.measure(table);
    }
    let mut smaller = None;
    for hosts in [1_000, 10_000, 100_000] {
        let title = format!("{hosts} hosts of 2 pages each, no delay, pending once");
        let recipe = time(move || async move {
            let (delay, overall) = (Duration::ZERO, OVERALL);
            let polite = Politeness { delay, overall, ..Politeness::default() };
            let visit = async |_| {
                yield_now().await;
                Visit { answer: Answer::Well(Duration::ZERO), links: None, again: None }
            };
            let pages = (0..2).flat_map(|number| (0..hosts).map(move |host| (host, number)));
            polite_frontier(pages, &polite, |page: &Page| page.0, visit, drop).await;
        });
        let peer = time(move || async move {
            let slots = Arc::new(Semaphore::new(OVERALL.get()));
            let host = |_| {
                let slots = slots.clone();
                tokio::spawn(async move {
                    for _ in 0..2 {
                        let _slot = slots.acquire().await;
                        yield_now().await;
                    }
                })
            };
            join_all((0..hosts).map(host)).await.len()
        });
        let mut table =
            Table::new("polite_frontier", title.clone(), "ns/page", Flavour::CurrentThread, 2 * hosts)
                .recipe("polite_frontier", recipe)
                .peer("a task for each host, and a semaphore", peer)
                .python("a heap of hosts", &format!("polite_frontier {hosts} 2 {OVERALL}"));
        if let Some(smaller) = smaller.replace(title) {
            table = table.grown_from(smaller);
        }
        bench.measure(table);
    }

    const REQUESTS: usize = 1_000;
    let title = format!("{REQUESTS} requests to a host that is ready");
    let recipe = time(|| async {
        let mut pace = HostPace::new(Duration::ZERO, Duration::from_secs(60));
        for _ in 0..REQUESTS {
            let began = pace.turn().await;
            pace.ended(began, Answer::Well(Duration::ZERO));
        }
        pace.delay()
    });
    let floor = time(|| async { (0..REQUESTS).map(|_| Instant::now().elapsed()).max() });
    let table = Table::new("host_pacing", title, "ns/request", Flavour::CurrentThread, REQUESTS)
        .recipe("host_pacing", recipe)
        .floor("two looks at the clock", floor)
        .python("a delay and a time", &format!("host_pacing {REQUESTS}"));
    bench.measure(table);
}

/// When each host's last page was there.
type Ends = Arc<Mutex<HashMap<usize, Duration>>>;

/// In seconds, when the small hosts, or all, are done.
fn crawl_with<F>(small: bool, run: fn(Ends) -> F) -> Measure
where
    F: Future<Output = ()> + Send + 'static,
{
    figure(move || async move {
        let ends = Ends::default();
        run(ends.clone()).await;
        let ends = ends.lock().expect("nobody panics");
        let last = ends.iter().filter(|(host, _)| !small || **host > 0).map(|(_, end)| *end).max();
        (last.unwrap_or_default().as_secs_f64(), String::new())
    })
}

async fn fetch((host, _): Page, start: Instant, ends: &Ends) {
    sleep(LATENCY).await;
    ends.lock().expect("nobody panics").insert(host, start.elapsed());
}

async fn frontier(ends: &Ends) {
    let start = Instant::now();
    let polite = Politeness { delay: DELAY, overall: OVERALL, ..Politeness::default() };
    let visit = |page: Page| async move {
        fetch(page, start, ends).await;
        Visit { answer: Answer::Well(Duration::ZERO), links: None, again: None }
    };
    polite_frontier(pages(), &polite, |page| page.0, visit, |_| ()).await;
}

/// What one writes first: workers take the next page, and wait until its host may be visited.
async fn fifo(ends: Ends) {
    let start = Instant::now();
    let (queue, gates) = (Mutex::new(pages()), Mutex::new(HashMap::<usize, Instant>::new()));
    let next = || queue.lock().expect("nobody panics").next();
    let turn = |host| {
        let mut gates = gates.lock().expect("nobody panics");
        let next = gates.entry(host).or_insert(start);
        let turn = (*next).max(Instant::now());
        *next = turn + DELAY;
        turn
    };
    let worker = async || {
        while let Some(page) = next() {
            sleep_until(turn(page.0)).await;
            fetch(page, start, &ends).await;
        }
    };
    join_all((0..OVERALL.get()).map(|_| worker())).await;
}

async fn tasks(ends: Ends) {
    let (start, slots) = (Instant::now(), Arc::new(Semaphore::new(OVERALL.get())));
    let mut hosts = HashMap::<usize, Vec<Page>>::new();
    pages().for_each(|page| hosts.entry(page.0).or_default().push(page));
    let host = |pages: Vec<Page>| {
        let (ends, slots) = (ends.clone(), slots.clone());
        tokio::spawn(async move {
            let mut turn = start;
            for page in pages {
                sleep_until(turn).await;
                let _slot = slots.acquire().await;
                turn = Instant::now() + DELAY;
                fetch(page, start, &ends).await;
            }
        })
    };
    join_all(hosts.into_values().map(host)).await;
}
