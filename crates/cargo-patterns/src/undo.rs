//! Takes back what a run has written when it fails, and when it was killed before it could.
//!
//! Before the first change every file that may change is copied into `.patterns/undo`, which appears there in one step, by
//! renaming. A run that ends well renames it away, again in one step. Whoever finds it puts the files back.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Files as they were, to be put back unless [`keep`](Self::keep) is called.
pub(crate) struct Undo {
    folder: PathBuf,
    kept: bool,
    /// Held for as long as the run goes on; the system lets go of it when the process is killed.
    _running: File,
}

#[derive(Serialize, Deserialize)]
struct List {
    files: Vec<Saved>,
    /// Folders that did not exist, the innermost first.
    folders: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    path: PathBuf,
    existed: bool,
}

impl Undo {
    /// Saves `files`, which are told from `root`, the folder of the package. A run that was cut off is taken back first.
    pub(crate) fn begin(root: &Path, files: &[PathBuf]) -> Result<Self> {
        let state = root.join(".patterns");
        let fresh = !state.exists();
        let cannot = || format!("cannot write to {}; nothing was changed", state.display());
        fs::create_dir_all(&state).with_context(cannot)?;
        let running = lock(&state)?;
        fs::write(state.join(".gitignore"), "/.gitignore\n/running\n/undo*\n").with_context(cannot)?;
        restore(root)?;
        let draft = state.join("undo-draft");
        discard(&draft).with_context(cannot)?;
        fs::create_dir(&draft).with_context(cannot)?;
        let mut list = List { files: Vec::new(), folders: Vec::new() };
        for (number, path) in files.iter().enumerate() {
            let existed = match fs::read(root.join(path)) {
                Ok(text) => fs::write(draft.join(number.to_string()), text).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            };
            let existed = existed.with_context(|| format!("{}; nothing was changed", path.display()))?;
            list.files.push(Saved { path: path.clone(), existed });
            let absent = path.ancestors().skip(1).take_while(|folder| !root.join(folder).exists());
            for folder in absent.filter(|it| !it.as_os_str().is_empty()) {
                if !list.folders.contains(&folder.to_path_buf()) {
                    list.folders.push(folder.to_path_buf());
                }
            }
        }
        list.folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        if fresh {
            list.folders.push(".patterns".into());
        }
        fs::write(draft.join("list.toml"), toml::to_string(&list)?).with_context(cannot)?;
        let folder = state.join("undo");
        fs::rename(&draft, &folder).with_context(cannot)?;
        Ok(Undo { folder, kept: false, _running: running })
    }

    /// Ends the run: what was written stays.
    pub(crate) fn keep(mut self) -> Result<()> {
        let done = self.folder.with_file_name("undo-done");
        discard(&done)?;
        fs::rename(&self.folder, &done).context("cannot end the change, which is taken back")?;
        self.kept = true;
        // Of no use any more. What cannot be removed now is cleared away by the next run.
        let _ = discard(&done);
        let state = self.folder.with_file_name("");
        if !state.join("lock.toml").exists() {
            let _ = discard(&state);
        }
        Ok(())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.kept
            && let Some(root) = self.folder.ancestors().nth(2)
            && let Err(error) = restore(root)
        {
            eprintln!("error: {error:#}; the files as they were are in {}", self.folder.display());
        }
    }
}

/// Puts back what a run has left half done. Returns whether there was such a run.
pub(crate) fn recover(root: &Path) -> Result<bool> {
    let state = root.join(".patterns");
    if !state.join("undo").exists() {
        return Ok(false);
    }
    let _running = lock(&state)?;
    restore(root)
}

fn lock(state: &Path) -> Result<File> {
    let path = state.join("running");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo patterns` is at work in this package; wait until it has ended")
        }
        Err(TryLockError::Error(error)) => Err(error).context(format!("cannot lock {}", path.display())),
    }
}

fn restore(root: &Path) -> Result<bool> {
    let folder = root.join(".patterns/undo");
    discard(&root.join(".patterns/undo-done"))?;
    let text = match fs::read_to_string(folder.join("list.toml")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("cannot read .patterns/undo/list.toml"),
    };
    let list: List = toml::from_str(&text).context(".patterns/undo/list.toml is damaged")?;
    for (number, saved) in list.files.iter().enumerate() {
        let path = root.join(&saved.path);
        let put_back = if saved.existed {
            fs::read(folder.join(number.to_string())).and_then(|text| {
                // Untouched files keep their time of change, so that Cargo does not build them anew.
                if fs::read(&path).ok().as_ref() == Some(&text) { Ok(()) } else { fs::write(&path, text) }
            })
        } else {
            fs::remove_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        };
        put_back.with_context(|| format!("cannot put back {}", saved.path.display()))?;
    }
    discard(&folder)?;
    for created in &list.folders {
        if created == Path::new(".patterns") {
            discard(&root.join(created))?;
        }
        // One that holds something else by now stays.
        let _ = fs::remove_dir(root.join(created));
    }
    Ok(true)
}

/// Removes a folder with all that is in it, if it is there.
fn discard(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old"), "before").unwrap();
        (folder, ["old", "a/b/new", ".patterns/lock.toml"].map(PathBuf::from).to_vec())
    }

    fn write_all(root: &Path) {
        fs::create_dir_all(root.join("a/b")).unwrap();
        for path in ["old", "a/b/new", ".patterns/lock.toml"] {
            fs::write(root.join(path), "after").unwrap();
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(root).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_dropped_is_taken_back() {
        let (folder, files) = package();
        let undo = Undo::begin(folder.path(), &files).unwrap();
        write_all(folder.path());
        drop(undo);
        assert_eq!(names(folder.path()), ["old"]);
        assert_eq!(fs::read_to_string(folder.path().join("old")).unwrap(), "before");
    }

    #[test]
    fn what_is_kept_stays() {
        let (folder, files) = package();
        let undo = Undo::begin(folder.path(), &files).unwrap();
        write_all(folder.path());
        undo.keep().unwrap();
        assert!(!recover(folder.path()).unwrap());
        assert_eq!(names(folder.path()), [".patterns", "a", "old"]);
        assert_eq!(names(&folder.path().join(".patterns")), [".gitignore", "lock.toml", "running"]);
        assert_eq!(fs::read_to_string(folder.path().join("old")).unwrap(), "after");
    }

    #[test]
    fn what_was_killed_is_taken_back_by_the_next_run() {
        let (folder, files) = package();
        let undo = Undo::begin(folder.path(), &files).unwrap();
        write_all(folder.path());
        // As after a kill: nobody puts anything back, and the lock is gone.
        let mut undo = undo;
        undo.kept = true;
        drop(undo);
        assert!(recover(folder.path()).unwrap());
        assert_eq!(names(folder.path()), ["old"]);
    }

    #[test]
    fn two_runs_do_not_meet() {
        let (folder, files) = package();
        let _undo = Undo::begin(folder.path(), &files).unwrap();
        let error = Undo::begin(folder.path(), &files).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("another `cargo patterns` is at work"), "{error}");
    }
}
