//! `files`.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use benches::{Bench, Flavour, Table, time};
use blocking::{Offload, read_file, replace_file};
use futures::future::join_all;
use gather::map_ordered;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();
const SIZE: usize = 4096;

/// So many files, which are there as long as the folder is.
fn files(n: usize) -> (TempDir, Arc<[PathBuf]>) {
    let folder = TempDir::new().expect("a folder can be made");
    let path = |number: usize| folder.path().join(number.to_string());
    let paths: Arc<[PathBuf]> = (0..n).map(path).collect();
    for path in paths.iter() {
        fs::write(path, [7; SIZE]).expect("a file can be written");
    }
    (folder, paths)
}

pub(crate) fn tables(bench: &mut Bench) {
    let n = bench.size(1_000);
    let (_folder, paths) = files(n);
    let title = format!("reading {n} files of 4 KiB, 4 at a time");
    let all = paths.clone();
    let recipe = time(move || {
        let (offload, paths) = (Offload::new(FOUR), all.clone());
        async move { join_all(paths.iter().map(|path| read_file(&offload, path, SIZE))).await.len() }
    });
    let all = paths.clone();
    let tokio = time(move || {
        let paths: Vec<_> = all.to_vec();
        async move { map_ordered(paths, FOUR, tokio::fs::read).await.len() }
    });
    let all = paths.clone();
    let steps = time(move || {
        let paths: Vec<_> = all.to_vec();
        async move { map_ordered(paths, FOUR, read_in_steps).await.len() }
    });
    let all = paths.clone();
    let one = time(move || {
        let paths = all.clone();
        spawn_blocking(move || paths.iter().filter_map(|path| fs::read(path).ok()).count())
    });
    let table = Table::new("files", title, "ns/file", Flavour::CurrentThread, n)
        .recipe("read_file", recipe)
        .peer("tokio::fs::read", tokio)
        .peer("tokio::fs::File, open and read_to_end", steps)
        .floor("std::fs::read one after another, in one spawn_blocking", one)
        .python("to_thread and Semaphore", &format!("read_files {n}"));
    bench.measure(table);

    let n = bench.size(20);
    let (_folder, paths) = files(n);
    let title = format!("replacing {n} files of 4 KiB, 4 at a time, each on the disk before the next step");
    let all = paths.clone();
    let recipe = time(move || {
        let (offload, paths) = (Offload::new(FOUR), all.clone());
        async move { join_all(paths.iter().map(|path| replace_file(&offload, path, [7; SIZE]))).await.len() }
    });
    let all = paths.clone();
    let steps = time(move || {
        let paths: Vec<_> = all.to_vec();
        async move { map_ordered(paths, FOUR, replace_in_steps).await.len() }
    });
    let table = Table::new("files", title, "µs/file", Flavour::CurrentThread, n)
        .recipe("replace_file", recipe)
        .peer("tokio::fs, step by step", steps);
    bench.measure(table);
}

async fn read_in_steps(path: PathBuf) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt;
    let mut contents = Vec::new();
    tokio::fs::File::open(path).await?.read_to_end(&mut contents).await?;
    Ok(contents)
}

async fn replace_in_steps(path: PathBuf) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let temporary = path.with_extension("new");
    let mut file = tokio::fs::File::create(&temporary).await?;
    file.write_all(&[7; SIZE]).await?;
    file.sync_all().await?;
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    tokio::fs::rename(temporary, path).await?;
    tokio::fs::File::open(folder).await?.sync_all().await
}
