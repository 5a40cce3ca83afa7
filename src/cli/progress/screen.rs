//! The lines of progress: drawn over and over on a terminal, elsewhere written once each time one changes.

use crate::cli::console::Console;
use crate::cli::error::CliError;

const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const BAR_WIDTH: u64 = 50;
/// The line that sums up.
pub const OVERALL: &str = "overall progress";

pub struct Screen {
    quiet: bool,
    lines: Vec<Line>,
    /// How many lines stand on the terminal already.
    drawn: usize,
}

struct Line {
    id: String,
    text: String,
    bar: Option<(u64, u64)>,
    changed: bool,
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        Self { quiet, lines: Vec::new(), drawn: 0 }
    }

    /// Keeps a place for a line that has nothing to say yet.
    pub fn reserve(&mut self, id: &str) {
        if !self.lines.iter().any(|line| line.id == id) {
            self.lines.push(Line { id: id.to_owned(), text: String::new(), bar: None, changed: false });
        }
    }

    /// `bar`: so much out of so much.
    pub fn set(&mut self, id: &str, text: &str, bar: Option<(u64, u64)>) {
        self.reserve(id);
        if let Some(line) = self.lines.iter_mut().find(|line| line.id == id && (line.text != text || line.bar != bar)) {
            (line.text, line.bar, line.changed) = (text.to_owned(), bar, true);
        }
    }

    /// All of it in one line, for who shows several: the overall line, and what else is told beside the tasks.
    pub fn summary(&self) -> String {
        let told = |line: &&Line| matches!(line.id.as_str(), OVERALL | "verify" | "rollback");
        let texts = self.lines.iter().filter(told).map(|line| line.text.trim_end()).filter(|text| !text.is_empty());
        texts.collect::<Vec<_>>().join("; ")
    }

    pub fn draw(&mut self, console: &mut Console) -> Result<(), CliError> {
        if self.quiet || !self.lines.iter().any(|line| line.changed) {
            return Ok(());
        }
        let mut out = String::new();
        if console.terminal {
            if self.drawn > 0 {
                out.push_str(&format!("\x1b[{}A", self.drawn));
            }
            // What is wider than the terminal is cut off there: a second row would be missed by the way back up.
            out.push_str(NO_WRAP);
            self.lines.iter().for_each(|line| out.push_str(&format!("\r\x1b[2K{}\n", line.in_full())));
            out.push_str(WRAP);
            self.drawn = self.lines.len();
        } else {
            let changed = self.lines.iter().filter(|line| line.changed);
            changed.for_each(|line| out.push_str(&format!("{}: {}\n", line.id, line.text.trim_end())));
        }
        self.lines.iter_mut().for_each(|line| line.changed = false);
        console.print(&out)
    }
}

impl Line {
    fn in_full(&self) -> String {
        let Some((done, all)) = self.bar else { return format!("{}: {} ", self.id, self.text) };
        let filled = (done * BAR_WIDTH / all.max(1)).min(BAR_WIDTH);
        let count = |n: u64| usize::try_from(n).unwrap_or_default();
        let (bar, rest) = ("=".repeat(count(filled)), " ".repeat(count(BAR_WIDTH - filled)));
        format!("{}: {} [{bar}>{rest}] ", self.id, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::console;

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_gets_what_changed() {
        for (terminal, want) in [
            (false, "overall progress: 0 out of 2 tasks\noverall progress: 1 out of 2 tasks\n1/2: running\n"),
            (
                true,
                "\x1b[?7l\r\x1b[2Koverall progress: 0 out of 2 tasks \n\r\x1b[2K1/2:  \n\x1b[?7h\
                 \x1b[2A\x1b[?7l\r\x1b[2Koverall progress: 1 out of 2 tasks \n\
                 \r\x1b[2K1/2: running   [==================================================>] \n\x1b[?7h",
            ),
        ] {
            let (mut console, out, _) = console(terminal);
            let mut screen = Screen::new(false);
            screen.set("overall progress", "0 out of 2 tasks", None);
            screen.reserve("1/2");
            screen.draw(&mut console).unwrap();
            screen.draw(&mut console).unwrap();
            screen.set("overall progress", "1 out of 2 tasks", None);
            screen.set("1/2", "running  ", Some((9, 9)));
            screen.draw(&mut console).unwrap();
            assert_eq!(out.text(), want);
        }
    }
}
