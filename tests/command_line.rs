//! The binary as a shell runs it: what depends on the environment and can't be tried in a process of many tests.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A script that says `PEER_HOST= peer status` means the usual socket.
#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let code = |host: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_peer")).arg("status").env("PEER_HOST", host).output().unwrap();
        output.status.code()
    };
    assert_eq!(code("tcp://10.0.0.1:2375"), Some(2), "misused");
    assert_ne!(code(""), Some(2));
}

/// The exit code, and what was said on stderr.
fn said(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    for variable in ["PEER_HOST", "PEER_TOKEN", "DOCKER_HOST"] {
        command.env_remove(variable);
    }
    let output = command.args(args).current_dir(dir).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn misses(dir: &Path) -> String {
    format!("unix://{}", dir.join("nowhere.sock").display())
}

/// A newcomer's `peer start` on a machine without Docker made a cluster that could run nothing.
#[test]
fn a_first_start_without_its_engine_fails_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, engine) = (dir.path().join("deep/data"), misses(dir.path()));
    let data = data.to_str().unwrap();
    for standby in ["--standby=false", "--standby"] {
        let args = ["start", standby, "--data-dir", data, "--socket", "s", "--engine", &engine, "--dashboard", "none"];
        let (code, err) = said(&args, dir.path());
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(&format!("error: --engine {engine}: no Docker Engine answers there")), "{err}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{standby}");
    }
    let (code, of_demo) = said(&["demo", "--engine", &engine], dir.path());
    assert_eq!(code, Some(1));
    assert!(of_demo.contains(&format!("error: --engine {engine}: no Docker Engine answers there")), "{of_demo}");
}

#[test]
fn a_join_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let token = format!("PEERTKN-1-{}-{}", "0".repeat(50), "0".repeat(25));
    // A port that was free a moment ago: nobody answers there.
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = ["start", "--data-dir", "data", "--socket", "s", "--engine", "demo", "--dashboard", "none", "--join"];
    let (code, err) = said(&[&start[..], &[&host, "--token", &token]].concat(), dir.path());
    assert_eq!(code, Some(1), "{err}");
    let (code, err) = said(&[&start[..], &[&host, "--token", &token[..40]]].concat(), dir.path());
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("error: --token: the token is cut short") && err.contains("hint: "), "{err}");
    assert!(err.contains("peer token"), "{err}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_error_names_what_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let host = misses(dir.path());
    for (args, code, words) in [
        (&["--host", host.as_str(), "service", "ls"][..], 1, format!("error: --host {host}: no agent here")),
        (&["-H", "tcp://x", "service", "ls"], 2, "error: --host tcp://x: ".to_owned()),
        (&["start", "--data-dir", "/proc/x", "--engine", "demo"], 1, "error: --data-dir: /proc/x".to_owned()),
        (&["node", "promote", "node1"], 2, "there are no managers to promote or demote".to_owned()),
        (&["demo", "--nodes", "x"], 2, "want a whole number from 1 to 50".to_owned()),
        (&["demo", "--dashboard", "somewhere:x"], 2, "error: --dashboard somewhere:x: ".to_owned()),
        (&["service", "create", "-p", "0:80", "x"], 2, "want a number from 1 to 65535".to_owned()),
        (&["stack", "deploy", "-c", "none.yml", "s"], 1, "error: --compose-file none.yml: ".to_owned()),
        (&["service", "create", "--link", "db", "x"], 2, "error: --link: ".to_owned()),
        (&["node", "update", "--role", "worker", "n"], 2, "error: --role: there are no roles".to_owned()),
        (&["-H", "unix:///etc/passwd", "node", "ls"], 1, "/etc/passwd is not a socket\nhint: ".to_owned()),
        (&["node", "update", "node1"], 2, "hint: want --availability active|pause|drain, --label-add".to_owned()),
    ] {
        let (exit, err) = said(args, dir.path());
        assert!(exit == Some(code) && err.contains(&words), "{args:?}: {exit:?}: {err}");
    }
}

/// A newcomer had PEER_HOST set, and saw a list with commands that the help hasn't.
#[test]
fn without_a_command_there_is_the_help_whatever_the_environment_says() {
    let alone = |host: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.env_remove("PEER_HOST").envs(host.map(|host| ("PEER_HOST", host)));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = alone(Some("unix:///a"));
    assert!(said.contains("Usage: peer ") && !said.contains("greeter"), "{said}");
    assert_eq!(said, alone(None));
}

/// A second demo, or a tour beside one.
#[test]
fn a_demo_on_a_port_that_is_taken_names_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, err) = said(&["demo", "--tour", "--engine", "demo", "--port", &port], dir.path());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("error: --port {port}: ")) && err.contains("hint: "), "{err}");
    assert!(err.lines().last().unwrap().contains("--port 9100"), "{err}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_was_wanted() {
    let dir = tempfile::tempdir().unwrap();
    for (args, error, hint) in [
        (
            &["secret", "create", "x", "none"][..],
            "error: can't read none: ",
            "hint: want the file that the content is in",
        ),
        (&["config", "update", "x", "none"], "error: can't read none: ", "hint: want the file that the content is in"),
        (
            &["service", "create", "--env-file", "none", "x"],
            "error: --env-file none: ",
            "hint: want a file with a KEY=VALUE",
        ),
    ] {
        let (exit, err) = said(args, dir.path());
        assert!(exit == Some(1) && err.contains(error) && err.contains(hint), "{args:?}: {exit:?}: {err}");
    }
}

/// `peer start | head -1`, and a terminal that was closed: the agent's containers need it all the same.
#[test]
fn an_agent_lives_on_where_nobody_reads_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut start = Command::new(env!("CARGO_BIN_EXE_peer"));
    start.args(["start", "--data-dir", "data", "--socket", "s", "--engine", "demo", "--dashboard", "none"]);
    start.args(["--mesh", "userspace", "--listen-addr", &free]).current_dir(dir.path());
    let mut agent = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((agent.stdout.take(), agent.stderr.take()));
    let host = format!("unix://{}", dir.path().join("s").display());
    let deadline = Instant::now() + Duration::from_secs(30);
    while said(&["-H", &host, "node", "ls"], dir.path()).0 != Some(0) {
        assert_eq!(agent.try_wait().unwrap(), None, "it has ended");
        assert!(Instant::now() < deadline, "it doesn't answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}
