//! How progress is shown on stderr: live lines on a terminal, a line for each transition without one, or nothing.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    output::{self, Tone, tell},
    progress::{Line, View},
};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Progress {
    /// Live where stderr is a terminal, plain otherwise.
    #[default]
    Auto,
    /// A line for each transition.
    Plain,
    /// Not at all.
    None,
}

/// Where progress is shown.
pub enum Show {
    /// Lines that change in their places.
    Live(Live),
    /// Lines that follow each other.
    Plain(Plain),
    /// Nowhere.
    Quiet,
}

/// Lines that change in their places.
#[derive(Default)]
pub struct Live {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

/// What was said, and when.
#[derive(Default)]
pub struct Plain {
    said: BTreeMap<String, (String, Option<Instant>)>,
}

/// What an operation says of itself is repeated no faster; where nodes have no lines of their own, slower.
const HEADS: Duration = Duration::from_secs(1);
const COUNTS: Duration = Duration::from_secs(5);

impl Show {
    /// As the flags say.
    pub fn new(progress: Progress, quiet: bool) -> Self {
        match progress {
            _ if quiet => Show::Quiet,
            Progress::None => Show::Quiet,
            Progress::Auto if std::io::stderr().is_terminal() => Show::Live(Live {
                all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
                bars: BTreeMap::new(),
            }),
            _ => Show::Plain(Plain::default()),
        }
    }

    /// Shows how things are.
    pub fn update(&mut self, views: &[View]) {
        match self {
            Show::Live(live) => live.update(views),
            Show::Plain(plain) => plain.lines(views, Instant::now()).iter().for_each(tell),
            Show::Quiet => {}
        }
    }

    /// Shows how it ended, and leaves that on the terminal.
    pub fn end(self, views: &[View]) {
        let mut this = self;
        this.update(views);
        if let Show::Live(live) = this {
            live.bars.values().for_each(ProgressBar::abandon);
            // The last line is drawn without its end.
            tell("");
        }
    }

    /// Says something in between.
    pub fn say(&self, text: &str) {
        match self {
            Show::Live(live) => live.all.suspend(|| tell(text)),
            Show::Plain(_) => tell(text),
            Show::Quiet => {}
        }
    }

    /// Takes everything off the terminal, so that something can be asked there.
    pub fn hide(&mut self) {
        if let Show::Live(live) = self {
            for bar in std::mem::take(&mut live.bars).into_values() {
                bar.finish_and_clear();
            }
            let _ = live.all.clear();
        }
    }
}

impl Live {
    fn update(&mut self, views: &[View]) {
        let mut keep = Vec::new();
        let mut before: Option<ProgressBar> = None;
        for view in views {
            // Nodes of which each has a line need no bar.
            let bar = (view.nodes.is_empty() && view.total > 1 && !view.head.over).then_some((view.done, view.total));
            before = Some(self.line(&view.head.key, &view.head, bar, before.as_ref()));
            keep.push(view.head.key.clone());
            for node in &view.nodes {
                let key = format!("{} {}", view.head.key, node.key);
                before = Some(self.line(&key, node, None, before.as_ref()));
                keep.push(key);
            }
        }
        let gone: Vec<String> = self.bars.keys().filter(|key| !keep.contains(key)).cloned().collect();
        for bar in gone.iter().filter_map(|key| self.bars.remove(key)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn line(&mut self, key: &str, line: &Line, bar: Option<(u64, u64)>, before: Option<&ProgressBar>) -> ProgressBar {
        let new = || {
            let bar = ProgressBar::new(1);
            let bar = match before {
                Some(before) => self.all.insert_after(before, bar),
                None => self.all.insert(0, bar),
            };
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        };
        let shown = match self.bars.get(key) {
            Some(shown) => shown.clone(),
            None => new(),
        };
        self.bars.insert(key.to_owned(), shown.clone());
        let mark = match (line.over, line.tone) {
            (true, Tone::Good) => "+",
            (true, Tone::Bad) => "!",
            (true, _) => "-",
            (false, _) => "{spinner}",
        };
        let template = match bar {
            Some(_) => format!("{mark} {{prefix}} [{{bar:30}}] {{pos}}/{{len}} {{wide_msg}}"),
            None => format!("{mark} {{prefix}} {{wide_msg}}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            shown.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
        }
        if let Some((done, total)) = bar {
            shown.set_length(total);
            shown.set_position(done);
        }
        shown.set_prefix(format!("{:<14}", line.key));
        shown.set_message(line.tone.paint(&line.text.replace('\n', " "), output::allowed()));
        shown
    }
}

impl Plain {
    /// What is new.
    fn lines(&mut self, views: &[View], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for view in views {
            for node in &view.nodes {
                self.say(&node.key, &node.text, true, now, &mut lines);
            }
            let pause = if view.nodes.is_empty() { COUNTS } else { HEADS };
            let said = self.said.get(&view.head.key).and_then(|(_, when)| *when);
            let due = view.head.over || said.is_none_or(|when| now.duration_since(when) >= pause);
            self.say(&view.head.key, &view.head.text, due, now, &mut lines);
        }
        lines
    }

    fn say(&mut self, key: &str, text: &str, due: bool, now: Instant, lines: &mut Vec<String>) {
        let text = text.replace('\n', " ");
        if due && self.said.get(key).is_none_or(|(said, _)| *said != text) {
            lines.push(format!("{key}: {text}"));
            self.said.insert(key.to_owned(), (text, Some(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(head: &str, over: bool, nodes: &[&str]) -> View {
        let line = |key: &str, text: &str| Line { key: key.into(), text: text.into(), tone: Tone::Plain, over };
        let nodes = nodes.iter().enumerate().map(|(i, text)| line(&format!("web-{i}"), text)).collect();
        View { head: line("lift/x", head), done: 0, total: 3, nodes }
    }

    #[test]
    fn without_a_terminal_only_transitions_are_told() {
        let (mut plain, start) = (Plain::default(), Instant::now());
        assert_eq!(plain.lines(&[view("0 of 2", false, &["pending", "pending"])], start).len(), 3);
        assert_eq!(plain.lines(&[view("0 of 2", false, &["pending", "running"])], start), ["web-1: running"]);
        assert!(plain.lines(&[view("0 of 2", false, &["pending", "running"])], start).is_empty());
    }

    #[test]
    fn figures_are_told_now_and_then_and_at_the_end() {
        let (mut plain, start) = (Plain::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(plain.lines(&[view("1 of 300", false, &[])], at(0)).len(), 1);
        assert!(plain.lines(&[view("2 of 300", false, &[])], at(1)).is_empty());
        assert_eq!(plain.lines(&[view("3 of 300", false, &[])], at(6)), ["lift/x: 3 of 300"]);
        assert_eq!(plain.lines(&[view("300 of 300", true, &[])], at(7)), ["lift/x: 300 of 300"]);
    }
}
