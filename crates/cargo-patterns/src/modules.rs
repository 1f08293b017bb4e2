//! Adds lines such as `mod patterns;` to a file of Rust, and takes them out again.

use anyhow::{Context, Result};
use syn::spanned::Spanned;

/// `text` with a line for each module of `names` that it does not have yet: below its last module line, or else before
/// its first item.
pub(crate) fn with(text: &str, names: &[&str], public: bool) -> Result<String> {
    let file = syn::parse_file(text).context("it is not Rust")?;
    let has =
        |name: &str| file.items.iter().any(|item| matches!(item, syn::Item::Mod(it) if it.ident == name));
    let keyword = if public { "pub mod" } else { "mod" };
    let lines: String =
        names.iter().filter(|name| !has(name)).map(|name| format!("{keyword} {name};\n")).collect();
    if lines.is_empty() {
        return Ok(text.into());
    }
    let last_module =
        file.items.iter().rev().find(|item| matches!(item, syn::Item::Mod(it) if it.content.is_none()));
    if let Some(module) = last_module {
        let at = end_of_line(text, module.span().byte_range().end);
        return Ok(insert(text, at, &lines, ""));
    }
    match file.items.iter().find(|item| !matches!(item, syn::Item::ExternCrate(_))) {
        Some(item) => Ok(insert(text, start_of_line(text, item.span().byte_range().start), &lines, "\n")),
        None => Ok(insert(text, text.len(), &lines, "")),
    }
}

/// `text` without the lines that declare the modules `names`.
pub(crate) fn without(text: &str, names: &[&str]) -> Result<String> {
    let file = syn::parse_file(text).context("it is not Rust")?;
    let mut left = text.to_string();
    for item in file.items.iter().rev() {
        if let syn::Item::Mod(module) = item
            && module.content.is_none()
            && names.iter().any(|name| module.ident == name)
        {
            let range = item.span().byte_range();
            left.replace_range(start_of_line(text, range.start)..end_of_line(text, range.end), "");
        }
    }
    Ok(left)
}

fn insert(text: &str, at: usize, lines: &str, after: &str) -> String {
    let (before, rest) = text.split_at(at);
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{end}{lines}{after}{rest}")
}

fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |it| it + 1)
}

fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |it| at + it + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_below_the_modules_or_before_the_first_item() {
        let add = |text| with(text, &["patterns"], false).unwrap();
        assert_eq!(add("//! Docs.\n\nfn main() {}\n"), "//! Docs.\n\nmod patterns;\n\nfn main() {}\n");
        assert_eq!(add("mod a;\nuse b::c;\n"), "mod a;\nmod patterns;\nuse b::c;\n");
        assert_eq!(
            add("mod a {}\n\n/// D.\n#[test]\nfn f() {}\n"),
            "mod patterns;\n\nmod a {}\n\n/// D.\n#[test]\nfn f() {}\n"
        );
        assert_eq!(add("/// D.\n#[test]\nfn f() {}\n"), "mod patterns;\n\n/// D.\n#[test]\nfn f() {}\n");
        assert_eq!(add(""), "mod patterns;\n");
        assert_eq!(add("#![no_main]"), "#![no_main]\nmod patterns;\n");
        assert_eq!(add("mod a;"), "mod a;\nmod patterns;\n");
        assert_eq!(add("pub(crate) mod patterns;\n"), "pub(crate) mod patterns;\n");
        assert!(with("fn", &["patterns"], false).is_err());
    }

    #[test]
    fn lines_are_taken_out_again() {
        let text = "//! D.\n\npub mod a;\n#[doc(hidden)]\npub mod b;\npub mod c;\n\nfn f() {}\n";
        assert_eq!(without(text, &["a", "b"]).unwrap(), "//! D.\n\npub mod c;\n\nfn f() {}\n");
        assert_eq!(without(text, &["d"]).unwrap(), text);
    }
}
