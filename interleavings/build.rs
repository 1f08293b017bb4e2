//! Copies recipes so that they run on shuttle's model of `std::sync`, and makes copies with a mistake in them.

use std::path::Path;
use std::{env, fs};

/// Recipes: the family, and the name.
const RECIPES: [(&str, &str); 12] = [
    ("blocking", "offload"),
    ("context-managers", "pool"),
    ("locks", "barrier"),
    ("locks", "condition"),
    ("locks", "event"),
    ("locks", "keyed_mutex"),
    ("locks", "shared_state"),
    ("locks", "single_flight"),
    ("locks", "snapshot"),
    ("producer-consumer", "priority_queue"),
    ("streams", "fan_out"),
    ("streams", "lossy_channel"),
];

/// What the model has by another name or not at all: the recipe, what stands in it, and what is put there.
const REPLACED: [(&str, &str, &str); 11] = [
    (
        "barrier",
        "watch::Sender::new(State { round: 0, arrived: 0 })",
        "watch::channel(State { round: 0, arrived: 0 }).0",
    ),
    ("condition", "pub const fn new", "pub fn new"),
    ("condition", "Notify::const_new()", "Notify::new()"),
    ("event", "#[derive(Debug, Default)]\npub struct Event", "#[derive(Debug)]\npub struct Event"),
    ("event", "Event::default()", "Event { state: watch::channel(State::default()).0 }"),
    ("fan_out", "tokio::time", "crate::stand_ins::time"),
    ("lossy_channel", "tokio::task::coop", "crate::stand_ins::coop"),
    ("pool", "tokio::time", "crate::stand_ins::time"),
    // The model's tasks share a thread, and each has variables of its own.
    ("shared_state", "thread_local!", "shuttle::thread_local!"),
    (
        "shared_state",
        "use shuttle::sync::{Mutex, MutexGuard, PoisonError};",
        "use crate::stand_ins::Mutex;\nuse shuttle::sync::{MutexGuard, PoisonError};",
    ),
    ("snapshot", "arc_swap", "crate::stand_ins"),
];

/// Copies with a mistake, which the search must find: the name, the recipe, what stands in it, and what is put there.
const MISTAKES: [(&str, &str, &str, &str); 25] = [
    // The round becomes full between the look at it and the return of the place, which is then one of the next round.
    (
        "barrier_looks_then_leaves",
        "barrier",
        "        self.barrier.state.send_if_modified(|state| {",
        "        let round = self.barrier.state.borrow().round;\n        \
         self.barrier.state.send_if_modified(|state| {\n            let state = &mut State { round, ..*state };",
    ),
    // Another participant arrives between the look how many are there and the count of this one.
    (
        "barrier_looks_then_arrives",
        "barrier",
        "        self.state.send_if_modified(|state| {\n            round.number = state.round;\n            \
         state.arrived += 1;",
        "        let arrived = self.state.borrow().arrived;\n        self.state.send_if_modified(|state| {\n            \
         round.number = state.round;\n            state.arrived = arrived + 1;",
    ),
    // A wait that is dropped counts as if it were there, as in tokio's own barrier.
    ("barrier_counts_who_left", "barrier", "let _place = Place", "let _ = Place"),
    // The value changes between the look and the wait.
    (
        "condition_looks_then_waits",
        "condition",
        "            let changed = self.changed.notified();\n            \
         if let Some(result) = self.look(&mut ready, &mut act)? {\n                return Ok(result);\n            }\n            \
         changed.await;",
        "            if let Some(result) = self.look(&mut ready, &mut act)? {\n                return Ok(result);\n            }\n            \
         self.changed.notified().await;",
    ),
    // Who waits looks again before the change.
    (
        "condition_wakes_then_changes",
        "condition",
        "        let mut wake = Wake(None);\n        self.value.with(|value| {\n            \
         wake.0 = Some(&self.changed);\n            change(value)\n        })",
        "        self.changed.notify_waiters();\n        self.value.with(change)",
    ),
    // Nobody tells those who wait that the value has become unusable.
    (
        "condition_panics_in_silence",
        "condition",
        "        let mut wake = Wake(None);\n        self.value.with(|value| {\n            \
         wake.0 = Some(&self.changed);\n            change(value)\n        })",
        "        let result = self.value.with(change)?;\n        self.changed.notify_waiters();\n        Ok(result)",
    ),
    // Who waited is not let go when it is cleared before the next poll.
    ("event_forgets_at_clear", "event", "|state| state.times_set > before", "|state| state.set"),
    // Who comes between the two steps waits for the time after this one.
    (
        "event_counts_then_sets",
        "event",
        "            let newly = !mem::replace(&mut state.set, true);\n            \
         state.times_set += u64::from(newly);\n            newly",
        "            state.times_set += u64::from(!state.set);\n            false\n        });\n        \
         self.state.send_if_modified(|state| {\n            !mem::replace(&mut state.set, true)",
    ),
    // Another publisher takes the room.
    (
        "fan_out_waits_then_locks",
        "fan_out",
        "        members.append(",
        "        drop(members);\n        let mut members = self.members.lock().await;\n        members.append(",
    ),
    // Who subscribes between the two steps is forgotten.
    (
        "fan_out_takes_then_forgets",
        "fan_out",
        "        members.append(&mut self.joining.lock().unwrap_or_else(PoisonError::into_inner));",
        "        let joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner).len();\n        \
         let mut joined = self.joining.lock().unwrap_or_else(PoisonError::into_inner);\n        \
         members.extend(joined.drain(..).take(joining));\n        drop(joined);",
    ),
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
    // An item comes, or room, between the look and the wait.
    (
        "lossy_channel_looks_then_waits",
        "lossy_channel",
        "            return wait(state, context);",
        "            drop(state);\n            return wait(lock(&self.0), context);",
    ),
    // The work has given its place away, and the call returns before it is free.
    (
        "offload_frees_in_two_steps",
        "offload",
        "        drop(lock(&self.0.place).take());",
        "        let place = lock(&self.0.place).take();\n        drop(place);",
    ),
    // `drain` returns while an output is still being dropped.
    (
        "offload_drops_the_output_late",
        "offload",
        "    let dropped = unsent",
        "    caller.release();\n    let dropped = unsent",
    ),
    // The work sends its panic between the look whether it did and the end of the call.
    (
        "offload_looks_then_leaves",
        "offload",
        "        self.receiver.close();\n        // It was sent, and nobody has looked at it.\n        \
         if let Ok(Err(panic)) = self.receiver.try_recv() {",
        "        let end = self.receiver.try_recv();\n        self.receiver.close();\n        if let Ok(Err(panic)) = end {",
    ),
    // It is closed between the look whether it is and the return: nobody drops what is idle then.
    (
        "pool_looks_then_puts_back",
        "pool",
        "        let mut idle = pool.idle();\n        \
         // Under the lock: `close` closes first, and then takes what is idle.\n        \
         if !pool.places.is_closed() {\n            idle.push(entry);",
        "        if !pool.places.is_closed() {\n            pool.idle().push(entry);",
    ),
    // The same from the other side.
    (
        "pool_takes_then_closes",
        "pool",
        "        self.places.close();\n        let gone = std::mem::take(&mut *self.idle());",
        "        let gone = std::mem::take(&mut *self.idle());\n        self.places.close();",
    ),
    // Another resource is made before this one is gone.
    (
        "pool_frees_the_place_first",
        "pool",
        "    entry: Option<Entry<M::Resource>>,\n    place: Place<M>,",
        "    place: Place<M>,\n    entry: Option<Entry<M::Resource>>,",
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
    // A version is published between the look and the wait.
    (
        "snapshot_looks_then_waits",
        "snapshot",
        "            published.await;",
        "            drop(published);\n            self.published.notified().await;",
    ),
    // Who waits looks before the version is there.
    (
        "snapshot_wakes_then_publishes",
        "snapshot",
        "        let _old = snapshot.newest.swap(value.clone());\n        drop(turn);\n        \
         snapshot.published.notify_waiters();",
        "        snapshot.published.notify_waiters();\n        let _old = snapshot.newest.swap(value.clone());\n        \
         drop(turn);",
    ),
    // The next writer builds on the version before this one.
    (
        "snapshot_ends_its_turn_then_publishes",
        "snapshot",
        "        let _old = snapshot.newest.swap(value.clone());\n        drop(turn);",
        "        drop(turn);\n        let _old = snapshot.newest.swap(value.clone());",
    ),
];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (family, name) in RECIPES {
        let path = format!("../crates/{family}/src/{name}.rs");
        println!("cargo::rerun-if-changed={path}");
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let source = modelled(&path, name, &source);
        write(&out, name, &source);
        for (mistaken, _, right, wrong) in MISTAKES.iter().filter(|(_, recipe, ..)| *recipe == name) {
            write(&out, mistaken, &replaced(&path, &source, right, wrong));
        }
    }
}

/// The recipe without its tests, and without the comment on the whole file, which may only stand at the head of one.
fn modelled(path: &str, name: &str, source: &str) -> String {
    let (recipe, _) =
        source.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or_else(|| panic!("{path}: no tests"));
    let lines = recipe.lines().filter(|line| !line.starts_with("//!"));
    let mut recipe = lines.collect::<Vec<_>>().join("\n") + "\n";
    for module in ["sync", "thread"] {
        recipe = recipe.replace(&format!("use std::{module}"), &format!("use shuttle::{module}"));
    }
    for (_, from, to) in REPLACED.iter().filter(|(recipe, ..)| *recipe == name) {
        recipe = replaced(path, &recipe, from, to);
    }
    for unmodelled in ["std::sync", "std::thread", "tokio::time", "tokio_util", "arc_swap"] {
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
