//! What `.patterns` remembers: `lock.toml`, and each recipe as it was when it was added.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use registry::Need;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where the lock file is, from the package's folder.
pub(crate) const PATH: &str = ".patterns/lock.toml";

const HEADING: &str = "\
# Written by `cargo patterns`. Keep it with the code: it tells your changes from those of the cookbook.

";

/// The recipes of a package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lock {
    /// The folder of the recipes, from the package's.
    pub into: PathBuf,
    #[serde(default)]
    pub recipes: BTreeMap<String, Entry>,
    /// Files that are not recipes, such as `Cargo.toml`.
    #[serde(default)]
    pub files: BTreeMap<String, Shared>,
    /// Whether `Cargo.lock` was there before.
    pub had_cargo_lock: bool,
}

/// A recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The version of the cookbook that it comes from.
    pub version: String,
    /// SHA-256 of the file as it came, which is kept in `.patterns/base`.
    pub hash: String,
    /// Whether it was asked for, and not only used by another.
    pub asked: bool,
    /// Whether it came with its tests.
    pub tests: bool,
    /// Recipes that it uses.
    pub uses: Vec<String>,
    /// What it needs in Cargo.toml, and what its tests need there besides.
    pub needs: Vec<Need>,
    pub test_needs: Vec<Need>,
}

/// A file without the recipes' lines, and with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// `None` if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    pub after: String,
}

impl Lock {
    /// The recipes of the package at `root`, or `None` if it has none.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(root.join(PATH)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(PATH),
        };
        let damaged = || format!("{PATH} is damaged: take it from your version control");
        toml::from_str(&text).with_context(damaged).map(Some)
    }

    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let text = format!("{HEADING}{}", toml::to_string_pretty(self)?);
        fs::write(root.join(PATH), text).context(PATH)
    }

    /// The recipe's file, from the package's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.into.join(format!("{name}.rs"))
    }

    /// The recipe as it came.
    pub(crate) fn base(&self, root: &Path, name: &str) -> Result<String> {
        let path = base_path(name);
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        if self.recipes.get(name).is_some_and(|entry| entry.hash != hash(&text)) {
            bail!("{} was changed: take it from your version control", path.display());
        }
        Ok(text)
    }
}

pub(crate) fn base_path(name: &str) -> PathBuf {
    format!(".patterns/base/{name}.rs").into()
}

pub(crate) fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
