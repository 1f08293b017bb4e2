//! From figures to `docs/benchmarks/<family>.json`, and the programs that are asked on the way.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use futures::FutureExt;
use serde_json::{Map, Value, json};

use crate::table::{Flavour, Table, Way};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) struct Results {
    family: &'static str,
    crates: &'static [&'static str],
    write: bool,
    /// Most bytes held at once and allocations made, for each row.
    allocations: Map<String, Value>,
    tables: Vec<Value>,
}

impl Results {
    pub(crate) fn new(
        family: &'static str,
        crates: &'static [&'static str],
        words: &[String],
        quick: bool,
    ) -> Self {
        let mut allocations = Map::new();
        if !quick && !cfg!(feature = "allocations") {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            cargo.args(["bench", "--quiet", "--package", "benches", "--bench", family]);
            cargo
                .args(["--features", "allocations", "--"])
                .args(Some(words.join(",")).filter(|it| !it.is_empty()));
            match output(&mut cargo).map(|text| serde_json::from_str(&text)) {
                Some(Ok(counted)) => allocations = counted,
                _ => eprintln!("allocations could not be counted, so these columns stay empty"),
            }
        }
        Results { family, crates, write: !quick, allocations, tables: Vec::new() }
    }

    /// Counts the allocations of one run of each row.
    pub(crate) fn count(&mut self, table: &Table) {
        for row in &table.rows {
            // The counter sees one thread.
            if let Way::Time(run) | Way::Once(run) = &row.measure.0
                && table.flavour != Flavour::MultiThread
            {
                // The first run of all pays for what is made once, such as thread-locals.
                table.run(run(1));
                let task = allocations(|| table.run(async {}.boxed()));
                let whole = allocations(|| _ = table.run(run(1)));
                let counted = task.zip(whole).and_then(|(task, whole)| {
                    Some([whole.0.checked_sub(task.0)?, whole.1.checked_sub(task.1)?])
                });
                self.allocations.insert(key(table, &row.name), json!(counted));
            }
        }
    }

    /// Adds a table with a figure and a note for each of its rows.
    pub(crate) fn add(&mut self, table: &Table, seen: Vec<(Option<f64>, String)>) {
        let least = |kind| {
            let rows = table.rows.iter().zip(&seen).filter(|(row, _)| row.kind == kind);
            rows.filter_map(|(_, (figure, _))| *figure).min_by(f64::total_cmp)
        };
        let (floor, peer, recipe) = (least("floor"), least("peer"), least("recipe"));
        let title = title_of(&table.title, table.flavour);
        let rows = table.rows.iter().zip(&seen).filter_map(|(row, (figure, note))| {
            let figure = (*figure)?;
            let ratio =
                |other: Option<f64>| other.filter(|other| *other > 0.0).map(|other| rounded(figure / other));
            let mut notes = vec![note.clone()];
            if let Some(smaller) = &table.smaller
                && let Some(before) =
                    self.figure_of(table.recipe, &title_of(smaller, table.flavour), &row.name)
            {
                notes.push(format!("{} × the figure at {smaller}", rounded(figure / before)));
            }
            if row.kind == "python" {
                notes.extend(ratio(recipe).map(|ratio| format!("{ratio} × the recipe")));
            }
            notes.retain(|note| !note.is_empty());
            let counted = self.allocations.get(&key(table, &row.name));
            let counted = |index| counted.map_or(Value::Null, |counted| counted[index].clone());
            Some(json!({
                "name": row.name, "kind": row.kind, "value": rounded(figure),
                "memory": counted(0), "allocations": counted(1),
                "ratio_floor": ratio(floor), "ratio_peer": ratio(peer), "note": notes.join("; "),
            }))
        });
        let rows: Vec<_> = rows.collect();
        self.tables.push(json!({ "recipe": table.recipe, "title": title, "unit": table.unit, "rows": rows }));
    }

    pub(crate) fn finish(self, python: Option<&Python>, all: bool) {
        if cfg!(feature = "allocations") {
            return println!("{}", Value::Object(self.allocations));
        }
        self.tables.iter().for_each(print);
        if self.write && !self.tables.is_empty() {
            let path = format!("{ROOT}/docs/benchmarks/{}.json", self.family);
            let text = format!("{:#}\n", self.document(&path, python, all));
            let written =
                fs::create_dir_all(format!("{ROOT}/docs/benchmarks")).and_then(|()| fs::write(&path, text));
            match written {
                Ok(()) => println!("\nwritten to docs/benchmarks/{}.json", self.family),
                Err(error) => eprintln!("cannot write {path}: {error}"),
            }
        }
    }

    fn figure_of(&self, recipe: &str, title: &str, name: &str) -> Option<f64> {
        let table = self.tables.iter().find(|table| table["recipe"] == recipe && table["title"] == title)?;
        table["rows"].as_array()?.iter().find(|row| row["name"] == name)?["value"].as_f64()
    }

    /// The new tables; if not all of them were measured, the others as they are in the file at `path`.
    fn document(&self, path: &str, python: Option<&Python>, all: bool) -> Value {
        let old = fs::read_to_string(path).ok().filter(|_| !all);
        let old: Value = old.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let mut tables = old["tables"].as_array().cloned().unwrap_or_default();
        for new in &self.tables {
            let same = |old: &&mut Value| old["recipe"] == new["recipe"] && old["title"] == new["title"];
            match tables.iter_mut().find(same) {
                Some(old) => *old = new.clone(),
                None => tables.push(new.clone()),
            }
        }
        let mut versions: BTreeMap<String, String> =
            serde_json::from_value(old["versions"].clone()).unwrap_or_default();
        let lock = fs::read_to_string(format!("{ROOT}/Cargo.lock")).unwrap_or_default();
        for name in self.crates {
            let version = lock
                .split_once(&format!("name = \"{name}\"\nversion = \""))
                .and_then(|it| it.1.split('"').next());
            versions.extend(version.map(|version| (name.to_string(), version.to_string())));
        }
        versions.extend(python.iter().flat_map(|python| python.versions.clone()));
        let python = if python.is_some() { " -- python" } else { "" };
        json!({
            "machine": machine(),
            "command": format!("cargo bench --package benches --bench {}{python}", self.family),
            "date": output(Command::new("date").args(["-u", "+%F"])).unwrap_or_default(),
            "versions": versions,
            "tables": tables,
        })
    }
}

/// Python, in a virtual environment with uvloop if that can be installed.
pub(crate) struct Python {
    program: String,
    script: String,
    versions: BTreeMap<String, String>,
}

impl Python {
    pub(crate) fn new(family: &str) -> Option<Self> {
        let folder = format!("{ROOT}/target/python");
        let mut program = format!("{folder}/bin/python");
        let uvloop = ["-c", "import uvloop; print(uvloop.__version__)"];
        if output(Command::new(&program).args(uvloop)).is_none() {
            output(Command::new("python3").args(["-m", "venv", &folder]));
            output(Command::new(&program).args(["-m", "pip", "install", "--quiet", "uvloop"]));
        }
        let version = ["-c", "import platform; print(platform.python_version())"];
        if output(Command::new(&program).args(version)).is_none() {
            program = "python3".to_string();
        }
        let python = output(Command::new(&program).args(version));
        let uvloop = output(Command::new(&program).args(uvloop));
        if python.is_none() || uvloop.is_none() {
            eprintln!("Python 3 or uvloop is missing and cannot be installed: its rows are left out");
        }
        let versions = [("Python", python), ("uvloop", uvloop)];
        let versions = versions.into_iter().filter_map(|(name, version)| Some((name.to_string(), version?)));
        let script = format!("{ROOT}/benches/python/{family}.py");
        Some(Python { program, script, versions: versions.collect() })
    }

    /// Whether the event loop that `job` names is there.
    pub(crate) fn runs(&self, job: &str) -> bool {
        self.versions.contains_key(if job.starts_with("uvloop") { "uvloop" } else { "Python" })
    }

    /// The seconds that one run of `job` takes.
    pub(crate) fn seconds(&self, job: &str) -> Option<f64> {
        output(Command::new(&self.program).arg(&self.script).args(job.split(' ')))?.parse().ok()
    }
}

fn key(table: &Table, row: &str) -> String {
    format!("{}: {}: {row}", table.recipe, title_of(&table.title, table.flavour))
}

fn title_of(title: &str, flavour: Flavour) -> String {
    let flavour = match flavour {
        Flavour::CurrentThread => "one thread",
        Flavour::Paused => "one thread, paused clock",
        Flavour::MultiThread => "two worker threads",
    };
    format!("{title} ({flavour})")
}

/// Four digits are more than a busy machine can promise.
fn rounded(figure: f64) -> f64 {
    format!("{figure:.3e}").parse().unwrap_or(figure)
}

fn print(table: &Value) {
    let text =
        |value: &Value| value.as_str().map_or_else(|| value.to_string().replace("null", ""), str::to_string);
    println!("\n{}: {}, {}", text(&table["recipe"]), text(&table["title"]), text(&table["unit"]));
    println!("{:36} {:>10} {:>8} {:>8} {:>10} {:>8}", "", "figure", "÷ floor", "÷ peer", "bytes", "allocs");
    for row in table["rows"].as_array().into_iter().flatten() {
        let cell = |column: &str| text(&row[column]);
        let name = format!("{} ({})", cell("name"), cell("kind"));
        let (floor, peer, memory) = (cell("ratio_floor"), cell("ratio_peer"), cell("memory"));
        let (value, count, note) = (cell("value"), cell("allocations"), cell("note"));
        println!("{name:36} {value:>10} {floor:>8} {peer:>8} {memory:>10} {count:>8}  {note}");
    }
}

fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores, {}", model.map_or(std::env::consts::ARCH, |(_, model)| model))
}

/// What a program prints, or `None` if it is missing or fails.
#[expect(clippy::disallowed_methods, reason = "no runtime waits for it")]
fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// The most bytes held at once, and the allocations made, while `work` runs on this thread.
#[cfg(feature = "allocations")]
fn allocations(work: impl FnOnce()) -> Option<(u64, u64)> {
    let seen = allocation_counter::measure(work);
    // What was allocated before and freed here makes the counter run below zero: then it says nothing.
    i64::try_from(seen.bytes_max).is_ok().then_some((seen.bytes_max, seen.count_total))
}

#[cfg(not(feature = "allocations"))]
fn allocations(_: impl FnOnce()) -> Option<(u64, u64)> {
    None
}
