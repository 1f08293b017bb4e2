//! Recipes as text for a terminal. Colours are always there; the stream that is written to takes them away.

use anstyle::{AnsiColor, Style};
use registry::header::{Row, without_item_links};
use registry::{Recipe, Registry};
use unicode_width::UnicodeWidthStr;

use crate::change::State;

const TITLE: Style = Style::new().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
const QUIET: Style = Style::new().dimmed();
const COMMENT: Style = AnsiColor::Green.on_default();
const ADDED: Style = AnsiColor::Green.on_default();
const TAKEN: Style = AnsiColor::Red.on_default();

/// One paragraph for each family, one line for each recipe.
pub(crate) fn list(registry: &Registry, recipes: &[&Recipe], width: usize) -> String {
    let column = recipes.iter().map(|recipe| recipe.name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    let mut family = "";
    for recipe in recipes {
        if recipe.family != family {
            family = &recipe.family;
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{TITLE}{family}{TITLE:#}\n"));
        }
        text.push_str(&format!("  {NAME}{:column$}{NAME:#}", recipe.name));
        let lines = wrap(&recipe.header.promise, width.saturating_sub(column + 2).max(20));
        text.push_str(&lines.join(&format!("\n{}", " ".repeat(column + 2))));
        text.push_str(&format!("\n{}{QUIET}{}{QUIET:#}\n", " ".repeat(column + 2), facts(registry, recipe)));
    }
    text
}

/// Everything about one recipe.
pub(crate) fn recipe(registry: &Registry, recipe: &Recipe, width: usize) -> String {
    let header = &recipe.header;
    let mut text = format!("{NAME}{}{NAME:#}: {TITLE}{}{TITLE:#}\n", recipe.name, header.promise);
    text.push_str(&format!("{QUIET}{}{QUIET:#}\n", recipe.path));
    for prose in [&header.before, &header.after].map(|it| without_item_links(it)) {
        for paragraph in prose.split("\n\n").filter(|it| !it.is_empty()) {
            text.push('\n');
            text.push_str(&paragraph_lines(paragraph, width));
        }
    }
    text.push_str(&heading("Contract"));
    text.push_str(&contract(&header.contract, width));
    text.push_str(&heading("Needs"));
    let needs = registry.needs(recipe);
    if needs.is_empty() {
        text.push_str("nothing but the standard library\n");
    }
    for need in needs {
        text.push_str(&need.manifest_line());
        text.push('\n');
    }
    for name in companions(registry, recipe) {
        text.push_str(&format!("the recipe {NAME}{name}{NAME:#}\n"));
    }
    for example in &header.examples {
        text.push_str(&heading("Example"));
        text.push_str(&code(&example.code));
    }
    text.push_str(&heading("Code"));
    text.push_str(&code(recipe.code()));
    text
}

/// The other recipes that come along when `recipe` is copied.
pub(crate) fn companions<'a>(registry: &'a Registry, recipe: &'a Recipe) -> Vec<&'a str> {
    let closure = registry.closure(recipe, false).into_iter().map(|it| it.name.as_str());
    closure.filter(|name| *name != recipe.name).collect()
}

/// What it needs and how long it is.
fn facts(registry: &Registry, recipe: &Recipe) -> String {
    let mut needs: Vec<_> = registry.needs(recipe).iter().map(ToString::to_string).collect();
    needs.extend(companions(registry, recipe).into_iter().map(|name| format!("recipe {name}")));
    if needs.is_empty() {
        needs.push("nothing but std".into());
    }
    format!("needs {} · {} lines", needs.join(", "), recipe.lines)
}

fn heading(title: &str) -> String {
    format!("\n{TITLE}{title}{TITLE:#}\n")
}

fn contract(rows: &[Row], width: usize) -> String {
    let column = rows.iter().map(|row| row.name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for row in rows {
        let lines =
            wrap(&without_item_links(&row.text).replace("\\|", "|"), width.saturating_sub(column).max(20));
        let gap = format!("\n{}", " ".repeat(column));
        text.push_str(&format!("{NAME}{:column$}{NAME:#}{}\n", row.name, lines.join(&gap)));
    }
    text
}

/// A list or a table keeps its lines; other text is filled to the width.
fn paragraph_lines(paragraph: &str, width: usize) -> String {
    if paragraph.starts_with(['-', '*', '|']) || paragraph.starts_with("1.") {
        return format!("{paragraph}\n");
    }
    wrap(paragraph, width).join("\n") + "\n"
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.width());
        if line > 0 && line + 1 + word.width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Code with its comments in a colour of their own.
fn code(source: &str) -> String {
    let mut text = String::new();
    for line in source.trim_end().lines() {
        if line.trim_start().starts_with("//") {
            text.push_str(&format!("{COMMENT}{line}{COMMENT:#}\n"));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// What the package has changed, and what the cookbook has, apart.
pub(crate) fn changes(states: &[State]) -> String {
    let mut text = String::new();
    for state in states {
        let (mine, theirs) = (state.mine.as_deref().unwrap_or(""), state.theirs.as_deref());
        for (whose, other) in [("your changes", mine), ("new in the cookbook", theirs.unwrap_or(&state.base))]
        {
            if other == state.base {
                continue;
            }
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{NAME}{}{NAME:#}: {TITLE}{whose}{TITLE:#}\n", state.name));
            let patch = diffy::create_patch(&state.base, other).to_string();
            // The first two lines are names of files.
            for line in patch.split_inclusive('\n').skip(2) {
                let style = match line.as_bytes()[0] {
                    b'+' => ADDED,
                    b'-' => TAKEN,
                    b'@' => QUIET,
                    _ => Style::new(),
                };
                text.push_str(&format!("{style}{}{style:#}\n", line.trim_end_matches('\n')));
            }
        }
    }
    if text.is_empty() { "No changes, neither yours nor the cookbook's.\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_the_width() {
        assert_eq!(wrap("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrap("incomprehensibility is", 5), ["incomprehensibility", "is"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn only_lines_that_are_comments_are_coloured() {
        let coloured = code("// why\nlet a = 1; // one\n");
        assert_eq!(coloured, format!("{COMMENT}// why{COMMENT:#}\nlet a = 1; // one\n"));
    }
}
