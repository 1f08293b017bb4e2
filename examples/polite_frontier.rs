//! Crawl three sites, each at its own pace: a large one, a small one, and one that is overloaded for a while.
//!
//! The sites are simulated on a clock that jumps from wait to wait, so the run takes no time and is the same every time.
//!
//! ```console
//! cargo run --example polite_frontier
//! cargo run --example polite_frontier -- --delay 200 --overall 1
//! ```

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Parser;
use scraping::{Answer, Politeness, Visit, polite_frontier, retry_after};
use support::lanes::{LaneExt, PictureArgs, record};
use tokio::time::{Instant, sleep};

/// Crawl three simulated sites, each at its own pace, and draw the run.
#[derive(Parser)]
struct Args {
    /// Milliseconds between the starts of two visits to a site
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    delay: u64,
    /// How many visits may run at a time
    #[arg(long, default_value = "2")]
    overall: NonZeroUsize,
    #[command(flatten)]
    picture: PictureArgs,
}

/// A page of a site. It links to the pages with twice its number and one more.
#[derive(Clone, Copy)]
struct Page {
    site: &'static str,
    number: u32,
}

/// The sites, each with its last page.
const SITES: [(&str, u32); 3] = [("large", 6), ("small", 2), ("busy", 3)];

/// Status 503, with the header `Retry-After`.
#[derive(Debug, thiserror::Error)]
#[error("503, Retry-After: {0}")]
struct Unavailable(&'static str);

/// Takes 300 ms. The site `busy` refuses the first request.
async fn get(page: Page, refused: &Cell<bool>) -> Result<Vec<Page>, Unavailable> {
    sleep(Duration::from_millis(300)).await;
    if page.site == "busy" && !refused.replace(true) {
        return Err(Unavailable("3"));
    }
    let last = SITES.iter().find(|(site, _)| *site == page.site).map_or(0, |(_, last)| *last);
    let links = (2 * page.number..=2 * page.number + 1).filter(|number| *number <= last);
    Ok(links.map(|number| Page { number, ..page }).collect())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let delay = Duration::from_millis(args.delay);
    let politeness = Politeness { delay, overall: args.overall, ..Politeness::default() };
    let (start, refused) = (Instant::now(), Cell::new(false));
    let visit = async |page: Page| {
        let name = format!("{} {}", page.site, page.number);
        let answer = get(page, &refused).try_lane(&name).await;
        let ended = start.elapsed().as_millis();
        match answer {
            Ok(links) => {
                println!("{ended:>5} ms  {name}");
                Visit { answer: Answer::Well(Duration::ZERO), links, again: None }
            }
            Err(unavailable) => {
                println!("{ended:>5} ms  {name}: {unavailable}");
                // The clock is read for a date, and this one is in seconds.
                let pause = retry_after(unavailable.0, SystemTime::now());
                Visit { answer: Answer::Busy(pause), links: Vec::new(), again: Some(page) }
            }
        }
    };
    let input = SITES.map(|(site, _)| Page { site, number: 1 });
    let lost = |page: Page| println!("given up: {} {}", page.site, page.number);
    let crawl = polite_frontier(input, &politeness, |page| page.site, visit, lost);
    let ((), picture) = record("polite_frontier", crawl).await;
    args.picture.show(&picture).context("cannot write the picture")
}
