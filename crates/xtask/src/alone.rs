//! Recipes alone: each is copied into an empty package that has exactly the crates and features the recipe declares.
//!
//! In the workspace Cargo unites the features that all packages ask for, and hides one that a recipe forgot to declare.

use std::collections::BTreeSet;
use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use registry::copy::{self, Copy};
use registry::{Need, Problem, Recipe};

use crate::workspace::{Workspace, refuse};

/// `cargo xtask alone`
pub(crate) fn command(workspace: &Workspace, names: &[String], full: bool) -> Result<()> {
    let mut recipes = Vec::new();
    for name in names {
        match workspace.registry.get(name) {
            Some(recipe) => recipes.push(recipe),
            None => bail!("there is no recipe `{name}`"),
        }
    }
    if names.is_empty() {
        recipes.extend(&workspace.registry.recipes);
    }
    let all = recipes.iter().flat_map(|recipe| workspace.registry.closure(recipe, true));
    let folders: BTreeSet<_> = all.map(|recipe| format!("crates/{}/", recipe.family)).collect();
    let concerned = |problem: &&Problem| folders.iter().any(|folder| problem.path.starts_with(folder));
    refuse(&workspace.registry.problems.iter().filter(concerned).cloned().collect::<Vec<_>>())?;

    let workers = recipes.len().min(WORKERS);
    let recipes = Mutex::new(recipes.into_iter());
    let next = || recipes.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = |worker| {
        let mut tally = Tally::default();
        while let Some(recipe) = next() {
            try_recipe(workspace, recipe, full, worker, &mut tally)?;
        }
        Ok(tally)
    };
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut tally = Tally::default();
    for more in tallies {
        tally.add(more?);
    }
    println!("{}", tally.summary(full));
    if tally.wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", tally.wrong.join("\n"))
}

/// Recipes that are tried at a time, each with a target folder of its own: a single small crate keeps one core busy.
const WORKERS: usize = 2;

/// What was tried and what came of it.
#[derive(Default)]
struct Tally {
    recipes: usize,
    compiled: usize,
    tested: usize,
    taken: usize,
    failed_as_they_should: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, more: Tally) {
        self.recipes += more.recipes;
        self.compiled += more.compiled;
        self.tested += more.tested;
        self.taken += more.taken;
        self.failed_as_they_should += more.failed_as_they_should;
        self.wrong.extend(more.wrong);
    }

    fn summary(&self, full: bool) -> String {
        let s = if self.recipes == 1 { "" } else { "s" };
        let tests = match self.tested {
            tested if tested == self.recipes => "tests pass".into(),
            tested => format!("tests pass for {tested}"),
        };
        let mut text = format!("{} recipe{s} alone: {} compile, {tests}", self.recipes, self.compiled);
        if full {
            text.push_str(&format!(
                ", {} crates and features taken away: {} fail as they should",
                self.taken, self.failed_as_they_should
            ));
        }
        text
    }
}

/// Features without which a recipe compiles, and panics when it runs: they are not taken away.
const PANICS_WITHOUT: [(&str, &str); 1] = [("sqlx", "runtime-tokio")];

/// A crate or a feature that is left out of the package's manifest.
#[derive(Clone, Copy)]
struct Without<'a> {
    need: &'a Need,
    feature: Option<&'a str>,
    for_tests: bool,
}

impl Without<'_> {
    fn describe(self) -> String {
        let name = &self.need.name;
        let what = self.feature.map_or_else(|| name.clone(), |feature| format!("{name}[{feature}]"));
        if self.for_tests { format!("{what} for the tests") } else { what }
    }
}

fn try_recipe(
    workspace: &Workspace,
    recipe: &Recipe,
    full: bool,
    worker: usize,
    tally: &mut Tally,
) -> Result<()> {
    let copied = copy::lay(&workspace.registry, &[recipe]);
    let package = Package { workspace, name: &recipe.name, worker };
    package.write(&copied)?;
    tally.recipes += 1;

    if !package.step("compiles", &copied, None, &["check"], tally)? {
        return Ok(());
    }
    tally.compiled += 1;
    if !package.step("passes its tests", &copied, None, &["test"], tally)? {
        return Ok(());
    }
    tally.tested += 1;
    if !full {
        return Ok(());
    }
    for (needs, for_tests) in [(&recipe.needs, false), (&recipe.test_needs, true)] {
        for need in needs {
            let names = need.features.iter().map(String::as_str);
            let features = names.filter(|it| !PANICS_WITHOUT.contains(&(&need.name, it))).map(Some);
            // A crate that the tests only ask more features of is not theirs to take away.
            let whole = (!for_tests || recipe.needs.iter().all(|it| it.name != need.name)).then_some(None);
            for feature in features.chain(whole) {
                let without = Without { need, feature, for_tests };
                tally.taken += 1;
                let arguments: &[&str] = if for_tests { &["test", "--no-run"] } else { &["check"] };
                if package.step("", &copied, Some(without), arguments, tally)? {
                    tally.failed_as_they_should += 1;
                }
            }
        }
    }
    package.write(&copied)
}

/// The package that holds one recipe and all that it uses.
struct Package<'a> {
    workspace: &'a Workspace,
    name: &'a str,
    worker: usize,
}

impl Package<'_> {
    fn folder(&self) -> PathBuf {
        self.workspace.root.join("target/alone").join(self.name)
    }

    fn write(&self, copied: &Copy) -> Result<()> {
        let folder = self.folder();
        let patterns = folder.join("src/patterns");
        // What an earlier run left there may not be part of the recipe any more.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&patterns)?;
        for (name, text) in &copied.files {
            fs::write(patterns.join(name), text)?;
        }
        fs::write(folder.join("src/main.rs"), "mod patterns;\n\nfn main() {}\n")?;
        self.write_manifest(copied, None)
    }

    fn write_manifest(&self, copied: &Copy, without: Option<Without>) -> Result<()> {
        let folder = self.folder();
        fs::write(folder.join("Cargo.toml"), manifest(self.name, copied, without))?;
        // Cargo drops from the copy what the package does not need: each run starts from the versions of the workspace.
        let lock = self.workspace.root.join("Cargo.lock");
        if lock.exists() {
            fs::copy(lock, folder.join("Cargo.lock"))?;
        }
        Ok(())
    }

    /// Runs Cargo on the package. It must succeed, or fail to compile if something was taken away; says which it did.
    fn step(
        &self,
        succeeds: &str,
        copied: &Copy,
        without: Option<Without>,
        arguments: &[&str],
        tally: &mut Tally,
    ) -> Result<bool> {
        self.write_manifest(copied, without)?;
        let start = Instant::now();
        let (success, words) = self.cargo(arguments)?;
        let seconds = start.elapsed().as_secs_f64();
        let name = self.name;
        let (right, outcome) = match without {
            None if success && arguments == ["test"] && words.contains("\nrunning 0 tests\n") => {
                (false, "has no tests of its own".to_string())
            }
            None if success => (true, succeeds.to_string()),
            None => (false, format!("`cargo {}` fails", arguments.join(" "))),
            Some(without) if success => {
                (false, format!("still compiles without {}: do not declare it", without.describe()))
            }
            // Anything but a compiler's error in the recipe would prove nothing.
            Some(without) if !words.contains(&format!("could not compile `{}`", package_name(name))) => {
                (false, format!("fails without {}, but not to compile", without.describe()))
            }
            Some(without) => (true, format!("fails as it should without {}", without.describe())),
        };
        println!("{name}: {outcome} ({seconds:.1} s)");
        if !right {
            let words = if success { "" } else { words.trim_end() };
            tally.wrong.push(format!("{name}: {outcome}\n{words}").trim_end().to_string());
        }
        Ok(right)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command: Command = self.workspace.cargo();
        command
            .args(arguments)
            .arg("--manifest-path")
            .arg(self.folder().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(self.workspace.root.join(format!("target/alone-target-{}", self.worker)))
            .arg("--quiet")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output =
            command.spawn().and_then(std::process::Child::wait_with_output).context("cannot run cargo")?;
        let words =
            [output.stderr, output.stdout].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        Ok((output.status.success(), words))
    }
}

fn package_name(recipe: &str) -> String {
    format!("alone-{recipe}")
}

/// A binary package of the edition before the current one, outside any workspace, in which a warning is an error.
fn manifest(name: &str, copied: &Copy, without: Option<Without>) -> String {
    let mut text = format!(
        "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
         [lints.rust]\nwarnings = \"deny\"\n",
        package_name(name)
    );
    for (section, needs, for_tests) in
        [("dependencies", &copied.needs, false), ("dev-dependencies", &copied.test_needs, true)]
    {
        text.push_str(&format!("\n[{section}]\n"));
        for need in needs {
            let mut need = need.clone();
            if let Some(without) = without
                && without.for_tests == for_tests
                && without.need.name == need.name
            {
                match without.feature {
                    Some(feature) => need.features.retain(|it| it != feature),
                    None => continue,
                }
            }
            text.push_str(&need.manifest_line());
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::workspace::fixture::{self, PERMIT};

    /// Tries `permit` with another body and other needs; the crate is small, and in the lock file of this workspace.
    fn tried(body: &str, needs: &str, full: bool) -> Tally {
        let lock =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock")).unwrap();
        let recipe = PERMIT.replace("    NonZeroUsize::MIN.get()\n", body);
        let family = format!(
            "[package]\nname = \"limits\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [package.metadata.recipes]\npermit = {needs}\n"
        );
        let (_folder, workspace) = fixture::workspace(&[
            ("Cargo.lock", &lock),
            (
                "Cargo.toml",
                "[workspace.dependencies]\nfutures-core = { version = \"0.3\", default-features = false }\n",
            ),
            ("crates/limits/Cargo.toml", &family),
            ("crates/limits/src/permit.rs", &recipe),
        ]);
        let mut tally = Tally::default();
        try_recipe(&workspace, &workspace.registry.recipes[0], full, 0, &mut tally).unwrap();
        tally
    }

    const RIGHT: &str = "    NonZeroUsize::MIN.get()\n";
    const WITH_CRATE: &str = "    use futures_core::Future as _;\n    NonZeroUsize::MIN.get()\n";

    #[test]
    fn a_recipe_that_declares_what_it_needs_passes() {
        let tally = tried(RIGHT, "{}", true);
        assert_eq!(tally.wrong, [""; 0]);
        assert_eq!(
            tally.summary(true),
            "1 recipe alone: 1 compile, tests pass, 0 crates and features taken away: 0 fail as they should"
        );
        let tally = tried(
            &WITH_CRATE
                .replace(" as _", " as Wanted")
                .replace("    Non", "    let _: Option<&dyn Wanted<Output = ()>> = None;\n    Non"),
            "{ futures-core = [] }",
            true,
        );
        assert_eq!(tally.wrong, [""; 0]);
        assert_eq!((tally.taken, tally.failed_as_they_should), (1, 1));
    }

    #[test]
    fn a_need_that_is_not_declared_is_found() {
        let tally = tried(WITH_CRATE, "{}", false);
        assert_eq!((tally.compiled, tally.wrong.len()), (0, 1));
        assert!(tally.wrong[0].contains("permit: `cargo check` fails"), "{:?}", tally.wrong);
        assert!(tally.wrong[0].contains("futures_core"), "{:?}", tally.wrong);
    }

    #[test]
    fn a_warning_and_a_failing_test_are_found() {
        let tally = tried("    let unused = 1;\n    NonZeroUsize::MIN.get()\n", "{}", false);
        assert!(tally.wrong[0].contains("unused variable"), "{:?}", tally.wrong);
        let tally = tried("    NonZeroUsize::MIN.get() + 5\n", "{}", false);
        assert_eq!((tally.compiled, tally.tested), (1, 0));
        assert!(tally.wrong[0].contains("order_is_first_come"), "{:?}", tally.wrong);
    }

    #[test]
    fn a_need_that_nothing_needs_is_found() {
        let tally = tried(RIGHT, "{ futures-core = [\"alloc\"] }", true);
        assert_eq!((tally.taken, tally.failed_as_they_should), (2, 0));
        assert_eq!(
            tally.wrong,
            [
                "permit: still compiles without futures-core[alloc]: do not declare it",
                "permit: still compiles without futures-core: do not declare it",
            ]
        );
    }

    #[test]
    fn what_is_taken_away_is_missing_from_the_manifest() {
        let need = |features: &[&str]| Need {
            name: "tokio".into(),
            version: "1.54.1".into(),
            default_features: true,
            features: features.iter().map(ToString::to_string).collect(),
        };
        let (needs, test_needs) = (need(&["rt", "time"]), need(&["macros"]));
        let copied = Copy {
            files: Default::default(),
            needs: vec![needs.clone()],
            test_needs: vec![test_needs.clone()],
        };
        let tail =
            |without| manifest("a", &copied, without).split_once("[dependencies]\n").unwrap().1.to_string();
        let without = |need, feature, for_tests| Some(Without { need, feature, for_tests });
        let tests = "\n[dev-dependencies]\ntokio = { version = \"1.54.1\", features = [\"macros\"] }\n";
        assert_eq!(
            tail(without(&needs, Some("rt"), false)),
            format!("tokio = {{ version = \"1.54.1\", features = [\"time\"] }}\n{tests}")
        );
        assert_eq!(tail(without(&needs, None, false)), tests);
        let bare = "tokio = { version = \"1.54.1\", features = [\"rt\", \"time\"] }\n\n[dev-dependencies]\ntokio = \"1.54.1\"\n";
        assert_eq!(tail(without(&test_needs, Some("macros"), true)), bare);
    }
}
