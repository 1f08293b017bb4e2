//! What a recording comes to: the facts of one run, its caption, its rows and its time axis.

use std::collections::HashMap;
use std::time::Duration;

use super::{Activity, End, LaneFacts, Reason};

/// More siblings of one stem than this are folded.
const SIBLINGS: usize = 12;
/// How many of them stay visible before and after the fold, and how many it must hold to be worth a line.
const FIRST: usize = 3;
const LAST: usize = 2;
const WORTH_FOLDING: usize = 3;
/// A poll shorter than this is not worth a word in the caption.
const BLOCKED: Duration = Duration::from_millis(10);

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// Each after its owner; the first is the root.
    pub(super) lanes: Vec<LaneFacts>,
    pub(super) wakes: Vec<Woken>,
    pub(super) levels: Vec<Level>,
}

/// One lane woke another.
#[derive(Clone, Debug)]
pub(super) struct Woken {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) at: Duration,
    /// What the other had waited for.
    pub(super) reason: Reason,
}

/// What a resource stood at: each value from then on.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) name: &'static str,
    pub(super) steps: Vec<(Duration, usize)>,
}

/// A line of the picture below the axis.
pub(super) struct Row {
    pub(super) lanes: Drawn,
    pub(super) name: String,
    /// For each owner below the root, and then for the row itself: whether siblings follow.
    pub(super) follow: Vec<bool>,
}

pub(super) enum Drawn {
    One(usize),
    /// Equal siblings in one line.
    Folded(Vec<usize>),
}

impl LaneFacts {
    /// The times in which it waited for neither its start nor anybody's leave to go on.
    fn active(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let admission = [Reason::Permit, Reason::Lock, Reason::Queue].map(Activity::Waiting);
        let active = move |activity| {
            activity != Activity::NotStarted && admission.iter().all(|held| *held != activity)
        };
        self.spans.iter().filter(move |span| active(span.activity)).map(|span| (span.from, span.to))
    }
}

/// How many of these times overlap, from when on.
fn overlaps(times: impl Iterator<Item = (Duration, Duration)>) -> Vec<(Duration, usize)> {
    let mut changes: Vec<(Duration, isize)> = times.flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
    changes.sort_unstable();
    let mut steps: Vec<(Duration, usize)> = Vec::new();
    let mut now = 0;
    for (at, change) in changes {
        now += change;
        if steps.last().is_some_and(|(last, _)| *last == at) {
            steps.pop();
        }
        steps.push((at, now.unsigned_abs()));
    }
    steps
}

impl Panel {
    pub(super) fn title(&self) -> &str {
        &self.lanes[0].name
    }

    /// When the last thing that is drawn ends.
    pub(super) fn extent(&self) -> Duration {
        self.lanes.iter().map(|lane| lane.to).max().unwrap_or_default()
    }

    /// The owner's end, for a lane that went past it.
    pub(super) fn outlived(&self, lane: &LaneFacts) -> Option<Duration> {
        let owner = lane.owner.filter(|_| lane.leaked)?;
        Some(self.lanes[owner].to).filter(|end| *end >= lane.from)
    }

    /// How many of these lanes were active at a time, from when on.
    pub(super) fn active(&self, lanes: &[usize]) -> Vec<(Duration, usize)> {
        overlaps(lanes.iter().flat_map(|&lane| self.lanes[lane].active()))
    }

    fn children(&self) -> Vec<Vec<usize>> {
        let mut children = vec![Vec::new(); self.lanes.len()];
        for (index, lane) in self.lanes.iter().enumerate() {
            if let Some(owner) = lane.owner {
                children[owner].push(index);
            }
        }
        children
    }

    // ------------------------------------------------------------------------------------------------- the rows

    pub(super) fn rows(&self) -> Vec<Row> {
        let children = self.children();
        let kinds = self.kinds();
        let mut rows = Vec::new();
        let root = Row { lanes: Drawn::One(0), name: self.title().into(), follow: Vec::new() };
        let mut stack = vec![root];
        while let Some(row) = stack.pop() {
            if let Drawn::One(index) = row.lanes {
                let below = self.fold(&children[index], &kinds);
                let mut follows = false;
                for (lanes, name) in below.into_iter().rev() {
                    let follow = [&row.follow[..], &[follows]].concat();
                    stack.push(Row { lanes, name, follow });
                    follows = true;
                }
            }
            rows.push(row);
        }
        rows
    }

    /// What must be equal for lanes to be folded: their ends, and what became of the lanes inside them.
    fn kinds(&self) -> Vec<u16> {
        let mut kinds = vec![0_u16; self.lanes.len()];
        for (index, lane) in self.lanes.iter().enumerate().rev() {
            let inside = kinds[index];
            let own = match lane.end {
                Some(End::Ok) => 0,
                Some(End::Error) => 1,
                Some(End::Cancelled) => 2,
                Some(End::TimedOut) => 3,
                Some(End::Panicked) => 4,
                None => 5,
            };
            let own = (1 << own) | u16::from(lane.leaked) << 6 | u16::from(lane.started) << 7;
            kinds[index] = own | inside;
            if let Some(owner) = lane.owner {
                kinds[owner] |= inside | own << 8;
            }
        }
        kinds
    }

    /// Siblings with the many equal ones folded, in the order of their first.
    fn fold(&self, siblings: &[usize], kinds: &[u16]) -> Vec<(Drawn, String)> {
        let mut many: HashMap<&str, usize> = HashMap::new();
        for &lane in siblings {
            *many.entry(stem(&self.lanes[lane].name).0).or_default() += 1;
        }
        let mut equal: HashMap<(&str, u16), Vec<usize>> = HashMap::new();
        for &lane in siblings {
            let stem = stem(&self.lanes[lane].name).0;
            if many[stem] > SIBLINGS {
                equal.entry((stem, kinds[lane])).or_default().push(lane);
            }
        }
        equal.retain(|_, lanes| {
            let foldable = lanes.len() >= FIRST + LAST + WORTH_FOLDING;
            if foldable {
                lanes.drain(..FIRST);
                lanes.truncate(lanes.len() - LAST);
            }
            foldable
        });
        let mut drawn = Vec::new();
        for &lane in siblings {
            let name = &self.lanes[lane].name;
            let folded = equal.get(&(stem(name).0, kinds[lane]));
            match folded.filter(|folded| folded.binary_search(&lane).is_ok()) {
                None => drawn.push((Drawn::One(lane), name.clone())),
                Some(folded) if folded[0] == lane => {
                    let (stem, first) = self::stem(name);
                    let (_, last) = self::stem(&self.lanes[folded[folded.len() - 1]].name);
                    let range = if first.is_empty() {
                        trimmed(stem).into()
                    } else {
                        format!("{stem}{first}..{last}")
                    };
                    drawn.push((Drawn::Folded(folded.clone()), format!("{range} ×{}", folded.len())));
                }
                Some(_) => (),
            }
        }
        drawn
    }

    // ---------------------------------------------------------------------------------------------- the caption

    pub(super) fn caption(&self) -> String {
        let children = self.children();
        let mut owner = 0;
        // A root with a single child that has children of its own is about those.
        while let [only] = children[owner][..]
            && !children[only].is_empty()
        {
            owner = only;
        }
        let group = &children[owner];
        let mut events = self.events(group);
        let root = &self.lanes[0];
        if events.is_empty() && !matches!(root.end, Some(End::Ok)) {
            events.extend(root.end.map(|end| format!("{} {} at {}", root.name, past(end), human(root.to))));
        }
        let leaks = self.leaks();
        let leaky = !leaks.is_empty();
        events.extend(leaks);
        events.extend(self.blocked());
        if events.is_empty() {
            events.push(if group.len() > 1 { "all ok".into() } else { "ok".into() });
        }
        let wall = root.to - root.from;
        if group.is_empty() {
            return format!("{}; {}", events.join(", "), human(wall));
        }
        let peak = self.active(group).iter().map(|(_, count)| *count).max().unwrap_or(0);
        let at_a_time =
            if group.len() > 1 && peak > 0 { format!(", {peak} at a time") } else { String::new() };
        let leaves = (1..self.lanes.len()).filter(|&lane| children[lane].is_empty());
        let sum: Duration =
            leaves.flat_map(|lane| self.lanes[lane].active()).map(|(from, to)| to - from).sum();
        let time = match (human(wall), human(sum)) {
            // Work that went on behind the caller's back is no saving.
            (wall, _) if leaky || group.len() == 1 || sum.is_zero() => wall,
            (shown, parts) if sum.as_secs_f64() > wall.as_secs_f64() * 1.05 => {
                format!("{shown} instead of {parts} one by one")
            }
            (shown, parts) if sum.as_secs_f64() < wall.as_secs_f64() * 0.95 => {
                format!("{shown} for {parts} of work")
            }
            (shown, _) if peak == 1 => format!("{shown} one by one"),
            (shown, _) => shown,
        };
        format!("{}{at_a_time}: {}; {time}", self.how_many(group), events.join(", "))
    }

    fn how_many(&self, group: &[usize]) -> String {
        if let [only] = group {
            return self.lanes[*only].name.clone();
        }
        let mut stems: Vec<(&str, usize)> = Vec::new();
        for &lane in group {
            let stem = trimmed(stem(&self.lanes[lane].name).0);
            match stems.iter_mut().find(|(known, _)| *known == stem) {
                Some((_, count)) => *count += 1,
                None => stems.push((stem, 1)),
            }
        }
        if stems.len() > 3 || stems.iter().any(|(stem, count)| *count == 1 || stem.is_empty()) {
            return format!("{} lanes", group.len());
        }
        let counted: Vec<_> = stems.iter().map(|(stem, count)| plural(*count, stem)).collect();
        match &counted[..] {
            [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
            counted => counted.concat(),
        }
    }

    /// What of the group did not end well, and when.
    fn events(&self, group: &[usize]) -> Vec<String> {
        let mut events = Vec::new();
        for end in [End::Error, End::TimedOut, End::Panicked, End::Cancelled] {
            let (started, not): (Vec<&LaneFacts>, Vec<&LaneFacts>) = group
                .iter()
                .map(|&lane| &self.lanes[lane])
                .filter(|lane| lane.end == Some(end))
                .partition(|lane| lane.started);
            let first = started.iter().min_by_key(|lane| lane.to);
            if let Some(first) = first {
                let (name, at) = (&first.name, human(first.to));
                let together = started.iter().all(|lane| human(lane.to) == at);
                events.push(match started.len() {
                    1 => format!("{name} {} at {at}", past(end)),
                    many if together => format!("{many} {} at {at}", past(end).trim_start_matches("was ")),
                    many => {
                        format!("{many} {}, first {name} at {at}", past(end).trim_start_matches("was "))
                    }
                });
            }
            match not.len() {
                0 => (),
                1 => events.push("1 cancelled before it started".into()),
                many => events.push(format!("{many} cancelled before they started")),
            }
        }
        events
    }

    fn leaks(&self) -> Vec<String> {
        let leaked = || self.lanes.iter().filter(|lane| lane.leaked);
        let running: Vec<_> = leaked().filter(|lane| lane.end.is_none()).collect();
        let ended: Vec<_> = leaked().filter(|lane| lane.end.is_some()).collect();
        let mut leaks = Vec::new();
        match &running[..] {
            [] => (),
            [one] => leaks.push(format!("{} leaked (still running)", one.name)),
            many => leaks.push(format!("{} leaked (still running)", many.len())),
        }
        match &ended[..] {
            [] => (),
            [one] => {
                let by = self.outlived(one).map(|end| human(one.to - end)).unwrap_or_default();
                leaks.push(format!("{} leaked (outlived its owner by {by})", one.name));
            }
            many => leaks.push(format!("{} leaked (outlived their owner)", many.len())),
        }
        leaks
    }

    /// The longest time in which one lane kept a thread from everything else.
    fn blocked(&self) -> Option<String> {
        let spans = self.lanes.iter().flat_map(|lane| lane.spans.iter().map(move |span| (lane, span)));
        let busy = spans.filter(|(_, span)| span.activity == Activity::Busy);
        let (lane, span) = busy.max_by_key(|(_, span)| span.to - span.from)?;
        let length = span.to - span.from;
        (length >= BLOCKED).then(|| format!("{} blocked its thread for {}", lane.name, human(length)))
    }
}

fn past(end: End) -> &'static str {
    match end {
        End::Ok => "returned",
        End::Error => "failed",
        End::Cancelled => "was cancelled",
        End::TimedOut => "timed out",
        End::Panicked => "panicked",
    }
}

/// A name without the number at its end, and that number.
fn stem(name: &str) -> (&str, &str) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem, &name[stem.len()..])
}

fn trimmed(stem: &str) -> &str {
    stem.trim_end_matches(|letter: char| letter.is_whitespace() || "-_#:/.=".contains(letter))
}

/// "4 fetches": for a plain English word, that is; anything else is counted with a sign.
fn plural(count: usize, word: &str) -> String {
    let plain = word.chars().all(|letter| letter.is_ascii_lowercase() || letter == ' ');
    let consonant_y =
        word.ends_with('y') && !["ay", "ey", "oy", "uy"].iter().any(|vowel| word.ends_with(vowel));
    if !plain {
        format!("{count} × {word}")
    } else if ["s", "x", "z", "ch", "sh"].iter().any(|hiss| word.ends_with(hiss)) {
        format!("{count} {word}es")
    } else if consonant_y {
        format!("{count} {}ies", word.trim_end_matches('y'))
    } else {
        format!("{count} {word}s")
    }
}

// ------------------------------------------------------------------------------------------------------- the axis

/// A time with at most three significant digits.
pub(super) fn human(time: Duration) -> String {
    if time.is_zero() {
        return "0 ms".into();
    }
    let seconds = time.as_secs_f64();
    // Half a digit below a thousand is rounded up to the next unit.
    let (value, unit) = match seconds {
        s if s < 999.5e-9 => (s * 1e9, "ns"),
        s if s < 999.5e-6 => (s * 1e6, "µs"),
        s if s < 999.5e-3 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    let digits = if decimals > 0 { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits} {unit}")
}

/// The words of a text; a number stays with its unit.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if ["ns", "µs", "us", "ms", "s"].contains(&word.trim_end_matches([',', ';', ')'])) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.into()),
        }
    }
    words
}

/// Round times from zero to `extent`, at most `most` steps apart.
pub(super) fn ticks(extent: Duration, most: usize) -> Vec<Duration> {
    let extent = extent.as_nanos();
    let least = (extent / most.max(1) as u128).max(1);
    let mut power = 1;
    while power * 10 <= least {
        power *= 10;
    }
    let step = [1, 2, 5, 10]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step * most.max(1) as u128 >= extent);
    let step = step.unwrap_or(10 * power).max(1);
    (0..=extent / step).map(|tick| Duration::from_nanos((tick * step) as u64)).collect()
}

/// A place on the axis: 0 for the start of the recording, 1 for `extent`.
pub(super) fn place(at: Duration, extent: Duration) -> f64 {
    if extent.is_zero() { 0.0 } else { at.as_secs_f64() / extent.as_secs_f64() }
}

/// The value with the longest share of the time between `from` and `to`; of equals, the first.
pub(super) fn most<T: Copy + PartialEq>(
    parts: impl Iterator<Item = (T, Duration, Duration)>,
    from: Duration,
    to: Duration,
) -> Option<T> {
    let mut shares: Vec<(T, Duration)> = Vec::new();
    for (value, start, end) in parts {
        let share = end.min(to).saturating_sub(start.max(from));
        match shares.iter_mut().find(|(known, _)| *known == value) {
            Some((_, sum)) => *sum += share,
            None if !share.is_zero() => shares.push((value, share)),
            None => (),
        }
    }
    shares.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(value, _)| value)
}

/// The highest value of `steps` between `from` and `to`, if there is one.
pub(super) fn highest(steps: &[(Duration, usize)], from: Duration, to: Duration) -> Option<usize> {
    let before = steps.partition_point(|(at, _)| *at <= from);
    let within = steps[before..].iter().take_while(|(at, _)| *at < to);
    before.checked_sub(1).map(|last| &steps[last]).into_iter().chain(within).map(|(_, value)| *value).max()
}
