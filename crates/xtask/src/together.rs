//! All recipes at once, taken by `cargo patterns add` into a new library and into a member of a workspace.
//!
//! Alone each recipe has a module of its own; together they must not be in each other's way, and a member gets its crates from
//! its workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Takes every recipe with its tests into both packages, and runs the tests there.
pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    let target = workspace.root.join("target/together");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("cannot empty {}", target.display()))?;
    }
    for member in [false, true] {
        let folder = target.join(if member { "workspace" } else { "library" });
        fs::create_dir_all(&folder)?;
        let lock = workspace.root.join("Cargo.lock");
        fs::copy(lock, folder.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
        let package = if member { folder.join("member") } else { folder.clone() };
        let start = Instant::now();
        if member {
            fs::write(folder.join("Cargo.toml"), declared(workspace))?;
        }
        make(&package, !member)?;
        let recipes = workspace.registry.recipes.iter().map(|recipe| recipe.name.as_str());
        let add = ["run", "--quiet", "--package", "cargo-patterns", "--manifest-path"];
        let manifest = workspace.root.join("Cargo.toml");
        let manifest = manifest.to_str().context("the folder's name is not UTF-8")?;
        let verb = ["--", "patterns", "add", "--no-check", "--with", "tests"];
        run(workspace, &package, add.into_iter().chain([manifest]).chain(verb).chain(recipes))?;
        run(workspace, &package, ["test", "--quiet"])?;
        let (count, seconds) = (workspace.registry.recipes.len(), start.elapsed().as_secs_f64());
        let place = if member { "a member that inherits its crates" } else { "a library" };
        println!("{count} recipes together in {place}: tests pass ({seconds:.1} s)");
    }
    Ok(())
}

/// A package of the present edition in which a warning is an error.
fn make(package: &Path, root: bool) -> Result<()> {
    fs::create_dir_all(package.join("src"))?;
    let workspace = if root { "\n[workspace]\n" } else { "" };
    let manifest = format!(
        "[package]\nname = \"together\"\nversion = \"0.0.0\"\nedition = \"2024\"\n{workspace}\n\
         [lints.rust]\nwarnings = \"deny\"\n"
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::write(package.join("src/lib.rs"), "//! Every recipe.\n").map_err(Into::into)
}

/// A workspace that declares every crate, without the features that recipes need.
fn declared(workspace: &Workspace) -> String {
    let recipes = workspace.registry.recipes.iter();
    let needs = registry::unite(recipes.flat_map(|recipe| recipe.needs.iter().chain(&recipe.test_needs)));
    let lines = needs.iter().map(|need| {
        let defaults = if need.default_features { "" } else { ", default-features = false" };
        format!("{} = {{ version = {:?}{defaults} }}\n", need.name, need.version)
    });
    let lines: String = lines.collect();
    format!("[workspace]\nmembers = [\"member\"]\nresolver = \"3\"\n\n[workspace.dependencies]\n{lines}")
}

fn run<'a>(workspace: &Workspace, folder: &PathBuf, words: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let words: Vec<_> = words.into_iter().collect();
    let mut command = workspace.cargo();
    command.args(&words).current_dir(folder);
    if words[0] == "test" {
        command.env("CARGO_TARGET_DIR", workspace.root.join("target/alone-target-0"));
    }
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        let said =
            [output.stderr, output.stdout].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        bail!("`cargo {}` fails in {}:\n{}", words.join(" "), folder.display(), said.trim_end());
    }
    Ok(())
}
