//! The book: mdBook as a library, with directives of our own expanded before it renders.

mod cost;
mod expand;
pub(crate) mod links;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use mdbook_driver::MDBook;
use mdbook_driver::book::BookItem;
use mdbook_driver::config::Config;
use registry::Problem;

use crate::workspace::{Workspace, refuse};

/// `cargo xtask book`
pub(crate) fn command(workspace: &Workspace, open: bool) -> Result<()> {
    let mut problems = Vec::new();
    let folder = build(workspace, &mut problems)?;
    refuse(&problems)?;
    let Some(folder) = folder else { return Ok(()) };
    let first = folder.join("index.html");
    println!("{}", first.display());
    if open {
        let opener = match std::env::consts::OS {
            "macos" => "open",
            "windows" => "explorer",
            _ => "xdg-open",
        };
        let started = Command::new(opener).arg(&first).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        started.with_context(|| format!("cannot start {opener}; open {} yourself", first.display()))?;
    }
    Ok(())
}

/// Builds the book and returns its folder. What is wrong with a page is added to `problems`, and the page left as it is.
///
/// Without all of its pages there is no book.
pub(crate) fn build(workspace: &Workspace, problems: &mut Vec<Problem>) -> Result<Option<PathBuf>> {
    let missing = missing_pages(workspace)?;
    if !missing.is_empty() {
        problems.extend(missing);
        return Ok(None);
    }
    let docs = workspace.root.join("docs");
    let mut config = Config::from_disk(docs.join("book.toml")).map_err(chain)?;
    config.build.build_dir = workspace.root.join("target/book");
    config.build.create_missing = false;
    // They expand `{{#include}}`, by line number too; and a directive without an expansion is an error here.
    config.build.use_default_preprocessors = false;
    let mut book = MDBook::load_with_config(&docs, config).map_err(chain)?;
    book.book.for_each_mut(|item| {
        let BookItem::Chapter(chapter) = item else { return };
        let Some(path) = &chapter.source_path else { return };
        match expand::expand(workspace, &path.to_string_lossy().replace('\\', "/"), &chapter.content) {
            Ok(text) => chapter.content = text,
            Err(found) => problems.extend(found),
        }
    });
    book.build().map_err(chain)?;
    Ok(Some(book.build_dir_for("html")))
}

/// mdBook stops at the first one.
fn missing_pages(workspace: &Workspace) -> Result<Vec<Problem>> {
    let path = "docs/SUMMARY.md";
    let text = workspace.text(path)?;
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for page in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !page.is_empty() && !workspace.root.join("docs").join(page).is_file() {
                let message = format!("no page docs/{page}: write it, or take the line out");
                problems.push(Problem { path: path.into(), line: index + 1, message });
            }
        }
    }
    Ok(problems)
}

/// mdBook's own error, with all it says.
fn chain(error: mdbook_driver::errors::Error) -> anyhow::Error {
    anyhow!("mdBook: {error:#}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::fixture::workspace;

    #[test]
    fn the_book_is_built_and_shows_code_as_it_is() {
        let hidden =
            crate::workspace::fixture::PERMIT.replace("NonZeroUsize::MIN.get()", "r\"\n# shown\n\".len()");
        let (_folder, workspace) = workspace(&[("crates/limits/src/permit.rs", &hidden)]);
        let mut problems = Vec::new();
        let folder = build(&workspace, &mut problems).unwrap().unwrap();
        assert_eq!(problems, []);
        let page = fs::read_to_string(folder.join("limits/permit.html")).unwrap();
        assert!(page.contains("<h1 id=\"permit-hold-a-permit-while-a-job-runs\">"), "{page}");
        assert!(page.contains("\n# shown\n"), "{page}");
        assert!(!page.contains("boring") && !page.contains("class=\"playground\""), "{page}");
        assert!(page.contains("<span id=\"permit-order_is_first_come\"></span>"), "{page}");
    }

    #[test]
    fn a_page_with_a_wrong_directive_is_named() {
        let (_folder, workspace) =
            workspace(&[("docs/limits/index.md", "# Limits\n\n{{#output nothing}}\n")]);
        let mut problems = Vec::new();
        build(&workspace, &mut problems).unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].path.as_str(), problems[0].line), ("docs/limits/index.md", 3));
    }

    #[test]
    fn missing_pages_are_told_all_at_once() {
        let summary =
            "# Summary\n\n- [Gone](gone.md)\n- [Limits](limits/index.md)\n- [Lost](lost.md)\n- [Draft]()\n";
        let (_folder, workspace) = workspace(&[("docs/SUMMARY.md", summary)]);
        let mut problems = Vec::new();
        assert_eq!(build(&workspace, &mut problems).unwrap(), None);
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "docs/SUMMARY.md:3: no page docs/gone.md: write it, or take the line out",
                "docs/SUMMARY.md:5: no page docs/lost.md: write it, or take the line out",
            ]
        );
    }
}
