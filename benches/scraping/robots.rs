//! `robots`: what a known origin costs, and what the file of a new one does.

use std::future::ready;
use std::num::NonZeroUsize;
use std::sync::Arc;

use benches::{Bench, Flavour, Table, time};
use futures::future::join_all;
use scraping::{Fetched, ROBOTS_BYTES, Robots};
use texting_robots::Robot;
use url::Url;

const PAGES: usize = 1_000;
const RULES: usize = 20;
const ORIGINS: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// A usual file: so many rules for all.
fn file(rules: usize) -> String {
    let rules: String = (0..rules).map(|number| format!("disallow: /private/{number}/\n")).collect();
    format!("user-agent: *\n{rules}crawl-delay: 1\n")
}

fn rules(text: String) -> Robots<impl Fn(Url) -> std::future::Ready<Result<Fetched, String>>> {
    let text = Arc::new(text);
    Robots::new("ExampleBot", ORIGINS, move |_| {
        ready(Ok(Fetched { status: 200, location: None, body: text.as_bytes().to_vec() }))
    })
}

fn pages() -> Arc<[Url]> {
    let url = |number| format!("https://a.example/pages/{number}");
    (0..PAGES).map(|number| Url::parse(&url(number)).expect("it is a URL")).collect()
}

pub(crate) fn tables(bench: &mut Bench) {
    let title = format!("{PAGES} pages of one known origin with {RULES} rules");
    let (robots, all) = (Arc::new(rules(file(RULES))), pages());
    let recipe = time(move || {
        let (robots, all) = (robots.clone(), all.clone());
        async move {
            let mut allowed = 0;
            for url in all.iter() {
                allowed += usize::from(robots.access(url).await.allowed);
            }
            allowed
        }
    });
    let all = pages();
    let parsed = time(move || {
        let all = all.clone();
        async move {
            let text = file(RULES);
            let allowed = |url: &&Url| {
                Robot::new("ExampleBot", text.as_bytes()).is_ok_and(|robot| robot.allowed(url.path()))
            };
            all.iter().filter(allowed).count()
        }
    });
    let (all, robot) = (pages(), Robot::new("ExampleBot", file(RULES).as_bytes()));
    let robot = Arc::new(robot.expect("it can be parsed"));
    let floor = time(move || {
        let (all, robot) = (all.clone(), robot.clone());
        async move { all.iter().filter(|url| robot.allowed(url.path())).count() }
    });
    let table = Table::new("robots", title, "ns/page", Flavour::CurrentThread, PAGES)
        .recipe("robots", recipe)
        .peer("texting_robots, parsed for each page", parsed)
        .floor("texting_robots, parsed once", floor)
        .python("urllib.robotparser, parsed once", &format!("robots {PAGES} {RULES}"));
    bench.measure(table);

    let title = format!("{PAGES} callers of an origin that is not known");
    let all = pages();
    let recipe = time(move || {
        let (robots, all) = (rules(file(RULES)), all.clone());
        async move { join_all(all.iter().map(|url| robots.access(url))).await.len() }
    });
    let table =
        Table::new("robots", title, "ns/caller", Flavour::CurrentThread, PAGES).recipe("robots", recipe);
    bench.measure(table);

    let title = format!("a file of {} KiB", ROBOTS_BYTES / 1024);
    let mut table = Table::new("robots", title, "ms", Flavour::CurrentThread, 1);
    for (name, line) in
        [("rules", "disallow: /private/\n"), ("patterns", "disallow: /*a*\n"), ("blank lines", " \n")]
    {
        let text = line.repeat(ROBOTS_BYTES / line.len());
        let first: Url = Url::parse("https://a.example/").expect("it is a URL");
        let once = time(move || {
            let (robots, first) = (rules(text.clone()), first.clone());
            async move { robots.access(&first).await.allowed }
        });
        table = table.recipe(name, once);
    }
    bench.measure(table);
}
