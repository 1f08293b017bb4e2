//! Every recipe has a page, an example and a Python counterpart.

use anyhow::Result;
use registry::{Problem, Recipe};

use super::problem;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace, problems: &mut Vec<Problem>) -> Result<()> {
    let summary = workspace.text("docs/SUMMARY.md")?;
    let examples = workspace.files("examples", &[".rs"]);
    for recipe in &workspace.registry.recipes {
        let Recipe { name, family, path, .. } = recipe;
        let mut wrong = |path: &str, line, message: String| problems.push(problem(path, line, message));
        let page = format!("docs/{family}/{name}.md");
        match workspace.text(&page) {
            Err(_) => wrong(path, 1, format!("no page {page}")),
            Ok(text) if !examples.iter().any(|example| shows(&text, example)) => {
                wrong(
                    &page,
                    1,
                    "no example: name one, as `cargo run --example NAME` or `{{#picture NAME}}`".into(),
                );
            }
            Ok(_) => {}
        }
        if !summary.contains(&format!("({family}/{name}.md)")) {
            wrong(
                "docs/SUMMARY.md",
                1,
                format!("`{name}` is missing: add a line that links {family}/{name}.md"),
            );
        }
        let python = format!("docs/python/{name}.py");
        if !workspace.root.join(&python).is_file() {
            wrong(path, 1, format!("no {python}: the same job in Python, for the page"));
        }
    }
    Ok(())
}

/// Whether a page speaks of an example: its command, its picture, its output or its source.
fn shows(page: &str, example: &str) -> bool {
    let file = example.trim_start_matches("examples/").trim_end_matches(".rs");
    let name = file.replace("traps/", "trap_");
    let named = |start: &str, name: &str| {
        page.match_indices(&format!("{start} {name}")).any(|(at, found)| {
            !page[at + found.len()..].starts_with(|it: char| it.is_alphanumeric() || it == '_' || it == '-')
        })
    };
    ["--example", "{{#picture", "{{#output"].iter().any(|start| named(start, &name))
        || named("{{#file", example)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::workspace;

    fn found(files: &[(&str, &str)], removed: &[&str]) -> Vec<String> {
        let (folder, workspace) = workspace(files);
        for path in removed {
            std::fs::remove_file(folder.path().join(path)).unwrap();
        }
        let mut problems = Vec::new();
        check(&workspace, &mut problems).unwrap();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_recipe_with_all_of_it_passes() {
        assert_eq!(found(&[], &[]), [""; 0]);
        for text in ["{{#picture permit}}", "{{#file examples/permit.rs a}}", "{{#output permit}}"] {
            assert_eq!(found(&[("docs/limits/permit.md", text)], &[]), [""; 0], "{text}");
        }
        let trap = [
            ("docs/limits/permit.md", "`cargo run --example trap_permit`"),
            ("examples/traps/permit.rs", ""),
        ];
        assert_eq!(found(&trap, &[]), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_found() {
        assert_eq!(
            found(&[], &["docs/limits/permit.md"]),
            ["crates/limits/src/permit.rs:1: no page docs/limits/permit.md"]
        );
        let python = found(&[], &["docs/python/permit.py"]);
        assert_eq!(
            python,
            ["crates/limits/src/permit.rs:1: no docs/python/permit.py: the same job in Python, for the page"]
        );
        let summary = found(&[("docs/SUMMARY.md", "- [Limits](limits/index.md)\n")], &[]);
        assert_eq!(
            summary,
            ["docs/SUMMARY.md:1: `permit` is missing: add a line that links limits/permit.md"]
        );
        for text in ["# A\n", "`cargo run --example permits`", "{{#picture other}}"] {
            let example = found(&[("docs/limits/permit.md", text)], &[]);
            assert!(
                example.len() == 1 && example[0].starts_with("docs/limits/permit.md:1: no example"),
                "{example:?}"
            );
        }
    }
}
