//! Where a command prints: results to `out`, everything else to `err`. Tests hand in buffers.

use super::error::{CliError, wants_colours};
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};

pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether `out` can be drawn over.
    pub terminal: bool,
    colours: bool,
    /// What [`Console::warn_once`] and [`Console::note_once`] have said.
    warned: BTreeSet<String>,
    #[cfg(test)]
    now: Option<jiff::Timestamp>,
}

impl Console {
    pub fn of_process() -> Self {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let terminal = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colours = err.is_terminal() && wants_colours();
        Self {
            out: Box::new(out),
            err: Box::new(err),
            terminal,
            colours,
            warned: BTreeSet::new(),
            #[cfg(test)]
            now: None,
        }
    }

    #[cfg(test)]
    pub fn of_buffers(out: impl Write + Send + 'static, err: impl Write + Send + 'static, terminal: bool) -> Self {
        Self { out: Box::new(out), err: Box::new(err), terminal, colours: false, warned: BTreeSet::new(), now: None }
    }

    #[cfg(test)]
    pub fn set_now(&mut self, now: &str) {
        self.now = now.parse().ok();
    }

    /// What ages are counted from.
    pub fn now(&self) -> jiff::Timestamp {
        #[cfg(test)]
        if let Some(now) = self.now {
            return now;
        }
        jiff::Timestamp::now()
    }

    /// Text as it is. Fails without words if nobody reads any more (`peer service ls | head -1`).
    pub fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => CliError::silent(),
            _ => CliError::new(format!("can't write the result: {error}")),
        })
    }

    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.print(&format!("{text}\n"))
    }

    /// Something the user must know but that isn't the result.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// What somebody else said on their stderr.
    pub fn print_to_err(&mut self, text: &str) {
        let _ = self.err.write_all(text.as_bytes());
    }

    pub fn warn(&mut self, text: &str) {
        let label = if self.colours { "\x1b[1;33mwarning:\x1b[0m" } else { "warning:" };
        let _ = writeln!(self.err, "{label} {text}");
    }

    /// What several parts of one command would say in the same words.
    pub fn warn_once(&mut self, text: &str) {
        if self.warned.insert(text.to_owned()) {
            self.warn(text);
        }
    }

    /// Likewise, of what is no warning.
    pub fn note_once(&mut self, text: &str) {
        if self.warned.insert(text.to_owned()) {
            self.note(text);
        }
    }

    /// Asks on stderr; only a "y" or "yes" from a person on a terminal is a yes.
    pub fn confirm(&mut self, question: &str) -> Result<bool, CliError> {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::new("this must be confirmed, and there is no terminal to ask on")
                .hint("if you are sure, add --yes"));
        }
        let _ = write!(self.err, "{question} [y/N] ");
        let _ = self.err.flush();
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|error| CliError::new(error.to_string()))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}
