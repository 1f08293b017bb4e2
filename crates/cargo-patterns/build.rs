//! Embeds every recipe in the library, so that an installed `cargo patterns` needs no network and no copy of the workspace.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("run by cargo"))?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("run by cargo"))?);
    let root = here.join("../..").canonicalize()?;

    let mut files = vec![root.join("Cargo.toml")];
    // A new family is named in the root's default-members, so watching that file is enough to notice it.
    let mut watched = vec![root.join("Cargo.toml"), here.join("build.rs")];
    for family in entries(&root.join("crates"))? {
        let manifest = family.join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        if !text.lines().any(|line| line.trim() == "[package.metadata.recipes]") {
            continue;
        }
        let source = family.join("src");
        watched.extend([manifest.clone(), source.clone()]);
        files.push(manifest);
        files.extend(
            entries(&source)?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs")),
        );
    }

    let mut code = String::from("pub(crate) static FILES: &[(&str, &str)] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root).map_err(io::Error::other)?;
        let name = name.to_string_lossy().replace('\\', "/");
        let _ = writeln!(code, "    ({name:?}, include_str!({:?})),", file.to_string_lossy());
    }
    code.push_str("];\n");
    fs::write(out.join("embedded.rs"), code)?;
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(())
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
