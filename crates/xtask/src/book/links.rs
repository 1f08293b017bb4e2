//! Finds links of the built book that lead nowhere.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use registry::Problem;
use walkdir::WalkDir;

use crate::workspace::Workspace;

/// What a page refers to and what can be referred to in it.
#[derive(Default)]
struct Page {
    ids: HashSet<String>,
    links: Vec<String>,
}

/// Looks at every page in `folder`, the built book.
pub(crate) fn check(workspace: &Workspace, folder: &Path, problems: &mut Vec<Problem>) -> Result<()> {
    let mut pages = BTreeMap::new();
    for entry in WalkDir::new(folder) {
        let path = entry?.into_path();
        if path.extension().is_some_and(|it| it == "html") {
            pages.insert(path.clone(), scan(&fs::read_to_string(&path)?));
        }
    }
    for (path, page) in &pages {
        let Ok(name) = path.strip_prefix(folder) else { continue };
        let source = name.with_extension("md");
        // The pages that mdBook makes of all others: their links are the same, seen from another place.
        if !workspace.root.join("docs").join(&source).is_file() {
            continue;
        }
        let mut seen = HashSet::new();
        for link in &page.links {
            if seen.insert(link)
                && let Some(message) = broken(path, link, &pages)
            {
                let path = format!("docs/{}", source.to_string_lossy().replace('\\', "/"));
                let line = line_of(&workspace.text(&path)?, link);
                problems.push(Problem { path, line, message });
            }
        }
    }
    Ok(())
}

/// Says what is wrong with a link, if it leads into the book and something is.
fn broken(from: &Path, link: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    if link.contains("://")
        || link.starts_with("//")
        || link.starts_with("mailto:")
        || link.starts_with("data:")
    {
        return None;
    }
    let (file, fragment) =
        link.split_once('#').map_or((link, None), |(file, fragment)| (file, Some(fragment)));
    let file = file.split('?').next().unwrap_or("");
    let target = if file.is_empty() { from.to_path_buf() } else { resolve(from.parent()?, file) };
    let target = if target.is_dir() { target.join("index.html") } else { target };
    if !target.is_file() {
        return Some(format!("the link `{link}` leads to a file that is not in the book"));
    }
    let fragment = fragment.filter(|it| !it.is_empty())?;
    let page = pages.get(&target)?;
    (!page.ids.contains(&decoded(fragment)))
        .then(|| format!("the link `{link}` leads to a part that the page does not have"))
}

fn resolve(folder: &Path, file: &str) -> PathBuf {
    let mut path = folder.to_path_buf();
    for part in Path::new(&decoded(file)).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// `%41` as `A`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match hex.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The line of the source that the link probably stands in.
fn line_of(source: &str, link: &str) -> usize {
    let written = link.replace(".html", ".md");
    source
        .lines()
        .position(|line| line.contains(&written) || line.contains(link))
        .map_or(1, |index| index + 1)
}

/// Reads the ids and the links of a page.
fn scan(html: &str) -> Page {
    let mut page = Page::default();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let (name, after) =
            rest[1..].split_at(rest[1..].find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(0));
        rest = attributes(after, &mut page);
        if matches!(name, "script" | "style") {
            let end = format!("</{name}");
            rest = rest.find(&end).map_or("", |at| &rest[at..]);
        }
    }
    page
}

/// Reads attributes up to the end of the tag and returns what follows it.
fn attributes<'a>(tag: &'a str, page: &mut Page) -> &'a str {
    let mut rest = tag;
    loop {
        let Some(at) = rest.find(['=', '>']) else { return "" };
        let (name, after) = (rest[..at].trim_end(), &rest[at + 1..]);
        if rest.as_bytes()[at] == b'>' {
            return after;
        }
        let name = name.rsplit(|it: char| it.is_whitespace()).next().unwrap_or("");
        let (value, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            _ => {
                after.split_at(after.find(|it: char| it.is_whitespace() || it == '>').unwrap_or(after.len()))
            }
        };
        let value = value.replace("&amp;", "&");
        match name {
            "id" => {
                page.ids.insert(value);
            }
            "href" | "src" => page.links.push(value),
            _ => {}
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::build;
    use crate::workspace::fixture::workspace;

    fn problems(index: &str) -> Vec<String> {
        let (_folder, workspace) = workspace(&[("docs/limits/index.md", index)]);
        let mut problems = Vec::new();
        let folder = build(&workspace, &mut problems).unwrap().unwrap();
        check(&workspace, &folder, &mut problems).unwrap();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let index = "# Limits\n\n[a](permit.md) [b](permit.md#the-code) [c](#limits) [d](https://a.example/b#c)\n\
                     [e](permit.md#permit-order_is_first_come) ![f](../python/permit.py)\n";
        assert_eq!(problems(index), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let index = "# Limits\n\n[a](gone.md)\n\n[b](permit.md#gone) [c](#gone)\n\n![d](gone.png)\n";
        let found = problems(index);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found[0].starts_with("docs/limits/index.md:3: the link `gone.html` leads to a file"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("docs/limits/index.md:5: the link `permit.html#gone` leads to a part"),
            "{found:?}"
        );
        assert!(
            found[2].starts_with("docs/limits/index.md:5: the link `#gone` leads to a part"),
            "{found:?}"
        );
        assert!(
            found[3].starts_with("docs/limits/index.md:7: the link `gone.png` leads to a file"),
            "{found:?}"
        );
    }

    #[test]
    fn text_and_scripts_are_no_links() {
        let page = scan(
            "<p id=a>href=\"b\" &lt;a href='c'></p><script>\"<a href='d'>\"</script><!-- <a href=e> --><a href='f'>",
        );
        assert_eq!((page.ids.len(), page.links), (1, vec!["f".to_string()]));
    }
}
