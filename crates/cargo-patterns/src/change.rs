//! Adds recipes to a package, updates and removes them. Every run leaves a package that compiles, or everything as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use diffy::{ConflictStyle, MergeOptions};
use registry::{Recipe, Registry, paths, unite};

use crate::lock::{self, Entry, Lock, Shared};
use crate::modules;
use crate::project::Project;
use crate::undo::{self, Undo};

const MANIFEST: &str = "Cargo.toml";

const MODULE: &str = "\
//! Recipes of Tokio Patterns.

// A project seldom uses every item of a recipe.
#![allow(dead_code)]

";

/// A package with its recipes.
pub(crate) struct Package<'a> {
    registry: &'a Registry,
    project: Project,
    lock: Lock,
    check: bool,
}

/// What is to become of the package.
#[derive(Default)]
struct Plan {
    recipes: BTreeMap<String, Entry>,
    /// Files to be written, and the recipe as it comes from the cookbook.
    written: BTreeMap<String, (String, String)>,
    removed: Vec<String>,
    /// Recipes whose changes and ours are in each other's way.
    conflicts: Vec<String>,
    /// What to tell when it is done.
    told: Vec<String>,
}

/// How a recipe in the package compares with the cookbook.
pub(crate) struct State {
    pub name: String,
    /// As it came, as it is in the package, and as it is in the cookbook now.
    pub base: String,
    pub mine: Option<String>,
    pub theirs: Option<String>,
}

impl State {
    pub(crate) fn edited(&self) -> bool {
        self.mine.as_ref() != Some(&self.base)
    }

    pub(crate) fn behind(&self) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| *theirs != self.base)
    }

    pub(crate) fn word(&self) -> &'static str {
        match (&self.mine, self.edited(), self.behind()) {
            (None, ..) => "missing",
            (_, true, true) => "edited and behind",
            (_, true, false) => "edited",
            (_, false, true) => "behind",
            (_, false, false) if self.theirs.is_none() => "clean, and no longer in the cookbook",
            (_, false, false) => "clean",
        }
    }
}

impl<'a> Package<'a> {
    /// The package of the current folder. A run that was cut off is taken back.
    pub(crate) fn open(registry: &'a Registry, offline: bool, check: bool) -> Result<Self> {
        let project = Project::find(offline)?;
        if undo::recover(&project.root)? {
            eprintln!("The last change was cut off; every file is again as it was before it.");
        }
        let lock = Lock::read(&project.root)?.unwrap_or_default();
        Ok(Package { registry, project, lock, check })
    }

    /// The recipes among `names`, or all if there are none.
    pub(crate) fn states(&self, names: &[String]) -> Result<Vec<State>> {
        self.installed(names)?;
        let wanted = |name: &&String| names.is_empty() || names.contains(name);
        self.lock.recipes.keys().filter(wanted).map(|name| self.state(name)).collect()
    }

    fn state(&self, name: &str) -> Result<State> {
        let entry = &self.lock.recipes[name];
        let theirs = self.registry.get(name).map(|recipe| self.text(recipe, entry.tests));
        let mine = read(&self.project.root.join(self.lock.file(name)))?;
        Ok(State { name: name.into(), base: self.lock.base(&self.project.root, name)?, mine, theirs })
    }

    /// `recipe` as it stands in this package, without the tests at its end unless `tests`.
    fn text(&self, recipe: &Recipe, tests: bool) -> String {
        let mut text = paths::flatten(&recipe.source, &recipe.references);
        if !tests {
            text = text.split_inclusive('\n').take(recipe.lines).collect();
        }
        if self.project.is_library { quiet_examples(&text) } else { text }
    }

    fn installed(&self, names: &[String]) -> Result<()> {
        match names.iter().find(|name| !self.lock.recipes.contains_key(*name)) {
            Some(name) => bail!("`{name}` is not in this package; `cargo patterns status` lists what is"),
            None => Ok(()),
        }
    }

    /// Adds `recipes` and what they use.
    pub(crate) fn add(
        mut self,
        recipes: &[&Recipe],
        into: Option<&Path>,
        tests: bool,
        dry_run: bool,
    ) -> Result<()> {
        self.settle_folder(into)?;
        let mut plan = Plan { recipes: self.lock.recipes.clone(), ..Plan::default() };
        let mut open: Vec<_> = recipes.iter().map(|recipe| (*recipe, true, tests)).collect();
        while let Some((recipe, asked, tests)) = open.pop() {
            let before = plan.recipes.get(&recipe.name);
            let tests = tests || before.is_some_and(|entry| entry.tests);
            if let Some(entry) = before.filter(|entry| entry.tests == tests) {
                let asked = asked || entry.asked;
                plan.recipes.entry(recipe.name.clone()).and_modify(|entry| entry.asked = asked);
                continue;
            }
            let asked = asked || before.is_some_and(|entry| entry.asked);
            self.take(&mut plan, recipe, asked, tests)?;
            open.extend(
                recipe
                    .uses(tests)
                    .iter()
                    .filter_map(|name| self.registry.get(name))
                    .map(|it| (it, false, false)),
            );
        }
        if plan.recipes == self.lock.recipes {
            let (names, are) =
                (recipes.iter().map(|it| it.name.as_str()), if recipes.len() == 1 { "is" } else { "are" });
            println!("Nothing to add: {} {are} there already.", listed(names));
            return Ok(());
        }
        self.describe(&plan);
        if dry_run {
            println!("Nothing was changed.");
            return Ok(());
        }
        let module = self.module_path();
        for recipe in recipes {
            let plain = |name: &str| name.replace('_', "").to_lowercase();
            let mut public = recipe.items.iter().filter(|it| it.public);
            let exact = public.clone().find(|it| it.name == recipe.name);
            let named = exact.or_else(|| public.clone().find(|it| plain(&it.name) == plain(&recipe.name)));
            let item = named.or_else(|| public.clone().find(|it| it.kind == "fn")).or_else(|| public.next());
            if let Some(item) = item {
                plan.told.push(format!("use {module}::{}::{};", recipe.name, item.name));
            }
        }
        self.carry_out(plan)
    }

    /// Brings `names`, or all, to the cookbook's state, and keeps the package's own changes.
    pub(crate) fn update(self, names: &[String]) -> Result<()> {
        let mut plan = Plan { recipes: self.lock.recipes.clone(), ..Plan::default() };
        let mut open = Vec::new();
        for state in self.states(names)? {
            let Some(recipe) = self.registry.get(&state.name) else {
                println!("`{}` is no longer in the cookbook, and stays as it is.", state.name);
                continue;
            };
            if state.behind() || state.mine.is_none() {
                let entry = &self.lock.recipes[&state.name];
                self.take(&mut plan, recipe, entry.asked, entry.tests)?;
                open.extend(plan.recipes[&recipe.name].uses.clone());
            }
        }
        while let Some(name) = open.pop() {
            if let Some(recipe) = self.registry.get(&name).filter(|it| !plan.recipes.contains_key(&it.name)) {
                self.take(&mut plan, recipe, false, false)?;
                open.extend(plan.recipes[&name].uses.clone());
            }
        }
        if plan.written.is_empty() {
            println!("Nothing to update.");
            return Ok(());
        }
        self.prune(&mut plan)?;
        self.describe(&plan);
        self.carry_out(plan)
    }

    /// Removes `names`, and what nothing else needs then.
    pub(crate) fn remove(self, names: &[String], force: bool) -> Result<()> {
        for state in self.states(names)? {
            if state.edited() && state.mine.is_some() && !force {
                bail!(
                    "`{0}` has changes of yours, which `cargo patterns diff {0}` shows; `--force` removes it with them",
                    state.name
                );
            }
        }
        let mut plan = Plan { recipes: self.lock.recipes.clone(), ..Plan::default() };
        for name in names {
            plan.recipes.remove(name);
            plan.removed.push(name.clone());
        }
        for (user, entry) in &plan.recipes {
            // One that nobody asked for goes too, unless somebody else needs it.
            if let Some(used) = entry.uses.iter().find(|it| names.contains(it))
                && self.needed(&plan).contains(user)
            {
                bail!("`{user}` uses `{used}`: remove both with `cargo patterns remove {used} {user}`");
            }
        }
        self.prune(&mut plan)?;
        self.describe(&plan);
        self.carry_out(plan)
    }

    /// Plans to write `recipe`, merged with what the package has of it.
    fn take(&self, plan: &mut Plan, recipe: &Recipe, asked: bool, tests: bool) -> Result<()> {
        let name = &recipe.name;
        let theirs = self.text(recipe, tests);
        let file = self.lock.file(name);
        let mine = read(&self.project.root.join(&file))?;
        let merged = match (self.lock.recipes.contains_key(name), mine) {
            (false, Some(_)) => {
                bail!("{} is there already and did not come from here: move it away first", file.display())
            }
            (_, None) => theirs.clone(),
            (true, Some(mine)) => {
                let base = self.lock.base(&self.project.root, name)?;
                MergeOptions::new()
                    .set_conflict_style(ConflictStyle::Merge)
                    .merge(&base, &mine, &theirs)
                    .unwrap_or_else(|marked| {
                        plan.conflicts.push(name.clone());
                        marked
                    })
            }
        };
        let entry = Entry {
            version: env!("CARGO_PKG_VERSION").into(),
            hash: lock::hash(&theirs),
            asked,
            tests,
            uses: recipe.uses(tests).into_iter().map(String::from).collect(),
            needs: recipe.needs.clone(),
            test_needs: if tests { recipe.test_needs.clone() } else { Vec::new() },
        };
        plan.recipes.insert(name.clone(), entry);
        plan.written.insert(name.clone(), (merged, theirs));
        Ok(())
    }

    /// Recipes that were asked for, and all that they use.
    fn needed(&self, plan: &Plan) -> BTreeSet<String> {
        let asked = plan.recipes.iter().filter(|(_, entry)| entry.asked);
        let mut open: Vec<_> = asked.map(|(name, _)| name.clone()).collect();
        let mut found = BTreeSet::new();
        while let Some(name) = open.pop() {
            if let Some(entry) = plan.recipes.get(&name)
                && found.insert(name)
            {
                open.extend(entry.uses.iter().cloned());
            }
        }
        found
    }

    /// Takes away what nothing needs any more, but for what was edited.
    fn prune(&self, plan: &mut Plan) -> Result<()> {
        let needed = self.needed(plan);
        let spare: Vec<_> = plan.recipes.keys().filter(|name| !needed.contains(*name)).cloned().collect();
        for name in spare {
            if self.state(&name)?.edited() {
                plan.told
                    .push(format!("Nothing uses `{name}` any more; it stays, because you have changed it."));
                plan.recipes.entry(name).and_modify(|entry| entry.asked = true);
            } else {
                plan.recipes.remove(&name);
                plan.written.remove(&name);
                plan.removed.push(name);
            }
        }
        Ok(())
    }

    fn describe(&self, plan: &Plan) {
        for (name, (merged, theirs)) in &plan.written {
            let entry = &plan.recipes[name];
            let verb = if self.lock.recipes.contains_key(name) { "update" } else { "add" };
            let users = plan.recipes.iter().filter(|(_, it)| it.uses.contains(name));
            let users: Vec<_> = users.map(|(user, _)| user.as_str()).collect();
            let why = if entry.asked { String::new() } else { format!(", which {} uses", listed(users)) };
            let own = if merged == theirs { "" } else { ", with your changes" };
            println!(
                "{verb:>8} {} ({} lines){why}{own}",
                self.lock.file(name).display(),
                merged.lines().count()
            );
        }
        for name in &plan.removed {
            println!("  remove {}", self.lock.file(name).display());
        }
        let needs = |entries: &BTreeMap<String, Entry>| {
            let needs = unite(entries.values().flat_map(|it| it.needs.iter().chain(&it.test_needs)));
            needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (before, after) = (needs(&self.lock.recipes), needs(&plan.recipes));
        if before != after {
            let what = if after.is_empty() { "nothing for recipes" } else { &after };
            println!(" declare {what} in Cargo.toml");
        }
    }

    /// Writes what is planned, and lets the compiler judge it.
    fn carry_out(self, plan: Plan) -> Result<()> {
        let root = &self.project.root;
        let (module, parent) = (self.lock.into.join("mod.rs"), self.parent_module()?);
        let touched = plan.written.keys().chain(&plan.removed);
        let own = touched.flat_map(|name| [self.lock.file(name), lock::base_path(name)]);
        let shared = [
            MANIFEST.into(),
            self.project.cargo_lock.clone(),
            parent.clone(),
            module.clone(),
            lock::PATH.into(),
        ];
        let files: Vec<_> = shared.into_iter().chain(own).collect();

        let mut next = Lock { recipes: plan.recipes, ..self.lock.clone() };
        if self.lock.recipes.is_empty() {
            next.had_cargo_lock = root.join(&self.project.cargo_lock).exists();
        }
        let undo = Undo::begin(root, &files)?;
        if self.check && plan.removed.is_empty() {
            eprintln!("Checking that `{}` compiles as it is ...", self.project.name);
            if let Err(said) = self.project.check(false)? {
                bail!("`{}` does not compile as it is; nothing was changed:\n{said}", self.project.name);
            }
        }
        fs::create_dir_all(root.join(&self.lock.into))?;
        fs::create_dir_all(root.join(".patterns/base"))?;
        for (name, (merged, theirs)) in &plan.written {
            fs::write(root.join(self.lock.file(name)), merged)?;
            fs::write(root.join(lock::base_path(name)), theirs)?;
        }
        for name in &plan.removed {
            remove_file(&root.join(self.lock.file(name)))?;
            remove_file(&root.join(lock::base_path(name)))?;
        }
        let names: Vec<_> = next.recipes.keys().cloned().collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.write_modules(&module, Some(MODULE), &names, &mut next.files)?;
        let folder =
            self.lock.into.file_name().and_then(|it| it.to_str()).context("the folder has no name")?;
        let folder = &[folder][..usize::from(!names.is_empty())];
        self.write_modules(&parent, None, folder, &mut next.files)?;
        self.write_manifest(&mut next)?;

        if next.recipes.is_empty() {
            remove_file(&root.join(lock::PATH))?;
            // It stays if something else is in it.
            let _ = fs::remove_dir(root.join(&self.lock.into));
        } else {
            next.write(root)?;
        }
        if self.check && plan.conflicts.is_empty() {
            eprintln!(
                "Checking that it compiles {} ...",
                if names.is_empty() { "without recipes" } else { "with the recipes" }
            );
            if let Err(said) = self.project.check(next.recipes.values().any(|it| it.tests))? {
                bail!("it would not compile, so every file is as it was; the compiler says:\n{said}");
            }
        }
        if next.recipes.is_empty() && !next.had_cargo_lock {
            remove_file(&root.join(&self.project.cargo_lock))?;
        }
        undo.keep()?;
        plan.told.iter().for_each(|line| println!("{line}"));
        if !plan.conflicts.is_empty() {
            let files = plan.conflicts.iter().map(|name| self.lock.file(name).display().to_string());
            bail!(
                "your changes and the cookbook's touch the same lines: choose between the markers in {}",
                files.collect::<Vec<_>>().join(", ")
            );
        }
        println!("Done.");
        Ok(())
    }

    /// Writes the lines for the modules `names` into the file at `path`, which begins with `heading` if it is ours alone.
    fn write_modules(
        &self,
        path: &Path,
        heading: Option<&str>,
        names: &[&str],
        files: &mut BTreeMap<String, Shared>,
    ) -> Result<()> {
        let key = key(path);
        let full = self.project.root.join(path);
        let current = read(&full)?;
        let before = match self.lock.files.get(&key) {
            Some(shared) if current.as_ref() == Some(&shared.after) => shared.before.clone(),
            // Edited in the meantime: only the lines are ours.
            Some(_) => {
                let old: Vec<_> = match heading {
                    Some(_) => self.lock.recipes.keys().map(String::as_str).collect(),
                    None => self.lock.into.file_name().and_then(|it| it.to_str()).into_iter().collect(),
                };
                let edited = || format!("{}: it was not changed", path.display());
                current.map(|text| modules::without(&text, &old)).transpose().with_context(edited)?
            }
            None => current,
        };
        if names.is_empty() {
            files.remove(&key);
            return match before {
                Some(text) => fs::write(&full, text),
                None => remove_file(&full),
            }
            .with_context(|| path.display().to_string());
        }
        let start = before.as_deref().or(heading).unwrap_or("");
        let after =
            modules::with(start, names, heading.is_some()).with_context(|| path.display().to_string())?;
        fs::write(&full, &after).with_context(|| path.display().to_string())?;
        files.insert(key, Shared { before, after });
        Ok(())
    }

    /// Declares what `next` needs, and no longer what only the recipes of before needed.
    fn write_manifest(&self, next: &mut Lock) -> Result<()> {
        let path = self.project.root.join(MANIFEST);
        let current = fs::read_to_string(&path).context(MANIFEST)?;
        let before = match self.lock.files.get(MANIFEST) {
            Some(Shared { before: Some(before), after }) if *after == current => before.clone(),
            // Takes our lines out of a file that was edited in the meantime. Lines of ours that were edited stay.
            Some(Shared { before: Some(before), after }) => {
                MergeOptions::new().merge(after, &current, before).unwrap_or_else(|_| current.clone())
            }
            _ => current,
        };
        fs::write(&path, &before).context(MANIFEST)?;
        next.files.remove(MANIFEST);
        if next.recipes.is_empty() {
            return Ok(());
        }
        self.project.declare(&unite(next.recipes.values().flat_map(|it| &it.needs)), false)?;
        self.project.declare(&unite(next.recipes.values().flat_map(|it| &it.test_needs)), true)?;
        let after = fs::read_to_string(&path).context(MANIFEST)?;
        next.files.insert(MANIFEST.into(), Shared { before: Some(before), after });
        Ok(())
    }

    /// Decides where the recipes live: where they are already, or `into`, or `patterns` beside the crate's root.
    fn settle_folder(&mut self, into: Option<&Path>) -> Result<()> {
        let source = self.project.crate_root.parent().unwrap_or(Path::new("")).to_path_buf();
        if self.lock.recipes.is_empty() {
            self.lock.into = into.map_or_else(|| source.join("patterns"), |it| it.components().collect());
        } else if let Some(into) = into.filter(|it| it.components().ne(self.lock.into.components())) {
            bail!(
                "the recipes of this package live in {}, not in {}",
                self.lock.into.display(),
                into.display()
            );
        }
        let inside = self.lock.into.strip_prefix(&source).unwrap_or(Path::new(""));
        let is_name = |it: &str| syn::parse_str::<syn::Ident>(it).is_ok();
        let mut names = inside.components().map(|it| it.as_os_str().to_str());
        if inside.as_os_str().is_empty() || !names.all(|name| name.is_some_and(is_name)) {
            bail!(
                "{} cannot be a module of this crate: name a folder below {}, such as {}",
                self.lock.into.display(),
                source.display(),
                source.join("patterns").display()
            );
        }
        Ok(())
    }

    /// The file that declares the recipes' module.
    fn parent_module(&self) -> Result<PathBuf> {
        let source = self.project.crate_root.parent().unwrap_or(Path::new(""));
        let parent = self.lock.into.parent().unwrap_or(source);
        if parent == source {
            return Ok(self.project.crate_root.clone());
        }
        let files = [parent.join("mod.rs"), parent.with_extension("rs")];
        files.iter().find(|path| self.project.root.join(path).is_file()).cloned().with_context(|| {
            format!(
                "{} is not a module yet: make {} first",
                parent.display(),
                parent.with_extension("rs").display()
            )
        })
    }

    /// How code in the package calls the recipes' module.
    fn module_path(&self) -> String {
        let source = self.project.crate_root.parent().unwrap_or(Path::new(""));
        let inside = self.lock.into.strip_prefix(source).unwrap_or(&self.lock.into);
        let names = inside.components().map(|it| it.as_os_str().to_string_lossy());
        std::iter::once("crate".into()).chain(names).collect::<Vec<_>>().join("::")
    }
}

/// Marks the examples in the docs of `text` so that rustdoc does not run them: they name the cookbook's crates.
fn quiet_examples(text: &str) -> String {
    let mut inside = false;
    let mut quiet = String::new();
    for line in text.split_inclusive('\n') {
        let doc = line.trim_start().trim_start_matches("//!").trim_start_matches("///");
        let fence = (doc.len() < line.trim_start().len()).then(|| doc.trim().strip_prefix("```")).flatten();
        match fence {
            Some(tag) if !inside && matches!(tag, "" | "rust") => {
                quiet.push_str(&line.replacen(&format!("```{tag}"), "```ignore", 1));
            }
            _ => quiet.push_str(line),
        }
        inside ^= fence.is_some();
    }
    quiet
}

fn key(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `a`, `a` and `b`, …
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [start @ .., last] => format!("{} and {last}", start.join(", ")),
    }
}
