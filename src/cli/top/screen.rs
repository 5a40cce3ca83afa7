//! The terminal, taken and given back: whole again however this ends, by a key, a signal, an error or a panic.

use super::draw::{self, Press, State};
use super::picture::Picture;
use crate::cli::error::{CliError, wants_colours};
use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::time::Duration;
use tokio::sync::mpsc;

/// How soon the thread that reads keys finds out that nobody wants them any more.
const POLL: Duration = Duration::from_millis(100);

pub enum Key {
    Quit,
    /// The terminal has another size.
    Resized,
    Pressed(Press),
}

pub struct Screen {
    /// `None` once it was given back.
    terminal: Option<DefaultTerminal>,
    keys: mpsc::Receiver<Key>,
    colours: bool,
}

impl Screen {
    pub fn take() -> Result<Self, CliError> {
        // Its hook gives the terminal back before a panic is printed.
        let terminal = ratatui::try_init().map_err(failed)?;
        let (sender, keys) = mpsc::channel(16);
        std::thread::spawn(move || read_keys(&sender));
        Ok(Self { terminal: Some(terminal), keys, colours: wants_colours() })
    }

    /// Nothing when the terminal has gone.
    pub async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    pub fn draw(&mut self, picture: &Picture, state: &mut State, now: Timestamp) -> Result<(), CliError> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        *state = std::mem::take(state).with_colours(self.colours);
        terminal.draw(|frame| draw::draw(frame, picture, state, now)).map(|_| ()).map_err(failed)
    }

    pub fn give_back(&mut self) {
        if self.terminal.take().is_some() {
            ratatui::restore();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The hook has given it back already; once more, and the cursor is put where it was before what the panic said.
        if !std::thread::panicking() {
            self.give_back();
        }
    }
}

fn failed(error: std::io::Error) -> CliError {
    CliError::new(format!("can't draw on the terminal: {error}"))
}

fn read_keys(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        let read = event::poll(POLL).and_then(|there| there.then(event::read).transpose());
        let key = match read {
            Ok(None) => continue,
            Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => meaning(key),
            Ok(Some(Event::Resize(_, _))) => Some(Key::Resized),
            Ok(Some(_)) => None,
            // The terminal has gone: dropping the sender says so.
            Err(_) => return,
        };
        if let Some(key) = key
            && keys.blocking_send(key).is_err()
        {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    let press = match key.code {
        // In raw mode Ctrl-C is a key like any other.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Some(Key::Quit),
        KeyCode::Char('q') => return Some(Key::Quit),
        KeyCode::Tab | KeyCode::Right => Press::Next,
        KeyCode::BackTab | KeyCode::Left => Press::Previous,
        KeyCode::Enter | KeyCode::Char(' ') => Press::Whole,
        KeyCode::Esc => Press::Back,
        KeyCode::Up | KeyCode::Char('k') => Press::Up,
        KeyCode::Down | KeyCode::Char('j') => Press::Down,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown => Press::PageDown,
        KeyCode::Home => Press::Home,
        _ => return None,
    };
    Some(Key::Pressed(press))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::process::Command;
    use std::time::Instant;

    const INSIDE: &str = "PEER_TEST_PANICS_IN_A_TERMINAL";

    /// A terminal (tmux) runs this very test again, which then panics with the screen taken.
    #[test]
    fn a_panic_gives_the_terminal_back_and_is_read_on_it() {
        if std::env::var_os(INSIDE).is_some() {
            let mut screen = Screen::take().unwrap();
            let none = json!([]);
            let picture = Picture::new(json!({}), &none, &none, &none, &none);
            screen.draw(&picture, &mut State::default(), Timestamp::UNIX_EPOCH).unwrap();
            panic!("with the terminal taken");
        }
        if Command::new("tmux").arg("-V").output().is_err() {
            return eprintln!("SKIPPED: no panic was tried in a terminal: tmux is missing (apt-get install tmux)");
        }
        let dir = tempfile::tempdir().unwrap();
        let tmux = |args: &[&str]| {
            let mut command = Command::new("tmux");
            let output =
                command.args(["-u", "-S"]).arg(dir.path().join("tmux")).args(args).env("TERM", "xterm").output();
            let output = output.unwrap();
            assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let start = dir.path().display().to_string();
        tmux(&["-f", "/dev/null", "new-session", "-c", &start, "-d", "-x", "150", "-y", "30", "env PS1='$ ' sh"]);
        let this = "cli::top::screen::tests::a_panic_gives_the_terminal_back_and_is_read_on_it";
        let program = std::env::current_exe().unwrap().display().to_string();
        let line = format!(
            "stty -a > before; {INSIDE}=1 {program} --exact {this} --nocapture --test-threads 1; stty -a > after; cmp before after && echo sa''me"
        );
        tmux(&["send-keys", "-l", &line]);
        tmux(&["send-keys", "Enter"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut text = String::new();
        while !text.lines().any(|line| line == "same") {
            assert!(Instant::now() < deadline, "the terminal isn't as it was; it shows:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
            text = tmux(&["capture-pane", "-p"]);
        }
        let flags = tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        tmux(&["kill-server"]);
        assert_eq!(flags.trim(), "0 1", "its own screen, and the cursor");
        assert!(text.contains("with the terminal taken") && text.contains("1 failed"), "{text}");
    }
}
