//! Files that are made from runs: pictures and outputs of the examples, outputs of the Python counterparts, and the table
//! of recipes in README.md.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use registry::Problem;
use registry::header::{self, without_item_links};
use similar::TextDiff;

use crate::workspace::{Workspace, refuse};

/// An example ends by itself within about two seconds; on a busy machine it may take longer, but not for ever.
const LIMIT: Duration = Duration::from_secs(60);
const START: &str = "<!-- generated: recipes -->\n";
/// In the docs of an example whose lanes are not the same in every run.
const VARIES: &str = "The picture varies";
const END: &str = "<!-- /generated -->";

/// `cargo xtask generate`
pub(crate) fn command(workspace: &Workspace, names: &[String], check: bool, force: bool) -> Result<()> {
    let mut files = Files { workspace, check, force, problems: Vec::new() };
    let all = examples(workspace)?;
    for name in names {
        ensure!(all.iter().any(|example| example.name == *name), "there is no example `{name}`");
    }
    let chosen: Vec<_> = all.iter().filter(|it| names.is_empty() || names.contains(&it.name)).collect();
    build(workspace, &chosen, names.is_empty())?;
    for example in &chosen {
        if let Err(error) = files.example(example) {
            files.wrong(&example.source, format!("{error:#}"));
        }
    }
    if names.is_empty() {
        for path in workspace.files("docs/python", &[".py"]) {
            if let Err(error) = files.python(&path) {
                files.wrong(&path, format!("{error:#}"));
            }
        }
        files.orphans(&all)?;
        files.readme()?;
    }
    refuse(&files.problems)
}

/// An example that a package declares.
struct Example {
    name: String,
    package: String,
    /// From the root of the workspace.
    source: String,
    features: Vec<String>,
    program: PathBuf,
}

impl Example {
    /// Says of itself that its lanes depend on its input or on how fast the machine is: then only that it draws is checked.
    fn varies(&self, workspace: &Workspace) -> Result<bool> {
        Ok(workspace.text(&self.source)?.contains(VARIES))
    }

    /// Under a paused clock a run is the same every time.
    fn is_paused(&self, workspace: &Workspace) -> Result<bool> {
        Ok(workspace.text(&self.source)?.contains("start_paused"))
    }
}

/// Every example of the workspace, as Cargo knows them.
fn examples(workspace: &Workspace) -> Result<Vec<Example>> {
    let mut cargo = workspace.cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&run(cargo, LIMIT)?).context("cargo metadata")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let folder = Path::new(&text(&metadata["target_directory"])).join("debug/examples");
    let mut examples = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if !list(&target["kind"]).iter().any(|kind| kind == "example") {
                continue;
            }
            let name = text(&target["name"]);
            let source = PathBuf::from(text(&target["src_path"])).canonicalize()?;
            let source =
                source.strip_prefix(&workspace.root).context("an example lies outside the workspace")?;
            examples.push(Example {
                package: text(&package["name"]),
                source: source.to_string_lossy().replace('\\', "/"),
                features: list(&target["required-features"]).iter().map(text).collect(),
                program: folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)),
                name,
            });
        }
    }
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(examples)
}

/// Builds a few examples as `cargo run --example` does, and all of them as `cargo test` does, which has built them already.
fn build(workspace: &Workspace, examples: &[&Example], all: bool) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet"]);
    if all {
        cargo.arg("--examples");
    }
    for Example { name, package, features, .. } in examples {
        if !all {
            cargo.args(["--package", package, "--example", name]);
        }
        for feature in features {
            cargo.args(["--features", &format!("{package}/{feature}")]);
        }
    }
    let status = cargo.spawn().and_then(|mut child| child.wait()).context("cannot run cargo")?;
    ensure!(status.success(), "the examples do not compile");
    Ok(())
}

/// Runs a program to its end and returns what it printed.
fn run(mut command: Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {name}"))?;
    let readers = [child.stdout.take().map(read), child.stderr.take().map(read)];
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{name} does not end: stopped after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let [out, err] = readers.map(|reader| reader.and_then(|it| it.join().ok()).unwrap_or_default());
    ensure!(status.success(), "{name} ends with {status}\n{err}{out}");
    Ok(out)
}

fn read(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What a program that was stopped had not written by then is of no interest.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Writes what was generated, or says that it differs from what is there.
struct Files<'a> {
    workspace: &'a Workspace,
    check: bool,
    force: bool,
    problems: Vec<Problem>,
}

impl Files<'_> {
    fn wrong(&mut self, path: &str, message: String) {
        println!("{path}: {}", message.lines().next().unwrap_or(""));
        self.problems.push(Problem { path: path.into(), line: 1, message });
    }

    fn example(&mut self, example: &Example) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("picture.svg");
        let mut command = Command::new(&example.program);
        command.current_dir(&self.workspace.root).arg("--svg").arg(&file);
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("COLUMNS");
        let output = self.neutral(&run(command, LIMIT)?);
        let svg = fs::read_to_string(&file).context("`--svg FILE` wrote no picture")?;
        let svg = self.neutral(&svg);

        let picture = format!("docs/pictures/{}.svg", example.name);
        let printed = format!("docs/outputs/{}.txt", example.name);
        if !example.is_paused(self.workspace)?
            && !self.force
            && self.workspace.root.join(&printed).is_file()
            && let Ok(stored) = self.workspace.text(&picture)
        {
            if example.varies(self.workspace)? {
                println!("{picture}: its lanes vary");
                return Ok(());
            }
            let (stored, new) = (facts(&stored), facts(&svg));
            if stored == new {
                println!("{picture}: the same lanes and ends");
                return Ok(());
            }
            if self.check {
                let message =
                    format!("other lanes or ends\n{}", difference(&stored.join("\n"), &new.join("\n")));
                self.wrong(&picture, message);
                return Ok(());
            }
        }
        self.store(&picture, &svg)?;
        self.store(&printed, &output)
    }

    fn python(&mut self, path: &str) -> Result<()> {
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(python);
        command.current_dir(self.workspace.root.join("docs/python")).arg(self.workspace.root.join(path));
        command.env("PYTHONHASHSEED", "0").env("PYTHONDONTWRITEBYTECODE", "1");
        let output = self.neutral(&run(command, LIMIT)?);
        let name = path.trim_start_matches("docs/python/").trim_end_matches(".py");
        self.store(&format!("docs/outputs/python-{name}.txt"), &output)
    }

    /// Without the ports that the system chose and the folder that the workspace lies in.
    fn neutral(&self, text: &str) -> String {
        let mut neutral = text.replace(&format!("{}/", self.workspace.root.display()), "");
        for host in ["127.0.0.1:", "[::1]:", "localhost:"] {
            let mut parts = neutral.split(host);
            let first = parts.next().unwrap_or("").to_string();
            neutral = parts.fold(first, |before, part| {
                let rest = part.trim_start_matches(|it: char| it.is_ascii_digit());
                let port = if rest.len() < part.len() { "PORT" } else { "" };
                before + host + port + rest
            });
        }
        neutral
    }

    /// Pictures and outputs of examples that are no more.
    fn orphans(&mut self, examples: &[Example]) -> Result<()> {
        let python = self.workspace.files("docs/python", &[".py"]);
        let python = python.iter().map(|path| path.replace("docs/python/", "python-").replace(".py", ""));
        let names: BTreeSet<_> = examples.iter().map(|example| example.name.clone()).chain(python).collect();
        for path in [
            self.workspace.files("docs/pictures", &[".svg"]),
            self.workspace.files("docs/outputs", &[".txt"]),
        ]
        .concat()
        {
            let name = path.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or("");
            if names.contains(name) {
                continue;
            }
            if self.check {
                self.wrong(&path, "no example or Python file makes this: run `cargo xtask generate`".into());
            } else {
                fs::remove_file(self.workspace.root.join(&path))?;
                println!("{path}: removed");
            }
        }
        Ok(())
    }

    fn readme(&mut self) -> Result<()> {
        refuse(&self.workspace.registry.problems)?;
        let text = self.workspace.text("README.md")?;
        let parts = text.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) =
            parts.with_context(|| format!("README.md has no lines `{}` and `{END}`", START.trim()))?;
        let table = recipes(self.workspace)?;
        self.store("README.md", &format!("{before}{START}{table}{END}{after}"))
    }

    fn store(&mut self, path: &str, text: &str) -> Result<()> {
        let file = self.workspace.root.join(path);
        let stored = fs::read_to_string(&file).ok();
        if stored.as_deref() == Some(text) {
            println!("{path}: unchanged");
            return Ok(());
        }
        if self.check {
            let words =
                stored.map_or("is missing".into(), |it| format!("has drifted\n{}", difference(&it, text)));
            self.wrong(path, format!("run `cargo xtask generate`: it {words}"));
            return Ok(());
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
        println!("{path}: written");
        Ok(())
    }
}

/// The first lines of what differs; a picture's lines are cut.
fn difference(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().context_radius(0).missing_newline_hint(false).to_string();
    let lines: Vec<String> = text.lines().take(12).map(|line| line.chars().take(160).collect()).collect();
    lines.join("\n")
}

/// What a picture says of each lane, whenever it happened: its name and how it ended, in alphabetical order.
///
/// The mark at the end of a lane carries it as a title: `fetch 2: error at 50 ms: refused`.
fn facts(svg: &str) -> Vec<String> {
    let mut facts: Vec<_> = svg
        .split("<use ")
        .skip(1)
        .filter_map(|mark| mark.split_once("><title>")?.1.split_once("</title>").map(|(title, _)| title))
        .map(|title| {
            // What follows the time is the error's own message.
            let time = title
                .match_indices(" at ")
                .find(|(at, it)| title[at + it.len()..].starts_with(|it: char| it.is_ascii_digit()));
            let (lane, when) = time.map_or((title, ""), |(at, _)| title.split_at(at));
            let before = if when.ends_with(" before it started") { " before it started" } else { "" };
            format!("{lane}{before}")
        })
        .collect();
    facts.sort();
    facts
}

/// Families with their recipes: what each does, and when to use it.
fn recipes(workspace: &Workspace) -> Result<String> {
    let mut text = String::new();
    for (family, recipes) in workspace.registry.families() {
        let introduction = header::read(&workspace.text(&format!("crates/{family}/src/lib.rs"))?).promise;
        let introduction = without_item_links(&introduction);
        text.push_str(&format!("\n**[{family}](docs/{family}/index.md)** · {introduction}\n\n"));
        text.push_str("| recipe | what it does | use it |\n|---|---|---|\n");
        for recipe in recipes {
            let (name, promise) = (&recipe.name, without_item_links(&recipe.header.promise));
            let when = without_item_links(&recipe.header.use_it().unwrap_or_default());
            text.push_str(&format!("| [`{name}`](docs/{family}/{name}.md) | {promise} | {when} |\n"));
        }
    }
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;

    /// Writes a picture of one lane that ends at another time in every run.
    const REAL: &str = r#"//! Real time.

fn main() {
    let file = std::env::args().nth(2).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    println!("listens on 127.0.0.1:{}", now % 60000);
    let mark = format!("<use x=\"{now}\"><title>fetch: ok at {now} ns</title></use>");
    std::fs::write(file, format!("<svg><desc>A fetch</desc>{mark}</svg>\n")).unwrap();
}
"#;
    const README: &str = "# A\n\n<!-- generated: recipes -->\nold\n<!-- /generated -->\n\nend\n";

    fn paused() -> String {
        let fixed = REAL
            .replace("let now = ", "let _ = ")
            .replace("    println", "    let now = 7; // start_paused\n    println");
        fixed.replace("listens", "waits")
    }

    fn examples(changes: &[(&str, &str)]) -> (tempfile::TempDir, Workspace) {
        let paused = paused();
        let family = "[package]\nname = \"limits\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
            [[example]]\nname = \"permit\"\npath = \"../../examples/permit.rs\"\n\n\
            [[example]]\nname = \"still\"\npath = \"../../examples/still.rs\"\n\n\
            [package.metadata.recipes]\npermit = {}\n\n[lints]\nworkspace = true\n";
        let files = [
            ("crates/limits/Cargo.toml", family),
            ("crates/limits/tests/permit.rs", ""),
            ("examples/permit.rs", REAL),
            ("examples/still.rs", &paused),
            ("README.md", README),
        ];
        fixture::workspace(&[&files, changes].concat())
    }

    fn stored(folder: &tempfile::TempDir, path: &str) -> String {
        fs::read_to_string(folder.path().join(path)).unwrap()
    }

    #[test]
    fn what_is_generated_does_not_differ_and_what_is_edited_does() {
        let (folder, workspace) = examples(&[("docs/outputs/gone.txt", "no example\n")]);
        let missing = command(&workspace, &[], true, false).unwrap_err().to_string();
        assert!(missing.starts_with("7 problems"), "{missing}");
        for part in ["docs/pictures/permit.svg:1: ", "docs/outputs/gone.txt:1: ", "README.md:1: "] {
            assert!(missing.contains(part), "{missing}");
        }
        command(&workspace, &[], false, false).unwrap();
        assert_eq!(stored(&folder, "docs/outputs/permit.txt"), "listens on 127.0.0.1:PORT\n");
        assert_eq!(stored(&folder, "docs/outputs/python-permit.txt"), "permit\n");
        assert!(!folder.path().join("docs/outputs/gone.txt").exists());
        let readme = stored(&folder, "README.md");
        let row = "| [`permit`](docs/limits/permit.md) | Hold a permit while a job runs | for limits |\n";
        assert!(readme.contains("**[limits](docs/limits/index.md)** · Limits\n\n| recipe |"), "{readme}");
        assert!(readme.contains(row) && readme.ends_with("\n<!-- /generated -->\n\nend\n"), "{readme}");

        let picture = stored(&folder, "docs/pictures/permit.svg");
        command(&workspace, &[], true, false).unwrap();
        command(&workspace, &[], false, false).unwrap();
        assert_eq!(
            stored(&folder, "docs/pictures/permit.svg"),
            picture,
            "real time is not drawn again for nothing"
        );
        command(&workspace, &["permit".into()], false, true).unwrap();
        assert_ne!(stored(&folder, "docs/pictures/permit.svg"), picture);

        for (path, from, to, words) in [
            ("docs/pictures/permit.svg", "fetch: ok", "fetch: error", "other lanes or ends"),
            ("docs/pictures/still.svg", "x=\"7\"", "x=\"8\"", "has drifted"),
            ("docs/outputs/still.txt", "waits", "waited", "has drifted"),
            ("docs/outputs/python-permit.txt", "permit", "permits", "has drifted"),
            ("README.md", "for limits", "for ever", "has drifted"),
        ] {
            let good = stored(&folder, path);
            assert!(good.contains(from), "{good}");
            fs::write(folder.path().join(path), good.replace(from, to)).unwrap();
            let error = command(&workspace, &[], true, false).unwrap_err().to_string();
            assert!(error.starts_with(&format!("1 problem\n{path}:1: ")) && error.contains(words), "{error}");
            fs::write(folder.path().join(path), good).unwrap();
        }
    }

    #[test]
    fn an_example_that_fails_or_draws_nothing_is_named() {
        let (_folder, workspace) = examples(&[
            ("examples/permit.rs", "fn main() { eprintln!(\"broken\"); std::process::exit(3); }\n"),
            ("examples/still.rs", "fn main() {}\n"),
        ]);
        let error =
            command(&workspace, &["permit".into(), "still".into()], false, false).unwrap_err().to_string();
        assert!(error.contains("examples/permit.rs:1: ") && error.contains("broken"), "{error}");
        assert!(error.contains("examples/still.rs:1: `--svg FILE` wrote no picture"), "{error}");
        let error = command(&workspace, &["other".into()], false, false).unwrap_err().to_string();
        assert_eq!(error, "there is no example `other`");
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let error = run(command, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.starts_with("sleep does not end"), "{error}");
    }

    #[test]
    fn facts_are_names_and_ends_without_times() {
        let svg = "<use href=\"#a\"><title>get 2: error at 5 ms: refused at 9</title></use><use href=\"#key\"/>\
            <use href=\"#b\"><title>get 1: cancelled at 7 ms before it started</title></use>\
            <rect><title>get 1: io, 0 ms to 5 ms</title></rect><use href=\"#c\"><title>get 3..9 ×7: ok</title></use>";
        let expected = ["get 1: cancelled before it started", "get 2: error", "get 3..9 ×7: ok"];
        assert_eq!(facts(svg), expected);
    }
}
