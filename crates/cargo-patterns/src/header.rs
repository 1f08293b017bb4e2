//! Reads the module docs of a recipe: the promise, the prose, the contract and the examples.

use serde::Serialize;

/// The rows of every contract, in this order.
pub const ROWS: [&str; 7] = ["Order", "Errors", "Cancellation", "Panics", "Memory", "Backpressure", "Clock"];

/// What the module docs of a recipe say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// The first line: the recipe's title everywhere. Without its full stop.
    pub promise: String,
    /// Markdown between the promise and the contract.
    pub before: String,
    /// The contract, in the order of the file.
    pub contract: Vec<Row>,
    /// Markdown after the contract, without the examples.
    pub after: String,
    /// The fenced blocks.
    pub examples: Vec<Example>,
    /// How many lines the docs take, with the blank lines that follow them.
    pub lines: usize,
}

/// One row of a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `Order`, `Errors`, …: one of [`ROWS`] if the file is right.
    pub name: String,
    /// What the recipe guarantees.
    pub text: String,
    /// The line of the file, from 1.
    pub line: usize,
}

/// One fenced block of the docs.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The text after the opening fence, empty for a plain doctest.
    pub tag: String,
    /// The code, each line with its line feed.
    pub code: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
}

impl Header {
    /// When to use it: what follows `Use it` in the sentence of the docs that begins so.
    pub fn use_it(&self) -> Option<String> {
        let prose = self.before.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, rest) = prose.split_once("Use it ")?;
        let end = rest.find(". ").or_else(|| rest.strip_suffix('.').map(str::len)).unwrap_or(rest.len());
        Some(rest[..end].to_string())
    }
}

/// Reads the `//!` lines at the top of `source`. Whatever is missing is left empty.
pub fn read(source: &str) -> Header {
    let mut header = Header::default();
    let mut prose = String::new();
    let mut open: Option<Example> = None;
    for (index, line) in source.lines().enumerate() {
        let number = index + 1;
        let Some(text) = line.strip_prefix("//!") else {
            break;
        };
        header.lines = number;
        let text = text.strip_prefix(' ').unwrap_or(text);
        if number == 1 {
            header.promise = text.trim().trim_end_matches('.').to_string();
        } else if let Some(fence) = text.trim_start().strip_prefix("```") {
            match open.take() {
                Some(example) => header.examples.push(example),
                None => open = Some(Example { tag: fence.trim().into(), code: String::new(), line: number }),
            }
        } else if let Some(example) = &mut open {
            example.code.push_str(text);
            example.code.push('\n');
        } else if let Some((name, text)) = cells(text) {
            if header.contract.is_empty() && header.before.is_empty() {
                header.before = std::mem::take(&mut prose).trim().to_string();
            }
            if !name.is_empty() && !name.chars().all(|it| it == '-' || it == ':') {
                header.contract.push(Row { name, text, line: number });
            }
        } else {
            prose.push_str(text);
            prose.push('\n');
        }
    }
    let blank = source.lines().skip(header.lines).take_while(|line| line.trim().is_empty()).count();
    header.lines += blank;
    if header.contract.is_empty() {
        header.before = prose.trim().to_string();
    } else {
        header.after = prose.trim().to_string();
    }
    header
}

/// The cells of a table's row that has two of them. A `|` that belongs to the text is written `\|`.
fn cells(line: &str) -> Option<(String, String)> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let (name, text) = inner.split_once('|')?;
    Some((name.trim().to_string(), text.trim().to_string()))
}

/// Markdown of rustdoc without its links to items, which lead nowhere elsewhere: ``[`Vec`](std::vec)`` becomes `` `Vec` ``.
pub fn without_item_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some(start) = rest.find("[`") {
        let Some(length) = rest[start + 2..].find("`]") else { break };
        let end = start + 2 + length + 2;
        let target = rest[end..].strip_prefix('(').and_then(|it| it.split_once(')'));
        text.push_str(&rest[..start]);
        match target {
            Some((target, _)) if target.contains("//") => text.push_str(&rest[start..end + target.len() + 2]),
            _ => text.push_str(&rest[start + 1..end - 1]),
        }
        rest = &rest[end + target.map_or(0, |(target, _)| target.len() + 2)..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_items_become_their_names() {
        let text = "see [`join_all`], [`retry`](super::retry) and [`a`](https://a.example) [here](b.md)";
        assert_eq!(
            without_item_links(text),
            "see `join_all`, `retry` and [`a`](https://a.example) [here](b.md)"
        );
    }

    const SOURCE: &str = "\
//! Add two numbers.
//!
//! Use it for sums.
//!
//! | | |
//! |---|---|
//! | Order | any |
//! | Errors | overflow \\| none |
//!
//! It is quick.
//!
//! ```
//! assert_eq!(1 + 1, 2);
//! ```

pub fn add() {}
";

    #[test]
    fn every_part_is_found() {
        let header = read(SOURCE);
        assert_eq!(header.promise, "Add two numbers");
        assert_eq!(header.before, "Use it for sums.");
        assert_eq!(header.after, "It is quick.");
        assert_eq!(header.use_it().as_deref(), Some("for sums"));
        let rows: Vec<_> =
            header.contract.iter().map(|row| (row.name.as_str(), row.text.as_str(), row.line)).collect();
        assert_eq!(rows, [("Order", "any", 7), ("Errors", "overflow \\| none", 8)]);
        let examples = [Example { tag: String::new(), code: "assert_eq!(1 + 1, 2);\n".into(), line: 12 }];
        assert_eq!(header.examples, examples);
        assert_eq!(header.lines, 15);
    }

    #[test]
    fn a_file_without_docs_has_an_empty_header() {
        assert_eq!(read("pub fn add() {}\n"), Header::default());
    }
}
