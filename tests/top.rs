//! `peer top` and the tables in a real terminal (tmux), compared with what they looked like: the agent behind them is made up
//! of files, so that every screen is the same on every machine. And on a real agent: live, and the terminal whole afterwards.
//!
//! The snapshots are `tests/top/*.txt`; with `UPDATE_SNAPSHOTS=1` they are written anew.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod page_support;

use page_support::{PATIENCE, deploy};
use peer::shell::demo::Demo;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// A terminal of its own: a tmux server that nothing else speaks to.
struct Terminal {
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Terminal {
    /// `None`, loudly, where there is no tmux.
    fn open(width: u32, height: u32) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            eprintln!("SKIPPED: nothing was tried in a terminal: tmux is missing (apt-get install tmux)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let size = [width.to_string(), height.to_string()];
        let start = dir.path().display().to_string();
        let terminal = Self { socket: dir.path().join("tmux"), _dir: dir };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-c",
            &start,
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "env PS1='$ ' sh",
        ]);
        terminal.until("a prompt", |screen| screen.starts_with('$'));
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        // Letters beyond ASCII, whatever this machine's locale is.
        let output = command.arg("-u").arg("-S").arg(&self.socket).args(args).env("TERM", "xterm").output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is typed, and Enter.
    fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }

    fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    fn screen(&self) -> String {
        let text = self.tmux(&["capture-pane", "-p"]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }

    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            // The terminal draws line by line: what is seen again was seen whole.
            if is_so(&screen) && self.screen() == screen {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited for {what}; the terminal shows:\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// Compares with the snapshot of this name.
fn looks_like(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{screen}\n")).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(known.trim_end(), screen.trim_end(), "{} (UPDATE_SNAPSHOTS=1 writes it anew)", path.display());
}

fn ago(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    format!("{:.9}", now - jiff::SignedDuration::from_secs(seconds))
}

/// Three nodes, one of them down; a service that is being updated and one whose update is paused.
fn answer(path: &str) -> Value {
    let node = |n: u32, state: &str, leader: bool| {
        json!({
            "ID": format!("node{n}000000000000000000000"), "Version": {"Index": n},
            "Spec": {"Role": "manager", "Availability": if n == 2 { "drain" } else { "active" }, "Labels": {}},
            "Description": {"Hostname": format!("node{n}"), "Engine": {"EngineVersion": "28.0.1"}},
            "Status": {"State": state, "Addr": format!("10.0.0.{n}"),
                "Message": if state == "down" { "down: doesn't answer" } else { "" }},
            "ManagerStatus": {"Leader": leader, "Reachability": "reachable", "Addr": format!("10.0.0.{n}:7373")},
            "PeerStatus": {"Liveness": if state == "down" { "down" } else { "alive" }, "Voter": true, "Self": n == 1},
        })
    };
    let service = |id: &str, name: &str, image: &str, running: u64, desired: u64, update: Value| {
        json!({
            "ID": id, "Version": {"Index": 1}, "UpdateStatus": update,
            "Spec": {"Name": name, "Mode": {"Replicated": {"Replicas": desired}},
                "TaskTemplate": {"ContainerSpec": {"Image": image}}},
            "ServiceStatus": {"RunningTasks": running, "DesiredTasks": desired},
            "Endpoint": {"Ports": []},
        })
    };
    let task = |n: u32, service: &str, slot: u32, node: u32, image: &str, desired: &str, state: &str, error: &str| {
        json!({
            "ID": format!("task{n}00000000000000000000"), "ServiceID": service, "Slot": slot, "CreatedAt": ago(600),
            "NodeID": format!("node{node}000000000000000000000"), "Spec": {"ContainerSpec": {"Image": image}},
            "DesiredState": desired, "Status": {"State": state, "Timestamp": ago(300), "Err": error},
        })
    };
    let tasks = vec![
        task(1, "web", 1, 1, "shop:2", "running", "running", ""),
        task(2, "web", 2, 3, "shop:2", "running", "starting", ""),
        task(3, "web", 3, 1, "shop:1", "running", "running", ""),
        task(4, "web", 1, 3, "shop:1", "shutdown", "shutdown", ""),
        task(5, "api", 1, 1, "api:bad", "running", "failed", "task: non-zero exit (3)"),
    ];
    match path {
        _ if path.contains("_up-to-date") => json!([tasks[0], tasks[1], tasks[4]]),
        _ if path.starts_with("/tasks") => json!(tasks),
        _ if path.starts_with("/nodes") => {
            json!([node(1, "ready", true), node(2, "ready", false), node(3, "down", false)])
        }
        _ if path.starts_with("/services") => json!([
            service(
                "api",
                "api",
                "api:bad",
                0,
                1,
                json!({"State": "paused", "StartedAt": ago(200),
                "Message": "update paused due to failure or early termination of task task5"})
            ),
            service(
                "web",
                "web",
                "shop:2",
                2,
                3,
                json!({"State": "updating", "StartedAt": ago(130),
                "Message": "update in progress"})
            ),
        ]),
        _ if path.starts_with("/peer/status") => json!({
            "ClusterID": "c", "Quorum": true, "Node": {"Hostname": "node1", "Addr": "10.0.0.1:7373"},
            "Holder": {"Hostname": "node1", "Term": 4}, "Nodes": {"Total": 3, "Ready": 2, "Away": 0, "Down": 1},
            "Troubles": ["published port 80 can't be opened on node2: address in use"],
        }),
        _ => json!({}),
    }
}

/// Answers on a socket until the test is over.
fn made_up_agent(dir: &Path) -> PathBuf {
    let path = dir.join("peer.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { return };
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let path = first.split(' ').nth(1).unwrap();
                if path.starts_with("/events") {
                    // 09:00:00 on the first of January.
                    let event = json!({
                        "Type": "task", "Action": "update", "scope": "swarm", "timeNano": 1_767_258_000_000_000_000u64,
                        "Actor": {"ID": "t", "Attributes": {"name": "web.2", "state.old": "preparing", "state.new": "starting"}},
                    });
                    let text = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{event}\n");
                    let _ = stream.write_all(text.as_bytes());
                    // Goes on, with nothing more to say, until the other side hangs up.
                    let _ = lines.next();
                    return;
                }
                let body = answer(path).to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            });
        }
    });
    path
}

#[test]
fn the_screen_the_tables_and_the_plain_text_look_as_they_did() {
    let Some(terminal) = Terminal::open(110, 40) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = format!("unix://{}", made_up_agent(dir.path()).display());
    terminal.run(&format!("clear; export PEER_HOST={host}; alias p={PEER}; clear"));
    terminal.run("p top");
    let screen = terminal.until("the whole screen", |screen| screen.contains("task update"));
    looks_like("screen", &screen);
    terminal.key("Tab");
    terminal.until("the services are chosen", |screen| screen.contains(">Services"));
    terminal.key("Enter");
    looks_like("services-alone", &terminal.until("the services alone", |screen| !screen.contains("Nodes")));
    terminal.tmux(&["resize-window", "-x", "60", "-y", "14"]);
    terminal.key("Enter");
    terminal.key("Tab");
    terminal.key("Tab");
    looks_like("small", &terminal.until("all in little room", |screen| screen.contains(">Tasks")));
    terminal.key("q");
    terminal.until("the prompt again", |screen| screen.trim_end().ends_with('$'));
    terminal.tmux(&["resize-window", "-x", "160", "-y", "40"]);
    for (name, line) in [
        ("once", "p top --once"),
        ("node-ls", "p node ls"),
        ("service-ls", "p service ls"),
        ("service-ps", "p service ps web"),
    ] {
        let end = format!("end of {name}");
        terminal.run(&format!("clear; {line} 2>&1 | cat; echo {end}"));
        let screen = terminal.until("the table", |screen| screen.lines().any(|line| line == end));
        looks_like(name, screen.split(&end).next().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_is_shown_live_and_the_terminal_is_whole_afterwards() {
    let Some(terminal) = Terminal::open(120, 40) else { return };
    let demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let host = format!("unix://{}", demo.socket(1).display());
    tokio::task::block_in_place(|| {
        terminal.run(&format!("clear; export PEER_HOST={host}; alias p={PEER}; stty -a > before; clear"));
        terminal.run("p top");
        terminal.until("both nodes", |screen| screen.contains("2 of 2 nodes ready"));
        terminal.until("what to do", |screen| screen.contains("peer service create"));
    });
    deploy(&demo, 2).await;
    tokio::task::block_in_place(|| {
        terminal.until("the tasks", |screen| screen.contains("2 tasks running") && screen.contains("greeters.2"));
        terminal.until("its event", |screen| screen.contains("service create"));
        // Each way out leaves the terminal as it was.
        let before = terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(before.trim(), "1 0", "it draws on a screen of its own");
        let outs: [(&str, &dyn Fn()); 3] = [
            ("q", &|| terminal.key("q")),
            ("Ctrl-C", &|| terminal.key("C-c")),
            ("SIGTERM", &|| {
                let children = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
                let of = Command::new("ps").args(["-o", "pid=", "--ppid", children.trim()]).output().unwrap();
                let pid = String::from_utf8(of.stdout).unwrap();
                assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
            }),
        ];
        for (name, out) in outs {
            terminal.until("it is drawn", |screen| screen.contains("q quit"));
            out();
            terminal.until(name, |screen| !screen.contains("q quit") && screen.trim_end().ends_with('$'));
            let flags = terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
            assert_eq!(flags.trim(), "0 1", "after {name}");
            terminal.run("clear; stty -a > after; cmp before after && echo same");
            terminal.until("the same settings", |screen| screen.contains("same"));
            terminal.run("clear; p top");
        }
        terminal.key("q");
    });
    demo.end().await;
}
