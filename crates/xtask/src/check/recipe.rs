//! What makes a file a recipe: the promise, the contract, its proofs, and what the file may use.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use registry::header::ROWS;
use registry::paths::is_test_only;
use registry::{Problem, Recipe};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{problem, proofs, sweep_path};
use crate::workspace::Workspace;

const LONGEST_PROMISE: usize = 100;
const MOST_LINES: usize = 200;
/// Recipes that are longer than a reader should have to read, each with its own bound. They are to be split or shortened.
const LONGER: [(&str, usize); 3] = [("job_queue", 300), ("task_group", 300), ("work_queue", 300)];

pub(super) fn check(workspace: &Workspace, problems: &mut Vec<Problem>) -> Result<()> {
    for recipe in &workspace.registry.recipes {
        header(recipe, problems);
        proven(workspace, recipe, problems)?;
        let longer = LONGER.iter().find(|(name, _)| *name == recipe.name);
        let most = longer.map_or(MOST_LINES, |(_, most)| *most);
        if recipe.lines > most {
            let message =
                format!("{} lines before the tests, at most {most}: make two recipes of it", recipe.lines);
            problems.push(problem(&recipe.path, 1, message));
        }
        // A file that is not Rust is told of by the registry.
        if let Ok(file) = syn::parse_file(&recipe.source) {
            imports(workspace, recipe, &file, problems);
            unwraps(recipe, &file, problems);
        }
    }
    let families: HashSet<_> =
        workspace.registry.recipes.iter().map(|recipe| recipe.family.as_str()).collect();
    for family in families {
        library(workspace, family, problems)?;
    }
    Ok(())
}

fn header(recipe: &Recipe, problems: &mut Vec<Problem>) {
    let mut wrong = |line, message: String| problems.push(problem(&recipe.path, line, message));
    let header = &recipe.header;
    let length = header.promise.chars().count();
    if length == 0 {
        wrong(
            1,
            "no promise: the first line says what the recipe does, as `//! Await many futures …`".into(),
        );
    }
    if length > LONGEST_PROMISE {
        wrong(
            1,
            format!(
                "the promise has {length} characters, at most {LONGEST_PROMISE}: it is a title everywhere"
            ),
        );
    }
    let rows: Vec<_> = header.contract.iter().map(|row| row.name.as_str()).collect();
    if rows != ROWS {
        let line = header.contract.first().map_or(1, |row| row.line);
        wrong(line, format!("the contract has the rows {rows:?}, and must have {ROWS:?} in this order"));
    }
    for row in header.contract.iter().filter(|row| row.text.is_empty()) {
        wrong(row.line, format!("the row {} says nothing", row.name));
    }
    let examples: Vec<_> =
        header.examples.iter().filter(|it| it.tag.is_empty() || it.tag.starts_with("rust")).collect();
    if !examples.iter().any(|example| example.code.contains("assert")) {
        wrong(
            1,
            "no example that ends in an assertion: put a complete program between fences into the docs"
                .into(),
        );
    }
    for example in examples {
        for (index, line) in example.code.lines().enumerate() {
            if line == "#" || line.starts_with("# ") {
                wrong(
                    example.line + 1 + index,
                    "a hidden line in the example: the reader sees every line".into(),
                );
            }
        }
    }
}

fn proven(workspace: &Workspace, recipe: &Recipe, problems: &mut Vec<Problem>) -> Result<()> {
    if recipe.tests.is_empty() {
        let message =
            "no tests in the file: they travel with a copy, so put `#[cfg(test)] mod tests` at its end";
        problems.push(problem(&recipe.path, 1, message));
    }
    let path = sweep_path(recipe);
    let sweeps = match workspace.text(&path) {
        Ok(text) => text.parse().ok().map(sweeps),
        Err(_) => None,
    };
    match sweeps {
        Some(true) => {}
        Some(false) => {
            problems.push(problem(&path, 1, "no sweep: call `support::sweep::sweep` on each of its futures"));
        }
        None => {
            let message =
                format!("no {path}: it holds the sweep, which drops the future at every suspension point");
            problems.push(problem(&recipe.path, 1, message));
        }
    }
    // A test file that is not Rust is told of with the other source files.
    let Ok(proofs) = proofs(workspace, recipe) else { return Ok(()) };
    // A row that says "none" promises nothing that could be broken.
    for row in recipe.header.contract.iter().filter(|row| !row.text.starts_with("none")) {
        if !proofs.iter().any(|proof| proof.row == row.name) && ROWS.contains(&row.name.as_str()) {
            let message =
                format!("no test proves the row {0}: name one `{1}_…`", row.name, row.name.to_lowercase());
            problems.push(problem(&recipe.path, row.line, message));
        }
    }
    Ok(())
}

/// Whether `sweep` or `explore` is called.
fn sweeps(tokens: TokenStream) -> bool {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let call = |pair: &[TokenTree]| {
        matches!(pair, [TokenTree::Ident(name), TokenTree::Group(group)]
            if (name == "sweep" || name == "explore") && group.delimiter() == Delimiter::Parenthesis)
    };
    tokens.windows(2).any(call)
        || tokens.into_iter().any(|token| matches!(token, TokenTree::Group(group) if sweeps(group.stream())))
}

/// A recipe uses the standard library, what it declares, and other recipes.
fn imports(workspace: &Workspace, recipe: &Recipe, file: &syn::File, problems: &mut Vec<Problem>) {
    let manifest = format!("crates/{}/Cargo.toml", recipe.family);
    let own = recipe.family.replace('-', "_");
    let recipes = workspace.registry.recipes.iter();
    let families = recipes.map(|it| it.family.replace('-', "_")).filter(|it| *it != own);
    let needs = recipe.needs.iter().map(|need| need.name.replace('-', "_"));
    let always = ["std", "core", "alloc", "self", "super", "crate"].map(String::from);
    let allowed: HashSet<_> = needs.chain(families).chain(always).collect();
    let in_tests = recipe.test_needs.iter().map(|need| need.name.replace('-', "_")).collect();

    let mut bound = Bound::default();
    bound.visit_file(file);
    let mut roots = Roots { found: Vec::new(), in_tests: false, bound: bound.0 };
    roots.visit_file(file);
    let known = known_crates(workspace);
    let mut told = HashSet::new();
    for root in roots.found {
        let set: &HashSet<String> = &in_tests;
        if allowed.contains(&root.name) || (root.in_tests && set.contains(&root.name)) {
            continue;
        }
        // A path in code may begin with anything; only a crate is of interest.
        if !root.imported && !known.contains(&root.name) || !told.insert((root.name.clone(), root.in_tests)) {
            continue;
        }
        let message = if root.name == "support" {
            "a recipe never uses `support`: what needs it belongs into the tests beside the recipe"
                .to_string()
        } else {
            let table = if root.in_tests { "recipes-tests" } else { "recipes" };
            format!(
                "`{}` is not declared for `{}` in [package.metadata.{table}] of {manifest}",
                root.name, recipe.name
            )
        };
        problems.push(problem(&recipe.path, root.line, message));
    }
}

fn known_crates(workspace: &Workspace) -> HashSet<String> {
    let manifest: toml::Table =
        workspace.text("Cargo.toml").ok().and_then(|it| it.parse().ok()).unwrap_or_default();
    let dependencies =
        manifest.get("workspace").and_then(|it| it.get("dependencies")).and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(|it| it.keys().map(|name| name.replace('-', "_")));
    names.chain(["support".to_string()]).collect()
}

/// Names that a file defines or imports: paths may begin with them.
#[derive(Default)]
struct Bound(HashSet<String>);

impl<'ast> Visit<'ast> for Bound {
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.0.insert(item.ident.to_string());
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_mod(self, item);
    }

    fn visit_use_name(&mut self, name: &'ast syn::UseName) {
        self.0.insert(name.ident.to_string());
    }

    fn visit_use_rename(&mut self, name: &'ast syn::UseRename) {
        self.0.insert(name.rename.to_string());
    }
}

struct Root {
    name: String,
    line: usize,
    in_tests: bool,
    imported: bool,
}

/// The first segments of all paths.
struct Roots {
    found: Vec<Root>,
    in_tests: bool,
    bound: HashSet<String>,
}

impl Roots {
    fn take(&mut self, ident: &syn::Ident, imported: bool) {
        let name = ident.to_string();
        if !self.bound.contains(&name) {
            let line = ident.span().start().line;
            self.found.push(Root { name, line, in_tests: self.in_tests, imported });
        }
    }

    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.take(&path.ident, true),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree)),
            // `use tokio;` imports the crate itself: its name is then bound, and so no stranger.
            syn::UseTree::Name(name) => self.crate_itself(&name.ident),
            syn::UseTree::Rename(name) => self.crate_itself(&name.ident),
            syn::UseTree::Glob(_) => {}
        }
    }

    fn crate_itself(&mut self, ident: &syn::Ident) {
        let (name, line) = (ident.to_string(), ident.span().start().line);
        self.found.push(Root { name, line, in_tests: self.in_tests, imported: true });
    }
}

impl<'ast> Visit<'ast> for Roots {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let before = self.in_tests;
        self.in_tests |= is_test_only(&item.attrs);
        visit::visit_item_mod(self, item);
        self.in_tests = before;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.take(&path.segments[0].ident, false);
        }
        visit::visit_path(self, path);
    }
}

/// `unwrap` and `expect` say why they cannot fail.
fn unwraps(recipe: &Recipe, file: &syn::File, problems: &mut Vec<Problem>) {
    struct Finder<'a> {
        lines: Vec<&'a str>,
        found: Vec<(usize, String)>,
    }

    impl Finder<'_> {
        /// A comment on the line itself, or on the line before it.
        fn explained(&self, line: usize) -> bool {
            let above = line.checked_sub(2).and_then(|index| self.lines.get(index));
            above.is_some_and(|it| it.trim_start().starts_with("//"))
                || self.lines.get(line - 1).is_some_and(|it| it.contains("// "))
        }
    }

    impl<'ast> Visit<'ast> for Finder<'_> {
        fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
            if !is_test_only(&item.attrs) {
                visit::visit_item_mod(self, item);
            }
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            visit::visit_expr_method_call(self, call);
            let line = call.method.span().start().line;
            let silent = match call.args.first() {
                None => call.method == "unwrap",
                Some(syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) => {
                    call.method == "expect" && text.value().trim().is_empty()
                }
                Some(_) => false,
            };
            if silent && !self.explained(line) {
                self.found.push((line, call.method.to_string()));
            }
        }
    }

    let mut finder = Finder { lines: recipe.source.lines().collect(), found: Vec::new() };
    finder.visit_file(file);
    for (line, method) in finder.found {
        let message = format!(
            "`{method}` does not say why it cannot fail: write `expect` with the reason, or a comment"
        );
        problems.push(problem(&recipe.path, line, message));
    }
}

/// A family's `lib.rs` introduces its recipes and does nothing else.
fn library(workspace: &Workspace, family: &str, problems: &mut Vec<Problem>) -> Result<()> {
    let path = format!("crates/{family}/src/lib.rs");
    let text = workspace.text(&path)?;
    let file = syn::parse_file(&text).map_err(|error| anyhow!("{path} is not Rust: {error}"))?;
    let public = |visibility: &syn::Visibility| matches!(visibility, syn::Visibility::Public(_));
    let mut modules = HashSet::new();
    for item in &file.items {
        let fits = match item {
            syn::Item::Mod(item) => {
                modules.insert(item.ident.to_string());
                public(&item.vis) && item.content.is_none()
            }
            syn::Item::Use(item) => public(&item.vis),
            _ => false,
        };
        if !fits {
            let line = item.span().start().line;
            let start = text
                .lines()
                .nth(line - 1)
                .unwrap_or("")
                .split(['(', '{', ';', '=', '<'])
                .next()
                .unwrap_or("");
            let message = format!(
                "`{}` does not belong here: lib.rs holds docs, `pub mod` and `pub use`",
                start.trim()
            );
            problems.push(problem(&path, line, message));
        }
    }
    for recipe in
        workspace.registry.recipes.iter().filter(|it| it.family == family && !modules.contains(&it.name))
    {
        let message = format!("nothing compiles this file: add `pub mod {};` to {path}", recipe.name);
        problems.push(problem(&recipe.path, 1, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{PERMIT, SWEEP, workspace};

    const RECIPE: &str = "crates/limits/src/permit.rs";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = workspace(files);
        let mut problems = workspace.registry.problems.clone();
        check(&workspace, &mut problems).unwrap();
        problems.iter().map(ToString::to_string).collect()
    }

    /// The fixture with one part replaced is told of once, with these words.
    fn starts(from: &str, to: &str, start: &str) {
        assert!(PERMIT.contains(from), "{from}");
        one(&[(RECIPE, &PERMIT.replace(from, to))], start);
    }

    fn one(files: &[(&str, &str)], start: &str) {
        let found = found(files);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn a_recipe_in_order_passes() {
        assert_eq!(found(&[]), [""; 0]);
    }

    #[test]
    fn promises_that_are_missing_or_too_long_are_found() {
        let long = format!("//! {}.\n", "x".repeat(101));
        starts(
            "//! Hold a permit while a job runs.\n",
            &long,
            "crates/limits/src/permit.rs:1: the promise has 101",
        );
        starts("//! Hold a permit while a job runs.\n", "//!\n", "crates/limits/src/permit.rs:1: no promise");
        let fits = format!("//! {}.\n", "x".repeat(100));
        assert_eq!(
            found(&[(RECIPE, &PERMIT.replace("//! Hold a permit while a job runs.\n", &fits))]),
            [""; 0]
        );
    }

    #[test]
    fn contracts_that_are_not_whole_are_found() {
        starts("//! | Memory | O(1) |\n", "", "crates/limits/src/permit.rs:7: the contract has the rows");
        let swapped = "//! | Errors | none |\n//! | Order | first come, first served |\n";
        let order = "//! | Order | first come, first served |\n//! | Errors | none |\n";
        starts(
            order,
            swapped,
            "crates/limits/src/permit.rs:7: the contract has the rows [\"Errors\", \"Order\"",
        );
        starts("| O(1) |", "| |", "crates/limits/src/permit.rs:11: the row Memory says nothing");
    }

    #[test]
    fn examples_that_prove_or_show_too_little_are_found() {
        starts("//! assert_eq!(", "//! drop(", "crates/limits/src/permit.rs:1: no example");
        let hidden = "//! # use limits::permit;\n//! assert_eq!(";
        starts("//! assert_eq!(", hidden, "crates/limits/src/permit.rs:16: a hidden line");
    }

    #[test]
    fn rows_that_no_test_proves_are_found() {
        let start =
            "crates/limits/src/permit.rs:9: no test proves the row Cancellation: name one `cancellation_…`";
        one(
            &[("crates/limits/tests/permit.rs", &SWEEP.replace("fn cancellation_", "fn cancelling_"))],
            start,
        );
    }

    #[test]
    fn recipes_without_tests_of_their_own_are_found() {
        let (code, _) = PERMIT.split_once("#[cfg(test)]").unwrap();
        let found = found(&[(RECIPE, code)]);
        assert!(found[0].starts_with("crates/limits/src/permit.rs:1: no tests in the file"), "{found:?}");
        // One row is proved in the file alone.
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn recipes_without_a_sweep_are_found() {
        let idle = SWEEP.replace("sweep::sweep();", "let sweep = 1;");
        one(&[("crates/limits/tests/permit.rs", &idle)], "crates/limits/tests/permit.rs:1: no sweep");
        let (folder, workspace) = workspace(&[]);
        std::fs::remove_file(folder.path().join("crates/limits/tests/permit.rs")).unwrap();
        let mut problems = Vec::new();
        check(&workspace, &mut problems).unwrap();
        assert!(problems[0].message.starts_with("no crates/limits/tests/permit.rs"), "{problems:?}");
    }

    #[test]
    fn long_recipes_are_found() {
        let lines = |count: usize| {
            PERMIT.replace("#[cfg(test)]", &format!("{}#[cfg(test)]", "// line\n".repeat(count)))
        };
        assert_eq!(found(&[(RECIPE, &lines(175))]), [""; 0]);
        one(&[(RECIPE, &lines(176))], "crates/limits/src/permit.rs:1: 201 lines before the tests");
    }

    #[test]
    fn imports_that_are_not_declared_are_found() {
        let import = |line: &str| {
            PERMIT.replace("use std::num::NonZeroUsize;\n", &format!("use std::num::NonZeroUsize;\n{line}\n"))
        };
        one(
            &[(RECIPE, &import("use serde::Serialize;"))],
            "crates/limits/src/permit.rs:20: `serde` is not declared",
        );
        one(
            &[(RECIPE, &import("use support::sweep;"))],
            "crates/limits/src/permit.rs:20: a recipe never uses `support`",
        );
        one(
            &[(RECIPE, &import("use {std::mem, serde::Serialize as _};"))],
            "crates/limits/src/permit.rs:20: `serde`",
        );
        starts(
            "    use super::*;\n",
            "    use super::*;\n    use tokio::time;\n",
            "crates/limits/src/permit.rs:29: `tokio` is not declared for `permit` in [package.metadata.recipes-tests]",
        );
        let path = import("fn b() { tokio::spawn(async {}); }");
        let known = "[workspace.dependencies]\ntokio = \"1\"\n";
        one(
            &[(RECIPE, &path), ("Cargo.toml", known)],
            "crates/limits/src/permit.rs:20: `tokio` is not declared",
        );
        let declared = "[package.metadata.recipes]\npermit = { tokio = [] }\n";
        assert_eq!(
            found(&[(RECIPE, &path), ("Cargo.toml", known), ("crates/limits/Cargo.toml", declared)]),
            [""; 0]
        );
        assert_eq!(
            found(&[(RECIPE, &import("enum Kind { A }\nuse Kind::*;\nuse std::time;\nuse time::Duration;"))]),
            [""; 0]
        );
    }

    #[test]
    fn unwraps_without_a_reason_are_found() {
        let body = |line: &str| PERMIT.replace("    NonZeroUsize::MIN.get()", line);
        one(
            &[(RECIPE, &body("    Some(1).unwrap()"))],
            "crates/limits/src/permit.rs:23: `unwrap` does not say why",
        );
        one(
            &[(RECIPE, &body("    Some(1).expect(\" \")"))],
            "crates/limits/src/permit.rs:23: `expect` does not say why",
        );
        for line in [
            "    Some(1).expect(\"it is there\")",
            "    Some(1).unwrap() // it is there",
            "    // It is there.\n    Some(1).unwrap()",
            "    Some(1).unwrap_or(2)",
        ] {
            assert_eq!(found(&[(RECIPE, &body(line))]), [""; 0], "{line}");
        }
        let in_tests = PERMIT.replace("assert!(permit() < 2);", "assert!(Some(permit()).unwrap() < 2);");
        assert_eq!(found(&[(RECIPE, &in_tests)]), [""; 0]);
    }

    #[test]
    fn libraries_that_do_more_than_introduce_are_found() {
        let library = "crates/limits/src/lib.rs";
        let good = "//! Limits.\n\n/// A permit.\n#[cfg(unix)]\npub mod permit;\npub use permit::permit;\n";
        assert_eq!(found(&[(library, good)]), [""; 0]);
        one(
            &[(library, &format!("{good}fn help(a: u8) {{}}\n"))],
            "crates/limits/src/lib.rs:7: `fn help` does not belong",
        );
        one(
            &[(library, &format!("{good}use std::mem;\n"))],
            "crates/limits/src/lib.rs:7: `use std::mem` does not belong",
        );
        one(
            &[(library, "//! Limits.\nmod permit;\n")],
            "crates/limits/src/lib.rs:2: `mod permit` does not belong",
        );
        one(&[(library, "//! Limits.\n")], "crates/limits/src/permit.rs:1: nothing compiles this file");
    }

    #[test]
    fn names_that_are_not_unique_are_found() {
        let again = [
            ("crates/more/Cargo.toml", "[package.metadata.recipes]\npermit = {}\n"),
            ("crates/more/src/lib.rs", "pub mod permit;\n"),
            ("crates/more/src/permit.rs", PERMIT),
            ("crates/more/tests/permit.rs", SWEEP),
        ];
        one(&again, "crates/more/src/permit.rs:1: `permit` is also the name of crates/limits/src/permit.rs");
    }
}
