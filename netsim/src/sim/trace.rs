//! What happened, for people: one line each, one column a node.

use std::fmt::Write as _;

#[derive(Debug, Clone)]
pub struct Line {
    pub at: u64,
    /// `None` for what concerns the whole.
    pub node: Option<usize>,
    pub text: String,
}

/// What a picture is drawn of, beside the lines.
#[derive(Debug, Clone)]
pub enum Mark {
    /// The agent's process lives, or no longer does.
    Lives(usize, bool),
    /// It holds the lease under this term, or no longer does.
    Holds(usize, Option<u64>),
    /// A container of this task and this image runs there, or no longer does.
    Runs { node: usize, task: String, image: String, on: bool },
    /// From here to there, and when it arrives.
    Sent { from: usize, to: usize, arrives: u64, what: &'static str },
    /// The nodes it is about, if it names any, and until when.
    Fault { nodes: Vec<usize>, until: u64, what: String },
}

#[derive(Debug, Default, Clone)]
pub struct Trace {
    pub on: bool,
    /// Also engine operations and single requests.
    pub verbose: bool,
    pub lines: Vec<Line>,
    pub marks: Vec<(u64, Mark)>,
}

impl Trace {
    pub fn say(&mut self, at: u64, node: Option<usize>, text: impl FnOnce() -> String) {
        if self.on {
            self.lines.push(Line { at, node, text: text() });
        }
    }

    pub fn mark(&mut self, at: u64, mark: impl FnOnce() -> Mark) {
        if self.on {
            self.marks.push((at, mark()));
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
