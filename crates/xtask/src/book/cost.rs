//! Tables from the results of the benchmarks, which `benches` writes to `docs/benchmarks/<family>.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use registry::Recipe;
use serde::Deserialize;

use crate::workspace::Workspace;

#[derive(Deserialize)]
struct Results {
    machine: String,
    command: String,
    date: String,
    #[serde(default)]
    versions: BTreeMap<String, String>,
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    recipe: String,
    title: String,
    unit: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    kind: Kind,
    value: Option<f64>,
    /// Bytes.
    memory: Option<f64>,
    ratio_floor: Option<f64>,
    ratio_peer: Option<f64>,
    #[serde(default)]
    note: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Recipe,
    Peer,
    Floor,
    Python,
}

/// The tables that were measured for `recipe`, and how to measure them again.
pub(crate) fn tables(workspace: &Workspace, recipe: &Recipe) -> Result<String> {
    let (path, results) = results(workspace, &recipe.family)?;
    let tables: Vec<_> = results.tables.iter().filter(|table| table.recipe == recipe.name).collect();
    ensure!(!tables.is_empty(), "{path} has no table for `{}`", recipe.name);
    Ok(tables.into_iter().map(table).collect::<String>() + &results.source())
}

/// All tables of a family, each recipe's under its name.
pub(crate) fn family(workspace: &Workspace, family: &str) -> Result<String> {
    let (path, results) = results(workspace, family)?;
    ensure!(!results.tables.is_empty(), "{path} has no table");
    let mut text = String::new();
    for Recipe { name, .. } in workspace.registry.recipes.iter().filter(|recipe| recipe.family == family) {
        let mut tables = results.tables.iter().filter(|table| table.recipe == *name).peekable();
        if tables.peek().is_some() {
            text.push_str(&format!("\n### [`{name}`]({family}/{name}.md)\n"));
            text.extend(tables.map(table));
        }
    }
    Ok(text + &results.source())
}

fn results(workspace: &Workspace, family: &str) -> Result<(String, Results)> {
    let path = format!("docs/benchmarks/{family}.json");
    let results = serde_json::from_str(&workspace.text(&path)?).with_context(|| path.clone())?;
    Ok((path, results))
}

impl Results {
    /// Where the figures come from.
    fn source(&self) -> String {
        let Results { machine, command, date, versions, .. } = self;
        let versions: String = versions.iter().map(|(name, version)| format!(", {name} {version}")).collect();
        let versions = versions.replacen(',', ";", 1);
        format!("\nMeasured on {date}: {machine}{versions}. Repeat it with `{command}`.\n")
    }
}

type Column = (String, Box<dyn Fn(&Row) -> String>);

fn table(table: &Table) -> String {
    fn number(get: fn(&Row) -> Option<f64>, show: fn(f64) -> String) -> Box<dyn Fn(&Row) -> String> {
        Box::new(move |row| get(row).map(show).unwrap_or_default())
    }
    let columns: Vec<Column> = vec![
        (table.unit.clone(), number(|row| row.value, figures)),
        ("÷ floor".into(), number(|row| row.ratio_floor, figures)),
        ("÷ best peer".into(), number(|row| row.ratio_peer, figures)),
        ("memory".into(), number(|row| row.memory, bytes)),
        (String::new(), Box::new(|row| row.note.clone())),
    ];
    // A column that says nothing is not printed.
    let columns: Vec<_> =
        columns.into_iter().filter(|(_, cell)| table.rows.iter().any(|row| !cell(row).is_empty())).collect();

    let mut text = format!("\n**{}**\n\n| |", table.title);
    text.extend(columns.iter().map(|(title, _)| format!(" {title} |")));
    text.push_str("\n|---|");
    let is_note = |title: &str| title.is_empty();
    text.extend(columns.iter().map(|(title, _)| if is_note(title) { "---|" } else { "---:|" }));
    text.push('\n');
    for row in &table.rows {
        let name = match row.kind {
            Kind::Recipe => format!("**{}**", row.name),
            Kind::Peer => row.name.clone(),
            Kind::Floor => format!("{} (floor)", row.name),
            Kind::Python => format!("{} (Python)", row.name),
        };
        text.push_str(&format!("| {name} |"));
        text.extend(columns.iter().map(|(_, cell)| format!(" {} |", cell(row))));
        text.push('\n');
    }
    text
}

/// Three figures, and no more digits than they need.
fn figures(value: f64) -> String {
    let whole = value.abs().log10().floor().max(-3.0) as i32 + 1;
    let digits = usize::try_from(3 - whole).unwrap_or(0).min(4);
    let text = if value == 0.0 { "0".into() } else { format!("{value:.digits$}") };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        grouped(&text)
    }
}

/// `22400` as `22,400`.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0
            && digit.is_ascii_digit()
            && (digits.len() - index).is_multiple_of(3)
            && !text.ends_with('-')
        {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = value;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", figures(value), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::workspace;

    const RESULTS: &str = r#"{"machine": "2 cores", "command": "cargo bench", "date": "2026-11-24",
        "versions": {"tokio": "1.54.1"}, "tables": [
        {"recipe": "permit", "title": "One permit", "unit": "ns", "rows": [
            {"name": "permit", "kind": "recipe", "value": 4.123, "memory": 2048, "ratio_floor": 1.1},
            {"name": "bare", "kind": "floor", "value": 22400.4, "note": "no limit"}]},
        {"recipe": "other", "title": "No", "unit": "ns", "rows": []}]}"#;

    #[test]
    fn what_was_measured_is_printed_and_no_empty_column() {
        let (_folder, workspace) = workspace(&[("docs/benchmarks/limits.json", RESULTS)]);
        let text = tables(&workspace, workspace.registry.get("permit").unwrap()).unwrap();
        assert_eq!(
            text,
            "\n**One permit**\n\n| | ns | ÷ floor | memory |  |\n|---|---:|---:|---:|---|\n\
             | **permit** | 4.12 | 1.1 | 2 KiB |  |\n| bare (floor) | 22,400 |  |  | no limit |\n\n\
             Measured on 2026-11-24: 2 cores; tokio 1.54.1. Repeat it with `cargo bench`.\n"
        );
    }

    #[test]
    fn a_family_is_printed_recipe_by_recipe() {
        let (_folder, workspace) = workspace(&[("docs/benchmarks/limits.json", RESULTS)]);
        let text = family(&workspace, "limits").unwrap();
        assert!(text.starts_with("\n### [`permit`](limits/permit.md)\n\n**One permit**\n"), "{text}");
        assert_eq!((text.matches("### ").count(), text.matches("Measured on").count()), (1, 1));
        assert!(family(&workspace, "other").is_err());
    }

    #[test]
    fn a_recipe_without_a_table_is_an_error() {
        let results = RESULTS.replace("\"permit\", \"title\"", "\"ticket\", \"title\"");
        let (_folder, workspace) = workspace(&[("docs/benchmarks/limits.json", &results)]);
        let error = tables(&workspace, workspace.registry.get("permit").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "docs/benchmarks/limits.json has no table for `permit`");
    }

    #[test]
    fn numbers_have_three_figures() {
        let shown = [0.0, 0.01234, 0.5, 4.0, 12.34, 999.6, 1234.5, 1_000_000.0].map(figures);
        assert_eq!(shown, ["0", "0.0123", "0.5", "4", "12.3", "1,000", "1,234", "1,000,000"]);
        assert_eq!([512.0, 1536.0, 3_145_728.0].map(bytes), ["512 B", "1.5 KiB", "3 MiB"]);
    }
}
