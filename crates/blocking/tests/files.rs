//! `files`: a read and a replacement are dropped at every point; the file is the old one or the new one, and nothing else stays.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;

use blocking::{Offload, read_file, replace_file};
use proptest::prelude::*;
use support::sweep::{Ended, Scene, sweep};
use tempfile::TempDir;

fn offload(limit: usize) -> Offload {
    Offload::new(NonZeroUsize::new(limit).expect("above zero"))
}

#[test]
fn cancellation_at_every_point() {
    sweep(|_| {
        let (offload, folder) = (offload(1), Arc::new(TempDir::new().expect("a folder")));
        let path = folder.path().join("a");
        fs::write(&path, "old").expect("it can be written");
        let (subject, target, beside, other) =
            (offload.clone(), path.clone(), offload.clone(), folder.clone());
        let call = async move {
            replace_file(&subject, &target, "new").await?;
            read_file(&subject, &target, 10).await
        };
        let beside = async move {
            for number in 0..3 {
                let path = other.path().join("other");
                replace_file(&beside, &path, vec![number; 3]).await.expect("it can be written");
                assert_eq!(read_file(&beside, &path, 3).await.expect("it was written"), [number; 3]);
            }
        };
        // The sweep checks after an hour in which the clock stood still for all work, so none runs any more.
        Scene::new(call).alongside(beside).check(move |ended| {
            let contents = fs::read(&path).expect("there is always a file");
            match ended {
                Ended::Returned(read) => {
                    assert_eq!((contents, read.expect("read")), (b"new".to_vec(), b"new".to_vec()))
                }
                _ => assert!(contents == b"old" || contents == b"new", "{contents:?}"),
            }
            let names = fs::read_dir(folder.path()).expect("the folder is there").count();
            assert_eq!(names, 2, "a temporary file stayed");
            drop(offload);
        })
    });
}

/// Readers and writers of one file, from several threads: a reader sees one writer's contents and never parts of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_readers_see_whole_contents() {
    let (offload, folder) = (offload(4), TempDir::new().unwrap());
    let path = folder.path().join("a");
    replace_file(&offload, &path, vec![0; 50_000]).await.unwrap();
    let tasks: Vec<_> = (0..40_u8)
        .map(|number| {
            let (offload, path) = (offload.clone(), path.clone());
            tokio::spawn(async move {
                if number % 4 == 0 {
                    replace_file(&offload, &path, vec![number; 50_000]).await.unwrap();
                }
                let contents = read_file(&offload, &path, 50_000).await.unwrap();
                assert_eq!(contents, vec![contents[0]; 50_000]);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// What was written is read, or refused for its size.
    #[test]
    fn memory_of_any_contents(contents in prop::collection::vec(any::<u8>(), 0..5000), largest in 0..5000_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (offload, folder) = (offload(1), TempDir::new().unwrap());
        let path = folder.path().join("a");
        runtime.block_on(replace_file(&offload, &path, contents.clone())).unwrap();
        let read = runtime.block_on(read_file(&offload, &path, largest));
        if contents.len() <= largest {
            prop_assert_eq!(read.unwrap(), contents);
        } else {
            prop_assert_eq!(read.unwrap_err().source.kind(), std::io::ErrorKind::FileTooLarge);
        }
    }
}
