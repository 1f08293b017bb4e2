//! What can go wrong with a request, and how a query string asks for it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// What happens to the requests of a route: see [`Api::fault`](super::Api::fault). The default is nothing at
/// all.
///
/// Each part can also be asked for in a request's query string, which then replaces that part alone; the
/// module's documentation lists the parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    latency: Option<Range<Duration>>,
    tail: Option<(u64, Duration)>,
    pub(super) hold: Option<(usize, Duration)>,
    pub(super) slow: Option<(usize, Duration)>,
    pub(super) status: Option<u16>,
    pub(super) reset: Option<Reset>,
    pub(super) truncate: Option<usize>,
    first: Option<u64>,
    every: Option<u64>,
    pub(super) retry_after: Option<u32>,
    pub(super) date: Option<bool>,
}

/// When a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reset {
    BeforeResponse,
    AfterBytes(usize),
}

impl Fault {
    /// Nothing goes wrong.
    pub fn new() -> Fault {
        Fault::default()
    }

    /// Waits before answering. Each request gets its own time from the range, by its URL and how often that
    /// was asked for; a range from a time to itself is that time.
    pub fn latency(self, range: Range<Duration>) -> Fault {
        Fault { latency: Some(range), ..self }
    }

    /// Lets about `percent` % of the requests wait for `latency` instead. Which ones follows from the URL and
    /// how often it was asked for, so a repeated request has a new chance.
    pub fn tail(self, percent: u64, latency: Duration) -> Fault {
        Fault { tail: Some((percent, latency)), ..self }
    }

    /// Keeps the answer back until so many requests are in flight at once, at most for `limit`. The answer's
    /// header `x-hold` tells which it was: `met` or `time limit`.
    pub fn hold(self, in_flight: usize, limit: Duration) -> Fault {
        Fault { hold: Some((in_flight, limit)), ..self }
    }

    /// Sends the body in chunks of `bytes` (zero is taken as one), with `pause` between them.
    pub fn slow(self, bytes: usize, pause: Duration) -> Fault {
        Fault { slow: Some((bytes.max(1), pause)), ..self }
    }

    /// Answers with this status.
    ///
    /// # Panics
    ///
    /// If `status` is not within 200 to 599.
    pub fn status(self, status: u16) -> Fault {
        assert!((200..600).contains(&status), "status {status} is not within 200 to 599");
        Fault { status: Some(status), ..self }
    }

    /// Resets the connection (a TCP RST) instead of answering.
    pub fn reset_before_response(self) -> Fault {
        Fault { reset: Some(Reset::BeforeResponse), ..self }
    }

    /// Resets the connection (a TCP RST) after so many bytes of the body, at the latest before its last byte.
    pub fn reset_after(self, bytes: usize) -> Fault {
        Fault { reset: Some(Reset::AfterBytes(bytes)), ..self }
    }

    /// Announces the whole body in `content-length`, but closes the connection after so many bytes of it, at
    /// the latest before its last byte.
    pub fn truncate(self, bytes: usize) -> Fault {
        Fault { truncate: Some(bytes), ..self }
    }

    /// Limits the failure (status, reset or truncate; 503 if there is none) to the first `requests` for each
    /// URL.
    pub fn first(self, requests: u64) -> Fault {
        Fault { first: Some(requests), ..self }
    }

    /// Limits the failure (status, reset or truncate; 503 if there is none) to every `nth` request for each
    /// URL; zero is never.
    pub fn every(self, nth: u64) -> Fault {
        Fault { every: Some(nth), ..self }
    }

    /// Sends `retry-after` with the failing status.
    pub fn retry_after(self, seconds: u32) -> Fault {
        Fault { retry_after: Some(seconds), ..self }
    }

    /// Writes every `retry-after` as a date, at most a second too late and never too early.
    pub fn retry_after_as_date(self) -> Fault {
        Fault { date: Some(true), ..self }
    }

    /// The same fault, with what the query says in place of its own.
    pub(super) fn with_query(self, query: &mut Query) -> Result<Fault, String> {
        query.take("id", "any text", |_| Some(()))?;
        Ok(Fault {
            latency: query.take("latency", "milliseconds (20) or a range (20..80)", range)?.or(self.latency),
            tail: query.take("tail", "percent,milliseconds (5,300)", pair(0, 100))?.or(self.tail),
            hold: query.take("hold", "requests,milliseconds (3,500)", pair(0, usize::MAX))?.or(self.hold),
            slow: query.take("slow", "bytes,milliseconds (8,5)", pair(1, usize::MAX))?.or(self.slow),
            status: query.take("status", "200 to 599", within(200, 599))?.or(self.status),
            reset: query.take("reset", "`before` or a number of bytes", reset_point)?.or(self.reset),
            truncate: query.take("truncate", "a number of bytes", number)?.or(self.truncate),
            first: query.take("first", "a number of requests", number)?.or(self.first),
            every: query
                .take("every", "a number of requests, 1 or more", within(1, u64::MAX))?
                .or(self.every),
            retry_after: query.take("retry_after", "a number of seconds", number)?.or(self.retry_after),
            date: query.take("date", "0 or 1", |text| Some(within(0, 1)(text)? == 1))?.or(self.date),
        })
    }

    /// Whether what happens depends on how often the URL was asked for.
    pub(super) fn needs_count(&self) -> bool {
        let spread = self.latency.as_ref().is_some_and(|range| !range.is_empty());
        spread || self.tail.is_some() || self.first.is_some() || self.every.is_some()
    }

    /// The fault as it is for the `nth` request for a URL: without its failure if that one is spared.
    pub(super) fn for_request(self, nth: u64) -> Fault {
        if self.first.is_none() && self.every.is_none() {
            return self;
        }
        let fails = self.first.is_some_and(|first| nth <= first)
            || self.every.is_some_and(|every| nth.checked_rem(every) == Some(0));
        match (fails, self.status, self.reset, self.truncate) {
            (false, ..) => Fault { status: None, reset: None, truncate: None, ..self },
            (true, None, None, None) => Fault { status: Some(503), ..self },
            (true, ..) => self,
        }
    }

    /// How long the `nth` request for `url` waits.
    pub(super) fn wait(&self, url: &str, nth: u64) -> Duration {
        // A hash and not a random number: a run can be repeated, and the order of arrival has no say in it.
        let mut hasher = DefaultHasher::new();
        (url, nth).hash(&mut hasher);
        let dice = hasher.finish();
        match (&self.tail, &self.latency) {
            (Some((percent, latency)), _) if dice % 100 < *percent => *latency,
            (_, Some(Range { start, end })) => {
                let part = (dice >> 32) as f64 / 2_f64.powi(32);
                *start + end.saturating_sub(*start).mul_f64(part)
            }
            (_, None) => Duration::ZERO,
        }
    }
}

/// A query string's pairs. Whoever understands a pair takes it out; what is left over was misspelt.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn new(query: &str) -> Query {
        Query(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Takes the pair `name`, the last one if there are several. The error says what would be accepted.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let mut taken = None;
        for (_, value) in self.0.extract_if(.., |(key, _)| key == name) {
            taken = Some(parse(&value).ok_or_else(|| format!("{name}={value}: expected {accepted}"))?);
        }
        Ok(taken)
    }

    /// Complains about the pairs that nobody took.
    pub(super) fn end(self) -> Result<(), String> {
        match self.0.first() {
            Some((name, _)) => Err(format!("unknown parameter {name}: GET / lists the parameters")),
            None => Ok(()),
        }
    }
}

pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// A number from `least` to `most`.
pub(super) fn within<T: FromStr + PartialOrd>(least: T, most: T) -> impl Fn(&str) -> Option<T> {
    move |text| number(text).filter(|number| (&least..=&most).contains(&number))
}

/// A number from `least` to `most`, a comma and milliseconds.
fn pair<T: FromStr + PartialOrd>(least: T, most: T) -> impl Fn(&str) -> Option<(T, Duration)> {
    let first = within(least, most);
    move |text| {
        text.split_once(',').and_then(|(number, duration)| Some((first(number)?, milliseconds(duration)?)))
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    number(text).map(Duration::from_millis)
}

fn range(text: &str) -> Option<Range<Duration>> {
    let (start, end) = text.split_once("..").unwrap_or((text, text));
    let range = milliseconds(start)?..milliseconds(end)?;
    (range.start <= range.end).then_some(range)
}

fn reset_point(text: &str) -> Option<Reset> {
    if text == "before" { Some(Reset::BeforeResponse) } else { number(text).map(Reset::AfterBytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latencies_spread_over_their_range_and_repeat() {
        let fault = Fault::new().latency(20 * MS..80 * MS);
        let waits: Vec<_> = (0..1000).map(|user| fault.wait(&format!("/users/{user}"), 1)).collect();
        assert!(waits.iter().all(|wait| (20 * MS..80 * MS).contains(wait)));
        for quarter in 0..4 {
            let part = (20 + 15 * quarter) * MS..(35 + 15 * quarter) * MS;
            let share = waits.iter().filter(|wait| part.contains(wait)).count();
            assert!((200..300).contains(&share), "{share} of 1000 in {part:?}");
        }
        assert_eq!(fault.wait("/users/0", 1), waits[0]);
        assert_ne!(fault.wait("/users/0", 2), waits[0], "another request for the same URL");
        assert_eq!(Fault::new().latency(20 * MS..20 * MS).wait("/", 1), 20 * MS);
    }

    #[test]
    fn the_tail_takes_its_share() {
        let fault = Fault::new().latency(MS..MS).tail(5, 300 * MS);
        let waits: Vec<_> = (1..=10_000).map(|nth| fault.wait("/users/7", nth)).collect();
        let long = waits.iter().filter(|wait| **wait == 300 * MS).count();
        assert!((400..600).contains(&long), "{long} of 10000");
        assert_eq!(waits.iter().filter(|wait| **wait == MS).count(), 10_000 - long);
    }

    #[test]
    fn a_query_says_the_same_as_the_methods_and_replaces_nothing_else() {
        let built =
            Fault::new().latency(20 * MS..80 * MS).tail(5, 300 * MS).hold(3, 500 * MS).slow(8, 5 * MS);
        let built = built.status(502).reset_after(10).truncate(9).first(2).every(3);
        let built = built.retry_after(1).retry_after_as_date();
        let text =
            "latency=20..80&tail=5,300&hold=3,500&slow=8,5&status=502&reset=10&truncate=9&first=2&every=3";
        let mut query = Query::new(&format!("{text}&retry_after=1&date=1"));
        assert_eq!(Fault::new().with_query(&mut query), Ok(built.clone()));
        assert_eq!(query.end(), Ok(()));
        assert_eq!(built.clone().with_query(&mut Query::new("id=a&page=2")), Ok(built));
        let before = Fault::new().with_query(&mut Query::new("reset=before"));
        assert_eq!(before, Ok(Fault::new().reset_before_response()));
    }

    #[test]
    fn counted_failures_spare_the_others() {
        let failing = |fault: Fault| -> Vec<u64> {
            (1..=7).filter(|nth| fault.clone().for_request(*nth).status.is_some()).collect()
        };
        assert_eq!(failing(Fault::new().status(500)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(failing(Fault::new().status(500).first(2)), [1, 2]);
        assert_eq!(failing(Fault::new().every(3)), [3, 6]);
        assert_eq!(failing(Fault::new().first(1).every(3)), [1, 3, 6]);
        assert_eq!(failing(Fault::new().every(0)), [] as [u64; 0]);
        let reset = Fault::new().reset_before_response().first(1);
        assert_eq!(reset.clone().for_request(1).reset, Some(Reset::BeforeResponse));
        assert_eq!(
            reset.clone().for_request(1).status,
            None,
            "503 is only for those that fail in no other way"
        );
        assert_eq!(reset.for_request(2).reset, None);
    }

    #[test]
    #[should_panic(expected = "status 99 is not within 200 to 599")]
    fn a_status_that_cannot_be_sent_is_refused() {
        let _ = Fault::new().status(99);
    }
}
