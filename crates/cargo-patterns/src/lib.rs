//! The registry of recipes: one reading of `crates/` for the command, the book, the checks and the README's table.
//!
//! | | what it does |
//! |---|---|
//! | [`Registry`] | finds recipes, what they need and which others they use |
//! | [`header`] | reads the promise, the prose, the contract and the examples from the module docs |
//! | [`paths`] | finds and rewrites the paths by which one recipe uses another |
//! | [`copy`] | lays recipes into another project |

pub mod copy;
pub mod header;
pub mod paths;
mod recipes;

pub use recipes::{Item, Need, Problem, Recipe, Registry, Test, unite};
