//! Obey each site's robots.txt, which is fetched once and kept for a day at most.
//!
//! Use it before every request of a crawler. It keeps the rules of RFC 9309, and leaves the fetching to you.
//!
//! | | |
//! |---|---|
//! | Order | callers of one origin that overlap share one fetch, and no origin waits for another |
//! | Errors | none: what is not known is forbidden, and [`Access`] says why; it is asked for again after ten minutes |
//! | Cancellation | any caller may leave, and the fetch goes on for the others; when the last one has left it ends at its next await, and nothing is kept |
//! | Panics | a panic of the fetch forbids the URL to all who wait for it, with its message, and nothing is kept |
//! | Memory | O(`most` × 500 KiB): the rules of `most` origins, each made from at most [`ROBOTS_BYTES`] of text; the origin that came first is forgotten first. The file that is being fetched is the fetch's own |
//! | Backpressure | none: callers wait, and as many fetches run as there are different origins |
//! | Clock | `tokio::time`: rules are kept for 24 hours, what forbids everything for ten minutes |
//!
//! A file (2xx) is obeyed. Where there is none (4xx, or more than five redirects) everything is allowed. What cannot be known
//! is forbidden: 5xx, no answer, a file that cannot be parsed, and 429, by which a server says that it is overloaded.
//!
//! ```
//! use scraping::{Fetched, Robots};
//! use url::Url;
//!
//! #[tokio::main]
//! async fn main() {
//!     let file = || Fetched { status: 200, location: None, body: b"user-agent: *\ndisallow: /me".to_vec() };
//!     let robots = Robots::new("ExampleBot", 1000.try_into().unwrap(), move |_| async move { Ok::<_, &str>(file()) });
//!     let url = Url::parse("https://a.example/me").unwrap();
//!     assert!(!robots.access(&url).await.allowed);
//! }
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks::single_flight::SingleFlight;
use texting_robots::Robot;
use tokio::time::Instant;
use url::{Position, Url};

/// How much of a robots.txt is read, in bytes; a line that it cuts is left out. A fetch may stop reading there.
pub const ROBOTS_BYTES: usize = 500 * 1024;
const REDIRECTS: usize = 5;
/// The parser compiles a rule with a `$`: a file full of them would take seconds and hundreds of megabytes.
const MOST_DOLLARS: usize = 1000;
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const FORBIDDEN: Duration = Duration::from_secs(10 * 60);

/// The answer to one request. The fetch follows no redirect itself.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The HTTP status.
    pub status: u16,
    /// The header `Location`, which is read where the status is a redirect.
    pub location: Option<String>,
    /// The body, which is read where the status is 2xx.
    pub body: Vec<u8>,
}

/// Whether a URL may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether it may.
    pub allowed: bool,
    /// The least time between two requests to the origin (`Crawl-delay`), zero if it asks for none.
    pub delay: Duration,
    /// Why the rules are not known, in which case nothing is allowed.
    pub unknown: Option<String>,
}

/// The rules of many origins.
pub struct Robots<F> {
    shared: Arc<Shared<F>>,
    flights: SingleFlight<Arc<str>, Arc<File>>,
}

struct Shared<F> {
    agent: String,
    most: NonZeroUsize,
    fetch: F,
    kept: Mutex<Kept>,
}

/// The same origins twice: with what is known until when, and in the order in which they came.
type Kept = (HashMap<Arc<str>, (Instant, Arc<File>)>, VecDeque<Arc<str>>);

/// The file, nothing if there is none, or why that is not known.
type File = Result<Option<Robot>, String>;

impl<F, R, E> Robots<F>
where
    F: Fn(Url) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Fetched, E>> + Send + 'static,
    E: Display,
{
    /// Rules for the crawler `agent` (its product token, `ExampleBot`; a slash and what follows is left out), kept for at
    /// most `most` origins. `fetch` requests one URL; give it a timeout.
    pub fn new(agent: &str, most: NonZeroUsize, fetch: F) -> Self {
        let agent = agent.split('/').next().unwrap_or_default().trim().into();
        let shared = Shared { agent, most, fetch, kept: Mutex::default() };
        Robots { shared: Arc::new(shared), flights: SingleFlight::new() }
    }

    /// Whether `url` may be fetched. Panics outside a Tokio runtime, unless the rules are known.
    pub async fn access(&self, url: &Url) -> Access {
        let origin: Arc<str> = url.origin().ascii_serialization().into();
        if let Some(file) = self.shared.kept(&origin) {
            return Access::to(url, &file);
        }
        let (shared, own) = (self.shared.clone(), origin.clone());
        let work = async move {
            // Another fetch may have ended since the caller looked.
            let Some(file) = shared.kept(&own) else { return shared.keep(&own, shared.request(&own).await) };
            file
        };
        let file = self.flights.run(origin, work).await;
        file.map_or_else(Access::unknown, |file| Access::to(url, &file))
    }
}

impl<F> Shared<F> {
    async fn request<R, E>(&self, origin: &str) -> File
    where
        F: Fn(Url) -> R,
        R: Future<Output = Result<Fetched, E>>,
        E: Display,
    {
        let url = Url::parse(&format!("{origin}/robots.txt")).ok().filter(is_http);
        let mut url = url.ok_or("only http and https have a robots.txt")?;
        for _ in 0..=REDIRECTS {
            let fetched = (self.fetch)(url.clone()).await.map_err(|error| error.to_string())?;
            match fetched.status {
                200..=299 => return parse(&self.agent, &fetched.body).map(Some),
                300..=399 => {
                    let location = fetched.location.as_deref().and_then(|location| url.join(location).ok());
                    url = location.filter(is_http).ok_or("a redirect to nowhere")?;
                }
                400..=499 if fetched.status != 429 => return Ok(None),
                status => return Err(format!("status {status}")),
            }
        }
        Ok(None)
    }

    fn kept(&self, origin: &str) -> Option<Arc<File>> {
        let kept = lock(&self.kept);
        kept.0.get(origin).filter(|(until, _)| Instant::now() < *until).map(|(_, file)| file.clone())
    }

    fn keep(&self, origin: &Arc<str>, file: File) -> Arc<File> {
        let until = Instant::now() + if file.is_ok() { KEPT } else { FORBIDDEN };
        let (mut kept, file) = (lock(&self.kept), Arc::new(file));
        if kept.0.insert(origin.clone(), (until, file.clone())).is_none() {
            kept.1.push_back(origin.clone());
        }
        if kept.0.len() > self.most.get() {
            let oldest = kept.1.pop_front();
            oldest.and_then(|oldest| kept.0.remove(&oldest));
        }
        file
    }
}

impl Access {
    fn to(url: &Url, file: &File) -> Self {
        let robot = match file {
            Ok(robot) => robot.as_ref(),
            Err(reason) => return Access::unknown(reason),
        };
        // What follows the `#` is never sent, so no rule is about it.
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let seconds = robot.and_then(|robot| robot.delay).unwrap_or_default();
        let delay = Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX);
        Access { allowed: robot.is_none_or(|robot| robot.allowed(path)), delay, unknown: None }
    }

    fn unknown(reason: impl Display) -> Self {
        Access { allowed: false, delay: Duration::ZERO, unknown: Some(reason.to_string()) }
    }
}

fn parse(agent: &str, body: &[u8]) -> Result<Robot, String> {
    let lines = |text: &[u8]| text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let text = body.get(..ROBOTS_BYTES).map_or(body, |text| &text[..lines(text)]);
    if text.iter().filter(|byte| **byte == b'$').count() > MOST_DOLLARS {
        return Err(format!("a robots.txt with more than {MOST_DOLLARS} $"));
    }
    Robot::new(agent, text).map_err(|error| error.to_string())
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Nothing panics under it.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const MOST: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    type Answer = futures::future::BoxFuture<'static, Result<Fetched, String>>;

    fn url(url: &str) -> Url {
        url.parse().unwrap()
    }

    fn answer(status: u16, text: &str) -> Fetched {
        Fetched { status, location: Some(text.into()), body: text.into() }
    }

    /// What access there is to `url`, if each request for a robots.txt is answered so.
    async fn access(
        agent: &str,
        url: &str,
        answer: impl Fn(Url) -> Fetched + Send + Sync + 'static,
    ) -> Access {
        let fetch = move |url| std::future::ready(Ok::<_, &str>(answer(url)));
        Robots::new(agent, MOST, fetch).access(&url.parse().unwrap()).await
    }

    /// The rules of origins whose robots.txt takes 10 ms, and how often one was requested.
    fn counted(status: u16) -> (Robots<impl Fn(Url) -> Answer>, Arc<AtomicUsize>) {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = requests.clone();
        let fetch = move |_| {
            counter.fetch_add(1, Relaxed);
            let answer = async move {
                sleep(Duration::from_millis(10)).await;
                // Not `panic!`: the message would be printed though the panic is expected.
                if status == 0 {
                    std::panic::resume_unwind(Box::new("broken"))
                } else {
                    Ok(answer(status, ""))
                }
            };
            Box::pin(answer) as Answer
        };
        (Robots::new("bot", MOST, fetch), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn order_overlapping_callers_share_one_fetch_and_no_origin_waits() {
        let ((robots, requests), start) = (counted(200), Instant::now());
        let urls = ["http://a/1", "http://a:80/2?q", "https://a/1", "http://a/", "http://me@a/3"].map(url);
        assert!(
            join_all(urls.iter().map(|url| robots.access(url))).await.iter().all(|access| access.allowed)
        );
        assert_eq!((requests.load(Relaxed), start.elapsed()), (2, Duration::from_millis(10)));
    }

    #[tokio::test]
    async fn errors_what_is_not_known_is_forbidden_and_what_is_not_there_allowed() {
        let allowed = async |status| access("bot", "http://a/", move |_| answer(status, "")).await.allowed;
        for (status, expected) in
            [(204, true), (404, true), (403, true), (429, false), (500, false), (100, false), (0, false)]
        {
            assert_eq!(allowed(status).await, expected, "{status}");
        }
        let failing = Robots::new("bot", MOST, async |_| Err("connection refused"));
        let unknown = failing.access(&url("http://a/")).await.unknown;
        assert_eq!(unknown.as_deref(), Some("connection refused"));
        let dollars = "disallow: /$\n".repeat(MOST_DOLLARS + 1);
        let unknown = access("bot", "http://a/1", move |_| answer(200, &dollars)).await.unknown;
        assert_eq!(unknown.as_deref(), Some("a robots.txt with more than 1000 $"));
        let unknown = access("bot", "data:,a", |_| answer(200, "")).await.unknown;
        assert_eq!(unknown.as_deref(), Some("only http and https have a robots.txt"));
    }

    #[tokio::test]
    async fn errors_five_redirects_are_followed_and_no_sixth() {
        let hops = |hops: usize| {
            move |url: Url| {
                let hop = url.query().map_or(0, |hop| hop.parse().unwrap());
                if hop == hops {
                    answer(200, "user-agent: *\ndisallow: /")
                } else {
                    answer(301, &format!("//b/?{}", hop + 1))
                }
            }
        };
        assert!(!access("bot", "http://a/", hops(5)).await.allowed);
        assert!(access("bot", "http://a/", hops(6)).await.allowed);
        let nowhere = access("bot", "http://a/", |_| answer(302, "file:///etc/passwd")).await;
        assert_eq!((nowhere.allowed, nowhere.unknown.as_deref()), (false, Some("a redirect to nowhere")));
    }

    #[tokio::test]
    async fn errors_the_file_is_obeyed() {
        let file = "user-agent: *\ndisallow: /\n\nuser-agent: ExampleBot\ndisallow: /*.pdf$\ndisallow: /a\nallow: /a/b\ncrawl-delay: 2.5";
        let of = async |agent: &str, url: &str| access(agent, url, |_| answer(200, file)).await;
        assert_eq!(of("examplebot/1.0", "http://a/").await.delay, Duration::from_millis(2500));
        let paths = [
            ("/", true),
            ("/a?b", false),
            ("/a/b", true),
            ("/x.pdf", false),
            ("/x.pdf#page=2", false),
            ("/x.pdf?", true),
        ];
        for (path, expected) in paths {
            assert_eq!(of("ExampleBot", &format!("http://me@a{path}")).await.allowed, expected, "{path}");
        }
        assert!(!of("OtherBot", "http://a/").await.allowed);
        let endless = access("bot", "http://a/", |_| answer(200, "user-agent: *\ncrawl-delay: inf")).await;
        assert_eq!((endless.allowed, endless.delay), (true, Duration::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_of_the_last_caller_ends_the_fetch_and_nothing_is_kept() {
        let ((robots, requests), url) = (counted(404), url("http://a/"));
        let patience = |millis| tokio::time::timeout(Duration::from_millis(millis), robots.access(&url));
        let (first, second) = tokio::join!(patience(5), patience(20));
        assert!(first.is_err() && second.unwrap().allowed);
        advance(KEPT).await;
        assert!(patience(5).await.is_err());
        sleep(Duration::from_millis(1)).await;
        assert_eq!((robots.flights.in_flight(), requests.load(Relaxed)), (0, 2));
        assert!(patience(20).await.unwrap().allowed);
        assert_eq!(requests.load(Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_the_fetch_forbid_and_are_not_kept() {
        let ((robots, requests), url) = (counted(0), url("http://a/"));
        for asked in 1..3 {
            let (one, other) = tokio::join!(robots.access(&url), robots.access(&url));
            assert_eq!(
                (one.unknown.as_deref(), one.allowed),
                (Some("the shared work panicked: broken"), false)
            );
            assert_eq!((other, requests.load(Relaxed)), (one, asked));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_that_of_the_most_origins_and_of_the_text() {
        let (robots, requests) = counted(200);
        for origin in [1, 2, 1, 3, 2, 3, 1] {
            robots.access(&url(&format!("http://host{origin}/"))).await;
        }
        assert_eq!(requests.load(Relaxed), 4);
        let kept = |kept: &Kept| (kept.0.len(), kept.1.len());
        assert_eq!(kept(&lock(&robots.shared.kept)), (2, 2));
        let cut = |before: usize| {
            move |_: Url| answer(200, &format!("{}\ndisallow: /private", "#".repeat(ROBOTS_BYTES - before)))
        };
        assert!(!access("bot", "http://a/private", cut(30)).await.allowed);
        assert!(access("bot", "http://a/p", cut(15)).await.allowed, "the rule would be cut to /p");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_rules_are_kept_for_a_day_and_a_failure_for_ten_minutes() {
        for (status, keep) in [(200, KEPT), (404, KEPT), (503, FORBIDDEN)] {
            let ((robots, requests), url) = (counted(status), url("http://a/"));
            robots.access(&url).await;
            advance(keep - Duration::from_millis(1)).await;
            robots.access(&url).await;
            assert_eq!(requests.load(Relaxed), 1, "{status}");
            advance(Duration::from_millis(1)).await;
            robots.access(&url).await;
            assert_eq!(requests.load(Relaxed), 2, "{status}");
        }
    }
}
