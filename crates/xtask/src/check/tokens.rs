//! Code that is not there yet, tests that are not run, and tests that sleep and hope.

use std::collections::HashSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use registry::Problem;
use registry::paths::{TestFunction, test_functions};

use super::problem;

pub(super) fn check(path: &str, tokens: &TokenStream, problems: &mut Vec<Problem>) {
    let runs_ignored = names_argument(tokens.clone());
    unfinished(path, tokens.clone(), runs_ignored, problems);
    let pausing = pausing(tokens.clone());
    for test in test_functions(tokens.clone()) {
        sleeping(path, &test, &pausing, problems);
    }
}

fn unfinished(path: &str, tokens: TokenStream, runs_ignored: bool, problems: &mut Vec<Problem>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let is = |offset: usize, wanted: char| matches!(tokens.get(index + offset), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
        match token {
            TokenTree::Ident(ident) if (ident == "todo" || ident == "unimplemented") && is(1, '!') => {
                let message = format!("`{ident}!` is no code: write it, or leave it out");
                problems.push(problem(path, ident.span().start().line, message));
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(group)) = tokens.get(index + 1)
                    && group.delimiter() == Delimiter::Bracket
                    && ignores(group.stream())
                    && !runs_ignored
                {
                    let message =
                        "an `#[ignore]`d test proves nothing: make it fast enough to run, or leave it out";
                    problems.push(problem(path, punct.span().start().line, message));
                }
            }
            TokenTree::Group(group) => unfinished(path, group.stream(), runs_ignored, problems),
            _ => {}
        }
    }
}

/// Whether the file runs its ignored tests itself, in a process of their own: then they are run.
fn names_argument(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Literal(literal) => literal.to_string() == "\"--ignored\"",
        TokenTree::Group(group) => names_argument(group.stream()),
        _ => false,
    })
}

/// `ignore`, `ignore = "…"`, `cfg_attr(…, ignore)`
fn ignores(attribute: TokenStream) -> bool {
    let tokens: Vec<_> = attribute.into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(name), ..] if name == "ignore" => true,
        [TokenTree::Ident(name), TokenTree::Group(group)] if name == "cfg_attr" => {
            group.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(it) if it == "ignore"))
        }
        _ => false,
    }
}

/// A test may wait for a time only on a paused clock.
fn sleeping(path: &str, test: &TestFunction, pausing: &HashSet<String>, problems: &mut Vec<Problem>) {
    let paused = test.attributes.iter().any(|it| names(it.clone(), &|name| name == "start_paused").is_some())
        || names(test.body.clone(), &|name| pausing.contains(name)).is_some();
    if let Some(line) = names(test.body.clone(), &|name| name == "sleep" || name == "sleep_until")
        && !paused
    {
        let message = format!(
            "`{}` sleeps on the real clock and hopes: add `start_paused = true`, or wait for what is awaited",
            test.name
        );
        problems.push(problem(path, line, message));
    }
}

/// What pauses the clock for its caller: the sweep, what the seeded bugs are tried with, and functions of the file that
/// call one of these.
fn pausing(tokens: TokenStream) -> HashSet<String> {
    let mut pausing =
        HashSet::from(["start_paused", "pause", "sweep", "explore", "proves"].map(String::from));
    let mut functions = Vec::new();
    function_bodies(tokens, &mut functions);
    loop {
        let before = pausing.len();
        for (name, body) in &functions {
            if names(body.clone(), &|name| pausing.contains(name)).is_some() {
                pausing.insert(name.clone());
            }
        }
        if pausing.len() == before {
            return pausing;
        }
    }
}

fn function_bodies(tokens: TokenStream, found: &mut Vec<(String, TokenStream)>) {
    let mut tokens = tokens.into_iter();
    let mut name = None;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "fn" => {
                name = tokens.next().map(|token| token.to_string());
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => name = None,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                if let Some(name) = name.take() {
                    found.push((name, group.stream()));
                }
                function_bodies(group.stream(), found);
            }
            _ => {}
        }
    }
}

/// The line of the first identifier that is wanted.
fn names(tokens: TokenStream, wanted: &dyn Fn(&str) -> bool) -> Option<usize> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if wanted(&ident.to_string()) => Some(ident.span().start().line),
        TokenTree::Group(group) => names(group.stream(), wanted),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check("a.rs", &text.parse().unwrap(), &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn starts(text: &str, start: &str) {
        let found = found(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(start), "{found:?}");
    }

    #[test]
    fn code_that_is_not_there_is_found() {
        starts("fn a() {\n    todo!()\n}\n", "a.rs:2: `todo!`");
        starts("fn a() { b(|| unimplemented!(\"later\")) }\n", "a.rs:1: `unimplemented!`");
        assert_eq!(found("/// todo!()\nfn todo() { let s = \"todo!()\"; todo(); }\n"), [""; 0]);
    }

    #[test]
    fn ignored_tests_are_found() {
        starts("#[test]\n#[ignore]\nfn a() {}\n", "a.rs:2: an `#[ignore]`d test");
        starts(
            "mod t {\n    #[test]\n    #[ignore = \"slow\"]\n    fn a() {}\n}\n",
            "a.rs:3: an `#[ignore]`d test",
        );
        starts("#[cfg_attr(windows, ignore)]\nfn a() {}\n", "a.rs:1: an `#[ignore]`d test");
        assert_eq!(found("#[test]\n#[should_panic]\nfn ignore() { ignore(); }\n"), [""; 0]);
        assert_eq!(
            found("#[test]\n#[ignore]\nfn a() {}\n#[test]\nfn b() { run(&[\"a\", \"--ignored\"]); }\n"),
            [""; 0]
        );
    }

    #[test]
    fn sleeping_tests_are_found() {
        starts("#[tokio::test]\nasync fn a() {\n    tokio::time::sleep(X).await;\n}\n", "a.rs:3: `a` sleeps");
        starts("fn b() {}\n#[test]\nfn a() { b(); sleep(X); }\n", "a.rs:3: `a` sleeps");
        starts("#[test]\nfn a() { std::thread::sleep(X); }\n", "a.rs:2: `a` sleeps");
        for text in [
            "#[tokio::test(start_paused = true)]\nasync fn a() { sleep(X).await; }\n",
            "#[test]\nfn a() { Builder::new().start_paused(true); sleep(X); }\n",
            "#[tokio::test]\nasync fn a() { tokio::time::pause(); sleep(X).await; }\n",
            "#[test]\nfn a() { sweep(|_| Scene::new(sleep(X))); }\n",
            "fn helper() { sleep(X) }\n",
            "fn b() { sweep(|_| x) }\nfn c() { b() }\n#[test]\nfn a() { c(sleep(X)) }\n",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
