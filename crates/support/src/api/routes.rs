//! What the server has to offer when nothing goes wrong.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::{Query, number, within};
use super::{Shared, lock};

const USERS: u64 = 100_000;
const ITEMS: u64 = 1000;
/// The most that `/echo` reads of a request's body.
const ECHO_LIMIT: usize = 1024 * 1024;
const FIRST: [&str; 8] = ["Amina", "Björn", "Chiara", "Dmitri", "Esther", "Farid", "Grace", "Hiroshi"];
const LAST: [&str; 8] = ["Okafor", "Lindqvist", "Moretti", "Petrov", "Cohen", "Haddad", "Silva", "Tanaka"];

/// Why a request has no answer but this.
pub(super) struct Refusal(StatusCode, String);

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Refusal> for Response<Bytes> {
    fn from(Refusal(status, message): Refusal) -> Self {
        error(status, &message)
    }
}

/// The route's name in the gauge.
pub(super) fn name(path: &str) -> &'static str {
    let known =
        ["/", "/items", "/limited", "/gauge", "/echo", "/robots.txt"].into_iter().find(|name| *name == path);
    known.unwrap_or(if path.starts_with("/users/") { "/users" } else { "other" })
}

/// The answer of a request that nothing went wrong with. The query has only the route's own parameters left.
pub(super) async fn answer(
    shared: &Shared,
    head: &Parts,
    body: Incoming,
    query: Query,
    date: bool,
) -> Result<Response<Bytes>, Refusal> {
    let (method, path) = (&head.method, head.uri.path());
    match name(path) {
        "/echo" => echo(head, body).await,
        "other" => Err(Refusal(StatusCode::NOT_FOUND, format!("no route {path}: GET / lists the routes"))),
        _ if method != Method::GET && method != Method::HEAD => {
            Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{method} {path}: only GET and HEAD")))
        }
        "/gauge" => Ok(json(StatusCode::OK, shared.gauge.json())),
        "/users" => user(path.trim_start_matches("/users/"), query),
        "/items" => items(head.uri.query().unwrap_or_default(), query),
        "/limited" => limited(&shared.buckets, query, date),
        "/robots.txt" => text(include_bytes!("robots.txt"), query),
        _ => text(include_bytes!("index.txt"), query),
    }
}

fn text(text: &'static [u8], query: Query) -> Result<Response<Bytes>, Refusal> {
    query.end()?;
    let mut answer = Response::new(Bytes::from_static(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(answer)
}

fn user(id: &str, query: Query) -> Result<Response<Bytes>, Refusal> {
    query.end()?;
    let Some(id) = within(1, USERS)(id) else {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("no user {id}: ids run from 1 to {USERS}")));
    };
    let (first, last) = (FIRST[(id % 8) as usize], LAST[(id / 8 % 8) as usize]);
    Ok(json(StatusCode::OK, json!({ "id": id, "name": format!("{first} {last}") })))
}

fn items(text: &str, mut query: Query) -> Result<Response<Bytes>, Refusal> {
    let page = query.take("page", "1 to 1000", within(1, ITEMS))?.unwrap_or(1);
    let per_page = query.take("per_page", "1 to 100", within(1, 100))?.unwrap_or(20);
    query.end()?;
    let before = (page - 1) * per_page;
    let last = (before + per_page).min(ITEMS);
    let next = (last < ITEMS).then(|| {
        let others = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name != "page");
        let mut next = form_urlencoded::Serializer::new(String::new());
        next.extend_pairs(others).append_pair("page", &(page + 1).to_string());
        format!("/items?{}", next.finish())
    });
    let item = |id| json!({ "id": id, "name": format!("item {id}"), "cents": 199 + id * 37 % 5000 });
    let items: Vec<_> = (before + 1..=last).map(item).collect();
    Ok(json(StatusCode::OK, json!({ "items": items, "page": page, "total": ITEMS, "next": next })))
}

fn limited(buckets: &Buckets, mut query: Query, date: bool) -> Result<Response<Bytes>, Refusal> {
    let rate = query.take("rate", "0.001 to 1000000 a second", within(0.001, 1e6))?.unwrap_or(10.0);
    let burst = query.take("burst", "1 to 1000000", within(1, 1_000_000))?.unwrap_or(1);
    let key = query.take("key", "any text", number)?.unwrap_or_default();
    query.end()?;
    let Err(wait) = buckets.take(key, Duration::from_secs_f64(1.0 / rate), burst) else {
        return Ok(json(StatusCode::OK, json!({ "allowed": true })));
    };
    let message = format!("rate limit: next token in {} ms", wait.as_millis());
    let mut answer = error(StatusCode::TOO_MANY_REQUESTS, &message);
    retry_after(&mut answer, wait.as_secs_f64().ceil() as u64, date);
    Ok(answer)
}

async fn echo(head: &Parts, body: Incoming) -> Result<Response<Bytes>, Refusal> {
    let body = Limited::new(body, ECHO_LIMIT).collect().await.map_err(|problem| {
        let too_long = problem.is::<LengthLimitError>();
        let status = if too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Refusal(status, format!("the body cannot be read, {ECHO_LIMIT} bytes at most: {problem}"))
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), text(value.as_bytes()))).collect();
    let echo = json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers,
        "body": text(&body.to_bytes()),
    });
    Ok(json(StatusCode::OK, echo))
}

pub(super) fn json(status: StatusCode, value: Value) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

pub(super) fn error(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, json!({ "error": message }))
}

pub(super) fn retry_after(answer: &mut Response<Bytes>, seconds: u64, date: bool) {
    // A date has no fractions: one second more, so that it is never too early.
    let then = SystemTime::now() + Duration::from_secs(seconds + 1);
    let value = if date { httpdate::fmt_http_date(then) } else { seconds.to_string() };
    if let Ok(value) = HeaderValue::try_from(value) {
        answer.headers_mut().insert(RETRY_AFTER, value);
    }
}

/// A token bucket per key, kept as the time at which the bucket will be full again.
#[derive(Default)]
pub(super) struct Buckets(Mutex<HashMap<String, Instant>>);

impl Buckets {
    /// Takes a token, or says when the next one will be there.
    fn take(&self, key: String, interval: Duration, burst: u32) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = lock(&self.0);
        let full = buckets.entry(key).or_insert(now);
        let full_after = (*full).max(now) + interval;
        let wait = full_after.saturating_duration_since(now + interval * burst);
        if wait.is_zero() {
            *full = full_after;
            Ok(())
        } else {
            Err(wait)
        }
    }
}
