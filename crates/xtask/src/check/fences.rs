//! Fenced code that is never compiled, never run, or pasted by hand.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};
use registry::Problem;

use super::problem;

/// A fenced block: what stands after the opening fence, the code, and the line of the fence.
struct Fence {
    tag: String,
    code: String,
    line: usize,
}

impl Fence {
    fn words(&self) -> impl Iterator<Item = &str> {
        self.tag.split([',', ' ', '\t']).filter(|word| !word.is_empty())
    }

    fn has(&self, wanted: &str) -> bool {
        self.words().any(|word| word == wanted)
    }

    /// Whether rustdoc takes it for Rust.
    fn is_rust(&self) -> bool {
        let rust =
            ["rust", "compile_fail", "should_panic", "ignore", "no_run", "test_harness", "standalone_crate"];
        self.words()
            .all(|word| rust.contains(&word) || word.starts_with("edition") || word.starts_with("ignore-"))
    }

    /// What in the tag keeps the code from being run.
    fn never_runs(&self) -> Option<&str> {
        self.words().find(|word| matches!(*word, "rs" | "ignore" | "no_run") || word.starts_with("ignore-"))
    }
}

/// Looks at the doc comments of a Rust file.
pub(super) fn check_source(path: &str, tokens: &TokenStream, problems: &mut Vec<Problem>) {
    let mut comments = Vec::new();
    doc_comments(tokens.clone(), &mut comments);
    for comment in comments {
        let fences = fences_of(&comment);
        for fence in &fences {
            if let Some(word) = fence.never_runs() {
                let message = format!(
                    "a doc fence tagged `{word}` is never run: make it a doctest, or tag it `text` if it is no code"
                );
                problems.push(problem(path, fence.line, message));
            }
            if fence.is_rust() && contains_test(&fence.code) {
                let message = "`#[test]` inside a doctest is never run: assert in the doctest itself";
                problems.push(problem(path, fence.line, message));
            }
            let passes = |it: &Fence| it.is_rust() && !it.has("compile_fail") && it.never_runs().is_none();
            if fence.has("compile_fail") && !fences.iter().any(passes) {
                let message = "`compile_fail` passes for any error, a typing slip too: put a twin that compiles \
                               into the same doc comment";
                problems.push(problem(path, fence.line, message));
            }
        }
    }
}

fn contains_test(code: &str) -> bool {
    code.lines().map(str::trim_start).any(|line| {
        let attribute = line.strip_prefix("#[").and_then(|rest| rest.split(['(', ']']).next());
        attribute.is_some_and(|path| path.rsplit("::").next() == Some("test"))
    })
}

/// Looks at a page of the book.
pub(super) fn check_page(path: &str, text: &str, problems: &mut Vec<Problem>) {
    for (event, range) in Parser::new(text).into_offset_iter() {
        let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(tag))) = event else { continue };
        let line = text[..range.start].matches('\n').count() + 1;
        let fence = Fence { tag: tag.into_string(), code: String::new(), line };
        if fence.has("text") || fence.has("console") {
            let word = fence.words().next().unwrap_or("");
            let message =
                format!("a `{word}` fence is output pasted by hand: write `{{{{#output EXAMPLE}}}}`");
            problems.push(problem(path, line, message));
        }
        if fence.has("rust") || fence.never_runs().is_some() {
            let message = format!(
                "a `{}` fence on a page is never compiled: write `{{{{#file PATH ANCHOR}}}}` with code that is tested",
                fence.tag
            );
            problems.push(problem(path, line, message));
        }
    }
    for (index, line) in text.lines().enumerate() {
        let included = line.split("{{#").skip(1).filter_map(|rest| rest.split("}}").next());
        for included in included {
            let mut words = included.split_whitespace();
            let verb = words.next().unwrap_or("");
            let by_line = |word: &str| {
                word.split(':')
                    .skip(1)
                    .any(|part| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()))
            };
            if matches!(verb, "include" | "rustdoc_include" | "playground" | "file") && words.any(by_line) {
                let message =
                    "an include by line number shows other lines after the next edit: name an ANCHOR";
                problems.push(problem(path, index + 1, message));
            }
        }
    }
}

type Comment = Vec<(usize, String)>;

/// The doc comments of a file: each line with its number. A comment becomes one attribute a line when it is parsed.
fn doc_comments(tokens: TokenStream, found: &mut Vec<Comment>) {
    let mut comment = Comment::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                tokens.next_if(|it| matches!(it, TokenTree::Punct(punct) if punct.as_char() == '!'));
                let Some(TokenTree::Group(group)) = tokens.peek() else { continue };
                if group.delimiter() != Delimiter::Bracket {
                    continue;
                }
                if let Some(text) = doc_text(group.stream()) {
                    let line = group.span().start().line;
                    comment.extend(
                        text.lines().enumerate().map(|(index, text)| (line + index, text.to_string())),
                    );
                }
                tokens.next();
            }
            other => {
                if !comment.is_empty() {
                    found.push(std::mem::take(&mut comment));
                }
                if let TokenTree::Group(group) = other {
                    doc_comments(group.stream(), found);
                }
            }
        }
    }
    if !comment.is_empty() {
        found.push(comment);
    }
}

/// The text of `doc = "…"`.
fn doc_text(attribute: TokenStream) -> Option<String> {
    match syn::parse2::<syn::MetaNameValue>(attribute).ok()? {
        syn::MetaNameValue { path, value: syn::Expr::Lit(literal), .. } if path.is_ident("doc") => {
            match literal.lit {
                // A blank line of a comment has no lines of its own.
                syn::Lit::Str(text) if text.value().is_empty() => Some("\n".into()),
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn fences_of(comment: &Comment) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    for (line, text) in comment {
        match (text.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => fences.extend(open.take()),
            (Some(tag), None) => {
                open = Some(Fence {
                    tag: tag.trim_start_matches('`').trim().into(),
                    code: String::new(),
                    line: *line,
                });
            }
            (None, Some(fence)) => {
                fence.code.push_str(text);
                fence.code.push('\n');
            }
            (None, None) => {}
        }
    }
    fences.extend(open);
    fences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check_source("a.rs", &text.parse().unwrap(), &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn page(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check_page("a.md", text, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn starts(found: &[String], start: &str) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn doctests_and_text_pass() {
        let text = "//! Docs.\n//!\n//! ```\n//! assert!(true);\n//! ```\n//!\n//! ```console\n//! cargo run\n//! ```\n\n\
                    /// ```should_panic\n/// panic!()\n/// ```\nfn a() { let s = \"\n/// ```ignore\n\"; }\n";
        assert_eq!(source(text), [""; 0]);
    }

    #[test]
    fn fences_that_never_run_are_found() {
        for tag in ["rs", "ignore", "no_run", "rust,ignore", "rust, no_run", "ignore-windows"] {
            starts(
                &source(&format!(
                    "//! Docs.\n\nmod a {{\n    /// A.\n    ///\n    /// ```{tag}\n    /// a()\n    /// ```\n    fn a() {{}}\n}}\n"
                )),
                "a.rs:6: a doc fence tagged",
            );
        }
        starts(&source("/**\nA.\n```ignore\n```\n*/\nfn a() {}\n"), "a.rs:3: a doc fence tagged `ignore`");
    }

    #[test]
    fn tests_in_doctests_are_found() {
        let text = |attribute: &str| format!("//! ```\n//! {attribute}\n//! fn a() {{}}\n//! ```\n");
        starts(&source(&text("#[test]")), "a.rs:1: `#[test]` inside a doctest");
        starts(&source(&text("#[tokio::test(start_paused = true)]")), "a.rs:1: `#[test]` inside a doctest");
        assert_eq!(source(&text("#[cfg(test)]")), [""; 0]);
        assert_eq!(source(&text("#[test]").replacen("```", "```text", 1)), [""; 0]);
    }

    #[test]
    fn compile_fail_needs_a_twin_in_the_same_comment() {
        let alone = "/// ```compile_fail\n/// let a: u8 = \"\";\n/// ```\nfn a() {}\n";
        let twin = "/// ```\n/// let a: u8 = 1;\n/// ```\n";
        starts(&source(alone), "a.rs:1: `compile_fail` passes for any error");
        starts(&source(&format!("{twin}fn b() {{}}\n{alone}")), "a.rs:5: `compile_fail`");
        assert_eq!(source(&format!("{twin}{alone}")), [""; 0]);
    }

    #[test]
    fn pasted_output_and_code_are_found_on_pages() {
        assert_eq!(page("# A\n\n```sh\ncargo run\n```\n\n{{#output a}}\n\n```toml\na = 1\n```\n"), [""; 0]);
        starts(&page("# A\n\n```text\n1 passed\n```\n"), "a.md:3: a `text` fence");
        starts(&page("- a\n\n  ```console\n  $ a\n  ```\n"), "a.md:3: a `console` fence");
        starts(&page("```rust\nlet a = 1;\n```\n"), "a.md:1: a `rust` fence");
        starts(&page("```rs\nlet a = 1;\n```\n"), "a.md:1: a `rs` fence");
        starts(&page("```rust,ignore\nlet a = 1;\n```\n"), "a.md:1: a `rust,ignore` fence");
    }

    #[test]
    fn includes_by_line_are_found() {
        assert_eq!(page("{{#file examples/a.rs main}}\n{{#include a.rs:anchor}}\n"), [""; 0]);
        starts(&page("\n{{#include a.rs:10}}\n"), "a.md:2: an include by line number");
        starts(&page("{{#rustdoc_include ../a.rs:3:9}}\n"), "a.md:1: an include by line number");
        starts(&page("{{#include a.rs::9}}\n"), "a.md:1: an include by line number");
    }
}
