//! The terminal session that the book shows, played again. `UPDATE_TRANSCRIPT=1` writes down what it sees.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[test]
fn the_session_in_the_book_is_what_happens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcript.txt");
    let written = fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_cargo-patterns")).parent().unwrap();
    let paths = env::split_paths(&env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let search = env::join_paths([programs.to_path_buf()].into_iter().chain(paths)).unwrap();
    let mut root = folder.path().to_path_buf();
    let mut seen = String::new();
    for command in written.lines().filter_map(|line| line.strip_prefix("$ ")) {
        seen.push_str(&format!("$ {command}\n"));
        if let Some(inside) = command.strip_prefix("cd ") {
            root.push(inside);
            continue;
        }
        let output = Command::new("sh")
            .args(["-c", &format!("{command} 2>&1")])
            .current_dir(&root)
            .env("PATH", &search)
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"))
            .output()
            .unwrap();
        seen.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    if env::var_os("UPDATE_TRANSCRIPT").is_some() {
        fs::write(&path, &seen).unwrap();
    }
    assert_eq!(seen, fs::read_to_string(&path).unwrap(), "UPDATE_TRANSCRIPT=1 writes it down");
}
