//! Finds and rewrites the paths by which one recipe uses another.
//!
//! Three roots lead to another recipe: `super::` (a neighbour in the same family), `crate::` (the same) and the name of
//! another family's crate. They are read from the syntax tree, and inside macros from the tokens.

use std::collections::HashSet;
use std::ops::Range;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path from one recipe to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The family's crate as it is written in code; `None` within the same family.
    pub family: Option<String>,
    /// What follows the root: the name of a recipe, if the file is right.
    pub recipe: String,
    /// The bytes of the root: `super`, `crate` or `::timeouts`.
    pub root: Range<usize>,
    /// How many inline modules stand around the path.
    pub depth: usize,
    /// Whether only the tests need it.
    pub in_tests: bool,
    /// The line of the file, from 1.
    pub line: usize,
}

/// Finds every path in `file` that leads out of it into another recipe, in the order of the file.
///
/// `family` is the crate the file belongs to and `families` are all of them, as they are written in code.
pub fn references(file: &syn::File, family: &str, families: &HashSet<String>) -> Vec<Reference> {
    let mut names = Names::default();
    names.visit_file(file);
    let mut finder =
        Finder { family, families, bound: names.0, depth: 0, in_tests: false, found: Vec::new() };
    finder.visit_file(file);
    finder.found.sort_by_key(|reference| reference.root.start);
    finder.found
}

/// Returns `source` as it stands beside its neighbours in one module: every root becomes `super`, nothing else changes.
pub fn flatten(source: &str, references: &[Reference]) -> String {
    let mut text = source.to_string();
    let mut last = usize::MAX;
    for reference in references.iter().rev() {
        // A `use` of several recipes has one root and a reference for each.
        if reference.root.start == last || source[reference.root.clone()].starts_with("super") {
            continue;
        }
        last = reference.root.start;
        let supers = vec!["super"; reference.depth + 1].join("::");
        text.replace_range(reference.root.clone(), &supers);
    }
    text
}

/// The names that `use` and `mod` bind in a file: a path that starts with one of them is no path to a family.
#[derive(Default)]
struct Names(HashSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_use_name(&mut self, name: &'ast syn::UseName) {
        self.0.insert(name.ident.to_string());
    }

    fn visit_use_rename(&mut self, name: &'ast syn::UseRename) {
        self.0.insert(name.rename.to_string());
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_mod(self, item);
    }
}

type Segments = Vec<(String, Span)>;

struct Finder<'a> {
    family: &'a str,
    families: &'a HashSet<String>,
    bound: HashSet<String>,
    depth: usize,
    in_tests: bool,
    found: Vec<Reference>,
}

impl Finder<'_> {
    fn path(&mut self, segments: &Segments, colons: Option<Span>, imported: bool) {
        let supers = segments.iter().take_while(|(name, _)| name == "super").count();
        let Some((first, span)) = segments.first() else { return };
        let (family, roots) = if supers > 0 {
            if supers <= self.depth {
                return;
            }
            (None, supers)
        } else if first == "crate" {
            (None, 1)
        } else if self.families.contains(first)
            && first != self.family
            && (imported || colons.is_some() || !self.bound.contains(first))
        {
            (Some(first.clone()), 1)
        } else {
            return;
        };
        let Some((recipe, _)) = segments.get(roots) else { return };
        let start = colons.unwrap_or(*span).byte_range().start;
        let end = segments[roots - 1].1.byte_range().end;
        self.found.push(Reference {
            family,
            recipe: recipe.clone(),
            root: start..end,
            depth: self.depth,
            in_tests: self.in_tests,
            line: span.start().line,
        });
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &Segments, colons: Option<Span>) {
        let mut segments = before.clone();
        match tree {
            syn::UseTree::Path(path) => {
                segments.push((path.ident.to_string(), path.ident.span()));
                self.tree(&path.tree, &segments, colons);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, before, colons);
                }
            }
            syn::UseTree::Name(name) => {
                segments.push((name.ident.to_string(), name.ident.span()));
                self.path(&segments, colons, true);
            }
            syn::UseTree::Rename(name) => {
                segments.push((name.ident.to_string(), name.ident.span()));
                self.path(&segments, colons, true);
            }
            syn::UseTree::Glob(glob) => {
                segments.push(("*".to_string(), glob.star_token.spans[0]));
                self.path(&segments, colons, true);
            }
        }
    }

    /// Macros are not parsed: whatever looks like a path in their tokens is one.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let colons = |at: usize| {
            matches!(
                (tokens.get(at), tokens.get(at + 1)),
                (Some(TokenTree::Punct(a)), Some(TokenTree::Punct(b))) if a.as_char() == ':' && b.as_char() == ':'
            )
        };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let mut segments = vec![(ident.to_string(), ident.span())];
                    let leading = (at >= 2 && colons(at - 2)).then(|| tokens[at - 2].span());
                    while colons(at + 1)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                    {
                        segments.push((next.to_string(), next.span()));
                        at += 3;
                    }
                    self.path(&segments, leading, false);
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn within(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.in_tests;
        self.in_tests |= is_test_only(attributes);
        visit(self);
        self.in_tests = before;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, |finder| {
            finder.depth += 1;
            visit::visit_item_mod(finder, item);
            finder.depth -= 1;
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(&item.attrs, |finder| visit::visit_item_fn(finder, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.within(&item.attrs, |finder| visit::visit_item_impl(finder, item));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.within(&item.attrs, |finder| {
            let colons = item.leading_colon.map(|colons| colons.spans[0]);
            finder.tree(&item.tree, &Vec::new(), colons);
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|it| (it.ident.to_string(), it.ident.span())).collect();
        self.path(&segments, path.leading_colon.map(|colons| colons.spans[0]), false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }
}

/// Whether `#[cfg(test)]` stands among the attributes.
pub fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    })
}

/// A `#[test]` function, also inside a macro such as `proptest!`.
#[derive(Clone, Debug)]
pub struct TestFunction {
    /// Its name.
    pub name: String,
    /// The line of its name, from 1.
    pub line: usize,
    /// The last line of its body.
    pub end: usize,
    /// The attributes above it, as tokens.
    pub attributes: Vec<TokenStream>,
    /// What stands between its braces.
    pub body: TokenStream,
}

/// Every test function in `tokens`, in the order of the file.
pub fn test_functions(tokens: TokenStream) -> Vec<TestFunction> {
    let mut found = Vec::new();
    let mut attributes: Vec<TokenStream> = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(group)) = tokens.peek()
                    && group.delimiter() == Delimiter::Bracket
                {
                    attributes.push(group.stream());
                    tokens.next();
                }
            }
            TokenTree::Ident(ident) if ident == "fn" => {
                let attributes = std::mem::take(&mut attributes);
                let Some(TokenTree::Ident(name)) = tokens.next() else { continue };
                let body = tokens.by_ref().find_map(|token| match token {
                    TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
                    _ => None,
                });
                let Some(body) = body else { continue };
                if attributes.iter().any(names_a_test) {
                    found.push(TestFunction {
                        name: name.to_string(),
                        line: name.span().start().line,
                        end: body.span_close().end().line,
                        attributes,
                        body: body.stream(),
                    });
                }
            }
            TokenTree::Ident(ident) if ident == "mod" || ident == "impl" => attributes.clear(),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                attributes.clear();
                found.extend(test_functions(group.stream()));
            }
            _ => {}
        }
    }
    found
}

/// Whether an attribute's path ends in `test`: `#[test]`, `#[tokio::test(start_paused = true)]`.
fn names_a_test(attribute: &TokenStream) -> bool {
    let path: Vec<_> =
        attribute.clone().into_iter().take_while(|token| !matches!(token, TokenTree::Group(_))).collect();
    matches!(path.last(), Some(TokenTree::Ident(ident)) if ident == "test")
        && !path.iter().any(|token| matches!(token, TokenTree::Punct(it) if it.as_char() == '='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(source: &str) -> Vec<Reference> {
        let families = ["gather", "timeouts", "producer_consumer"].map(String::from).into();
        references(&syn::parse_file(source).unwrap(), "gather", &families)
    }

    fn names(source: &str) -> Vec<String> {
        let name = |it: Reference| format!("{}::{}", it.family.unwrap_or_default(), it.recipe);
        find(source).into_iter().map(name).collect()
    }

    #[test]
    fn imports_are_found_in_every_form() {
        assert_eq!(names("use super::settle::settle;"), ["::settle"]);
        assert_eq!(names("use crate::settle;"), ["::settle"]);
        assert_eq!(names("use super::{race::race, settle};"), ["::race", "::settle"]);
        assert_eq!(names("pub use ::timeouts::retry::Retry as Again;"), ["timeouts::retry"]);
        assert_eq!(names("use producer_consumer::{batcher::*};"), ["producer_consumer::batcher"]);
        assert_eq!(
            names("use std::future; use futures::future::join_all; use tokio::{time, sync};"),
            [""; 0]
        );
    }

    #[test]
    fn paths_in_code_types_and_macros_are_found() {
        assert_eq!(names("fn a() { super::settle::settle(); }"), ["::settle"]);
        assert_eq!(
            names("struct A(crate::race::Race<timeouts::retry::Retry>);"),
            ["::race", "timeouts::retry"]
        );
        assert_eq!(names("fn a() { tokio::select! { x = super::race::race() => {} } }"), ["::race"]);
        assert_eq!(names("fn a() { assert_eq!(f(&[timeouts::retry::now()]), 1); }"), ["timeouts::retry"]);
    }

    #[test]
    fn tests_reach_their_own_file_by_super() {
        assert_eq!(names("#[cfg(test)] mod tests { use super::*; use super::Error; }"), [""; 0]);
        let found = find("#[cfg(test)] mod tests { use super::super::settle::settle; }");
        assert_eq!((found[0].recipe.as_str(), found[0].in_tests, found[0].depth), ("settle", true, 1));
        assert!(!find("use super::settle::settle;")[0].in_tests);
    }

    #[test]
    fn a_name_bound_in_the_file_is_no_family() {
        assert_eq!(names("use std::time as timeouts; fn a() { timeouts::sleep(); }"), [""; 0]);
        assert_eq!(names("pub(crate) fn gather() {} fn a() { gather::b(); }"), [""; 0]);
    }

    #[test]
    fn flatten_changes_the_roots_and_nothing_else() {
        let source = "\
use crate::{race::Race, settle};
use ::timeouts::retry::retry; // crate::untouched
use super::settle::Outcome;
fn a() { select! { _ = timeouts::deadline::at() => {} } }
mod inner { use crate::race::race; }
";
        let flat = "\
use super::{race::Race, settle};
use super::retry::retry; // crate::untouched
use super::settle::Outcome;
fn a() { select! { _ = super::deadline::at() => {} } }
mod inner { use super::super::race::race; }
";
        assert_eq!(flatten(source, &find(source)), flat);
        assert_eq!(flatten(flat, &find(flat)), flat);
    }

    #[test]
    fn test_functions_are_found_also_in_macros() {
        let source = "
fn helper() {}
#[cfg(test)]
mod tests {
    #[test]
    fn order_is_kept() {}

    #[tokio::test(start_paused = true)]
    #[ignore]
    async fn errors_are_passed_on() {
        inner();
    }

    #[cfg(test)]
    fn no_test() {}

    proptest! {
        #[test]
        fn memory_is_bounded(n in 0..10) { assert!(n < 10); }
    }
}
";
        let found = test_functions(source.parse().unwrap());
        let lines: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.line, it.end)).collect();
        assert_eq!(
            lines,
            [("order_is_kept", 6, 6), ("errors_are_passed_on", 10, 12), ("memory_is_bounded", 19, 19)]
        );
        assert_eq!(found[1].attributes.len(), 2);
    }
}
