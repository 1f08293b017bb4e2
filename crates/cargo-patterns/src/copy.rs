//! Lays recipes into another project: the files, the module that holds them, and what they need.

use std::collections::BTreeMap;

use crate::paths;
use crate::recipes::{Need, Recipe, Registry, unite};

/// Recipes as they stand in another project, each a module of one folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The folder's files: `mod.rs` and one file for each recipe.
    pub files: BTreeMap<String, String>,
    /// What `[dependencies]` must hold.
    pub needs: Vec<Need>,
    /// What `[dev-dependencies]` must hold for the tests in the files, besides `needs`.
    pub test_needs: Vec<Need>,
}

/// Copies `recipes` and every recipe that they or their tests use.
///
/// A copy differs from its source in the paths to other recipes and in nothing else.
pub fn lay<'a>(registry: &'a Registry, recipes: &[&'a Recipe]) -> Copy {
    let mut all = BTreeMap::new();
    for recipe in recipes {
        all.extend(registry.closure(recipe, true).into_iter().map(|it| (it.name.as_str(), it)));
    }
    let mut module = String::from(
        "//! Recipes of Tokio Patterns.\n\n// A project seldom uses every item of a recipe.\n#![allow(dead_code)]\n\n",
    );
    let mut files = BTreeMap::new();
    for (name, recipe) in &all {
        module.push_str(&format!("pub mod {name};\n"));
        files.insert(format!("{name}.rs"), paths::flatten(&recipe.source, &recipe.references));
    }
    files.insert("mod.rs".into(), module);
    Copy {
        files,
        needs: unite(all.values().flat_map(|recipe| &recipe.needs)),
        test_needs: unite(all.values().flat_map(|recipe| &recipe.test_needs)),
    }
}
