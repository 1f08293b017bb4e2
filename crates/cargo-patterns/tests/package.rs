//! Recipes are taken into packages that Cargo makes, by the command as a person types it.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use registry::Registry;
use tempfile::TempDir;

/// A package in a folder of its own.
struct Package {
    root: PathBuf,
    _folder: TempDir,
}

impl Package {
    fn new(kind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        let made = Command::new(env!("CARGO"))
            .args(["new", "--quiet", "--vcs", "none", "--edition", "2021", kind])
            .arg(&root)
            .status();
        assert!(made.unwrap().success());
        Package { root, _folder: folder }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-patterns"));
        command
            .arg("patterns")
            .args(words.split(' '))
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"));
        command
    }

    fn succeeds(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, words: &str) -> String {
        let before = self.files();
        let output = self.command(words).output().unwrap();
        assert!(!output.status.success(), "{words}: {output:?}");
        assert_eq!(self.files(), before, "{words} left something behind");
        String::from_utf8(output.stderr).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.root.join(path).parent().unwrap()).unwrap();
        fs::write(self.root.join(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    /// Every file but what tells runs apart.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.root.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&self.root).unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    files.insert(format!("{name}/"), String::new());
                    open.push(path);
                } else if !name.ends_with("running") {
                    files.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        files
    }
}

/// As if `name` had come from an older cookbook, in which `new` was `old`.
fn age(package: &Package, name: &str, new: &str, old: &str) {
    let base = format!(".patterns/base/{name}.rs");
    let text = package.read(&base);
    assert!(text.contains(new));
    for path in [&base, &format!("src/patterns/{name}.rs")] {
        package.write(path, &package.read(path).replace(new, old));
    }
    let registry = Registry::embedded();
    let hashes = |text: &str| {
        use sha2::{Digest, Sha256};
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert!(registry.get(name).is_some());
    let lock = package.read(".patterns/lock.toml");
    package.write(".patterns/lock.toml", &lock.replace(&hashes(&text), &hashes(&text.replace(new, old))));
}

#[test]
fn a_recipe_is_added_compiles_and_its_tests_pass() {
    let package = Package::new("--bin");
    let before = package.files();
    let said = package.succeeds("add retry_budget --with tests --offline");
    assert!(said.contains("add src/patterns/retry_budget.rs ("), "{said}");
    assert!(said.ends_with("use crate::patterns::retry_budget::RetryBudget;\nDone.\n"), "{said}");
    assert!(package.read("src/main.rs").starts_with("mod patterns;\n\nfn main"));
    assert_eq!(
        package.read("src/patterns/retry_budget.rs"),
        Registry::embedded().get("retry_budget").unwrap().source
    );
    let tested = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--offline"])
        .current_dir(&package.root)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"))
        .output()
        .unwrap();
    assert!(tested.status.success() && tested.stderr.is_empty(), "{tested:?}");

    let once = package.files();
    assert_eq!(package.succeeds("add retry_budget"), "Nothing to add: `retry_budget` is there already.\n");
    assert_eq!(package.files(), once);
    package.succeeds("remove retry_budget --offline");
    assert_eq!(package.files(), before);
}

#[test]
fn a_library_gets_its_line_and_runs_no_foreign_examples() {
    let package = Package::new("--lib");
    package.write("src/net.rs", "//! The network.\n");
    package.write("src/lib.rs", "//! A library.\n\nmod net;\n");
    let said = package.succeeds("add retry_budget --into src/net/patterns --offline");
    assert!(said.contains("use crate::net::patterns::retry_budget::"), "{said}");
    assert_eq!(package.read("src/net.rs"), "//! The network.\nmod patterns;\n");
    assert!(package.read("src/net/patterns/retry_budget.rs").contains("//! ```ignore\n"));
    assert!(!package.read("src/net/patterns/retry_budget.rs").contains("mod tests"));
    let elsewhere = package.fails("add timeout --into src/other");
    assert!(elsewhere.contains("live in src/net/patterns, not in src/other"), "{elsewhere}");
}

#[test]
fn a_member_inherits_from_its_workspace() {
    let package = Package::new("--bin");
    let workspace = package.root.parent().unwrap().join("Cargo.toml");
    let text =
        "[workspace]\nmembers = [\"app\"]\nresolver = \"3\"\n\n[workspace.dependencies]\ntokio = \"1.40\"\n";
    fs::write(&workspace, text).unwrap();
    package.succeeds("add window_limit --no-check --offline");
    let manifest = package.read("Cargo.toml");
    assert!(manifest.contains("tokio = { workspace = true, features = [\"sync\", \"time\"] }"), "{manifest}");
    assert_eq!(fs::read_to_string(&workspace).unwrap(), text);

    let outside = Package { root: workspace.parent().unwrap().into(), _folder: tempfile::tempdir().unwrap() };
    let said = outside.fails("add timeout");
    assert!(said.contains("is a workspace and no package: go into the folder of a member: `app`"), "{said}");
}

#[test]
fn whatever_is_wrong_is_said_and_nothing_changes() {
    let package = Package::new("--bin");
    assert!(package.fails("add retyr").contains("there is no recipe `retyr`; did you mean `retry`?"));
    assert!(package.fails("remove retry").contains("`retry` is not in this package"));
    assert!(package.fails("add retry --into lib").contains("lib cannot be a module of this crate"));
    assert!(
        package.fails("add retry --into src/a/b").contains("src/a is not a module yet: make src/a.rs first")
    );

    package.write("src/patterns/retry.rs", "// mine\n");
    let said = package.fails("add retry --offline");
    assert!(said.contains("src/patterns/retry.rs is there already and did not come from here"), "{said}");
    fs::remove_dir_all(package.root.join("src/patterns")).unwrap();

    package.write("src/main.rs", "fn main() { undefined() }\n");
    let said = package.fails("add retry_budget --offline");
    assert!(said.contains("`app` does not compile as it is; nothing was changed:"), "{said}");
    assert!(said.contains("cannot find function `undefined`"), "{said}");

    package.write("src/main.rs", "#[allow(unused_imports)]\nuse std::fmt as patterns;\n\nfn main() {}\n");
    let said = package.fails("add retry_budget --offline");
    assert!(said.contains("it would not compile, so every file is as it was; the compiler says:"), "{said}");
    assert!(said.contains("the name `patterns` is defined multiple times"), "{said}");

    package.write(".patterns", "a file where a folder should be");
    assert!(package.fails("add retry_budget").contains(".patterns/lock.toml: Not a directory"));

    let nowhere =
        Package { root: tempfile::tempdir().unwrap().keep(), _folder: tempfile::tempdir().unwrap() };
    assert!(nowhere.fails("add retry").contains("there is no Cargo.toml here or above"));
    fs::remove_dir(nowhere.root).unwrap();
}

#[test]
fn an_update_keeps_your_changes_and_marks_what_both_changed() {
    let package = Package::new("--bin");
    package.succeeds("add retry_budget --no-check --offline");
    assert_eq!(package.succeeds("status"), "retry_budget  clean\n");
    let registry = Registry::embedded();
    let promise = &registry.get("retry_budget").unwrap().header.promise;
    age(&package, "retry_budget", promise, "An older promise");
    assert_eq!(package.succeeds("status"), "retry_budget  behind\n");
    let path = "src/patterns/retry_budget.rs";
    package.write(path, &format!("{}// mine\n", package.read(path)));
    assert_eq!(package.succeeds("status --json"), "{\n  \"retry_budget\": \"edited and behind\"\n}\n");
    let diff = package.succeeds("diff");
    let (mine, theirs) = diff.split_once("retry_budget: new in the cookbook").unwrap();
    assert!(mine.contains("\n+// mine\n") && !mine.contains("An older promise"), "{diff}");
    assert!(theirs.contains("\n-//! An older promise") && !theirs.contains("mine"), "{diff}");

    package.succeeds("update --no-check --offline");
    let merged = package.read(path);
    assert!(merged.starts_with(&format!("//! {promise}")) && merged.ends_with("// mine\n"), "{merged}");
    assert_eq!(package.succeeds("status"), "retry_budget  edited\n");
    assert!(package.fails("remove retry_budget").contains("has changes of yours"));

    age(&package, "retry_budget", promise, "An older promise");
    package.write(path, &package.read(path).replace("An older promise", "My promise"));
    let output = package.command("update --offline").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success()
            && said.contains("choose between the markers in src/patterns/retry_budget.rs")
    );
    let marked = format!("<<<<<<< ours\n//! My promise.\n=======\n//! {promise}.\n>>>>>>> theirs\n");
    assert!(package.read(path).starts_with(&marked), "{}", package.read(path));
}

#[test]
fn a_file_that_you_edited_since_keeps_what_you_wrote() {
    let package = Package::new("--bin");
    package.succeeds("add retry --no-check --offline");
    let manifest =
        package.read("Cargo.toml").replace("[dependencies]", "description = \"mine\"\n\n[dependencies]");
    package.write("Cargo.toml", &manifest);
    package.write(
        "src/main.rs",
        &package.read("src/main.rs").replace("mod patterns;", "mod patterns;\nmod mine;"),
    );
    package.write(
        "src/patterns/mod.rs",
        &format!("{}pub use retry::retry;\n", package.read("src/patterns/mod.rs")),
    );
    package.succeeds("add timeout --no-check --offline");
    assert!(package.read("src/patterns/mod.rs").ends_with("pub mod timeout;\n\npub use retry::retry;\n"));
    package.succeeds("remove retry timeout --no-check --offline");
    assert_eq!(
        package.read("Cargo.toml"),
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\ndescription = \"mine\"\n\n[dependencies]\n"
    );
    assert_eq!(package.read("src/main.rs").lines().next(), Some("mod mine;"));
    assert!(package.read("src/patterns/mod.rs").contains("pub use retry::retry;\n"));
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_is_taken_back_by_the_next() {
    let package = Package::new("--bin");
    package.write("Cargo.lock", "# not there before, so that it is compared too\nversion = 4\n");
    let before = package.files();
    let mut run = package.command("add window_limit --offline").stderr(Stdio::null()).spawn().unwrap();
    // Once the files are saved nothing of the package is as it was for long.
    while !package.root.join("src/patterns/window_limit.rs").exists() {
        assert!(run.try_wait().unwrap().is_none(), "it has ended before it wrote anything");
        std::thread::yield_now();
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_ne!(package.files(), before);
    let output = package.command("status").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "The last change was cut off; every file is again as it was before it.\n");
    assert_eq!(package.files(), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// In whatever order some recipes are added, the package is the same; and removed, it is what it was.
    #[test]
    fn adding_is_the_same_in_any_order_and_removing_leaves_nothing(
        all in Just(Registry::embedded().recipes.iter().map(|it| it.name.clone()).collect::<Vec<_>>()).prop_shuffle(),
        count in 1..4_usize,
        library in any::<bool>(),
        tests in any::<bool>(),
    ) {
        let kind = if library { "--lib" } else { "--bin" };
        let (one, other) = (Package::new(kind), Package::new(kind));
        let before = one.files();
        let options = format!("--no-check --offline{}", if tests { " --with tests" } else { "" });
        let names = &all[..count];
        for name in names {
            one.succeeds(&format!("add {name} {options}"));
        }
        let reversed: Vec<_> = names.iter().rev().cloned().collect();
        other.succeeds(&format!("add {} {options}", reversed.join(" ")));
        prop_assert_eq!(one.files(), other.files());
        for name in names {
            let source = &Registry::embedded().get(name).unwrap().source.clone();
            let copy = one.read(&format!("src/patterns/{name}.rs"));
            prop_assert!(!tests || copy.lines().count() == source.lines().count());
        }
        one.succeeds(&format!("remove {} --no-check --offline", names.join(" ")));
        prop_assert_eq!(one.files(), before);
    }
}
