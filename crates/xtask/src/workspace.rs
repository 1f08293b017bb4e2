//! The workspace that all tasks work on.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use registry::{Problem, Registry};
use walkdir::WalkDir;

/// The folder of the workspace, and the recipes in it as they are now.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) registry: Registry,
}

impl Workspace {
    /// The workspace that this program was built in.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self::at(&root.canonicalize().with_context(|| format!("{} is gone", root.display()))?)
    }

    /// The workspace in this folder.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_path_buf(), registry: Registry::read(root)? })
    }

    /// The text of a file, named from the root.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    /// Files below `folder` whose name ends in one of `endings`, named from the root and sorted.
    pub(crate) fn files(&self, folder: &str, endings: &[&str]) -> Vec<String> {
        let entries = WalkDir::new(self.root.join(folder)).sort_by_file_name().into_iter();
        let kept = entries.filter_entry(|entry| entry.file_name() != "target" && entry.file_name() != ".git");
        kept.filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| {
                Some(entry.path().strip_prefix(&self.root).ok()?.to_string_lossy().replace('\\', "/"))
            })
            .filter(|path| endings.iter().any(|ending| path.ends_with(ending)))
            .collect()
    }

    /// Cargo, in the root, as the caller chose it.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        command.current_dir(&self.root);
        command
    }
}

/// Fails with all `problems`, if there are any.
pub(crate) fn refuse(problems: &[Problem]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let s = if problems.len() == 1 { "" } else { "s" };
    bail!("{} problem{s}\n{}", problems.len(), lines.join("\n"))
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A small workspace in a temporary folder.

    use super::*;
    use tempfile::TempDir;

    pub(crate) const PERMIT: &str = "\
//! Hold a permit while a job runs.
//!
//! Use it for limits.
//!
//! | | |
//! |---|---|
//! | Order | first come, first served |
//! | Errors | none |
//! | Cancellation | the permit is given back |
//! | Panics | the caller's |
//! | Memory | O(1) |
//! | Backpressure | the caller waits |
//! | Clock | none |
//!
//! ```
//! assert_eq!(limits::permit::permit(), 1);
//! ```

use std::num::NonZeroUsize;

/// Takes a permit.
pub fn permit() -> usize {
    NonZeroUsize::MIN.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_first_come() {
        assert!(permit() < 2);
    }

    #[test]
    fn errors_are_none() {
        assert_eq!(permit(), 1);
    }
}
";

    pub(crate) const SWEEP: &str = "\
//! Proofs that need more than the recipe.

use support::sweep;

#[test]
fn cancellation_gives_the_permit_back() {
    sweep::sweep();
}
#[test]
fn panics_are_the_callers() {}
#[test]
fn memory_is_constant() {}
#[test]
fn backpressure_makes_the_caller_wait() {}
#[test]
fn clock_is_not_looked_at() {}
";

    const FILES: &[(&str, &str)] = &[
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n\n[workspace.dependencies]\n\n\
             [workspace.lints]\n",
        ),
        (
            "crates/limits/Cargo.toml",
            "[package]\nname = \"limits\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [[example]]\nname = \"permit\"\npath = \"../../examples/permit.rs\"\n\n\
             [package.metadata.recipes]\npermit = {}\n\n[lints]\nworkspace = true\n",
        ),
        ("crates/limits/src/lib.rs", "//! Limits.\n\npub mod permit;\n\npub use self::permit::permit;\n"),
        ("crates/limits/src/permit.rs", PERMIT),
        ("crates/limits/tests/permit.rs", SWEEP),
        ("docs/SUMMARY.md", "# Summary\n\n- [Limits](limits/index.md)\n  - [permit](limits/permit.md)\n"),
        ("docs/limits/index.md", "# Limits\n\nAll of them: [permit](permit.md#the-code).\n"),
        (
            "docs/limits/permit.md",
            "{{#head permit}}\n\n`cargo run --example permit`\n\n## The code\n\n{{#code permit}}\n",
        ),
        ("docs/python/permit.py", "print('permit')\n"),
        ("docs/book.toml", "[book]\ntitle = \"Fixture\"\nsrc = \".\"\n"),
        ("examples/permit.rs", "//! Takes a permit.\n\nfn main() {}\n"),
    ];

    /// A workspace with one family, `limits`, and one recipe, `permit`; `changes` add or replace files.
    pub(crate) fn workspace(changes: &[(&str, &str)]) -> (TempDir, Workspace) {
        let folder = TempDir::new().unwrap();
        for (path, text) in FILES.iter().chain(changes) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let workspace = Workspace::at(folder.path()).unwrap();
        (folder, workspace)
    }
}
