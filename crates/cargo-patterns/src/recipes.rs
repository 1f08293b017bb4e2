//! Recipes, what they need, and the registry that holds them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;

use crate::header::{self, Header};
use crate::paths::{self, Reference, TestFunction};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Every recipe of the cookbook, sorted by family and name.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The recipes.
    pub recipes: Vec<Recipe>,
    /// What is wrong with them. Empty for the recipes that a release carries: `cargo xtask check` sees to it.
    pub problems: Vec<Problem>,
}

/// One file that states a promise, keeps it and proves it.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The name of the file without `.rs`, unique in the workspace.
    pub name: String,
    /// The package it belongs to.
    pub family: String,
    /// The file, from the root of the workspace.
    pub path: String,
    /// The whole file.
    pub source: String,
    /// What the module docs say.
    pub header: Header,
    /// Crates and features that its code needs.
    pub needs: Vec<Need>,
    /// Crates and features that the tests in the file need besides.
    pub test_needs: Vec<Need>,
    /// Paths to the recipes that it uses.
    pub references: Vec<Reference>,
    /// Lines before the tests: docs and code, without the blank lines at the end.
    pub lines: usize,
    /// What the file defines, without the tests.
    pub items: Vec<Item>,
    /// The tests in the file.
    pub tests: Vec<Test>,
}

/// Something that a recipe defines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// `fn`, `struct`, `enum`, `trait`, `type`, `const`, `static` or `mod`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The line of its name, from 1.
    pub line: usize,
    /// Whether it is `pub`.
    pub public: bool,
}

/// A test in the file of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Test {
    /// The name of the function. Up to the first `_` it is the row of the contract that it proves.
    pub name: String,
    /// The line of its name, from 1.
    pub line: usize,
}

/// A crate that a recipe needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Need {
    /// The crate.
    pub name: String,
    /// The version of `[workspace.dependencies]`.
    pub version: String,
    /// Whether the crate's default features are wanted.
    pub default_features: bool,
    /// Features beyond the defaults, sorted.
    pub features: Vec<String>,
}

/// Something wrong with a recipe, or with a table about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct Problem {
    /// The file, from the root of the workspace.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        if !self.features.is_empty() {
            write!(out, "[{}]", self.features.join(", "))?;
        }
        if !self.default_features {
            out.write_str(" without its default features")?;
        }
        Ok(())
    }
}

impl Need {
    /// The line for `[dependencies]`.
    pub fn manifest_line(&self) -> String {
        if self.default_features && self.features.is_empty() {
            return format!("{} = {:?}", self.name, self.version);
        }
        let mut line = format!("{} = {{ version = {:?}", self.name, self.version);
        if !self.default_features {
            line.push_str(", default-features = false");
        }
        if !self.features.is_empty() {
            line.push_str(&format!(", features = {:?}", self.features));
        }
        line + " }"
    }
}

/// The union of needs: one entry a crate, all features that anyone asks for.
pub fn unite<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Vec<Need> {
    let mut united = BTreeMap::<&str, Need>::new();
    for need in needs {
        let entry = united.entry(&need.name).or_insert_with(|| need.clone());
        entry.default_features |= need.default_features;
        entry.features.extend(need.features.iter().cloned());
        entry.features.sort();
        entry.features.dedup();
    }
    united.into_values().collect()
}

impl Registry {
    /// The recipes that were there when this program was built.
    pub fn embedded() -> Self {
        Self::from_files(FILES.iter().map(|&(path, text)| (path.into(), text.into())).collect())
    }

    /// The recipes of the workspace at `root`, as they are now.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut take = |path: &Path| -> io::Result<()> {
            let name =
                path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            files.insert(name, text);
            Ok(())
        };
        take(&root.join("Cargo.toml"))?;
        for family in fs::read_dir(root.join("crates"))? {
            let family = family?.path();
            if !family.join("Cargo.toml").is_file() {
                continue;
            }
            take(&family.join("Cargo.toml"))?;
            let Ok(sources) = fs::read_dir(family.join("src")) else { continue };
            for source in sources {
                let source = source?.path();
                if source.extension().is_some_and(|it| it == "rs") {
                    take(&source)?;
                }
            }
        }
        Ok(Self::from_files(files))
    }

    /// The recipes among `files`: texts by their path from the root of the workspace.
    pub fn from_files(files: BTreeMap<String, String>) -> Self {
        let mut problems = Vec::new();
        let workspace =
            table("Cargo.toml", files.get("Cargo.toml").map_or("", String::as_str), &mut problems);
        let mut families = Vec::new();
        for (path, text) in &files {
            let Some(family) = path.strip_prefix("crates/").and_then(|it| it.strip_suffix("/Cargo.toml"))
            else {
                continue;
            };
            let manifest = table(path, text, &mut problems);
            if at(&manifest, &["package", "metadata", "recipes"]).is_some() {
                families.push((family.to_string(), path, text, manifest));
            }
        }
        let crates: HashSet<_> = families.iter().map(|(family, ..)| family.replace('-', "_")).collect();

        let mut recipes = Vec::new();
        for (family, manifest_path, manifest_text, manifest) in &families {
            let reader = Needs { workspace: &workspace, manifest, path: manifest_path, text: manifest_text };
            let folder = format!("crates/{family}/src/");
            let mut names = HashSet::new();
            for (path, source) in files.range(folder.clone()..) {
                let Some(name) = path.strip_prefix(&folder).and_then(|it| it.strip_suffix(".rs")) else {
                    break;
                };
                if name == "lib" {
                    continue;
                }
                names.insert(name.to_string());
                let mut recipe = Recipe::parse(name, family, path, source, &crates, &mut problems);
                if at(manifest, &["package", "metadata", "recipes", name]).is_none() {
                    problems.push(Problem {
                        path: path.clone(),
                        line: 1,
                        message: format!(
                            "no entry `{name} = {{ … }}` in [package.metadata.recipes] of {manifest_path}: \
                             say which crates and features it needs"
                        ),
                    });
                }
                recipe.needs = reader.read("recipes", name, &mut problems);
                recipe.test_needs = reader.read("recipes-tests", name, &mut problems);
                recipes.push(recipe);
            }
            reader.strangers(&names, &mut problems);
        }
        let mut registry = Self { recipes, problems };
        registry.check_names();
        registry.check_references();
        registry.problems.sort();
        registry
    }

    /// The recipe of this name.
    pub fn get(&self, name: &str) -> Option<&Recipe> {
        self.recipes.iter().find(|recipe| recipe.name == name)
    }

    /// Families with their recipes.
    pub fn families(&self) -> BTreeMap<&str, Vec<&Recipe>> {
        let mut families = BTreeMap::<_, Vec<_>>::new();
        for recipe in &self.recipes {
            families.entry(recipe.family.as_str()).or_default().push(recipe);
        }
        families
    }

    /// Recipes in whose name, family or docs every word occurs, whatever its case.
    pub fn search<'a>(&'a self, words: &[String]) -> Vec<&'a Recipe> {
        let matches = |recipe: &&Recipe| {
            let Header { promise, before, after, .. } = &recipe.header;
            let text =
                [&recipe.name, &recipe.family, promise, before, after].map(|it| it.to_lowercase()).join("\n");
            words.iter().all(|word| text.contains(&word.to_lowercase()))
        };
        self.recipes.iter().filter(matches).collect()
    }

    /// The recipe whose name is most like `name`, if one is like it at all.
    pub fn nearest(&self, name: &str) -> Option<&Recipe> {
        let name = name.to_lowercase().replace('-', "_");
        let alike = |recipe: &&Recipe| strsim::jaro_winkler(&recipe.name, &name);
        self.recipes
            .iter()
            .max_by(|a, b| alike(a).total_cmp(&alike(b)))
            .filter(|recipe| alike(recipe) > 0.75 || (name.len() > 2 && recipe.name.contains(&name)))
    }

    /// `recipe` and all recipes that it uses, directly or through others, sorted by name.
    pub fn closure<'a>(&'a self, recipe: &'a Recipe, with_tests: bool) -> Vec<&'a Recipe> {
        let mut found = BTreeMap::new();
        let mut open = vec![recipe];
        while let Some(recipe) = open.pop() {
            if found.insert(&recipe.name, recipe).is_none() {
                open.extend(recipe.uses(with_tests).iter().filter_map(|name| self.get(name)));
            }
        }
        found.into_values().collect()
    }

    /// The crates and features that `recipe` and all that it uses need, without those of their tests.
    pub fn needs(&self, recipe: &Recipe) -> Vec<Need> {
        unite(self.closure(recipe, false).into_iter().flat_map(|recipe| &recipe.needs))
    }

    fn check_names(&mut self) {
        let mut seen = BTreeMap::new();
        for recipe in &self.recipes {
            if let Some(first) = seen.insert(&recipe.name, &recipe.path) {
                self.problems.push(Problem {
                    path: recipe.path.clone(),
                    line: 1,
                    message: format!("`{}` is also the name of {first}: rename one of them", recipe.name),
                });
            }
        }
    }

    fn check_references(&mut self) {
        let mut problems = Vec::new();
        for recipe in &self.recipes {
            for reference in &recipe.references {
                let root = reference.family.as_deref().unwrap_or("super");
                let own = recipe.family.replace('-', "_");
                let family = reference.family.as_ref().unwrap_or(&own);
                let right = self.recipes.iter().any(|target| {
                    target.name == reference.recipe && target.family.replace('-', "_") == *family
                });
                if !right {
                    problems.push(Problem {
                        path: recipe.path.clone(),
                        line: reference.line,
                        message: format!(
                            "`{root}::{0}` names no recipe: write `{root}::RECIPE::{0}`, the item by the file that \
                             defines it",
                            reference.recipe
                        ),
                    });
                }
            }
        }
        self.problems.extend(problems);
    }
}

impl Recipe {
    fn parse(
        name: &str,
        family: &str,
        path: &str,
        source: &str,
        crates: &HashSet<String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut recipe = Self {
            name: name.into(),
            family: family.into(),
            path: path.into(),
            source: source.into(),
            header: header::read(source),
            needs: Vec::new(),
            test_needs: Vec::new(),
            references: Vec::new(),
            lines: source.trim_end().lines().count(),
            items: Vec::new(),
            tests: Vec::new(),
        };
        let file = match syn::parse_file(source) {
            Ok(file) => file,
            Err(error) => {
                let line = error.span().start().line;
                problems.push(Problem { path: path.into(), line, message: format!("is not Rust: {error}") });
                return recipe;
            }
        };
        recipe.references = paths::references(&file, &family.replace('-', "_"), crates);
        for item in &file.items {
            let test_only = match item {
                syn::Item::Mod(item) if paths::is_test_only(&item.attrs) => item.attrs[0].span().start().line,
                _ => {
                    recipe.items.extend(describe(item));
                    continue;
                }
            };
            let before: Vec<_> = source.lines().take(test_only - 1).collect();
            let blank = before.iter().rev().take_while(|line| line.trim().is_empty()).count();
            recipe.lines = recipe.lines.min(before.len() - blank);
        }
        recipe.tests =
            recipe.test_functions().into_iter().map(|it| Test { name: it.name, line: it.line }).collect();
        recipe
    }

    /// The names of the recipes that it uses itself, sorted.
    pub fn uses(&self, with_tests: bool) -> Vec<&str> {
        let names =
            self.references.iter().filter(|it| with_tests || !it.in_tests).map(|it| it.recipe.as_str());
        names.filter(|name| *name != self.name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The tests in the file, with their bodies.
    pub fn test_functions(&self) -> Vec<TestFunction> {
        self.source.parse().map(paths::test_functions).unwrap_or_default()
    }

    /// The file without its module docs: the code and the tests.
    pub fn code(&self) -> &str {
        let skipped: usize = self.source.split_inclusive('\n').take(self.header.lines).map(str::len).sum();
        &self.source[skipped..]
    }
}

fn describe(item: &syn::Item) -> Option<Item> {
    let public = |visibility: &syn::Visibility| matches!(visibility, syn::Visibility::Public(_));
    let (kind, ident, public) = match item {
        syn::Item::Const(it) => ("const", &it.ident, public(&it.vis)),
        syn::Item::Enum(it) => ("enum", &it.ident, public(&it.vis)),
        syn::Item::Fn(it) => ("fn", &it.sig.ident, public(&it.vis)),
        syn::Item::Mod(it) => ("mod", &it.ident, public(&it.vis)),
        syn::Item::Static(it) => ("static", &it.ident, public(&it.vis)),
        syn::Item::Struct(it) => ("struct", &it.ident, public(&it.vis)),
        syn::Item::Trait(it) => ("trait", &it.ident, public(&it.vis)),
        syn::Item::Type(it) => ("type", &it.ident, public(&it.vis)),
        _ => return None,
    };
    Some(Item { kind, name: ident.to_string(), line: ident.span().start().line, public })
}

fn table(path: &str, text: &str, problems: &mut Vec<Problem>) -> toml::Table {
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text[..start].matches('\n').count() + 1;
        problems.push(Problem {
            path: path.into(),
            line,
            message: format!("is not TOML: {}", error.message()),
        });
        toml::Table::new()
    })
}

fn at<'a>(table: &'a toml::Table, keys: &[&str]) -> Option<&'a toml::Value> {
    let (last, parents) = keys.split_last()?;
    let mut table = table;
    for key in parents {
        table = table.get(*key)?.as_table()?;
    }
    table.get(*last)
}

/// Reads what the recipes of one family need.
struct Needs<'a> {
    workspace: &'a toml::Table,
    manifest: &'a toml::Table,
    path: &'a str,
    text: &'a str,
}

impl Needs<'_> {
    fn read(&self, section: &str, recipe: &str, problems: &mut Vec<Problem>) -> Vec<Need> {
        let Some(entry) = at(self.manifest, &["package", "metadata", section, recipe]) else {
            return Vec::new();
        };
        let mut needs = Vec::new();
        let mut wrong =
            |message| problems.push(Problem { path: self.path.into(), line: self.line(recipe), message });
        let Some(entry) = entry.as_table() else {
            wrong(format!("`{recipe}` must be a table of crates: `{recipe} = {{ tokio = [\"rt\"] }}`"));
            return needs;
        };
        for (name, features) in entry {
            let strings = |list: &Vec<toml::Value>| {
                list.iter().map(|it| it.as_str().map(String::from)).collect::<Option<Vec<_>>>()
            };
            let Some(mut features) = features.as_array().and_then(strings) else {
                wrong(format!("the features of `{name}` for `{recipe}` must be a list of names"));
                continue;
            };
            features.sort();
            let declared = at(self.workspace, &["workspace", "dependencies", name]);
            let version = declared.and_then(|it| it.as_str().or_else(|| it.get("version")?.as_str()));
            let Some(version) = version else {
                wrong(format!(
                    "`{name}`, which `{recipe}` needs, has no version in [workspace.dependencies]"
                ));
                continue;
            };
            let defaults = declared.and_then(|it| it.get("default-features")).and_then(toml::Value::as_bool);
            let default_features = defaults.unwrap_or(true);
            needs.push(Need { name: name.clone(), version: version.into(), default_features, features });
        }
        needs.sort();
        needs
    }

    /// Entries for recipes that are not there.
    fn strangers(&self, names: &HashSet<String>, problems: &mut Vec<Problem>) {
        for section in ["recipes", "recipes-tests"] {
            let entries =
                at(self.manifest, &["package", "metadata", section]).and_then(toml::Value::as_table);
            for name in entries.into_iter().flat_map(toml::Table::keys).filter(|name| !names.contains(*name))
            {
                let message = format!("`{name}` in [package.metadata.{section}] has no file src/{name}.rs");
                problems.push(Problem { path: self.path.into(), line: self.line(name), message });
            }
        }
    }

    fn line(&self, recipe: &str) -> usize {
        let starts =
            |line: &str| line.strip_prefix(recipe).is_some_and(|it| it.trim_start().starts_with(['=', '.']));
        self.text.lines().position(starts).map_or(1, |index| index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of two families; `changes` replace or add files.
    fn workspace(changes: &[(&str, &str)]) -> Registry {
        let mut files = BTreeMap::from([
            (
                "Cargo.toml",
                "[workspace.dependencies]\ntokio = \"1.54.1\"\nfutures = { version = \"0.3\", features = [\"x\"] }\n\
                 reqwest = { version = \"0.13\", default-features = false }\n",
            ),
            (
                "crates/limits/Cargo.toml",
                "[package]\nname = \"limits\"\n\n[package.metadata.recipes]\npermit = { tokio = [\"time\", \"sync\"] }\n\
                 ticket = { reqwest = [\"json\"], tokio = [\"rt\"] }\n\n[package.metadata.recipes-tests]\n\
                 permit = { tokio = [\"macros\"] }\n",
            ),
            ("crates/limits/src/lib.rs", "//! Limits.\npub mod permit;\npub mod ticket;\n"),
            (
                "crates/limits/src/permit.rs",
                "//! Hold a permit.\n\npub struct Permit;\n\nfn private() {}\n\n#[cfg(test)]\nmod tests {\n    \
                 #[test]\n    fn order_is_kept() {}\n}\n",
            ),
            (
                "crates/limits/src/ticket.rs",
                "//! Sell a ticket.\n\nuse super::permit::Permit;\npub fn sell() {}\n",
            ),
            ("crates/far-away/Cargo.toml", "[package.metadata.recipes]\nretry = { futures = [] }\n"),
            (
                "crates/far-away/src/retry.rs",
                "//! Try again.\n\nuse limits::ticket::sell;\npub fn retry() {}\n",
            ),
            ("crates/support/Cargo.toml", "[package]\nname = \"support\"\n"),
            ("crates/support/src/lanes.rs", "//! No recipe.\n"),
        ]);
        files.extend(changes.iter().copied());
        Registry::from_files(files.into_iter().map(|(path, text)| (path.into(), text.into())).collect())
    }

    fn messages(changes: &[(&str, &str)]) -> Vec<String> {
        workspace(changes).problems.iter().map(ToString::to_string).collect()
    }

    fn names(recipes: &[&Recipe]) -> Vec<String> {
        recipes.iter().map(|recipe| recipe.name.clone()).collect()
    }

    #[test]
    fn the_recipes_of_this_workspace_are_embedded_as_they_are() {
        let embedded = Registry::embedded();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let read = Registry::read(&root).unwrap();
        let sources = |registry: &Registry| -> Vec<_> {
            registry.recipes.iter().map(|it| (it.name.clone(), it.source.clone())).collect()
        };
        assert!(embedded.get("gather").is_some());
        assert_eq!(sources(&embedded), sources(&read));
    }

    #[test]
    fn a_recipe_is_described() {
        let registry = workspace(&[]);
        assert_eq!(registry.problems, []);
        assert_eq!(names(&registry.recipes.iter().collect::<Vec<_>>()), ["retry", "permit", "ticket"]);
        let permit = registry.get("permit").unwrap();
        assert_eq!((permit.family.as_str(), permit.header.promise.as_str()), ("limits", "Hold a permit"));
        assert_eq!(permit.lines, 5);
        assert_eq!(permit.tests, [Test { name: "order_is_kept".into(), line: 10 }]);
        let items: Vec<_> =
            permit.items.iter().map(|it| (it.kind, it.name.as_str(), it.line, it.public)).collect();
        assert_eq!(items, [("struct", "Permit", 3, true), ("fn", "private", 5, false)]);
        assert!(permit.code().starts_with("pub struct Permit;\n"));
        assert_eq!(permit.test_needs[0].features, ["macros"]);
    }

    #[test]
    fn needs_are_united_over_the_closure() {
        let registry = workspace(&[]);
        let retry = registry.get("retry").unwrap();
        assert_eq!(names(&registry.closure(retry, false)), ["permit", "retry", "ticket"]);
        let lines: Vec<_> = registry.needs(retry).iter().map(Need::manifest_line).collect();
        assert_eq!(
            lines,
            [
                "futures = \"0.3\"",
                "reqwest = { version = \"0.13\", default-features = false, features = [\"json\"] }",
                "tokio = { version = \"1.54.1\", features = [\"rt\", \"sync\", \"time\"] }",
            ]
        );
        assert_eq!(registry.needs(retry)[1].to_string(), "reqwest[json] without its default features");
    }

    #[test]
    fn a_copy_differs_in_paths_to_other_families_only() {
        let registry = workspace(&[]);
        let copy = crate::copy::lay(&registry, &[registry.get("retry").unwrap()]);
        assert_eq!(copy.files.keys().collect::<Vec<_>>(), ["mod.rs", "permit.rs", "retry.rs", "ticket.rs"]);
        assert_eq!(copy.files["retry.rs"], "//! Try again.\n\nuse super::ticket::sell;\npub fn retry() {}\n");
        assert_eq!(copy.files["ticket.rs"], registry.get("ticket").unwrap().source);
        assert!(copy.files["mod.rs"].ends_with("pub mod permit;\npub mod retry;\npub mod ticket;\n"));
        assert_eq!((copy.needs.len(), copy.test_needs.len()), (3, 1));
    }

    #[test]
    fn words_and_slips_find_a_recipe() {
        let registry = workspace(&[]);
        let search = |words: &[&str]| {
            names(&registry.search(&words.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(search(&["a", "LIMITS"]), ["permit", "ticket"]);
        assert_eq!(search(&["sell"]), ["ticket"]);
        assert_eq!(search(&["sell", "again"]), [""; 0]);
        let nearest = |name| registry.nearest(name).map(|it| it.name.clone());
        assert_eq!(nearest("permitt").as_deref(), Some("permit"));
        assert_eq!(nearest("Re-try").as_deref(), Some("retry"));
        assert_eq!(nearest("quux"), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert_eq!(
            messages(&[("crates/limits/src/other.rs", "//! Other.\n")]),
            ["crates/limits/src/other.rs:1: no entry `other = { … }` in [package.metadata.recipes] of \
                 crates/limits/Cargo.toml: say which crates and features it needs"]
        );
        assert_eq!(
            messages(&[(
                "crates/far-away/Cargo.toml",
                "[package.metadata.recipes]\nretry = {}\nlost = {}\n"
            )]),
            ["crates/far-away/Cargo.toml:3: `lost` in [package.metadata.recipes] has no file src/lost.rs"]
        );
        assert_eq!(
            messages(&[(
                "crates/far-away/Cargo.toml",
                "[package.metadata.recipes]\nretry = { rayon = [] }\n"
            )]),
            ["crates/far-away/Cargo.toml:2: `rayon`, which `retry` needs, has no version in \
                 [workspace.dependencies]"]
        );
        assert_eq!(
            messages(&[(
                "crates/far-away/src/retry.rs",
                "//! Retry.\n\nuse limits::Permit;\nuse super::permit::A;\n"
            )]),
            [
                "crates/far-away/src/retry.rs:3: `limits::Permit` names no recipe: write `limits::RECIPE::Permit`, \
                 the item by the file that defines it",
                "crates/far-away/src/retry.rs:4: `super::permit` names no recipe: write `super::RECIPE::permit`, \
                 the item by the file that defines it",
            ]
        );
        assert_eq!(
            messages(&[
                ("crates/far-away/src/permit.rs", "//! Again.\n"),
                ("crates/far-away/Cargo.toml", "[package.metadata.recipes]\nretry = {}\npermit = {}\n"),
            ]),
            [
                "crates/limits/src/permit.rs:1: `permit` is also the name of crates/far-away/src/permit.rs: rename \
                 one of them"
            ]
        );
        assert_eq!(messages(&[("crates/far-away/src/retry.rs", "//! A.\nfn (\n")]).len(), 1);
        assert_eq!(messages(&[("crates/far-away/Cargo.toml", "[package\n")]).len(), 1);
    }
}
