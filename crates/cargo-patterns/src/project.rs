//! The package that recipes are added to, and what Cargo does for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use registry::Need;
use serde::Deserialize;

/// A package.
pub(crate) struct Project {
    /// The folder of its `Cargo.toml`.
    pub root: PathBuf,
    pub name: String,
    /// Whether Cargo runs the examples in its docs as tests.
    pub is_library: bool,
    /// `src/lib.rs`, or `src/main.rs` where there is no library, from `root`.
    pub crate_root: PathBuf,
    /// The lock file of its workspace, from `root`.
    pub cargo_lock: PathBuf,
    /// Crates that the workspace declares for its members.
    inherited: BTreeSet<String>,
    offline: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    edition: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Project {
    /// The package of the current folder.
    pub(crate) fn find(offline: bool) -> Result<Self> {
        let located = cargo(Path::new("."), &["locate-project", "--message-format", "plain"])?;
        if !located.status.success() {
            bail!("there is no Cargo.toml here or above; `cargo new NAME` makes a package");
        }
        let manifest = PathBuf::from(String::from_utf8_lossy(&located.stdout).trim());
        let root = manifest.parent().context("Cargo.toml is in no folder")?.to_path_buf();
        let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
        let seen = cargo(&root, &arguments)?;
        if !seen.status.success() {
            bail!("Cargo cannot read this package:\n{}", words(&seen));
        }
        let metadata: Metadata =
            serde_json::from_slice(&seen.stdout).context("cannot read `cargo metadata`")?;
        let Some(package) = metadata.packages.iter().find(|it| it.manifest_path == manifest) else {
            let members: Vec<_> = metadata.packages.iter().map(|it| format!("`{}`", it.name)).collect();
            bail!(
                "{} is a workspace and no package: go into the folder of a member{}{}",
                manifest.display(),
                if members.is_empty() { "" } else { ": " },
                members.join(", ")
            );
        };
        if matches!(package.edition.as_str(), "2015" | "2018") {
            bail!(
                "`{}` is of edition {}, and recipes need 2021 or later: set it in Cargo.toml",
                package.name,
                package.edition
            );
        }
        let is = |target: &Target, kinds: &[&str]| target.kind.iter().any(|it| kinds.contains(&it.as_str()));
        let library =
            package.targets.iter().find(|it| is(it, &["lib", "rlib", "cdylib", "staticlib", "dylib"]));
        let target = library.or_else(|| package.targets.iter().find(|it| is(it, &["bin"])));
        let target =
            target.with_context(|| format!("`{}` has neither a library nor a program", package.name))?;
        let crate_root = target.src_path.strip_prefix(&root).context("its source lies outside its folder")?;
        let up = root.strip_prefix(&metadata.workspace_root).map_or(0, |it| it.components().count());
        let cargo_lock = std::iter::repeat_n("..", up).chain(["Cargo.lock"]).collect();
        Ok(Project {
            name: package.name.clone(),
            is_library: library.is_some(),
            crate_root: crate_root.into(),
            cargo_lock,
            inherited: inherited(&metadata.workspace_root)?,
            root,
            offline,
        })
    }

    /// Declares `needs`, beside what is declared already: features are added, versions and paths that are there stay.
    pub(crate) fn declare(&self, needs: &[Need], dev: bool) -> Result<()> {
        let manifest: toml::Table = fs::read_to_string(self.root.join("Cargo.toml"))?.parse()?;
        let section = manifest.get(if dev { "dev-dependencies" } else { "dependencies" });
        // One call of Cargo for all without features. With a version, `cargo add` takes features for one crate only.
        let mut calls = BTreeMap::<_, Vec<String>>::new();
        for need in needs {
            let entry = section.and_then(|it| it.get(&need.name));
            let known = entry.is_some() || self.inherited.contains(&need.name);
            let lacks_defaults = entry.and_then(|it| it.get("default-features")?.as_bool()) == Some(false);
            let defaults = match need.default_features {
                true if lacks_defaults => Some("--default-features"),
                false if !known => Some("--no-default-features"),
                _ => None,
            };
            let alone = (!need.features.is_empty()).then_some(&need.name);
            let spec = if known { need.name.clone() } else { format!("{}@{}", need.name, need.version) };
            calls.entry((defaults, alone, need.features.join(","))).or_default().push(spec);
        }
        for ((defaults, _, features), crates) in &calls {
            let options = [dev.then_some("--dev"), self.offline.then_some("--offline"), *defaults];
            let mut arguments = vec!["add", "--quiet", "--features", features];
            arguments.extend(options.into_iter().flatten().chain(crates.iter().map(String::as_str)));
            let added = cargo(&self.root, &arguments)?;
            if !added.status.success() {
                bail!("`cargo {}` says:\n{}", arguments.join(" "), words(&added));
            }
        }
        Ok(())
    }

    /// Whether the package compiles, with its tests if `tests`; the error is what the compiler says.
    pub(crate) fn check(&self, tests: bool) -> Result<Result<(), String>> {
        let mut arguments = vec!["check", "--quiet"];
        if tests {
            arguments.push("--tests");
        }
        if self.offline {
            arguments.push("--offline");
        }
        let checked = cargo(&self.root, &arguments)?;
        Ok(if checked.status.success() { Ok(()) } else { Err(words(&checked)) })
    }
}

fn inherited(workspace: &Path) -> Result<BTreeSet<String>> {
    let path = workspace.join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(&path)?.parse().context(path.display().to_string())?;
    let table = manifest.get("workspace").and_then(|it| it.get("dependencies")?.as_table());
    Ok(table.into_iter().flat_map(|it| it.keys().cloned()).collect())
}

fn cargo(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Command::new(&program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_string()
}
