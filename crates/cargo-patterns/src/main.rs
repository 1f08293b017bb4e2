//! `cargo patterns`: lists and shows the recipes of Tokio Patterns, and takes them into other packages.

// Nothing here runs on an async runtime.
#![allow(clippy::disallowed_methods)]

mod change;
mod lock;
mod modules;
mod project;
mod show;
mod undo;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use change::Package;
use clap::{Args, Parser, Subcommand, ValueEnum};
use registry::{Need, Recipe, Registry};
use serde::Serialize;

/// Recipes for asynchronous Rust with Tokio: find one, read it, take it into your package.
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
    /// Adds recipes to the package of this folder: the files, the module lines, the crates with exactly the needed features.
    ///
    /// Then `cargo check` has to pass. If anything fails every file is as it was.
    Add {
        /// The recipes, such as `gather`.
        #[arg(required = true)]
        names: Vec<String>,
        /// The folder for all recipes of the package, below the crate's root [default: src/patterns]
        #[arg(long, value_name = "FOLDER")]
        into: Option<PathBuf>,
        /// What else to take along.
        #[arg(long, value_enum)]
        with: Option<With>,
        /// Says what it would do, and does nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        cargo: Cargo,
    },
    /// Shows what you have changed in recipes, and what the cookbook has.
    Diff {
        /// The recipes; without any, all that are in the package.
        names: Vec<String>,
    },
    /// Merges what is new in the cookbook into recipes, and keeps your changes.
    ///
    /// Where both have changed the same lines, markers are left in the file for you to choose.
    Update {
        /// The recipes; without any, all that are in the package.
        names: Vec<String>,
        #[command(flatten)]
        cargo: Cargo,
    },
    /// Removes recipes, and what only they needed.
    Remove {
        /// The recipes.
        #[arg(required = true)]
        names: Vec<String>,
        /// Removes recipes that you have changed, too.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        cargo: Cargo,
    },
    /// Says of each recipe in the package whether it is clean, edited or behind.
    Status {
        /// Prints it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum With {
    /// The tests in the recipes' files, and what they need in [dev-dependencies].
    Tests,
}

#[derive(Args)]
struct Cargo {
    /// Leaves out `cargo check` before and after.
    #[arg(long)]
    no_check: bool,
    /// Uses no network: the crates must have been downloaded before.
    #[arg(long)]
    offline: bool,
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
            let recipe = find(&registry, name)?;
            if *code {
                write(io::stdout(), &recipe.source)?;
            } else {
                page(&show::recipe(&registry, recipe, width()))?;
            }
        }
        Verb::Add { names, into, with, dry_run, cargo } => {
            let recipes = names.iter().map(|name| find(&registry, name)).collect::<Result<Vec<_>>>()?;
            let package = Package::open(&registry, cargo.offline, !cargo.no_check)?;
            package.add(&recipes, into.as_deref(), *with == Some(With::Tests), *dry_run)?;
        }
        Verb::Diff { names } => {
            let states = Package::open(&registry, true, false)?.states(names)?;
            page(&show::changes(&states))?;
        }
        Verb::Update { names, cargo } => {
            Package::open(&registry, cargo.offline, !cargo.no_check)?.update(names)?;
        }
        Verb::Remove { names, force, cargo } => {
            Package::open(&registry, cargo.offline, !cargo.no_check)?.remove(names, *force)?;
        }
        Verb::Status { json } => {
            let states = Package::open(&registry, true, false)?.states(&[])?;
            let words = states.iter().map(|state| (state.name.as_str(), state.word()));
            if *json {
                let words: std::collections::BTreeMap<_, _> = words.collect();
                write(io::stdout(), &format!("{}\n", serde_json::to_string_pretty(&words)?))?;
            } else if states.is_empty() {
                print("No recipes here; `cargo patterns add NAME` adds one.\n")?;
            } else {
                let longest = states.iter().map(|state| state.name.len()).max().unwrap_or(0);
                let lines: String = words.map(|(name, word)| format!("{name:longest$}  {word}\n")).collect();
                print(&lines)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(registry: &'a Registry, name: &str) -> Result<&'a Recipe> {
    registry.get(name).with_context(|| {
        let hint = match registry.nearest(name) {
            Some(recipe) => format!("did you mean `{}`?", recipe.name),
            None => "`cargo patterns list` lists them all".into(),
        };
        format!("there is no recipe `{name}`; {hint}")
    })
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
