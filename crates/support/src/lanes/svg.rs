//! The picture as SVG.

use std::fmt::Write;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::facts::{Drawn, Level, Panel, Row, highest, human, most, place, ticks, words};
use super::terminal::{end_name, level_name, words_for};
use super::{Activity, End, LaneFacts, Reason};

const WIDTH: f64 = 800.0;
const MARGIN: f64 = 20.0;
/// Room for the mark and the arrows at the very end.
const RIGHT: f64 = 44.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
/// Columns of a letter: names, axis and bars are set in a monospaced face, caption and title in the reader's own.
const LETTER: f64 = 7.3;
const WORDS: f64 = 6.7;
/// More rectangles than this are drawn coarser, so that the file stays small.
const RECTANGLES: usize = 72;
/// A part of the picture that is less than half a point wide.
const UNSEEN: f64 = 0.0007;
/// More wakes than this are not drawn.
const ARROWS: usize = 12;
/// More steps of one row than this are drawn coarser.
const STEPS: usize = 120;

pub(super) fn draw(panels: &[Panel]) -> String {
    let rows: Vec<Vec<Row>> = panels.iter().map(Panel::rows).collect();
    let extent = panels.iter().map(Panel::extent).max().unwrap_or_default();
    let longest = panels.iter().zip(&rows).flat_map(|(panel, rows)| {
        let names = rows.iter().map(|row| row.name.width() as f64 * LETTER + indent(row));
        names.chain(panel.levels.iter().map(|level| level_name(level).width() as f64 * LETTER))
    });
    let left = MARGIN + longest.fold(0.0, f64::max).clamp(48.0, 210.0) + 14.0;
    let count = coarseness(panels, &rows, extent);
    let mut sheet = Sheet { body: String::new(), y: 0.0, left, extent, cells: count, used: Used::default() };

    for (panel, rows) in panels.iter().zip(&rows) {
        sheet.panel(panel, rows);
    }
    sheet.legend();
    let height = sheet.y + 14.0;
    let title = panels.iter().map(Panel::title).collect::<Vec<_>>().join(" / ");
    let caption = panels.iter().map(Panel::caption).collect::<Vec<_>>().join(" / ");
    let mut file = String::new();
    let _ = write!(
        file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lanes\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\n\
         <title>{}</title>\n<desc>{}</desc>\n<style>\n{}</style>\n{}\
         <rect class=\"paper\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{}</svg>\n",
        px(height),
        escape(&title),
        escape(&caption),
        STYLE,
        sheet.used.definitions(),
        px(WIDTH - 1.0),
        px(height - 1.0),
        sheet.body
    );
    file
}

struct Sheet {
    body: String,
    y: f64,
    left: f64,
    extent: Duration,
    cells: Option<usize>,
    used: Used,
}

/// What the legend and the definitions must hold.
#[derive(Default)]
struct Used {
    activities: Vec<Activity>,
    ends: Vec<End>,
    leaks: bool,
    running: bool,
    counts: bool,
    arrows: bool,
}

// ------------------------------------------------------------------------------------------------------ the parts

impl Sheet {
    fn x(&self, at: Duration) -> f64 {
        self.left + place(at, self.extent) * (WIDTH - RIGHT - self.left)
    }

    /// Writing to a string cannot fail.
    fn add(&mut self, part: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(part);
        self.body.push('\n');
    }

    fn panel(&mut self, panel: &Panel, rows: &[Row]) {
        self.y += 32.0;
        let (y, title) = (px(self.y), escape(&cut(panel.title(), 70)));
        self.add(format_args!("<text class=\"title\" x=\"{MARGIN}\" y=\"{y}\">{title}</text>"));
        for line in wrap(&panel.caption(), ((WIDTH - 2.0 * MARGIN) / WORDS) as usize) {
            self.y += 19.0;
            let (y, line) = (px(self.y), escape(&line));
            self.add(format_args!("<text class=\"caption\" x=\"{MARGIN}\" y=\"{y}\">{line}</text>"));
        }
        self.y += 26.0;
        let top = self.y;
        let bottom = top + 8.0 + ROW * (rows.len() + panel.levels.len()) as f64;
        for tick in ticks(self.extent, 8) {
            let x = px(self.x(tick));
            let (label, above) = (human(tick), px(top - 3.0));
            let (top, bottom) = (px(top + 3.0), px(bottom));
            self.add(format_args!("<path class=\"grid\" d=\"M{x} {top}V{bottom}\"/><text class=\"tick\" x=\"{x}\" y=\"{above}\">{label}</text>"));
        }
        self.y = top + 8.0;
        let first = self.y;
        for row in rows {
            self.row(panel, row);
        }
        for level in &panel.levels {
            self.level(level, panel.extent());
        }
        self.arrows(panel, rows, first);
        self.y = bottom + 4.0;
    }

    fn name(&mut self, name: &str, indent: f64) {
        let room = ((self.left - MARGIN - indent - 12.0) / LETTER) as usize;
        let (x, y) = (px(MARGIN + indent), px(self.y + ROW / 2.0 + 4.0));
        let name = escape(&cut(name, room));
        self.add(format_args!("<text class=\"name\" x=\"{x}\" y=\"{y}\">{name}</text>"));
    }

    fn row(&mut self, panel: &Panel, row: &Row) {
        self.guides(row);
        self.name(&row.name, indent(row));
        match &row.lanes {
            Drawn::One(index) => self.lane(panel, &panel.lanes[*index]),
            Drawn::Folded(lanes) => self.folded(panel, lanes, &row.name),
        }
        self.y += ROW;
    }

    /// The lines that tie a row to its owner.
    fn guides(&mut self, row: &Row) {
        let mut path = String::new();
        let (top, middle, bottom) = (px(self.y - 5.0), px(self.y + ROW / 2.0), px(self.y + ROW - 5.0));
        for (depth, follows) in row.follow.iter().enumerate() {
            let x = px(MARGIN + 5.0 + depth as f64 * 14.0);
            if *follows {
                path.push_str(&format!("M{x} {top}V{bottom}"));
            }
            if depth + 1 == row.follow.len() {
                path.push_str(&format!("M{x} {top}V{middle}h6"));
            }
        }
        if !path.is_empty() {
            self.add(format_args!("<path class=\"guide\" d=\"{path}\"/>"));
        }
    }

    fn lane(&mut self, panel: &Panel, lane: &LaneFacts) {
        let middle = self.y + ROW / 2.0;
        for (activity, from, to) in blocks(lane, self.extent, self.cells) {
            self.used.activity(activity);
            let (x, width) = (self.x(from), self.x(to) - self.x(from));
            let class = class(activity);
            let tip =
                format!("{}: {}, {} to {}", cut(&lane.name, 40), words_for(activity), human(from), human(to));
            let tip = escape(&tip);
            let half = thickness(activity) / 2.0;
            self.add(format_args!(
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{tip}</title></rect>",
                px(x),
                px(middle - half),
                px(width.max(0.5)),
                px(half * 2.0)
            ));
            self.word(activity, x, width, middle);
        }
        self.past_owner(panel, lane, middle);
        self.mark(lane.end, self.x(lane.to), middle, &ending(lane));
    }

    /// The reason in the bar, or its first letter, so that the picture reads in black and white.
    fn word(&mut self, activity: Activity, x: f64, width: f64, middle: f64) {
        let word = words_for(activity);
        let length = |word: &str| word.width() as f64 * 6.2;
        // A thin bar has its word above it.
        let (x, y, padding) = match thickness(activity) {
            BAR => (x + 7.0, middle + 3.5, 22.0),
            _ => (x + 2.0, middle - 5.0, 12.0),
        };
        let word = if length(word) <= width - padding { word.into() } else { first_letter(word) };
        if length(&word) <= width - padding / 2.0 {
            let (x, y, class, word) = (px(x), px(y), class(activity), escape(&word));
            self.add(format_args!("<text class=\"word {class}-word\" x=\"{x}\" y=\"{y}\">{word}</text>"));
        }
    }

    fn past_owner(&mut self, panel: &Panel, lane: &LaneFacts, middle: f64) {
        self.used.leaks |= lane.leaked;
        if let Some(end) = panel.outlived(lane) {
            let (from, to) = (self.x(end), self.x(lane.to));
            let (top, bottom) = (px(middle - 10.5), px(middle + 10.5));
            let (from, right) = (px(from), px(to.max(from + 2.0)));
            self.add(format_args!("<path class=\"leak\" d=\"M{right} {top}H{from}V{bottom}H{right}\"/>"));
        }
    }

    fn mark(&mut self, end: Option<End>, x: f64, y: f64, tip: &str) {
        let id = match end {
            Some(end) => {
                self.used.end(end);
                end_id(end)
            }
            None => {
                self.used.running = true;
                "on"
            }
        };
        let (x, y, tip) = (px(x), px(y), escape(tip));
        self.add(format_args!(
            "<use href=\"#lanes-{id}\" transform=\"translate({x} {y})\"><title>{tip}</title></use>"
        ));
    }

    fn folded(&mut self, panel: &Panel, lanes: &[usize], name: &str) {
        let all = || lanes.iter().map(|&lane| &panel.lanes[lane]);
        let from = all().map(|lane| lane.from).min().unwrap_or_default();
        let to = all().map(|lane| lane.to).max().unwrap_or_default();
        let steps = panel.active(lanes);
        let top = steps.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let tip = format!("{}: at most {top} at a time, {} to {}", cut(name, 40), human(from), human(to));
        self.used.counts = true;
        let (y, x, width) = (px(self.y + ROW - 5.5), px(self.x(from)), px(self.x(to) - self.x(from)));
        self.add(format_args!("<rect class=\"floor\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"1\"/>"));
        self.area("count", &steps, to, &tip);
        let end = all().next().and_then(|lane| lane.end);
        for lane in all() {
            self.used.leaks |= lane.leaked;
        }
        let what = end.map_or("still running", end_name);
        self.mark(end, self.x(to), self.y + ROW / 2.0, &format!("{}: {what}", cut(name, 40)));
    }

    fn level(&mut self, level: &Level, until: Duration) {
        self.name(&level_name(level), 0.0);
        let top = level.steps.iter().map(|(_, value)| *value).max().unwrap_or(0);
        self.area("level", &level.steps, until, &format!("{}: at most {top}", level.name));
        self.y += ROW;
    }

    fn area(&mut self, class: &str, steps: &[(Duration, usize)], until: Duration, tip: &str) {
        let Some((start, _)) = steps.first() else { return };
        let top = steps.iter().map(|(_, value)| *value).max().unwrap_or(0).max(1) as f64;
        let floor = self.y + ROW - 5.0;
        let height = |value: usize| px(floor - value as f64 / top * (ROW - 9.0));
        let (left, floor) = (px(self.x(*start)), px(floor));
        let mut path = format!("M{left} {floor}");
        for (at, value) in coarse(steps, until) {
            path.push_str(&format!("H{}V{}", px(self.x(at)), height(value)));
        }
        let (right, tip) = (px(self.x(until)), escape(tip));
        self.add(format_args!(
            "<path class=\"{class}\" d=\"{path}H{right}V{floor}Z\"><title>{tip}</title></path>"
        ));
    }

    fn arrows(&mut self, panel: &Panel, rows: &[Row], first: f64) {
        let row_of =
            |lane: usize| rows.iter().position(|row| matches!(row.lanes, Drawn::One(one) if one == lane));
        let arrows: Vec<_> = panel
            .wakes
            .iter()
            .filter_map(|wake| Some((wake, row_of(wake.from)?, row_of(wake.to)?)))
            .collect();
        if arrows.len() > ARROWS {
            return;
        }
        for (wake, from, to) in arrows {
            self.used.arrows = true;
            let middle = |row: usize| first + ROW * row as f64 + ROW / 2.0;
            // From the edge of the one bar to the edge of the other, round the marks of the rows between.
            let edge = if to > from { BAR / 2.0 + 0.5 } else { -BAR / 2.0 - 0.5 };
            let (start, end) = (middle(from) + edge, middle(to) - edge);
            let x = self.x(wake.at);
            let bulge = if from.abs_diff(to) == 1 { x } else { x + 21.0 };
            let (source, target) = (&panel.lanes[wake.from].name, &panel.lanes[wake.to].name);
            let reason = wake.reason.name();
            let tip =
                format!("{} woke {} ({reason}) at {}", cut(source, 40), cut(target, 40), human(wake.at));
            let (x, bulge, tip) = (px(x), px(bulge), escape(&tip));
            let (start, before, end) = (px(start), px(end - edge), px(end));
            self.add(format_args!(
                "<path class=\"wake\" marker-end=\"url(#lanes-tip)\" d=\"M{x} {start}C{bulge} {start} {bulge} {before} {x} {end}\"><title>{tip}</title></path>"
            ));
        }
    }

    fn legend(&mut self) {
        let mut items: Vec<(String, String)> = Vec::new();
        let order = |activity: &Activity| match activity {
            Activity::Waiting(Reason::Join) => 1,
            Activity::Waiting(_) => 0,
            Activity::Busy => 2,
            Activity::NotStarted => 3,
        };
        self.used.activities.sort_by_key(order);
        for &activity in &self.used.activities {
            let (class, half) = (class(activity), thickness(activity) * 0.4);
            let (y, height) = (px(-half), px(half * 2.0));
            let swatch = format!("<rect class=\"{class}\" y=\"{y}\" width=\"20\" height=\"{height}\"/>");
            items.push((swatch, words_for(activity).into()));
        }
        if self.used.counts {
            items.push((
                "<path class=\"count\" d=\"M0 6V0h7v-6h7v9h6v3z\"/>".into(),
                "how many at a time".into(),
            ));
        }
        self.used.ends.sort_unstable();
        for &end in &self.used.ends {
            let id = end_id(end);
            let mark = format!("<use href=\"#lanes-{id}\" transform=\"translate(10 0)\"/>");
            items.push((mark, end_name(end).into()));
        }
        if self.used.leaks {
            let frame = "<path class=\"leak\" d=\"M20-7H2V7H20\"/>";
            items.push((frame.into(), "outlives its owner".into()));
        }
        if self.used.running {
            let mark = "<use href=\"#lanes-on\" transform=\"translate(10 0)\"/>";
            items.push((mark.into(), "still running".into()));
        }
        if self.used.arrows {
            let arrow = "<path class=\"wake\" marker-end=\"url(#lanes-tip)\" d=\"M0 0h15\"/>";
            items.push((arrow.into(), "wakes".into()));
        }
        self.y += 18.0;
        let mut x = MARGIN;
        for (swatch, words) in items {
            let width = 28.0 + words.width() as f64 * LETTER + 18.0;
            if x + width > WIDTH && x > MARGIN {
                x = MARGIN;
                self.y += 22.0;
            }
            let (at, y, words) = (px(x), px(self.y), escape(&words));
            self.add(format_args!(
                "<g transform=\"translate({at} {y})\">{swatch}<text class=\"key\" x=\"28\" y=\"4\">{words}</text></g>"
            ));
            x += width;
        }
    }
}

// ------------------------------------------------------------------------------------------------ what fits the file

/// A lane's bar as rectangles; with `cells`, none is shorter than one part in so many of the picture.
///
/// Without, what is too short to be seen goes to its neighbour: a real lane is never polled at the very moment it is named.
fn blocks(lane: &LaneFacts, extent: Duration, cells: Option<usize>) -> Vec<(Activity, Duration, Duration)> {
    let spans = || lane.spans.iter().map(|span| (span.activity, span.from, span.to));
    let mut blocks: Vec<(Activity, Duration, Duration)> = Vec::new();
    let Some(cells) = cells else {
        let mut start = None;
        for (activity, from, to) in spans() {
            match blocks.last_mut() {
                Some((last, _, end)) if *last == activity || unseen(from, to, extent) => *end = to,
                None if unseen(from, to, extent) => start = start.or(Some(from)),
                _ => blocks.push((activity, start.take().unwrap_or(from), to)),
            }
        }
        return blocks;
    };
    for cell in 0..cells {
        let edge = |cell: usize| extent.mul_f64(cell as f64 / cells as f64);
        let (from, to) = (edge(cell).max(lane.from), edge(cell + 1).min(lane.to));
        if from < to
            && let Some(activity) = most(spans(), from, to)
        {
            match blocks.last_mut() {
                Some((last, _, end)) if *last == activity => *end = to,
                _ => blocks.push((activity, from, to)),
            }
        }
    }
    blocks
}

fn unseen(from: Duration, to: Duration, extent: Duration) -> bool {
    place(to - from, extent) < UNSEEN
}

/// Into how many cells the time must be cut so that all bars together are few enough; none if they are as they are.
fn coarseness(panels: &[Panel], rows: &[Vec<Row>], extent: Duration) -> Option<usize> {
    let lanes = || {
        let drawn =
            panels.iter().zip(rows).flat_map(|(panel, rows)| rows.iter().map(move |row| (panel, row)));
        drawn.filter_map(|(panel, row)| match row.lanes {
            Drawn::One(lane) => Some(&panel.lanes[lane]),
            Drawn::Folded(_) => None,
        })
    };
    let allowed = RECTANGLES.max(lanes().count() * 3);
    // Where a bar is full of what is too short, its cells say more than its neighbours do.
    let short =
        |lane: &LaneFacts| lane.spans.iter().filter(|span| unseen(span.from, span.to, extent)).count();
    let restless = lanes().any(|lane| short(lane) > 4);
    let few = |cells| lanes().map(|lane| blocks(lane, extent, cells).len()).sum::<usize>() <= allowed;
    [None, Some(512), Some(256), Some(128), Some(64), Some(32), Some(16), Some(8)]
        .into_iter()
        .find(|cells| (cells.is_some() || !restless) && few(*cells))
        .unwrap_or(Some(4))
}

/// At most so many steps: of those close together, the highest.
fn coarse(steps: &[(Duration, usize)], until: Duration) -> Vec<(Duration, usize)> {
    let Some((start, _)) = steps.first().filter(|_| steps.len() > STEPS) else { return steps.to_vec() };
    let edge = |cell: usize| *start + (until - *start).mul_f64(cell as f64 / STEPS as f64);
    let cells = (0..STEPS).map(|cell| (edge(cell), highest(steps, edge(cell), edge(cell + 1))));
    cells.map(|(at, value)| (at, value.unwrap_or(0))).collect()
}

// ------------------------------------------------------------------------------------------------------- the look

fn class(activity: Activity) -> &'static str {
    match activity {
        Activity::NotStarted => "idle",
        Activity::Busy => "busy",
        Activity::Waiting(Reason::Other(_)) => "other",
        Activity::Waiting(reason) => reason.name(),
    }
}

fn thickness(activity: Activity) -> f64 {
    match activity {
        Activity::Waiting(Reason::Join) => 4.0,
        Activity::NotStarted => 3.0,
        _ => BAR,
    }
}

fn end_id(end: End) -> &'static str {
    match end {
        End::Ok => "ok",
        End::Error => "error",
        End::Cancelled => "cancelled",
        End::TimedOut => "late",
        End::Panicked => "panicked",
    }
}

fn ending(lane: &LaneFacts) -> String {
    let name = cut(&lane.name, 40);
    let end = match lane.end {
        None => format!("{name}: still running at {}", human(lane.to)),
        Some(End::Cancelled) if !lane.started => {
            format!("{name}: cancelled at {} before it started", human(lane.to))
        }
        Some(end) => format!("{name}: {} at {}", end_name(end), human(lane.to)),
    };
    match &lane.message {
        Some(message) => format!("{end}: {}", cut(message, 80)),
        None => end,
    }
}

fn indent(row: &Row) -> f64 {
    row.follow.len() as f64 * 14.0
}

impl Used {
    fn activity(&mut self, activity: Activity) {
        if !self.activities.contains(&activity) {
            self.activities.push(activity);
        }
    }

    fn end(&mut self, end: End) {
        if !self.ends.contains(&end) {
            self.ends.push(end);
        }
    }

    fn definitions(&self) -> String {
        let mut parts = String::from("<defs>\n");
        let mut classes: Vec<_> = self.activities.iter().map(|activity| class(*activity)).collect();
        classes.sort_unstable();
        classes.dedup();
        parts.extend(
            PATTERNS.iter().filter(|(class, _)| classes.contains(class)).map(|(_, pattern)| *pattern),
        );
        let ends: Vec<_> = self.ends.iter().map(|end| end_id(*end)).collect();
        let marks = MARKS.iter().filter(|(id, _)| ends.contains(id) || (*id == "on" && self.running));
        parts.extend(marks.map(|(_, mark)| *mark));
        if self.arrows {
            parts.push_str(ARROW);
        }
        parts.push_str("</defs>\n");
        parts
    }
}

/// Plain rules, and the dark ones over them: a viewer that knows no media queries still shows the light picture.
const STYLE: &str = include_str!("svg.css");

const PATTERNS: [(&str, &str); 7] = [
    (
        "idle",
        "<pattern id=\"lanes-idle\" width=\"7\" height=\"40\" patternUnits=\"userSpaceOnUse\"><path class=\"idle-dot\" d=\"M0 0h3v40H0z\"/></pattern>\n",
    ),
    (
        "permit",
        "<pattern id=\"lanes-permit\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><path class=\"permit-ground\" d=\"M0 0h6v6H0z\"/><path class=\"permit-line\" d=\"M1 0v6\"/></pattern>\n",
    ),
    (
        "lock",
        "<pattern id=\"lanes-lock\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><path class=\"lock-ground\" d=\"M0 0h6v6H0z\"/><path class=\"lock-line\" d=\"M1 0v6M0 1h6\"/></pattern>\n",
    ),
    (
        "timer",
        "<pattern id=\"lanes-timer\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><path class=\"timer-ground\" d=\"M0 0h6v6H0z\"/><circle class=\"timer-dot\" cx=\"3\" cy=\"3\" r=\"1.2\"/></pattern>\n",
    ),
    (
        "queue",
        "<pattern id=\"lanes-queue\" width=\"8\" height=\"4\" patternUnits=\"userSpaceOnUse\"><path class=\"queue-ground\" d=\"M0 0h8v4H0z\"/><path class=\"queue-line\" d=\"M0 2h8\"/></pattern>\n",
    ),
    (
        "busy",
        "<pattern id=\"lanes-busy\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\"><path class=\"busy-ground\" d=\"M0 0h4v4H0z\"/><path class=\"busy-line\" d=\"M0 0v4\"/></pattern>\n",
    ),
    (
        "other",
        "<pattern id=\"lanes-other\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\"><path class=\"other-ground\" d=\"M0 0h6v6H0z\"/><path class=\"other-line\" d=\"M1 0v6\"/></pattern>\n",
    ),
];

const MARKS: [(&str, &str); 6] = [
    (
        "ok",
        "<g id=\"lanes-ok\"><circle class=\"ok\" r=\"7\"/><path class=\"glyph\" d=\"M-3.2 0l2.3 2.6 4-5\"/></g>\n",
    ),
    (
        "error",
        "<g id=\"lanes-error\"><circle class=\"error\" r=\"7\"/><path class=\"glyph\" d=\"M-2.8-2.8l5.6 5.6m0-5.6l-5.6 5.6\"/></g>\n",
    ),
    (
        "cancelled",
        "<g id=\"lanes-cancelled\"><circle class=\"cancelled\" r=\"6.2\"/><path class=\"slash\" d=\"M-4 4l8-8\"/></g>\n",
    ),
    (
        "late",
        "<g id=\"lanes-late\"><circle class=\"late\" r=\"7\"/><path class=\"glyph\" d=\"M-2.8-3.4h5.6L-2.8 3.4h5.6z\"/></g>\n",
    ),
    (
        "panicked",
        "<g id=\"lanes-panicked\"><path class=\"panicked\" d=\"M0-8L8 6H-8z\"/><path class=\"glyph\" d=\"M0-3.4v4.6m0 1.6v1.2\"/></g>\n",
    ),
    (
        "on",
        "<g id=\"lanes-on\"><path class=\"halo\" d=\"M-6-5l5 5-5 5m6-10l5 5-5 5\"/><path class=\"on\" d=\"M-6-5l5 5-5 5m6-10l5 5-5 5\"/></g>\n",
    ),
];

const ARROW: &str = "<marker id=\"lanes-tip\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" d=\"M0 0l8 4-8 4z\"/></marker>\n";

// ------------------------------------------------------------------------------------------------------- the text

/// A tenth of a point is less than anybody sees.
fn px(value: f64) -> String {
    let digits = format!("{value:.1}");
    digits.strip_suffix(".0").map(str::to_owned).unwrap_or(digits)
}

/// For text and attributes. What XML cannot hold at all becomes a space.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => safe.push(' '),
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Cut to `room` columns, with a sign that it was.
fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.into();
    }
    let mut written = 1;
    let fits = text.chars().take_while(|letter| {
        written += letter.width().unwrap_or(0);
        written <= room
    });
    fits.chain(['…']).collect()
}

fn first_letter(word: &str) -> String {
    word.chars().take(1).collect()
}

/// In as few lines as it needs, all about equally long.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let fewest = lines(text, columns).len();
    let balanced = (columns / 2..columns).find(|columns| lines(text, *columns).len() == fewest);
    lines(text, balanced.unwrap_or(columns))
}

fn lines(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words(text) {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(cut(&word, columns)),
        }
    }
    lines
}
