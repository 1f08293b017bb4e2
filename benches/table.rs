//! Tables, and how their rows are measured.

use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Builder;

/// The runtime that a table's bodies run on.
#[derive(Clone, Copy, PartialEq)]
pub enum Flavour {
    /// One thread.
    CurrentThread,
    /// One thread and a paused clock, which jumps to the next timer when all tasks wait: only work takes time.
    Paused,
    /// Two worker threads.
    MultiThread,
}

/// How a row gets its figure.
pub struct Measure(pub(crate) Way);

pub(crate) enum Way {
    Time(Repeat),
    Once(Repeat),
    Figure(Box<dyn Fn() -> BoxFuture<'static, (f64, String)>>),
    Python(String),
}

/// Runs a body so many times, and says how long that took.
pub(crate) type Repeat = Box<dyn Fn(u64) -> BoxFuture<'static, Duration>>;

/// Times `body` with Criterion.
pub fn time<F: Future + Send>(body: impl Fn() -> F + Send + Sync + 'static) -> Measure {
    Measure(Way::Time(repeat(body)))
}

/// Times a single run of `body`, which takes seconds.
pub fn once<F: Future + Send>(body: impl Fn() -> F + Send + Sync + 'static) -> Measure {
    Measure(Way::Once(repeat(body)))
}

fn repeat<F: Future + Send>(body: impl Fn() -> F + Send + Sync + 'static) -> Repeat {
    let body = Arc::new(body);
    Box::new(move |times| {
        let body = body.clone();
        let work = async move {
            let start = Instant::now();
            for _ in 0..times {
                black_box(body().await);
            }
            start.elapsed()
        };
        work.boxed()
    })
}

/// Times with Criterion the part of `body` that `body` itself has timed.
pub fn stopwatch<F>(body: impl Fn() -> F + Send + Sync + 'static) -> Measure
where
    F: Future<Output = Duration> + Send,
{
    let body = Arc::new(body);
    Measure(Way::Time(Box::new(move |times| {
        let body = body.clone();
        let work = async move {
            let mut elapsed = Duration::ZERO;
            for _ in 0..times {
                elapsed += body().await;
            }
            elapsed
        };
        work.boxed()
    })))
}

/// Takes the figure that `body` returns, and a note: virtual time, a count, a longest wait.
pub fn figure<F>(body: impl Fn() -> F + 'static) -> Measure
where
    F: Future<Output = (f64, String)> + Send + 'static,
{
    Measure(Way::Figure(Box::new(move || body().boxed())))
}

pub(crate) struct Row {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) measure: Measure,
}

/// Rows to be compared with each other.
pub struct Table {
    pub(crate) recipe: &'static str,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) flavour: Flavour,
    items: f64,
    pub(crate) smaller: Option<String>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// A time is divided by the number of `items`. The `unit` of a table of times starts with ns, µs or ms.
    pub fn new(
        recipe: &'static str,
        title: String,
        unit: &'static str,
        flavour: Flavour,
        items: usize,
    ) -> Self {
        Table { recipe, title, unit, flavour, items: items as f64, smaller: None, rows: Vec::new() }
    }

    /// Notes in each row how the figure has grown since the recipe's table with the title `smaller`.
    pub fn grown_from(self, smaller: String) -> Self {
        Table { smaller: Some(smaller), ..self }
    }

    /// Adds a row for a recipe.
    pub fn recipe(self, name: &str, measure: Measure) -> Self {
        self.row("recipe", name, measure)
    }

    /// Adds a row for what a reader would take instead.
    pub fn peer(self, name: &str, measure: Measure) -> Self {
        self.row("peer", name, measure)
    }

    /// Adds a row for the bare primitive, or the physical limit.
    pub fn floor(self, name: &str, measure: Measure) -> Self {
        self.row("floor", name, measure)
    }

    /// Adds a row for asyncio and one for uvloop. The `job` is a function of `python/<family>.py` and its arguments.
    pub fn python(self, name: &str, job: &str) -> Self {
        let row = |table: Self, event_loop| {
            let way = Way::Python(format!("{event_loop} {job}"));
            table.row("python", &format!("{name}, {event_loop}"), Measure(way))
        };
        row(row(self, "asyncio"), "uvloop")
    }

    fn row(mut self, kind: &'static str, name: &str, measure: Measure) -> Self {
        self.rows.push(Row { kind, name: name.to_string(), measure });
        self
    }

    pub(crate) fn figure(&self, seconds: f64) -> f64 {
        let scale = [("ns", 1e9), ("µs", 1e6), ("ms", 1e3)];
        let unit = scale.iter().find(|(unit, _)| self.unit.starts_with(unit));
        seconds * unit.map_or(1.0, |(_, in_a_second)| *in_a_second) / self.items
    }

    /// Runs `work` as a task on a new runtime.
    pub(crate) fn run<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> T {
        let mut builder = match self.flavour {
            Flavour::MultiThread => Builder::new_multi_thread(),
            Flavour::CurrentThread | Flavour::Paused => Builder::new_current_thread(),
        };
        let builder = builder.worker_threads(2).enable_all().start_paused(self.flavour == Flavour::Paused);
        let runtime = builder.build().expect("a runtime needs two threads and a few file handles");
        let joined = runtime.block_on(async { tokio::spawn(work).await });
        joined.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }
}
