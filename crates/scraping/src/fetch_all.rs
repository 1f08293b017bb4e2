//! Fetch many URLs, so many at a time, and get an outcome for each by the deadline.
//!
//! Use it when some will fail and the rest still counts: a crawl, a check of links. For a list that grows while it is
//! worked on use `polite_frontier`.
//!
//! | | |
//! |---|---|
//! | Order | outcomes in input order; `done` sees each as it is there; fetches start in input order |
//! | Errors | one [`Missing`] a URL, which touches no other: it failed, it panicked, the deadline cut it off, or it never began |
//! | Cancellation | at the deadline the running fetches are dropped before the call returns; dropping the call drops them too |
//! | Panics | a panic of a fetch is its outcome; one of `done` is the caller's |
//! | Memory | O(n) outcomes, `limit` fetches, and what [`BodyBudget`] allows for bodies |
//! | Backpressure | `limit` fetches at a time; `done` holds up all of them while it runs |
//! | Clock | `tokio::time`, by the [`Deadline`] |
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use scraping::fetch_all;
//!
//! #[tokio::main]
//! async fn main() {
//!     let deadline = timeouts::Deadline::after("crawl", Duration::from_secs(60));
//!     let fetch = async |url: &&str| if url.len() > 2 { Err("too long") } else { Ok(url.len()) };
//!     let pages = fetch_all(&["/a", "/bc", "/d"], NonZeroUsize::MIN, &deadline, fetch, |_, _| ()).await;
//!     assert!(matches!(pages[..], [Ok(2), Err(scraping::Missing::Error("too long")), Ok(2)]));
//! }
//! ```

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use gather::map_concurrent::map_concurrent;
use reqwest::StatusCode;
use timeouts::deadline::{Deadline, Expired};
use tokio::sync::mpsc;

use super::bounded_body::{BodyBudget, BodyError};
use super::http_client::{HttpClient, HttpError};

/// Why a URL has no result.
#[derive(Debug)]
pub enum Missing<E> {
    /// Its fetch failed.
    Error(E),
    /// Its fetch panicked. The payload can be resumed with [`std::panic::resume_unwind`].
    Panic(Box<dyn Any + Send>),
    /// The deadline cut its fetch off. What it had sent was sent.
    CutOff(Expired),
    /// The deadline passed before its fetch began.
    NotStarted(Expired),
}

impl<E: fmt::Display> fmt::Display for Missing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Error(error) => error.fmt(f),
            Missing::Panic(_) => f.write_str("the fetch panicked"),
            Missing::CutOff(expired) => expired.fmt(f),
            Missing::NotStarted(expired) => write!(f, "never started: {expired}"),
        }
    }
}

/// Runs `fetch` for each of `urls`, at most `limit` at a time, until the deadline, and returns the outcomes in input order.
///
/// `done` is called with each outcome as it is there, and the place of its URL: for progress. Those that the deadline left
/// without an outcome of their own follow at the end.
pub async fn fetch_all<'a, U, T, E, F>(
    urls: &'a [U],
    limit: NonZeroUsize,
    deadline: &Deadline,
    fetch: impl Fn(&'a U) -> F,
    mut done: impl FnMut(usize, &Result<T, Missing<E>>),
) -> Vec<Result<T, Missing<E>>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut outcomes: Vec<_> = urls.iter().map(|_| None).collect();
    // All from here on have not been given to `fetch`.
    let begun = AtomicUsize::new(0);
    let work = |(place, url)| {
        let (fetch, begun) = (&fetch, &begun);
        async move {
            begun.fetch_max(place + 1, Ordering::Relaxed);
            (place, caught(async { fetch(url).await }).await)
        }
    };
    let keep = |place: usize, outcome| {
        done(place, &outcome);
        outcomes[place] = Some(outcome);
    };
    let consume = |mut results: mpsc::Receiver<_>| async move {
        let mut keep = keep;
        let receive = async {
            while let Some((place, outcome)) = results.recv().await {
                keep(place, outcome);
            }
        };
        let ended = deadline.run(receive).await;
        // What had ended by then is there.
        while let Ok((place, outcome)) = results.try_recv() {
            keep(place, outcome);
        }
        ended
    };
    let ended = map_concurrent(urls.iter().enumerate(), limit, work, consume).await;
    let begun = begun.into_inner();
    if let Err(expired) = ended {
        for (place, outcome) in outcomes.iter_mut().enumerate().filter(|(_, outcome)| outcome.is_none()) {
            let missing = if place < begun { Missing::CutOff } else { Missing::NotStarted };
            let left = Err(missing(expired.clone()));
            done(place, &left);
            *outcome = Some(left);
        }
    }
    outcomes.into_iter().map(|outcome| outcome.expect("without a deadline all have ended")).collect()
}

async fn caught<T, E>(fetch: impl Future<Output = Result<T, E>>) -> Result<T, Missing<E>> {
    // Sound for this function: the future is dropped after a panic and nobody looks at it again.
    match AssertUnwindSafe(fetch).catch_unwind().await {
        Ok(result) => result.map_err(Missing::Error),
        Err(payload) => Err(Missing::Panic(payload)),
    }
}

/// A page that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The status, a success.
    pub status: StatusCode,
    /// The length of the body in bytes, after decompression.
    pub length: usize,
    /// What was made of the body.
    pub content: T,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There was no answer, or not all of it.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The status is not a success.
    #[error("status {0}")]
    Status(StatusCode),
    /// The body is not wanted.
    #[error(transparent)]
    Body(BodyError),
}

/// Fetches one page for [`fetch_all`]: within the limits of `http`, its body within `budget`. What `read` makes of the body
/// is kept; the body's memory is given back.
pub async fn fetch_page<T>(
    http: &HttpClient,
    budget: &BodyBudget,
    url: &str,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<Page<T>, FetchError> {
    let response = http.get(url).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(FetchError::Status(status));
    }
    let body = budget.read(response).await.map_err(|error| match error {
        BodyError::Read(error) => FetchError::Http(error.into()),
        other => FetchError::Body(other),
    })?;
    Ok(Page { status, length: body.len(), content: read(&body) })
}

impl FetchError {
    /// The kind of the error in a word or two, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            FetchError::Http(HttpError::NotAUrl { .. }) => "not a URL",
            FetchError::Http(HttpError::Refused(_)) => "refused",
            FetchError::Http(HttpError::TimedOut(_)) => "timed out",
            FetchError::Http(HttpError::Request(error)) if error.is_connect() => "no connection",
            FetchError::Http(_) => "broken off",
            FetchError::Status(_) => "status",
            FetchError::Body(BodyError::ContentType { .. }) => "content type",
            FetchError::Body(_) => "too long",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn within(milliseconds: u64) -> Deadline {
        Deadline::after("crawl", Duration::from_millis(milliseconds))
    }

    /// Takes as long as the number says; 13 fails, 14 panics.
    async fn fetch(milliseconds: &u64) -> Result<u64, &'static str> {
        sleep(Duration::from_millis(*milliseconds)).await;
        match milliseconds {
            13 => Err("thirteen"),
            // Not `panic!`: the message would be printed though the panic is expected.
            14 => std::panic::resume_unwind(Box::new("fourteen")),
            _ => Ok(*milliseconds),
        }
    }

    fn shown(outcomes: Vec<Result<u64, Missing<&str>>>) -> Vec<String> {
        outcomes
            .into_iter()
            .map(|it| it.map_or_else(|missing| missing.to_string(), |it| it.to_string()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn order_of_outcomes_is_the_inputs_and_done_sees_them_as_they_come() {
        let seen = RefCell::new(Vec::new());
        let done = |place, _: &_| seen.borrow_mut().push(place);
        let outcomes = fetch_all(&[30, 10, 5], TWO, &within(1000), fetch, done).await;
        assert_eq!(shown(outcomes), ["30", "10", "5"]);
        assert_eq!(*seen.borrow(), [1, 2, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_panics_touch_no_other() {
        let outcomes = fetch_all(&[1, 13, 14, 4], TWO, &within(1000), fetch, |_, _| ()).await;
        assert_eq!(shown(outcomes), ["1", "thirteen", "the fetch panicked", "4"]);
        let nothing: [u64; 0] = [];
        assert!(fetch_all(&nothing, NonZeroUsize::MAX, &within(0), fetch, |_, _| ()).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn clock_the_deadline_names_what_it_cut_off_and_what_never_began() {
        let (start, seen) = (Instant::now(), Cell::new(0));
        let urls = [10, 500, 700, 1, 1];
        let outcomes = fetch_all(&urls, TWO, &within(100), fetch, |_, _| seen.set(seen.get() + 1)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        assert!(matches!(outcomes[..3], [Ok(10), Err(Missing::CutOff(_)), Err(Missing::CutOff(_))]));
        assert!(matches!(outcomes[3..], [Err(Missing::NotStarted(_)), Err(Missing::NotStarted(_))]));
        assert_eq!((seen.get(), shown(outcomes)[3].starts_with("never started: crawl")), (5, true));
        let late = fetch_all(&[1, 1], TWO, &within(0), fetch, |_, _| ()).await;
        assert!(late.iter().all(|it| matches!(it, Err(Missing::NotStarted(_)))), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_drops_the_running_fetches() {
        let held = Rc::new(());
        let forever = async |_: &u64| {
            let _held = held.clone();
            std::future::pending::<Result<(), ()>>().await
        };
        assert!(fetch_all(&[1; 9], TWO, &within(1000), forever, |_, _| ()).now_or_never().is_none());
        assert_eq!(Rc::strong_count(&held), 1);
        fetch_all(&[1; 9], TWO, &within(1000), forever, |_, _| assert_eq!(Rc::strong_count(&held), 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn panics_of_done_are_the_callers() {
        let done = |_, _: &_| std::panic::resume_unwind(Box::new("done"));
        let (urls, deadline) = ([1; 9], within(1000));
        let call = fetch_all(&urls, TWO, &deadline, fetch, done);
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_is_the_limit_and_memory_one_outcome_each() {
        let (running, peak) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let fetch = |milliseconds| async move {
            peak.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let result = fetch(milliseconds).await;
            running.fetch_sub(1, Ordering::Relaxed);
            result
        };
        assert_eq!(fetch_all(&[5; 40], TWO, &within(1000), fetch, |_, _| ()).await.len(), 40);
        assert_eq!(peak.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn memory_is_one_outcome_each_and_the_future_is_send() {
        let call = tokio::spawn(async {
            let urls: Vec<u64> = vec![0; 1000];
            fetch_all(&urls, NonZeroUsize::MAX, &within(60_000), fetch, |_, _| ()).await.len()
        });
        assert_eq!(call.await.unwrap(), 1000);
    }
}
