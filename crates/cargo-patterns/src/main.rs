//! `cargo patterns`: lists and shows the recipes of Tokio Patterns.

// Nothing here runs on an async runtime.
#![allow(clippy::disallowed_methods)]

mod show;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use registry::{Need, Recipe, Registry};
use serde::Serialize;

/// Recipes for asynchronous Rust with Tokio: find one, read it.
#[derive(Parser)]
#[command(name = "cargo patterns", bin_name = "cargo patterns", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists the recipes: all, or those in whose description every word occurs.
    List {
        /// Words to look for, whatever their case.
        words: Vec<String>,
        /// Prints everything that is known of each recipe, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows a recipe: what it promises, what it needs, and its code.
    Show {
        /// The recipe, such as `gather`.
        name: String,
        /// Prints the file and nothing else, to be written into a file of your own.
        #[arg(long)]
        code: bool,
    },
}

fn main() -> ExitCode {
    // Cargo calls `cargo-patterns patterns list` for `cargo patterns list`.
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|it| it == "patterns") {
        arguments.remove(1);
    }
    match run(&Arguments::parse_from(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let registry = Registry::embedded();
    match &arguments.command {
        Verb::List { words, json } => {
            let found = registry.search(words);
            if *json {
                let listed: Vec<_> = found.iter().map(|recipe| Listed::new(&registry, recipe)).collect();
                write(io::stdout(), &format!("{}\n", serde_json::to_string_pretty(&listed)?))?;
            } else if found.is_empty() {
                bail!("no recipe speaks of {}; `cargo patterns list` lists them all", quoted(words));
            } else {
                print(&show::list(&registry, &found, width()))?;
            }
        }
        Verb::Show { name, code } => {
            let Some(recipe) = registry.get(name) else {
                let hint = match registry.nearest(name) {
                    Some(recipe) => format!("did you mean `{}`?", recipe.name),
                    None => "`cargo patterns list` lists them all".into(),
                };
                bail!("there is no recipe `{name}`; {hint}");
            };
            if *code {
                write(io::stdout(), &recipe.source)?;
            } else {
                page(&show::recipe(&registry, recipe, width()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `list --json` says of a recipe.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    family: &'a str,
    promise: &'a str,
    contract: &'a [registry::header::Row],
    /// Crates and features for the recipe and all that it uses.
    needs: Vec<Need>,
    /// Crates and features that the tests in the file need besides.
    test_needs: &'a [Need],
    /// Other recipes that are copied with it.
    uses: Vec<&'a str>,
    lines: usize,
    path: &'a str,
}

impl<'a> Listed<'a> {
    fn new(registry: &'a Registry, recipe: &'a Recipe) -> Self {
        Self {
            name: &recipe.name,
            family: &recipe.family,
            promise: &recipe.header.promise,
            contract: &recipe.header.contract,
            needs: registry.needs(recipe),
            test_needs: &recipe.test_needs,
            uses: show::companions(registry, recipe),
            lines: recipe.lines,
            path: &recipe.path,
        }
    }
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" and ")
}

/// The width of the terminal, within what is pleasant to read.
fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).clamp(40, 120)
}

/// Writes `text` to standard output: in colour on a terminal, unless `NO_COLOR` is set.
fn print(text: &str) -> Result<()> {
    write(anstream::stdout(), text)
}

fn write(mut out: impl Write, text: &str) -> Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Shows `text` in the reader's pager if standard output is a terminal.
fn page(text: &str) -> Result<()> {
    if !io::stdout().is_terminal() {
        return print(text);
    }
    let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".into());
    let mut words = pager.split_whitespace();
    let Some(program) = words.next() else { return print(text) };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Leave at once if all fits on the screen, show colours, keep the text on the screen afterwards.
        command.env("LESS", "FRX");
    }
    let Ok(mut child) = command.spawn() else { return print(text) };
    if let Some(mut input) = child.stdin.take() {
        let text = match anstream::AutoStream::choice(&io::stdout()) {
            anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
            _ => text.to_string(),
        };
        // A pager left before the end has closed its input: nothing is lost.
        let _ = input.write_all(text.as_bytes());
    }
    child.wait().context("cannot wait for the pager")?;
    Ok(())
}
