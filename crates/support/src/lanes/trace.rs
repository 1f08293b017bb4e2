//! The run as trace-event JSON: a process per run, a track per lane.

use std::time::Duration;

use serde_json::{Value, json};

use super::facts::Panel;
use super::terminal::{end_name, words_for};

pub(super) fn write(panels: &[Panel]) -> String {
    let mut events = Vec::new();
    let mut flows = 0;
    for (number, panel) in panels.iter().enumerate() {
        let process = number + 1;
        events.push(named("process_name", process, 0, json!({ "name": panel.title() })));
        for (index, lane) in panel.lanes.iter().enumerate() {
            let track = index + 1;
            events.push(named("thread_name", process, track, json!({ "name": lane.name })));
            events.push(named("thread_sort_index", process, track, json!({ "sort_index": index })));
            let end = lane.end.map_or("still running", end_name);
            let args =
                json!({ "end": end, "message": lane.message, "polls": lane.polls, "leaked": lane.leaked });
            events.push(slice(&lane.name, "lane", (process, track), (lane.from, lane.to), args));
            for span in &lane.spans {
                let name = words_for(span.activity);
                events.push(slice(name, "wait", (process, track), (span.from, span.to), json!({})));
            }
            events.push(json!({
                "name": end, "cat": "end", "ph": "i", "s": "t",
                "pid": process, "tid": track, "ts": micros(lane.to),
            }));
        }
        for wake in &panel.wakes {
            flows += 1;
            // An arrow starts at a slice, and one that ends at this very moment is no longer there to start from.
            let source = &panel.lanes[wake.from];
            let inside = source.to.saturating_sub(Duration::from_nanos(1)).max(source.from);
            for (phase, lane, at) in [("s", wake.from, wake.at.min(inside)), ("f", wake.to, wake.at)] {
                events.push(json!({
                    "name": "wake", "cat": "wake", "ph": phase, "bp": "e", "id": flows,
                    "pid": process, "tid": lane + 1, "ts": micros(at),
                    "args": { "reason": wake.reason.name() },
                }));
            }
        }
        for level in &panel.levels {
            for (at, value) in &level.steps {
                events.push(json!({
                    "name": level.name, "ph": "C", "pid": process, "ts": micros(*at),
                    "args": { level.name: value },
                }));
            }
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
}

fn named(what: &str, process: usize, track: usize, args: Value) -> Value {
    json!({ "name": what, "ph": "M", "pid": process, "tid": track, "args": args })
}

fn slice(
    name: &str,
    category: &str,
    (process, track): (usize, usize),
    (from, to): (Duration, Duration),
    args: Value,
) -> Value {
    json!({
        "name": name, "cat": category, "ph": "X", "pid": process, "tid": track,
        "ts": micros(from), "dur": micros(to - from), "args": args,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
