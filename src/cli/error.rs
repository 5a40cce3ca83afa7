//! What a command says when it fails: the error, and where there is one the next command as a hint.

use std::io::{IsTerminal, Write};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
}

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
/// The agent's node is no member any more.
const REMOVED: u8 = 3;
/// 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

impl CliError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: FAILED }
    }

    /// What was asked for makes no sense, whatever the cluster's state.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self { code: MISUSED, ..Self::new(message) }
    }

    /// The agent ended because its node was taken out of the cluster: starting it again is of no use.
    pub fn removed(message: impl Into<String>) -> Self {
        Self { code: REMOVED, ..Self::new(message) }
    }

    /// The user pressed Ctrl-C, and has been told what that means.
    pub fn interrupted() -> Self {
        Self { code: INTERRUPTED, ..Self::new("") }
    }

    /// All has been said already.
    pub fn silent() -> Self {
        Self::new("")
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub fn is_interrupt(&self) -> bool {
        self.code == INTERRUPTED
    }

    pub fn code(&self) -> u8 {
        self.code
    }

    /// To stderr, in colour on a terminal.
    pub fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        let colours = stderr.is_terminal() && wants_colours();
        // Nobody is left to tell if stderr is closed.
        let _ = stderr.write_all(self.text(colours).as_bytes());
    }

    fn text(&self, colours: bool) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let label =
            |word: &str, code: &str| if colours { format!("\x1b[{code}m{word}:\x1b[0m") } else { format!("{word}:") };
        let mut text = format!("{} {}\n", label("error", "1;31"), self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{} {hint}\n", label("hint", "1;36")));
        }
        text
    }
}

/// <https://no-color.org>: set to anything but nothing.
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_next_command() {
        let error = CliError::new("nobody answers").hint("start the agent with: peer start");
        assert_eq!(error.text(false), "error: nobody answers\nhint: start the agent with: peer start\n");
        assert!(error.text(true).starts_with("\x1b[1;31merror:\x1b[0m nobody"));
        assert_eq!(CliError::interrupted().text(false), "");
        assert_eq!((error.code(), CliError::misuse("x").code()), (1, 2));
    }
}
