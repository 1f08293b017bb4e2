//! `cargo xtask`: builds the book, draws its pictures, and checks what would make a green run hollow.

// Nothing here runs on an async runtime.
#![allow(clippy::disallowed_methods)]

mod alone;
mod book;
mod check;
mod generate;
mod together;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds the book, draws its pictures, and checks what would make a green run hollow.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the book in docs/ into target/book.
    Book {
        /// Opens the first page in a browser.
        #[arg(long)]
        open: bool,
    },
    /// Runs every example and every Python counterpart, and stores their pictures and outputs for the book.
    ///
    /// The table of recipes in README.md is filled in too. Runs on the paused clock are stored to the byte. Runs on real
    /// time differ every time: their picture is replaced only if other lanes, ends or counts appear in it.
    Generate {
        /// Only these examples; all of them, the Python files and README.md if none is named.
        examples: Vec<String>,
        /// Changes nothing, and fails if something would change.
        #[arg(long, conflicts_with = "force")]
        check: bool,
        /// Replaces pictures of real time too.
        #[arg(long)]
        force: bool,
    },
    /// Looks for what makes a green run hollow: tests that never run, pages that have drifted, links that lead nowhere.
    Check,
    /// Compiles and tests recipes alone, each in an empty package with exactly the crates and features it declares.
    Alone {
        /// Only these recipes.
        recipes: Vec<String>,
        /// Also takes away each declared feature and crate, upon which the recipe must no longer compile.
        #[arg(long)]
        full: bool,
    },
    /// Takes all recipes at once into a library and into a member of a workspace, by `cargo patterns add`, and tests them there.
    Together,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    match &arguments.command {
        Task::Book { open } => book::command(&workspace, *open),
        Task::Generate { examples, check, force } => generate::command(&workspace, examples, *check, *force),
        Task::Check => check::command(&workspace),
        Task::Alone { recipes, full } => alone::command(&workspace, recipes, *full),
        Task::Together => together::command(&workspace),
    }
}
