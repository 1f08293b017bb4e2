//! Expands the directives of a page. A directive stands alone on its line: `{{#head gather}}`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use registry::header::without_item_links;
use registry::{Problem, Recipe, Registry};

use super::cost;
use crate::check::proofs;
use crate::workspace::Workspace;

/// Returns the text of `page` with every directive replaced, or everything that is wrong with them.
///
/// `page` is the name of the file from `docs/`.
pub(crate) fn expand(workspace: &Workspace, page: &str, text: &str) -> Result<String, Vec<Problem>> {
    let mut expanded = String::new();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut wrong = |message| {
            problems.push(Problem { path: format!("docs/{page}"), line: index + 1, message });
        };
        let plain = line.replace("\\{{#", "");
        match line.trim().strip_prefix("{{#").and_then(|it| it.strip_suffix("}}")) {
            Some(directive) => match replace(workspace, page, directive) {
                Ok(text) => expanded.push_str(&text),
                Err(error) => wrong(format!("{{{{#{directive}}}}}: {error:#}")),
            },
            None if plain.contains("{{#") => wrong(
                "a directive must stand alone on its line; to print one as it is, write a backslash before it".into(),
            ),
            None => expanded.push_str(&line.replace("\\{{#", "{{#")),
        }
        expanded.push('\n');
    }
    if problems.is_empty() { Ok(expanded) } else { Err(problems) }
}

fn replace(workspace: &Workspace, page: &str, directive: &str) -> Result<String> {
    let mut words = directive.split_whitespace();
    let (verb, name, rest) = (words.next().unwrap_or(""), words.next(), words.next());
    let name = || name.with_context(|| format!("`{verb}` needs a name"));
    let recipe = || {
        let name = name()?;
        workspace.registry.get(name).with_context(|| format!("there is no recipe `{name}`"))
    };
    if words.next().is_some() || (rest.is_some() && verb != "file") {
        bail!("too many words");
    }
    match verb {
        "head" => Ok(head(&workspace.registry, recipe()?)),
        "code" => Ok(code(recipe()?)),
        "contract" => contract(workspace, recipe()?),
        "picture" => picture(&generated(workspace, &format!("docs/pictures/{}.svg", name()?))?),
        "output" => Ok(fence("text", &generated(workspace, &format!("docs/outputs/{}.txt", name()?))?)),
        "python" => python(workspace, name()?),
        "file" => file(workspace, name()?, rest),
        "cost" => cost::tables(workspace, recipe()?),
        "costs" => cost::family(workspace, name()?),
        "recipes" => recipes(&workspace.registry, page, name()?),
        _ => bail!(
            "unknown directive; there are head, code, contract, picture, output, file, python, cost, costs and recipes"
        ),
    }
}

/// A Python file, and what it prints.
fn python(workspace: &Workspace, name: &str) -> Result<String> {
    let source = workspace.text(&format!("docs/python/{name}.py"))?;
    let output = generated(workspace, &format!("docs/outputs/python-{name}.txt"))?;
    Ok(format!("{}\nIt prints:\n{}", fence("python", &source), fence("text", &output)))
}

fn generated(workspace: &Workspace, path: &str) -> Result<String> {
    workspace.text(path).context("run `cargo xtask generate`, which makes it from a run")
}

/// The title of a recipe's page, and what it takes to have the recipe.
fn head(registry: &Registry, recipe: &Recipe) -> String {
    format!(
        "# `{}`: {}\n\n{}\n",
        recipe.name,
        without_item_links(&recipe.header.promise),
        facts(registry, recipe)
    )
}

/// `cargo patterns add gather · needs futures, tokio[rt] · 96 lines`
fn facts(registry: &Registry, recipe: &Recipe) -> String {
    let mut needs: Vec<_> = registry.needs(recipe).iter().map(|need| format!("`{need}`")).collect();
    let others = registry.closure(recipe, false).into_iter().filter(|it| it.name != recipe.name);
    needs.extend(others.map(|it| format!("the recipe `{}`", it.name)));
    let needs = if needs.is_empty() { "nothing but std".into() } else { needs.join(", ") };
    format!("`cargo patterns add {}` · needs {needs} · {} lines", recipe.name, recipe.lines)
}

/// The whole file but for the module docs, with an anchor at each test.
fn code(recipe: &Recipe) -> String {
    let anchors: BTreeSet<_> = recipe.tests.iter().map(|test| (test.line, test.name.as_str())).collect();
    let mut html = String::from("\n<pre><code class=\"language-rs\">");
    for (index, line) in recipe.code().trim_end().lines().enumerate() {
        let number = recipe.header.lines + index + 1;
        for (_, name) in anchors.range((number, "")..(number + 1, "")) {
            html.push_str(&format!("<span id=\"{}\"></span>", anchor(&recipe.name, name)));
        }
        html.push_str(&escape(line));
        html.push('\n');
    }
    html + "</code></pre>\n"
}

/// Where the page of a recipe shows this test.
fn anchor(recipe: &str, test: &str) -> String {
    format!("{recipe}-{test}")
}

fn contract(workspace: &Workspace, recipe: &Recipe) -> Result<String> {
    let mut table = String::from("\n| | | proved by |\n|---|---|---|\n");
    let proofs = proofs(workspace, recipe)?;
    for row in &recipe.header.contract {
        let mut here = Vec::new();
        let mut beside = Vec::new();
        for proof in proofs.iter().filter(|proof| proof.row == row.name) {
            match &proof.file {
                None => here.push(format!("[`{0}`](#{1})", proof.test, anchor(&recipe.name, &proof.test))),
                Some(file) => {
                    if beside.is_empty() {
                        beside.push(format!("in `{}`:", file.trim_start_matches("crates/")));
                    }
                    beside.push(format!("`{}`", proof.test));
                }
            }
        }
        here.extend(beside);
        let text = without_item_links(&row.text);
        table.push_str(&format!("| **{}** | {text} | {} |\n", row.name, here.join("<br>")));
    }
    Ok(table)
}

/// The picture within the page: it then follows the page's colours and needs no second request.
fn picture(svg: &str) -> Result<String> {
    let between = |start: &str, end: &str| {
        let rest = &svg[svg.find(start)? + start.len()..];
        Some(rest[..rest.find(end)?].split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let description =
        between("<desc>", "</desc>").context("the picture has no <desc> to serve as alternative text")?;
    let start = svg.find("<svg").context("this is no SVG")?;
    // A blank line would end the HTML in the eyes of Markdown.
    let lines: Vec<_> = svg[start..].lines().filter(|line| !line.trim().is_empty()).collect();
    // The page has a switch for light and dark: within it a picture follows that, and not the system.
    let svg = lines.join("\n").replace("@media (prefers-color-scheme:dark)", ":is(.navy, .coal, .ayu)");
    let description = description.replace('"', "&quot;");
    Ok(format!("\n<figure class=\"picture\" aria-label=\"{description}\">\n{svg}\n</figure>\n"))
}

/// A file, or the part of it between `ANCHOR: name` and `ANCHOR_END: name`.
fn file(workspace: &Workspace, path: &str, anchor: Option<&str>) -> Result<String> {
    let text = workspace.text(path)?;
    let mark = |line: &str| {
        let (_, mark) = line.split_once("ANCHOR")?;
        let (end, name) = mark.split_once(": ")?;
        matches!(end, "" | "_END").then(|| (end == "_END", name.trim().to_string()))
    };
    let mut inside = anchor.is_none();
    let mut found = inside;
    let mut kept = Vec::new();
    for line in text.lines() {
        match mark(line) {
            Some((end, name)) if anchor == Some(name.as_str()) => {
                inside = !end;
                found = true;
            }
            None if inside => kept.push(line),
            _ => {}
        }
    }
    if !found {
        bail!("{path} has no line `ANCHOR: {}`", anchor.unwrap_or(""));
    }
    if anchor.is_some() && inside {
        bail!("{path} has no line `ANCHOR_END: {}`", anchor.unwrap_or(""));
    }
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let margin = kept.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let lines: Vec<_> = kept.iter().map(|line| line.get(margin..).unwrap_or("")).collect();
    let language = match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "py" => "python",
        "yml" => "yaml",
        ending => ending,
    };
    Ok(fence(language, &lines.join("\n")))
}

/// The recipes of a family, each with a link to its page.
fn recipes(registry: &Registry, page: &str, family: &str) -> Result<String> {
    let families = registry.families();
    let recipes = families.get(family).with_context(|| format!("there is no family `{family}`"))?;
    let up = "../".repeat(page.matches('/').count());
    let mut table = String::from("\n| recipe | |\n|---|---|\n");
    for recipe in recipes {
        let promise = without_item_links(&recipe.header.promise);
        table.push_str(&format!("| [`{0}`]({up}{family}/{0}.md) | {promise} |\n", recipe.name));
    }
    Ok(table)
}

/// A fenced block that nothing in `text` can close.
///
/// Rust is named `rs` here: mdBook hides lines that begin with `#` from a block named `rust`.
fn fence(language: &str, text: &str) -> String {
    let longest = text.split(|it| it != '`').map(str::len).max().unwrap_or(0);
    let ticks = "`".repeat(3.max(longest + 1));
    format!("\n{ticks}{language}\n{}\n{ticks}\n", text.trim_end())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::workspace;

    const SVG: &str = "<?xml version=\"1.0\"?>\n<svg viewBox=\"0 0 1 1\">\n\
                       <style>@media (prefers-color-scheme:dark){.a{}}</style>\n\
                       <desc>Two \"lanes\"\nof one</desc>\n\n</svg>\n";

    fn expanded(files: &[(&str, &str)], text: &str) -> String {
        let (_folder, workspace) = workspace(files);
        expand(&workspace, "limits/permit.md", text).unwrap()
    }

    fn problem(text: &str) -> String {
        let (_folder, workspace) =
            workspace(&[("docs/pictures/mute.svg", "<svg></svg>"), ("docs/a.rs", "// ANCHOR: a\n")]);
        let problems = expand(&workspace, "limits/permit.md", text).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    }

    #[test]
    fn head_is_title_and_facts() {
        assert_eq!(
            expanded(&[], "{{#head permit}}"),
            "# `permit`: Hold a permit while a job runs\n\n`cargo patterns add permit` · needs nothing but std · 24 lines\n\n"
        );
    }

    #[test]
    fn code_is_everything_below_the_docs_with_anchors_at_tests() {
        let text = expanded(&[], "{{#code permit}}");
        assert!(text.starts_with("\n<pre><code class=\"language-rs\">use std::num"), "{text}");
        assert!(
            text.contains("\n    #[test]\n<span id=\"permit-order_is_first_come\"></span>    fn order"),
            "{text}"
        );
        assert!(text.contains("permit() &lt; 2"), "{text}");
    }

    #[test]
    fn contract_links_each_row_to_its_tests() {
        let text = expanded(&[], "{{#contract permit}}");
        let order = "| **Order** | first come, first served | [`order_is_first_come`](#permit-order_is_first_come) |\n";
        assert!(text.contains(order), "{text}");
        let sweep = "| in `limits/tests/permit.rs`:<br>`cancellation_gives_the_permit_back` |\n";
        assert!(text.contains(sweep), "{text}");
    }

    #[test]
    fn picture_is_inlined_with_its_description() {
        let text = expanded(&[("docs/pictures/permit.svg", SVG)], "{{#picture permit}}");
        let expected = "\n<figure class=\"picture\" aria-label=\"Two &quot;lanes&quot; of one\">\n\
                        <svg viewBox=\"0 0 1 1\">\n<style>:is(.navy, .coal, .ayu){.a{}}</style>\n\
                        <desc>Two \"lanes\"\nof one</desc>\n</svg>\n</figure>\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn files_are_printed_whole_or_by_anchor_and_nothing_closes_their_fence() {
        let file = [("a.rs", "// ANCHOR: a\n    # b\n    ```\n// ANCHOR_END: a\nc\n")];
        assert_eq!(expanded(&file, "{{#file a.rs a}}"), "\n````rs\n# b\n```\n````\n\n");
        assert_eq!(expanded(&file, "{{#file a.rs}}"), "\n````rs\n    # b\n    ```\nc\n````\n\n");
        assert_eq!(expanded(&[("docs/outputs/a.txt", "x\n")], "{{#output a}}"), "\n```text\nx\n```\n\n");
        let python = expanded(&[("docs/outputs/python-permit.txt", "permit\n")], "{{#python permit}}");
        assert_eq!(python, "\n```python\nprint('permit')\n```\n\nIt prints:\n\n```text\npermit\n```\n\n");
    }

    #[test]
    fn recipes_of_a_family_are_linked_from_where_the_page_lies() {
        let row = "| [`permit`](../limits/permit.md) | Hold a permit while a job runs |\n";
        assert!(expanded(&[], "{{#recipes limits}}").contains(row));
    }

    #[test]
    fn a_backslash_prints_a_directive_as_it_is() {
        assert_eq!(expanded(&[], "write `\\{{#head NAME}}`"), "write `{{#head NAME}}`\n");
    }

    #[test]
    fn errors_name_page_and_line() {
        assert_eq!(
            problem("a\n\n{{#head ticket}}"),
            "docs/limits/permit.md:3: {{#head ticket}}: there is no recipe `ticket`"
        );
        assert!(
            problem("{{#include a.md}}")
                .starts_with("docs/limits/permit.md:1: {{#include a.md}}: unknown directive")
        );
        assert!(problem("{{#output permit}}").contains("cannot read docs/outputs/permit.txt"));
        assert!(problem("{{#picture mute}}").contains("no <desc>"));
        assert!(problem("{{#file docs/a.rs b}}").contains("docs/a.rs has no line `ANCHOR: b`"));
        assert!(problem("{{#file docs/a.rs a}}").contains("docs/a.rs has no line `ANCHOR_END: a`"));
        assert!(problem("{{#recipes nothing}}").contains("there is no family `nothing`"));
        assert!(problem("{{#cost permit}}").contains("cannot read docs/benchmarks/limits.json"));
        assert!(problem("{{#head}}").contains("`head` needs a name"));
        assert!(problem("{{#head permit again}}").contains("too many words"));
        assert!(problem("see {{#head permit}}").contains("must stand alone"));
    }
}
