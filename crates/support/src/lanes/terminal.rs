//! The picture as text.

use std::time::Duration;

use anstyle::{AnsiColor, Style as Paint};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::facts::{Drawn, Panel, Row, highest, human, most, place, ticks, words};
use super::{Activity, End, LaneFacts, Reason, Style};

/// Narrower than this there is no picture.
const NARROWEST: usize = 24;
/// Columns between two labels of the axis.
const LABEL: usize = 13;

pub(super) fn draw(panels: &[Panel], width: usize, style: Style) -> String {
    let width = width.max(NARROWEST);
    let rows: Vec<Vec<Row>> = panels.iter().map(Panel::rows).collect();
    let longest = panels.iter().zip(&rows).flat_map(|(panel, rows)| {
        let names = rows.iter().map(|row| clean(&row.name, style).width() + indent(row));
        names.chain(panel.levels.iter().map(|level| clean(&level_name(level), style).width()))
    });
    let names = longest.max().unwrap_or(0).clamp(4, width * 7 / 20) + 2;
    let extent = panels.iter().map(Panel::extent).max().unwrap_or_default();
    // The last column holds the mark of what ends at the very end.
    let columns = width - names - 1;
    let mut sheet = Sheet { width, names, columns, extent, style, used: Vec::new() };

    let mut lines = vec![sheet.axis()];
    for (number, (panel, rows)) in panels.iter().zip(&rows).enumerate() {
        if number > 0 {
            lines.push(Line::default());
        }
        for row in rows {
            lines.push(sheet.row(panel, row));
        }
        for level in &panel.levels {
            let mut line = sheet.name(&level_name(level), "");
            sheet.steps(&mut line, &level.steps, Duration::ZERO, panel.extent(), |_| None);
            lines.push(line);
        }
        lines.extend(sheet.sentence(&panel.caption(), Paint::new()));
    }
    lines.extend(sheet.legend(panels, &rows));
    lines.iter().map(|line| line.render(style.colour)).collect::<Vec<_>>().join("\n")
}

/// How the columns are shared out.
struct Sheet {
    width: usize,
    names: usize,
    columns: usize,
    extent: Duration,
    style: Style,
    /// What the rows have drawn, for the legend.
    used: Vec<Activity>,
}

impl Sheet {
    fn column(&self, at: Duration) -> usize {
        (place(at, self.extent) * self.columns as f64).round() as usize
    }

    /// The time that a column stands for.
    fn cell(&self, column: usize) -> (Duration, Duration) {
        let edge = |column: usize| self.extent.mul_f64(column as f64 / self.columns as f64);
        (edge(column), edge(column + 1))
    }

    fn axis(&self) -> Line {
        let mut line = Line::default();
        let mut written = 0;
        for tick in ticks(self.extent, self.columns / LABEL) {
            let label = clean(&human(tick), self.style);
            let (length, at) = (label.width(), self.names + self.column(tick));
            // Above its place, and inside the picture.
            let start = at.saturating_sub(length / 2).max(self.names).min(self.width - length);
            if written == 0 || start >= written + 2 {
                line.push(dim(), &" ".repeat(start - written));
                line.push(dim(), &label);
                written = start + length;
            }
        }
        line
    }

    /// The column of names.
    fn name(&self, name: &str, guides: &str) -> Line {
        let room = self.names - 2 - guides.width().min(self.names - 4);
        let name = shorten(&clean(name, self.style), room, self.style);
        let guides: String = guides.chars().take(self.names - 4).collect();
        let blank = " ".repeat(self.names - guides.width() - name.width());
        let mut line = Line::default();
        line.push(dim(), &guides);
        line.push(Paint::new(), &(name + &blank));
        line
    }

    fn row(&mut self, panel: &Panel, row: &Row) -> Line {
        let mut line = self.name(&row.name, &guides(row, self.style.ascii));
        match &row.lanes {
            Drawn::One(index) => self.bar(&mut line, panel, &panel.lanes[*index]),
            Drawn::Folded(lanes) => self.folded(&mut line, panel, lanes),
        }
        line
    }

    fn bar(&mut self, line: &mut Line, panel: &Panel, lane: &LaneFacts) {
        let (from, to) = (self.column(lane.from), self.column(lane.to));
        let outlived = panel.outlived(lane).map(|end| self.column(end).min(to.saturating_sub(1)).max(from));
        line.push(Paint::new(), &" ".repeat(from));
        for column in from..to {
            if outlived == Some(column) && lane.end.is_some() {
                self.leak(line);
                continue;
            }
            let (start, end) = self.cell(column);
            let spans = lane.spans.iter().map(|span| (span.activity, span.from, span.to));
            match most(spans, start, end) {
                Some(activity) => self.texture(line, activity),
                None => line.push(Paint::new(), " "),
            }
        }
        match lane.end {
            Some(end) => line.push(mark_paint(end), mark(end, self.style.ascii)),
            None => self.leak(line),
        }
    }

    fn texture(&mut self, line: &mut Line, activity: Activity) {
        if !self.used.contains(&activity) {
            self.used.push(activity);
        }
        line.push(paint(activity), texture(activity, self.style.ascii));
    }

    fn leak(&self, line: &mut Line) {
        line.push(AnsiColor::Red.on_default().bold(), leak_sign(self.style.ascii));
    }

    /// How many of the folded lanes were active, and what they waited for while none was.
    fn folded(&mut self, line: &mut Line, panel: &Panel, lanes: &[usize]) {
        let lanes_of = || lanes.iter().map(|&lane| &panel.lanes[lane]);
        let from = lanes_of().map(|lane| lane.from).min().unwrap_or_default();
        let to = lanes_of().map(|lane| lane.to).max().unwrap_or_default();
        line.push(Paint::new(), &" ".repeat(self.column(from)));
        self.steps(line, &panel.active(lanes), from, to, |(start, end)| {
            let spans = lanes_of().flat_map(|lane| &lane.spans);
            most(spans.map(|span| (span.activity, span.from, span.to)), start, end)
        });
        match lanes_of().next().and_then(|lane| lane.end) {
            Some(end) => line.push(mark_paint(end), mark(end, self.style.ascii)),
            None => self.leak(line),
        }
    }

    /// A row of heights; where the height is zero, `floor` may say what to draw instead.
    fn steps(
        &mut self,
        line: &mut Line,
        steps: &[(Duration, usize)],
        from: Duration,
        to: Duration,
        floor: impl Fn((Duration, Duration)) -> Option<Activity>,
    ) {
        let top = steps.iter().map(|(_, value)| *value).max().unwrap_or(0);
        for column in self.column(from)..self.column(to) {
            let (start, end) = self.cell(column);
            // A value that reaches into a column by a rounding error is not shown there.
            let edge = (end - start) / 8;
            let value = highest(steps, start + edge, end - edge);
            let waiting = if value.unwrap_or(0) == 0 { floor((start, end)) } else { None };
            match (waiting, value) {
                (Some(activity), _) => self.texture(line, activity),
                (None, None) => line.push(Paint::new(), " "),
                (None, Some(value)) => {
                    line.push(AnsiColor::Blue.on_default(), height(value, top, self.style.ascii));
                }
            }
        }
    }

    /// A text in as many lines as it needs.
    fn sentence(&self, text: &str, paint: Paint) -> Vec<Line> {
        let words = words(&clean(text, self.style)).into_iter();
        self.wrapped(words.map(|word| (vec![(paint, word.clone())], word.width())), 1)
    }

    fn wrapped(&self, pieces: impl Iterator<Item = (Vec<(Paint, String)>, usize)>, gap: usize) -> Vec<Line> {
        let (mut lines, mut line, mut written) = (Vec::new(), Line::default(), 0);
        for (parts, length) in pieces {
            if written > 0 && written + gap + length > self.width {
                lines.push(std::mem::take(&mut line));
                written = 0;
            }
            if written > 0 {
                line.push(Paint::new(), &" ".repeat(gap));
                written += gap;
            }
            for (paint, part) in parts {
                // A word longer than a line is cut.
                let part = shorten(&part, self.width - written, self.style);
                written += part.width();
                line.push(paint, &part);
            }
        }
        lines.push(line);
        lines
    }

    /// The textures and marks that occur, and no others.
    fn legend(&self, panels: &[Panel], rows: &[Vec<Row>]) -> Vec<Line> {
        let ascii = self.style.ascii;
        let (mut ends, mut leaks, mut top) = (Vec::new(), false, None);
        for (panel, rows) in panels.iter().zip(rows) {
            for row in rows {
                let lanes = match &row.lanes {
                    Drawn::One(lane) => std::slice::from_ref(lane),
                    Drawn::Folded(lanes) => {
                        top = top.max(panel.active(lanes).iter().map(|(_, count)| *count).max());
                        &lanes[..]
                    }
                };
                for lane in lanes.iter().map(|&lane| &panel.lanes[lane]) {
                    ends.extend(lane.end);
                    leaks |= lane.leaked;
                }
            }
        }
        let mut pieces: Vec<(&str, Paint, String)> = Vec::new();
        let mut activities = self.used.clone();
        activities.sort_by_key(|activity| rank(*activity));
        for activity in activities {
            pieces.push((texture(activity, ascii), paint(activity), words_for(activity).into()));
        }
        if let Some(top) = top {
            let sign = if ascii { "1-9" } else { "▂▅█" };
            pieces.push((sign, AnsiColor::Blue.on_default(), format!("up to {top} at a time")));
        }
        ends.sort_unstable();
        ends.dedup();
        for end in ends {
            pieces.push((mark(end, ascii), mark_paint(end), end_name(end).into()));
        }
        if leaks {
            pieces.push((leak_sign(ascii), AnsiColor::Red.on_default().bold(), "outlives its owner".into()));
        }
        let pieces = pieces.into_iter().map(|(sign, paint, words)| {
            let words = clean(&format!(" {words}"), self.style);
            let length = sign.width() + words.width();
            (vec![(paint, sign.to_string()), (dim(), words)], length)
        });
        self.wrapped(pieces, 3)
    }
}

// ------------------------------------------------------------------------------------------------------- the look

fn dim() -> Paint {
    Paint::new().dimmed()
}

fn texture(activity: Activity, ascii: bool) -> &'static str {
    let (unicode, plain) = match activity {
        Activity::NotStarted => ("·", "."),
        Activity::Busy => ("█", "#"),
        Activity::Waiting(Reason::Io) => ("━", "="),
        Activity::Waiting(Reason::Timer) => ("┈", "~"),
        Activity::Waiting(Reason::Permit) => ("░", ":"),
        Activity::Waiting(Reason::Lock) => ("▒", "%"),
        Activity::Waiting(Reason::Queue) => ("╍", "^"),
        Activity::Waiting(Reason::Join) => ("─", "-"),
        Activity::Waiting(Reason::Other(_)) => ("═", "+"),
    };
    if ascii { plain } else { unicode }
}

fn paint(activity: Activity) -> Paint {
    match activity {
        Activity::NotStarted | Activity::Waiting(Reason::Join) => dim(),
        Activity::Busy => AnsiColor::Red.on_default(),
        Activity::Waiting(Reason::Io) => AnsiColor::Blue.on_default(),
        Activity::Waiting(Reason::Timer) => AnsiColor::Cyan.on_default(),
        Activity::Waiting(Reason::Permit | Reason::Lock) => AnsiColor::Yellow.on_default(),
        Activity::Waiting(Reason::Queue | Reason::Other(_)) => AnsiColor::Magenta.on_default(),
    }
}

/// The order in the legend.
fn rank(activity: Activity) -> (u8, &'static str) {
    let rank = match activity {
        Activity::Waiting(Reason::Io) => 0,
        Activity::Waiting(Reason::Timer) => 1,
        Activity::Waiting(Reason::Permit) => 2,
        Activity::Waiting(Reason::Lock) => 3,
        Activity::Waiting(Reason::Queue) => 4,
        Activity::Waiting(Reason::Other(_)) => 5,
        Activity::Waiting(Reason::Join) => 6,
        Activity::Busy => 7,
        Activity::NotStarted => 8,
    };
    (rank, words_for(activity))
}

pub(super) fn words_for(activity: Activity) -> &'static str {
    match activity {
        Activity::Waiting(reason) => reason.name(),
        Activity::Busy => "busy",
        Activity::NotStarted => "not started",
    }
}

pub(super) fn end_name(end: End) -> &'static str {
    match end {
        End::Ok => "ok",
        End::Error => "error",
        End::Cancelled => "cancelled",
        End::TimedOut => "timed out",
        End::Panicked => "panicked",
    }
}

fn mark(end: End, ascii: bool) -> &'static str {
    let (unicode, plain) = match end {
        End::Ok => ("✓", "v"),
        End::Error => ("✗", "x"),
        End::Cancelled => ("⊘", "/"),
        End::TimedOut => ("⧖", "T"),
        End::Panicked => ("!", "!"),
    };
    if ascii { plain } else { unicode }
}

fn mark_paint(end: End) -> Paint {
    match end {
        End::Ok => AnsiColor::Green.on_default(),
        End::Error | End::Panicked => AnsiColor::Red.on_default().bold(),
        End::Cancelled => AnsiColor::Magenta.on_default(),
        End::TimedOut => AnsiColor::Yellow.on_default(),
    }
}

fn leak_sign(ascii: bool) -> &'static str {
    if ascii { ">" } else { "»" }
}

fn height(value: usize, top: usize, ascii: bool) -> &'static str {
    const UNICODE: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    const ASCII: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    // Only zero is drawn as zero. Digits are the values themselves as long as one digit holds them.
    let scaled = |most: usize| if top == 0 { 0 } else { (value * most).div_ceil(top) };
    match ascii {
        true if top <= 9 => ASCII[value],
        true => ASCII[scaled(9)],
        false => UNICODE[scaled(7)],
    }
}

pub(super) fn level_name(level: &super::facts::Level) -> String {
    let top = level.steps.iter().map(|(_, value)| *value).max().unwrap_or(0);
    format!("{} ≤{top}", level.name)
}

fn indent(row: &Row) -> usize {
    row.follow.len() * 2
}

/// The lines that tie a row to its owner.
fn guides(row: &Row, ascii: bool) -> String {
    let Some((own, owners)) = row.follow.split_last() else { return String::new() };
    let (through, branch, last) = if ascii { ("| ", "+ ", "+ ") } else { ("│ ", "├ ", "└ ") };
    let mut guides: String = owners.iter().map(|follows| if *follows { through } else { "  " }).collect();
    guides.push_str(if *own { branch } else { last });
    guides
}

/// Without control characters, and in ASCII if the style says so.
fn clean(text: &str, style: Style) -> String {
    let printable = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    if !style.ascii {
        return printable.collect();
    }
    let mut plain = String::new();
    for letter in printable {
        match letter {
            '×' => plain.push('x'),
            'µ' => plain.push('u'),
            '≤' => plain.push_str("<="),
            letter if letter.is_ascii() => plain.push(letter),
            _ => plain.push('?'),
        }
    }
    plain
}

/// Cut to `room` columns, with a sign that it was.
fn shorten(text: &str, room: usize, style: Style) -> String {
    if text.width() <= room {
        return text.into();
    }
    let (mut short, mut written) = (String::new(), 1);
    for letter in text.chars() {
        written += letter.width().unwrap_or(0);
        if written > room {
            break;
        }
        short.push(letter);
    }
    short.push(if style.ascii { '~' } else { '…' });
    short
}

/// A line in the making. Neighbours of one colour share their escape sequences.
#[derive(Default)]
struct Line {
    parts: Vec<(Paint, String)>,
}

impl Line {
    fn push(&mut self, paint: Paint, text: &str) {
        match self.parts.last_mut() {
            Some((last, written)) if *last == paint => written.push_str(text),
            _ => self.parts.push((paint, text.into())),
        }
    }

    fn render(&self, colour: bool) -> String {
        let mut line = String::new();
        for (paint, text) in &self.parts {
            if colour && *paint != Paint::new() && !text.trim().is_empty() {
                line.push_str(&format!("{paint}{text}{paint:#}"));
            } else {
                line.push_str(text);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}
