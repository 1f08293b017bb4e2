//! Read whole files and replace them at one stroke, so many at a time, off the runtime's threads.
//!
//! Use it for many small or middling files. Each file is one piece of blocking work, where `tokio::fs` makes one of every
//! step. To read a large file in parts, or to compute over one, run that as a whole in `offload`.
//!
//! | | |
//! |---|---|
//! | Order | files are begun in the order of the calls; of two calls that replace one file, the later to end wins |
//! | Errors | [`FileError`] names the file and what was to be done with it |
//! | Cancellation | a call dropped before its turn does nothing; later, a read ends at the next part of 1 MiB, and a file is replaced entirely or not at all; no temporary file stays |
//! | Panics | none of its own |
//! | Memory | for each place of the `Offload` the contents of one file, in a read at most `largest` bytes |
//! | Backpressure | none of its own: that of the `Offload` |
//! | Clock | none of its own |
//!
//! A file is replaced by a new one, under the same name and with the same permissions; who reads sees the old contents or the
//! new. They are on the disk when the call returns. A process that is killed meanwhile can leave a temporary file.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use blocking::{Offload, read_file, replace_file};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() {
//!     let offload = Offload::new(NonZeroUsize::new(8).unwrap());
//!     let path = std::env::temp_dir().join("blocking-files-example");
//!     replace_file(&offload, &path, "all or nothing").await.unwrap();
//!     assert_eq!(read_file(&offload, &path, 1000).await.unwrap(), b"all or nothing");
//! }
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::offload::{Caller, Offload};

/// Between two parts the work looks whether its caller is gone.
const PART: usize = 1 << 20;

/// A file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was to be done.
    pub action: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why it failed: of the kind `FileTooLarge` when it has more bytes than were allowed.
    pub source: io::Error,
}

/// Reads a file of at most `largest` bytes.
pub async fn read_file(
    offload: &Offload,
    path: impl Into<PathBuf>,
    largest: usize,
) -> Result<Vec<u8>, FileError> {
    run(offload, "read", path.into(), move |path, caller| read(path, largest, caller)).await
}

/// Writes `contents` to a temporary file in the same folder, and gives it the name `path` when all of it is on the disk.
///
/// Where `path` is a symbolic link, what it points to is replaced.
pub async fn replace_file(
    offload: &Offload,
    path: impl Into<PathBuf>,
    contents: impl AsRef<[u8]> + Send + 'static,
) -> Result<(), FileError> {
    run(offload, "replace", path.into(), move |path, caller| replace(path, contents.as_ref(), caller)).await
}

async fn run<T: Send + 'static>(
    offload: &Offload,
    action: &'static str,
    path: PathBuf,
    work: impl FnOnce(&Path, &Caller) -> io::Result<T> + Send + 'static,
) -> Result<T, FileError> {
    let place = path.clone();
    let result = offload.run(move |caller| work(&place, caller)).await;
    result.map_err(io::Error::other).and_then(|result| result).map_err(|source| FileError {
        action,
        path,
        source,
    })
}

fn read(path: &Path, largest: usize, caller: &Caller) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(largest);
    let mut contents = Vec::new();
    contents.try_reserve_exact(expected).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // One more tells whether there is more. The length of a file is no bound: it may grow, and a device has none.
    let mut file = file.take((largest as u64).saturating_add(1));
    while file.by_ref().take(PART as u64).read_to_end(&mut contents)? == PART && !caller.is_gone() {}
    if contents.len() > largest {
        let message = format!("it has more than the {largest} bytes allowed");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(contents)
}

fn replace(path: &Path, contents: &[u8], caller: &Caller) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As for any new file; the user's mask takes away what is too much. Otherwise only the owner could read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    for part in contents.chunks(PART) {
        if caller.is_gone() {
            break;
        }
        file.write_all(part)?;
    }
    if let Ok(before) = fs::metadata(&target) {
        file.as_file().set_permissions(before.permissions())?;
    }
    file.as_file().sync_all()?;
    if caller.is_gone() {
        // Dropping the file deletes it.
        return Ok(());
    }
    file.persist(&target)?;
    // The new name is on the disk when the folder is.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::num::NonZeroUsize;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tempfile::TempDir;

    use super::*;

    fn offload() -> Offload {
        Offload::new(NonZeroUsize::MIN)
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn order_the_later_of_two_wins() {
        let (offload, folder) = (offload(), TempDir::new().unwrap());
        let path = folder.path().join("a");
        let (one, other) =
            tokio::join!(replace_file(&offload, &path, "one"), replace_file(&offload, &path, "other"));
        one.and(other).unwrap();
        assert_eq!(read_file(&offload, &path, 5).await.unwrap(), b"other");
        assert_eq!(names(&folder), ["a"]);
    }

    #[tokio::test]
    async fn errors_name_the_file() {
        let (offload, folder) = (offload(), TempDir::new().unwrap());
        let path = folder.path().join("none/a");
        let error = replace_file(&offload, &path, "x").await.unwrap_err();
        assert_eq!((error.action, &error.path), ("replace", &path));
        let error = read_file(&offload, &path, 9).await.unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        let onto_a_folder = replace_file(&offload, folder.path(), "x").await;
        assert!(onto_a_folder.is_err());
    }

    #[tokio::test]
    async fn memory_is_bounded_by_the_largest() {
        let (offload, folder) = (offload(), TempDir::new().unwrap());
        let path = folder.path().join("a");
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
            replace_file(&offload, &path, vec![b'x'; length]).await.unwrap();
            for largest in [length, length + 1, usize::MAX] {
                assert_eq!(read_file(&offload, &path, largest).await.unwrap().len(), length);
            }
            if let Some(less) = length.checked_sub(1) {
                let error = read_file(&offload, &path, less).await.unwrap_err();
                assert_eq!(error.source.kind(), io::ErrorKind::FileTooLarge);
            }
        }
        #[cfg(unix)]
        assert!(read_file(&offload, "/dev/zero", 10).await.is_err());
    }

    #[tokio::test]
    async fn cancellation_before_its_turn_does_nothing() {
        let (offload, folder) = (offload(), TempDir::new().unwrap());
        let path = folder.path().join("a");
        let (started, running) = tokio::sync::oneshot::channel();
        let work = |caller: &Caller| {
            let _ = started.send(());
            while !caller.is_gone() {
                std::thread::yield_now();
            }
        };
        {
            let busy = offload.run(work);
            let mut replace = pin!(replace_file(&offload, &path, "x"));
            tokio::select! {
                biased;
                _ = busy => unreachable!("it waits for its end"),
                _ = &mut replace => unreachable!("there is one place"),
                started = running => started.unwrap(),
            }
            assert!(replace.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        offload.drain().await.unwrap();
        assert!(names(&folder).is_empty());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn order_permissions_and_links_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (offload, folder) = (offload(), TempDir::new().unwrap());
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace_file(&offload, &path, "x").await.unwrap();
        fs::write(folder.path().join("b"), "as any new file").unwrap();
        assert_eq!(mode(), fs::metadata(folder.path().join("b")).unwrap().permissions().mode() & 0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a", &link).unwrap();
        replace_file(&offload, &link, "y").await.unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o640, b"y".to_vec()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
