//! `peer demo` as a visitor sees it: the tour from its first line to its last, and chaos from which nodes come back. Over the
//! built-in engine; what they printed is read, Ctrl-C ends them, and nothing is left.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(["demo", "--engine", "demo", "--port", &port.to_string()]).args(args).env("TMPDIR", dir);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines, seen: Vec::new() }
    }

    fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(error) => {
                    let over = if error == RecvTimeoutError::Timeout { "" } else { " (it has ended)" };
                    panic!("waited for {what}{over}; it said:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    fn end(mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "what is in there is its user's alone");
        }
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
        self.until("its goodbye", |line| line.contains("cleaning up"));
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn the_tour_tells_the_whole_story_and_no_greeting_fails_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let page = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut demo = Demo::start(dir.path(), &["--tour", "--nodes", "3", "--pace", "1", "--dashboard", &page]);
    demo.until("the page, where it was asked for", |line| line.contains(&format!("http://{page}/#token=")));
    demo.until("more of them", |line| line.ends_with("peer service scale greeters=5"));
    let counted = demo.until("the update under load", |line| line.contains("greetings were asked for"));
    assert!(counted.ends_with("; 0 failed."), "{counted}");
    demo.until("the bad version", |line| line.contains("greeter:bad"));
    demo.until("the way back", |line| line.ends_with("peer service rollback greeters"));
    demo.until("the drain", |line| line.ends_with("peer node update --availability drain node3"));
    demo.until("the crash", |line| line.starts_with("$ kill -9 "));
    demo.until("a list of nodes that shows it", |line| line.contains(" node2 ") && line.contains("Down"));
    demo.until("its return", |line| line.starts_with("node2 is back"));
    demo.until("the end", |line| line.contains("That was the tour"));
    demo.end(dir.path());
}

#[test]
fn chaos_kills_and_freezes_and_what_fell_stands_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path(), &["--chaos", "--nodes", "3", "--pace", "1", "--dashboard", "none"]);
    demo.until("the warning", |line| line.contains("at random"));
    for _ in 0..2 {
        demo.until("a blow", |line| line.starts_with("chaos: node"));
        let back = demo.until("a return", |line| line.contains(" is back") || line.contains(" thaws"));
        assert!(!back.contains("node1"), "{back}");
    }
    assert!(!demo.seen.iter().any(|line| line.contains("#token=")), "there is no page");
    demo.end(dir.path());
}

#[test]
fn chaos_takes_three_nodes() {
    let args = ["demo", "--engine", "demo", "--chaos", "--nodes", "2"];
    let output = Command::new(env!("CARGO_BIN_EXE_peer")).args(args).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("3 nodes or more"));
}
