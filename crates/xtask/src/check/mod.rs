//! Checks for what makes a green run hollow. All findings are told at once.

mod fences;
mod manifests;
mod pages;
mod recipe;
mod tokens;

use anyhow::{Result, anyhow};
use registry::header::ROWS;
use registry::{Problem, Recipe};

use crate::book;
use crate::workspace::{Workspace, refuse};

/// `cargo xtask check`
pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    let mut problems = workspace.registry.problems.clone();
    let sources = rust_files(workspace);
    for path in &sources {
        let text = workspace.text(path)?;
        match text.parse() {
            Ok(tokens) => {
                fences::check_source(path, &tokens, &mut problems);
                tokens::check(path, &tokens, &mut problems);
            }
            Err(error) => {
                problems.push(problem(path, error.span().start().line, format!("is not Rust: {error}")))
            }
        }
    }
    let pages = workspace.files("docs", &[".md"]);
    for path in &pages {
        fences::check_page(path, &workspace.text(path)?, &mut problems);
    }
    recipe::check(workspace, &mut problems)?;
    pages::check(workspace, &mut problems)?;
    manifests::check(workspace, &mut problems)?;
    match book::build(workspace, &mut problems) {
        Ok(Some(folder)) => book::links::check(workspace, &folder, &mut problems)?,
        Ok(None) => {}
        Err(error) => {
            problems.push(problem("docs/SUMMARY.md", 1, format!("the book cannot be built: {error:#}")))
        }
    }
    problems.sort();
    problems.dedup();
    refuse(&problems)?;
    let recipes = workspace.registry.recipes.len();
    println!(
        "{recipes} recipes, {} source files, {} pages: nothing hollow found",
        sources.len(),
        pages.len()
    );
    Ok(())
}

fn rust_files(workspace: &Workspace) -> Vec<String> {
    ["crates", "examples", "benches"].iter().flat_map(|folder| workspace.files(folder, &[".rs"])).collect()
}

fn problem(path: &str, line: usize, message: impl Into<String>) -> Problem {
    Problem { path: path.into(), line, message: message.into() }
}

/// A test that proves a row of a contract.
pub(crate) struct Proof {
    /// The row, as the contract names it.
    pub(crate) row: &'static str,
    /// The name of the test.
    pub(crate) test: String,
    /// Where it stands, if not in the file of the recipe.
    pub(crate) file: Option<String>,
}

/// Every test whose name begins with the name of a row: those of the file first, then those of `tests/<recipe>.rs`.
pub(crate) fn proofs(workspace: &Workspace, recipe: &Recipe) -> Result<Vec<Proof>> {
    let mut proofs = Vec::new();
    let mut take = |name: &str, file: Option<&str>| {
        let row = ROWS.iter().find(|row| {
            name.strip_prefix(&row.to_lowercase())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        });
        proofs.extend(row.map(|row| Proof { row, test: name.into(), file: file.map(String::from) }));
    };
    for test in &recipe.tests {
        take(&test.name, None);
    }
    let path = sweep_path(recipe);
    if workspace.root.join(&path).is_file() {
        let tokens =
            workspace.text(&path)?.parse().map_err(|error| anyhow!("{path} is not Rust: {error}"))?;
        for test in registry::paths::test_functions(tokens) {
            take(&test.name, Some(&path));
        }
    }
    Ok(proofs)
}

/// Where the tests of a recipe stand that need more than the recipe.
fn sweep_path(recipe: &Recipe) -> String {
    format!("crates/{}/tests/{}.rs", recipe.family, recipe.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::workspace;

    #[test]
    fn a_workspace_in_order_passes() {
        let (_folder, workspace) = workspace(&[]);
        command(&workspace).unwrap();
    }

    #[test]
    fn findings_of_all_checks_are_told_at_once() {
        let (_folder, workspace) = workspace(&[
            ("crates/limits/src/lib.rs", "//! Limits.\n\npub mod permit;\n\nfn stray() { todo!() }\n"),
            ("docs/limits/index.md", "# Limits\n\n[gone](gone.md)\n\n```text\npasted\n```\n"),
            ("examples/broken.rs", "fn main( {}\n"),
        ]);
        let error = command(&workspace).unwrap_err().to_string();
        let mut lines = error.lines();
        assert_eq!(lines.next(), Some("5 problems"), "{error}");
        for start in [
            "crates/limits/src/lib.rs:5: `fn stray`",
            "crates/limits/src/lib.rs:5: `todo!`",
            "docs/limits/index.md:3: the link",
            "docs/limits/index.md:5: a `text` fence",
            "examples/broken.rs:1: is not Rust",
        ] {
            let line = lines.next().unwrap();
            assert!(line.starts_with(start), "{line}");
        }
    }
}
