//! What happened, for people: one line each, one column a node.

use std::fmt::Write as _;

#[derive(Debug, Clone)]
pub struct Line {
    pub at: u64,
    /// `None` for what concerns the whole.
    pub node: Option<usize>,
    pub text: String,
}

#[derive(Debug, Default)]
pub struct Trace {
    pub on: bool,
    /// Also engine operations and single requests.
    pub verbose: bool,
    pub lines: Vec<Line>,
}

impl Trace {
    pub fn say(&mut self, at: u64, node: Option<usize>, text: impl FnOnce() -> String) {
        if self.on {
            self.lines.push(Line { at, node, text: text() });
        }
    }

    pub fn say_more(&mut self, at: u64, node: Option<usize>, text: impl FnOnce() -> String) {
        if self.verbose {
            self.say(at, node, text);
        }
    }

    pub fn render(&self, nodes: usize) -> String {
        let mut out = String::new();
        for line in &self.lines {
            let column = line.node.map_or(0, |n| n + 1);
            let marks: String = (0..=nodes).map(|c| if c == column { '*' } else { '.' }).collect();
            let who = line.node.map_or("    ".to_owned(), |n| format!("n{n:<3}"));
            // Writing into a String can't fail.
            let _ = writeln!(out, "{:>11.6} {marks} {who} {}", line.at as f64 / 1e6, line.text);
        }
        out
    }
}
