//! Every crate takes the lints of the workspace.

use anyhow::{Context, Result};
use registry::Problem;

use super::problem;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace, problems: &mut Vec<Problem>) -> Result<()> {
    for path in workspace.files("", &["Cargo.toml"]) {
        let text = workspace.text(&path)?;
        let manifest: toml::Table = text.parse().with_context(|| path.clone())?;
        let inherits =
            manifest.get("lints").and_then(|it| it.get("workspace")).and_then(toml::Value::as_bool);
        if manifest.contains_key("package") && inherits != Some(true) {
            let line = text.lines().position(|line| line.trim() == "[lints]").map_or(1, |index| index + 1);
            let message =
                "the lints of the workspace do not hold here: add `[lints]` with `workspace = true`";
            problems.push(problem(&path, line, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;

    fn found(manifest: &str) -> Vec<String> {
        let (_folder, workspace) = fixture::workspace(&[("benches/Cargo.toml", manifest)]);
        let mut problems = Vec::new();
        check(&workspace, &mut problems).unwrap();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let start = "the lints of the workspace do not hold here";
        assert_eq!(found("[package]\nname = \"b\"\n[lints]\nworkspace = true\n"), [""; 0]);
        assert!(found("[package]\nname = \"b\"\n")[0].starts_with(&format!("benches/Cargo.toml:1: {start}")));
        let own = found("[package]\nname = \"b\"\n[lints]\nrust.warnings = \"deny\"\n");
        assert!(own[0].starts_with(&format!("benches/Cargo.toml:3: {start}")), "{own:?}");
    }
}
