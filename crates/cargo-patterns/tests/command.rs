//! The command as a person types it. Its output is no terminal here: no colour, no pager.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn patterns(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-patterns")).arg("patterns").args(arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = patterns(arguments);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "colour without a terminal");
    text
}

fn fails(arguments: &[&str]) -> String {
    let output = patterns(arguments);
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn list_names_recipes_with_promise_needs_and_length() {
    let text = succeeds(&["list", "await", "INPUT", "order"]);
    assert!(text.starts_with("gather\n  gather"), "{text}");
    assert!(
        text.contains("Await many futures together and get all their results in input order\n"),
        "{text}"
    );
    assert!(text.contains("needs futures") && text.contains(" lines\n"), "{text}");
}

#[test]
fn list_as_json_tells_the_same() {
    let list: serde_json::Value = serde_json::from_str(&succeeds(&["list", "--json"])).unwrap();
    let gather = list.as_array().unwrap().iter().find(|recipe| recipe["name"] == "gather").unwrap();
    assert_eq!(gather["family"], "gather");
    assert_eq!(gather["contract"].as_array().unwrap().len(), 7);
    assert_eq!(gather["needs"][0]["name"], "futures");
    assert_eq!(succeeds(&["list", "--json", "no-recipe-says-this"]), "[]\n");
}

#[test]
fn show_prints_promise_contract_needs_and_code() {
    let text = succeeds(&["show", "gather"]);
    let places: Vec<_> = [
        "gather: Await many futures together",
        "\nContract\nOrder         all futures start",
        "\nNeeds\nfutures = ",
        "\nExample\nuse gather::gather;",
        "\nCode\nuse std::",
        "pub async fn gather<",
        "mod tests {",
    ]
    .map(|part| text.find(part).unwrap_or_else(|| panic!("no {part:?} in\n{text}")))
    .into();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn show_code_is_the_file_byte_for_byte() {
    assert_eq!(succeeds(&["show", "gather", "--code"]), include_str!("../../gather/src/gather.rs"));
}

#[test]
fn unknown_names_get_a_hint() {
    assert_eq!(fails(&["show", "gahter"]), "error: there is no recipe `gahter`; did you mean `gather`?\n");
    let message = "error: there is no recipe `qqqq`; `cargo patterns list` lists them all\n";
    assert_eq!(fails(&["show", "qqqq"]), message);
    let message = "error: no recipe speaks of `qqqq` and `b`; `cargo patterns list` lists them all\n";
    assert_eq!(fails(&["list", "qqqq", "b"]), message);
}

#[test]
fn the_first_word_may_be_missing_and_help_names_the_command() {
    let direct = Command::new(env!("CARGO_BIN_EXE_cargo-patterns")).arg("--help").output().unwrap();
    let help = String::from_utf8(direct.stdout).unwrap();
    assert!(help.contains("Usage: cargo patterns <COMMAND>"), "{help}");
    assert_eq!(help, succeeds(&["--help"]));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cargo-patterns"))
        .args(["show", "gather"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}");
    assert_eq!(errors, "");
}
