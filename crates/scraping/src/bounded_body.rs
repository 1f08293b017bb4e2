//! Read a body up to a size, and all bodies together up to a budget of memory.
//!
//! Use it for every body whose length others decide. What is checked is what arrives in memory, after decompression.
//!
//! | | |
//! |---|---|
//! | Order | bodies get their share of the budget first come, first served |
//! | Errors | [`BodyError`]: a wrong type before anything is read, too long, or what reading said; never a body that was cut |
//! | Cancellation | dropping the call drops the response and gives its share back; so does dropping the [`BoundedBody`] |
//! | Panics | none of its own |
//! | Memory | the budget for all bodies together, and for a moment as much again for one that grows |
//! | Backpressure | a body waits at its server until its share is free, with its connection open |
//! | Clock | none of its own: a client's limits go on |
//!
//! A body takes the share that it may need, which is its announced length or the cap, and gives back what it did not. So two
//! that are half read never wait for each other. A compressed body announces no length that counts: a kilobyte on the wire
//! may be a megabyte here.
//!
//! ```
//! use scraping::BodyBudget;
//!
//! #[tokio::main]
//! async fn main() {
//!     let (budget, cap) = (1000.try_into().unwrap(), 100.try_into().unwrap());
//!     let budget = BodyBudget::new(budget, cap, &[]).unwrap();
//!     let response = http::Response::new("hello").into();
//!     let body = budget.read(response).await.unwrap();
//!     assert_eq!((&*body, budget.free()), (&b"hello"[..], 995));
//! }
//! ```

use std::num::NonZeroUsize;
use std::ops::Deref;

use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use semaphores::weighted_limit::{Share, TooHeavy, WeightedLimit};
use tokio::task::coop::consume_budget;

/// Memory for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    memory: WeightedLimit,
    cap: usize,
    types: Vec<&'static str>,
}

/// A whole body. Dropping it gives its share of the budget back.
#[derive(Debug)]
pub struct BoundedBody {
    bytes: Vec<u8>,
    _share: Share,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Its type is not wanted. Nothing was read.
    #[error("{url}: the content type is {found}, and not one of {wanted:?}")]
    ContentType {
        /// Where it came from.
        url: String,
        /// What the header says.
        found: String,
        /// What is wanted.
        wanted: Vec<&'static str>,
    },
    /// It is longer than the cap, or than its own announcement.
    #[error("{url}: the body is longer than {cap} bytes")]
    TooLong {
        /// Where it came from.
        url: String,
        /// How long it may be, after decompression.
        cap: usize,
    },
    /// It could not be read to its end.
    #[error(transparent)]
    Read(#[from] reqwest::Error),
}

impl BodyBudget {
    /// `budget` bytes for all bodies, `cap` for each. A body's type must be one of `types`, such as `text/html`; none at
    /// all allows any.
    ///
    /// # Errors
    ///
    /// [`TooHeavy`] if `cap` is above the budget.
    pub fn new(budget: NonZeroUsize, cap: NonZeroUsize, types: &[&'static str]) -> Result<Self, TooHeavy> {
        let (memory, cap) = (WeightedLimit::new(budget), cap.get());
        if cap > memory.budget() {
            return Err(TooHeavy { weight: cap, budget: memory.budget() });
        }
        Ok(BodyBudget { memory, cap, types: types.to_vec() })
    }

    /// What is free at this moment, in bytes.
    pub fn free(&self) -> usize {
        self.memory.free()
    }

    /// Reads the body of `response` to its end.
    pub async fn read(&self, mut response: Response) -> Result<BoundedBody, BodyError> {
        self.check_type(&response)?;
        // The client removes the header from a body that it decompresses.
        let announced = header(&response, CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let announced = announced.map_or(self.cap, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let too_long = |cap, response: &Response| BodyError::TooLong { url: response.url().to_string(), cap };
        if announced > self.cap {
            return Err(too_long(self.cap, &response));
        }
        let share = self.memory.acquire(announced).await;
        let mut share = share.expect("the cap is not above the budget");
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if chunk.len() > announced - bytes.len() {
                return Err(too_long(announced, &response));
            }
            append(&mut bytes, &chunk, announced);
            // A body that is always ready must not keep the thread.
            consume_budget().await;
        }
        bytes.shrink_to_fit();
        share.give_back(announced.saturating_sub(bytes.capacity()));
        Ok(BoundedBody { bytes, _share: share })
    }

    fn check_type(&self, response: &Response) -> Result<(), BodyError> {
        let found = header(response, CONTENT_TYPE).unwrap_or("unknown");
        // Parameters follow, such as `charset=utf-8`.
        let name = found.split(';').next().unwrap_or_default().trim();
        if self.types.is_empty() || self.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        let (url, wanted) = (response.url().to_string(), self.types.clone());
        Err(BodyError::ContentType { url, found: found.into(), wanted })
    }
}

impl Deref for BoundedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

fn header(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Grows by doubling, as a `Vec` does, but never beyond `most`.
fn append(bytes: &mut Vec<u8>, chunk: &[u8], most: usize) {
    let needed = bytes.len() + chunk.len();
    if needed > bytes.capacity() {
        let room = bytes.capacity().saturating_mul(2).min(most).max(needed);
        bytes.reserve_exact(room - bytes.len());
    }
    bytes.extend_from_slice(chunk);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::time::Duration;

    use futures::future::{join, join_all};
    use futures::{FutureExt, StreamExt, stream};
    use tokio::time::sleep;

    use super::*;

    fn budget(budget: usize, cap: usize, types: &[&'static str]) -> BodyBudget {
        BodyBudget::new(budget.try_into().unwrap(), cap.try_into().unwrap(), types).unwrap()
    }

    fn response(pieces: Vec<&'static str>, wait: Duration) -> Response {
        let pieces = stream::iter(pieces).then(move |piece| async move {
            sleep(wait).await;
            Ok::<_, std::io::Error>(piece)
        });
        http::Response::new(reqwest::Body::wrap_stream(pieces)).into()
    }

    fn here(body: &'static str) -> Response {
        http::Response::new(body).into()
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_first_come_first_served() {
        let (budget, ended) = (budget(4, 4, &[]), Cell::new(0));
        let read = async |number, wait| {
            budget.read(response(vec!["ab", "cd"], Duration::from_millis(wait))).await.unwrap();
            ended.set(ended.get() * 10 + number);
        };
        join_all([read(1, 30), read(2, 20), read(3, 10)]).await;
        assert_eq!(ended.get(), 123);
    }

    #[tokio::test]
    async fn errors_name_the_type_or_the_cap() {
        let typed =
            |value: &str| http::Response::builder().header(CONTENT_TYPE, value).body("<p>").unwrap().into();
        let html = budget(9, 9, &["text/html"]);
        assert_eq!(&*html.read(typed("Text/HTML; charset=utf-8")).await.unwrap(), b"<p>");
        let error = html.read(typed("image/png")).await.unwrap_err().to_string();
        assert!(error.ends_with("the content type is image/png, and not one of [\"text/html\"]"), "{error}");
        assert!(matches!(html.read(here("no type")).await, Err(BodyError::ContentType { .. })));
        assert_eq!(&*html.read(typed("text/html")).await.unwrap(), b"<p>");
        let error = budget(9, 2, &[]).read(here("abc")).await.unwrap_err().to_string();
        assert!(error.ends_with("the body is longer than 2 bytes"), "{error}");
        assert!(BodyBudget::new(2.try_into().unwrap(), 3.try_into().unwrap(), &[]).is_err());
    }

    #[tokio::test]
    async fn errors_before_anything_is_read_when_the_length_says_so() {
        let announced = http::Response::builder().header(CONTENT_LENGTH, "18446744073709551615");
        let never = reqwest::Body::wrap_stream(stream::pending::<Result<String, std::io::Error>>());
        let read = budget(9, 9, &[]).read(announced.body(never).unwrap().into()).now_or_never();
        assert!(matches!(read, Some(Err(BodyError::TooLong { cap: 9, .. }))));
        // A header that promises less than there is.
        let lying = http::Response::builder().header(CONTENT_LENGTH, "1").body("abc").unwrap().into();
        assert!(matches!(budget(9, 9, &[]).read(lying).await, Err(BodyError::TooLong { cap: 1, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_gives_the_share_back() {
        let budget = budget(8, 8, &[]);
        let body = budget.read(here("abc")).await.unwrap();
        assert_eq!(budget.free(), 5);
        drop(body);
        let read = budget.read(response(vec!["a"], Duration::MAX));
        // A future that can be spawned.
        fn send<F: Future + Send>(future: F) -> F {
            future
        }
        assert!(send(read).now_or_never().is_none());
        assert_eq!(budget.free(), 8);
    }

    #[test]
    fn memory_grows_by_doubling_up_to_the_cap() {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            append(&mut bytes, b"0123456789", 1000);
            assert!(bytes.capacity() <= 1000);
        }
        assert_eq!(bytes.len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn backpressure_leaves_a_body_unread_until_there_is_room() {
        let (budget, pulled) =
            (budget(4, 4, &[]), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let first = budget.read(here("abcd")).await.unwrap();
        let seen = pulled.clone();
        let body = stream::once(async move { seen.store(true, std::sync::atomic::Ordering::Relaxed) });
        let body = reqwest::Body::wrap_stream(body.map(|()| Ok::<_, std::io::Error>("x")));
        let second = budget.read(http::Response::new(body).into());
        let after = async {
            sleep(Duration::from_secs(1)).await;
            assert!(!pulled.load(std::sync::atomic::Ordering::Relaxed));
            drop(first);
        };
        assert_eq!(&*join(second, after).await.0.unwrap(), b"x");
    }
}
