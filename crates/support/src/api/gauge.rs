//! Who is being served now, and how many were at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How many starts are remembered for [`Gauge::busiest_window`].
const REMEMBERED_STARTS: usize = 100_000;

/// How many requests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests whose head was read and whose answer was not yet fully handed to the connection.
    pub in_flight: usize,
    /// The most that were in flight at once.
    pub peak: usize,
    /// Requests that were started.
    pub total: usize,
}

impl Counts {
    fn json(&self) -> Value {
        json!({ "in_flight": self.in_flight, "peak": self.peak, "total": self.total })
    }
}

/// Reads the server's counts. Clones look at the same server, and work on after it stopped.
///
/// A request is in flight from the moment its head was read until the last piece of its answer's body was
/// handed to the connection, or until the connection is gone. An answered request leaves before its client
/// can see the end of the answer, so a client that keeps to a limit is never reported above it. A request
/// that is given up leaves when the end of its connection arrives: a client that cancels and at once starts
/// another may be seen with both.
#[derive(Clone)]
pub struct Gauge {
    state: Arc<watch::Sender<State>>,
}

#[derive(Default)]
struct State {
    all: Counts,
    routes: BTreeMap<&'static str, Counts>,
    started: VecDeque<Instant>,
    /// Who wishes for how many in flight. Dropping the sender releases; the other end is in the request.
    holding: Vec<(usize, oneshot::Sender<()>)>,
}

impl Gauge {
    pub(super) fn new() -> Gauge {
        Gauge { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.counts().in_flight
    }

    /// The most requests that were in flight at once, since the start or the last [`reset`](Gauge::reset).
    pub fn peak(&self) -> usize {
        self.counts().peak
    }

    /// Requests started since the start or the last [`reset`](Gauge::reset).
    pub fn total(&self) -> usize {
        self.counts().total
    }

    /// The counts over all routes.
    pub fn counts(&self) -> Counts {
        self.state.borrow().all
    }

    /// The counts of one route: `/`, `/users`, `/items`, `/limited`, `/robots.txt`, `/echo`, or `other` for unknown paths.
    pub fn route(&self, route: &str) -> Counts {
        self.state.borrow().routes.get(route).copied().unwrap_or_default()
    }

    /// Waits until the counts over all routes satisfy `condition`, and returns them. For tests that need to
    /// know that a request has arrived, or that a cancelled one has left. It may miss a state that lasts only
    /// for a moment; `peak` and `total` never fall by themselves, so a condition on them is not missed.
    pub async fn until(&self, mut condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut changes = self.state.subscribe();
        let reached = changes.wait_for(|state| condition(&state.all)).await;
        reached.expect("`self` keeps the sender alive").all
    }

    /// The most requests that started within any window of this length (half open: a request exactly `window`
    /// later is outside), among the last 100 000. Arrival times, not departure times: two requests that a
    /// client sent `window` apart may arrive a little closer to each other.
    pub fn busiest_window(&self, window: Duration) -> usize {
        let state = self.state.borrow();
        let mut oldest = 0;
        let mut busiest = 0;
        for (newest, start) in state.started.iter().enumerate() {
            while oldest <= newest && start.duration_since(state.started[oldest]) >= window {
                oldest += 1;
            }
            busiest = busiest.max(newest + 1 - oldest);
        }
        busiest
    }

    /// Forgets totals, peaks and start times. What is in flight stays counted, and is the new peak.
    pub fn reset(&self) {
        self.state.send_modify(|state| {
            for counts in state.routes.values_mut().chain([&mut state.all]) {
                *counts = Counts { peak: counts.in_flight, total: 0, ..*counts };
            }
            state.started.clear();
        });
    }

    pub(super) fn json(&self) -> Value {
        let state = self.state.borrow();
        let routes: BTreeMap<_, _> =
            state.routes.iter().map(|(route, counts)| (route, counts.json())).collect();
        let mut json = state.all.json();
        json["routes"] = json!(routes);
        json
    }

    /// Lets a request in. It may wish for a moment in which so many are in flight: [`InFlight::held`].
    pub(super) fn enter(&self, route: &'static str, hold: Option<usize>) -> InFlight {
        let (release, held) = oneshot::channel();
        self.state.send_modify(|state| {
            if state.started.len() == REMEMBERED_STARTS {
                state.started.pop_front();
            }
            state.started.push_back(Instant::now());
            for counts in [&mut state.all, state.routes.entry(route).or_default()] {
                counts.total += 1;
                counts.in_flight += 1;
                counts.peak = counts.peak.max(counts.in_flight);
            }
            // Decided here for all who wish, in one step: a moment later some of them may have left already.
            state.holding.extend(hold.map(|wanted| (wanted, release)));
            let in_flight = state.all.in_flight;
            state.holding.retain(|(wanted, release)| *wanted > in_flight && !release.is_closed());
        });
        InFlight { gauge: self.clone(), route, held }
    }
}

/// One request in flight. Dropping it is how a request leaves the gauge.
pub(super) struct InFlight {
    gauge: Gauge,
    route: &'static str,
    held: oneshot::Receiver<()>,
}

impl InFlight {
    /// Waits until as many requests were in flight as this one wished for when it came in.
    pub(super) async fn held(&mut self) {
        // Releasing is dropping the sender, so the only outcome is the error.
        let _ = (&mut self.held).await;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.state.send_modify(|state| {
            for counts in [&mut state.all, state.routes.entry(self.route).or_default()] {
                counts.in_flight -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    #[tokio::test(start_paused = true)]
    async fn the_busiest_window_is_half_open_and_may_lie_anywhere() {
        let gauge = Gauge::new();
        for pause in [0, 100, 10, 10, 500] {
            advance(Duration::from_millis(pause)).await;
            gauge.enter("/", None);
        }
        let busiest = |milliseconds| gauge.busiest_window(Duration::from_millis(milliseconds));
        assert_eq!([0, 10, 11, 20, 21, 120, 121, 620, 621].map(busiest), [0, 1, 2, 2, 3, 3, 4, 4, 5]);
        gauge.reset();
        assert_eq!(busiest(1000), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_starts_are_remembered() {
        let gauge = Gauge::new();
        for _ in 0..REMEMBERED_STARTS + 1 {
            gauge.enter("/", None);
        }
        assert_eq!(gauge.total(), REMEMBERED_STARTS + 1);
        assert_eq!(gauge.busiest_window(Duration::from_secs(1)), REMEMBERED_STARTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_with_enough_requests_releases_all_who_wish_for_it() {
        let gauge = Gauge::new();
        let mut first = gauge.enter("/", Some(2));
        assert!(timeout(Duration::from_secs(1), first.held()).await.is_err(), "one is not two");
        drop(gauge.enter("/", None));
        timeout(Duration::from_secs(1), first.held()).await.expect("there were two, if only for a moment");
        let mut second = gauge.enter("/", Some(2));
        drop(first);
        timeout(Duration::from_secs(1), second.held()).await.expect("there were two when it came in");
        drop(gauge.enter("/", Some(9)));
        let _third = gauge.enter("/", None);
        assert!(gauge.state.borrow().holding.is_empty(), "whoever gave up is forgotten");
    }

    #[test]
    fn a_reset_keeps_what_is_in_flight() {
        let gauge = Gauge::new();
        let users = gauge.enter("/users", None);
        drop(gauge.enter("/items", None));
        assert_eq!(gauge.counts(), Counts { in_flight: 1, peak: 2, total: 2 });
        gauge.reset();
        assert_eq!(gauge.counts(), Counts { in_flight: 1, peak: 1, total: 0 });
        assert_eq!(gauge.route("/users"), Counts { in_flight: 1, peak: 1, total: 0 });
        drop(users);
        assert_eq!(gauge.in_flight(), 0);
    }
}
