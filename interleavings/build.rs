//! Copies recipes so that they run on shuttle's model of `std::sync`, and makes copies with a mistake in them.

use std::path::Path;
use std::{env, fs};

/// Recipes: the family, and the name.
const RECIPES: [(&str, &str); 3] =
    [("locks", "keyed_mutex"), ("locks", "single_flight"), ("producer-consumer", "priority_queue")];

/// Copies with a mistake, which the search must find: the name, the recipe, what stands in it, and what is put there.
const MISTAKES: [(&str, &str, &str, &str); 5] = [
    // Another caller enters between the look whether the key is in use and its entry.
    (
        "keyed_mutex_looks_then_enters",
        "keyed_mutex",
        "            keys.insert(own, Users { count: 1, queue: None });\n            None",
        "            drop(keys);\n            keys = lock(&self.keys);\n            \
         keys.insert(own, Users { count: 1, queue: None });\n            None",
    ),
    // Another caller enters between the look whether the guard was the last user and the end of its entry.
    (
        "keyed_mutex_looks_then_forgets",
        "keyed_mutex",
        "        if users.count == 0 {",
        "        let unused = users.count == 0;\n        drop(keys);\n        let mut keys = lock(&self.keys);\n        \
         let Some(users) = keys.get_mut(&self.key) else { return };\n        if unused {",
    ),
    // A caller that joins when the last one has just left gets no answer.
    (
        "single_flight_looks_away",
        "single_flight",
        "let deserted = self.sender.receiver_count() == 0;",
        "let deserted = true;",
    ),
    // The answer is given before the key is free, so that a later call gets an old answer.
    (
        "single_flight_keeps_the_key",
        "single_flight",
        "self.leave();\n        self.sender.send_replace(Some(result));",
        "self.sender.send_replace(Some(result));\n        self.leave();",
    ),
    // The last item goes between the look whether there is one and the end: nobody tells the receivers that it was the last.
    (
        "priority_queue_looks_then_closes",
        "priority_queue",
        "        let mut state = self.lock();\n        state.closed = true;\n        let ended = state.items.is_empty();\n        \
         drop(state);",
        "        let state = self.lock();\n        let ended = state.items.is_empty();\n        drop(state);\n        \
         self.lock().closed = true;",
    ),
];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (family, name) in RECIPES {
        let path = format!("../crates/{family}/src/{name}.rs");
        println!("cargo::rerun-if-changed={path}");
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let source = modelled(&path, &source);
        write(&out, name, &source);
        for (mistaken, _, right, wrong) in MISTAKES.iter().filter(|(_, recipe, ..)| *recipe == name) {
            write(&out, mistaken, &replaced(&path, &source, right, wrong));
        }
    }
}

/// The recipe without its tests, and without the comment on the whole file, which may only stand at the head of one.
fn modelled(path: &str, source: &str) -> String {
    let (recipe, _) =
        source.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or_else(|| panic!("{path}: no tests"));
    let lines = recipe.lines().filter(|line| !line.starts_with("//!"));
    let recipe = lines.collect::<Vec<_>>().join("\n") + "\n";
    let recipe = replaced(path, &recipe, "use std::sync::", "use shuttle::sync::");
    for unmodelled in ["std::sync", "std::thread", "tokio::time"] {
        assert!(!recipe.contains(unmodelled), "{path}: uses {unmodelled}, which runs in no chosen order");
    }
    recipe
}

/// What is replaced must be there, once: else the search looks at something else than it says.
fn replaced(path: &str, source: &str, from: &str, to: &str) -> String {
    assert_eq!(source.matches(from).count(), 1, "{path}: `{from}`");
    source.replace(from, to)
}

fn write(out: &str, name: &str, source: &str) {
    let path = Path::new(out).join(name).with_extension("rs");
    fs::write(&path, source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
