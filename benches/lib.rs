//! What the benches of all families share: tables whose rows are measured side by side.
//!
//! A [`Table`] holds a recipe, its peers, the floor and the counterparts in Python. [`Bench::measure`] measures its rows in
//! turn, round after round, so that a busy machine slows all of them alike, and takes each row's median over the rounds.
//! Every body runs as a spawned task, because the future given to `block_on` is not on a worker. Allocations are counted by
//! a process of their own, because counting slows down what it counts. In every unit less is better.
//!
//! `cargo bench` renews `docs/benchmarks/<family>.json`. After its two dashes may follow: `python`, which measures the rows
//! in Python too; words, one of which must occur in a table's recipe or title (`python,map_ordered`: separated by commas);
//! `--test`, which runs each row once and writes nothing; and what Criterion takes, such as `--quiet`.

mod results;
mod table;

use std::env;
use std::time::Duration;

use criterion::{BenchmarkFilter, Criterion};

use crate::results::{Python, Results};
pub use crate::table::{Flavour, Measure, Table, figure, once, stopwatch, time};
use crate::table::{Repeat, Way};

const ROUNDS: usize = 3;
/// Measurements of a row in each round: the fewest that Criterion takes.
const SAMPLES: usize = 10;
/// The largest size when a row only has to show that it runs.
const SMALL: usize = 1_000;

/// `10000` as `10 k`.
pub fn short(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{} k", number / 1_000) }
}

/// Measures tables, prints them and writes them down.
pub struct Bench {
    criterion: Criterion,
    quick: bool,
    python: Option<Python>,
    words: Vec<String>,
    results: Results,
}

impl Bench {
    /// A bench of `family`, which records the versions of `crates`.
    pub fn new(family: &'static str, crates: &'static [&'static str]) -> Self {
        let arguments: Vec<_> = env::args().skip(1).collect();
        let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
        let quick = has("--test") || !has("--bench");
        let filter = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
        let words = filter.split(',').filter(|word| !word.is_empty()).map(str::to_string);
        let (python, words): (Vec<_>, Vec<_>) = words.partition(|word| word == "python");
        let python = python.first().and_then(|_| Python::new(family));
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(Duration::from_millis(30))
            .measurement_time(Duration::from_millis(120))
            .sample_size(SAMPLES)
            .nresamples(1_000)
            .configure_from_args()
            .with_benchmark_filter(BenchmarkFilter::AcceptAll);
        let results = Results::new(family, crates, &words, quick);
        Bench { criterion, quick, python, words, results }
    }

    /// `size`, or less when each row only has to show that it runs.
    pub fn size(&self, size: usize) -> usize {
        if self.quick { size.min(SMALL) } else { size }
    }

    /// Measures `table`, unless the command line asks for others only.
    pub fn measure(&mut self, mut table: Table) {
        let name = format!("{}: {}", table.recipe, table.title);
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word)) {
            return;
        }
        table.rows.retain(|row| match &row.measure.0 {
            Way::Python(job) => self.python.as_ref().is_some_and(|python| python.runs(job)),
            _ => true,
        });
        if cfg!(feature = "allocations") {
            return self.results.count(&table);
        }
        let mut seen = vec![(Vec::new(), String::new()); table.rows.len()];
        for round in 0..if self.quick { 1 } else { ROUNDS } {
            for (row, (figures, note)) in table.rows.iter().zip(&mut seen) {
                match &row.measure.0 {
                    Way::Time(run) => {
                        let id = format!("{name}/{}/{round}", row.name);
                        figures.extend(time_with(&mut self.criterion, &id, &table, run));
                    }
                    Way::Once(run) if round == 0 => {
                        figures.push(table.figure(table.run(run(1)).as_secs_f64()));
                        *note = "a single run".to_string();
                    }
                    Way::Once(_) => {}
                    Way::Figure(body) => {
                        let (figure, said) = table.run(body());
                        figures.push(figure);
                        *note = said;
                    }
                    Way::Python(job) => {
                        let seconds = self.python.as_ref().and_then(|python| python.seconds(job));
                        figures.extend(seconds.map(|seconds| table.figure(seconds)));
                    }
                }
            }
        }
        self.results.add(&table, seen.into_iter().map(|(figures, note)| (median(figures), note)).collect());
    }

    /// Prints the tables and, unless each row was only run once, writes them to `docs/benchmarks`.
    pub fn finish(self) {
        self.results.finish(self.python.as_ref(), self.words.is_empty());
    }
}

/// The median of one short measurement.
fn time_with(criterion: &mut Criterion, id: &str, table: &Table, run: &Repeat) -> Option<f64> {
    let mut figures = Vec::new();
    criterion.bench_function(id, |bencher| {
        bencher.iter_custom(|times| {
            let elapsed = table.run(run(times));
            figures.push(table.figure(elapsed.as_secs_f64() / times as f64));
            elapsed
        });
    });
    // What came before the samples is the warm-up.
    median(figures.split_off(figures.len().saturating_sub(SAMPLES)))
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
