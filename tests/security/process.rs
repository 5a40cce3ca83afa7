//! What another user of the machine finds of an agent's process: its socket, its files, its arguments, its memory.

use crate::agents::{Process, command, spawn};
use crate::net_support::DEADLINE;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// By convention nobody's.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root() || {
        println!("SKIPPED: only root can be another user");
        false
    }
}

/// A directory that everybody may look into, so that what is tried is the files in it.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// The binary where everybody may run it: a checkout may lie in somebody's home.
fn binary(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("peer");
    std::fs::copy(env!("CARGO_BIN_EXE_peer"), &copy).unwrap();
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_and_the_data_are_closed_to_other_users() {
    if !is_root() {
        return;
    }
    let dir = open_dir();
    let agent = spawn(command(dir.path(), 1, &["--dashboard", "none"]), dir.path().join("1.sock")).await;
    let peer = binary(dir.path());
    let asks = |uid: u32, gid: u32| {
        let mut command = Command::new(&peer);
        command.args(["-H", &format!("unix://{}", agent.socket.display()), "node", "ls"]).uid(uid).gid(gid);
        let output = command.current_dir("/").output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (done, text) = asks(NOBODY, NOBODY);
    assert!(!done && text.contains("not allowed to speak to the agent"), "{text}");
    let socket = std::fs::metadata(&agent.socket).unwrap();
    assert_eq!((socket.uid(), socket.permissions().mode() & 0o777), (0, 0o660));
    // It was the mode that kept it out: in the socket's group the same user gets in.
    let (done, text) = asks(NOBODY, socket.gid());
    assert!(done && text.contains("node1"), "{text}");

    let data = dir.path().join("data1");
    for path in std::iter::once(data.clone()).chain(std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().path())) {
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
    }
    let read = Command::new("cat").arg(data.join("ca-key.pem")).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(!read.status.success() && read.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_on_the_command_line_is_gone_from_there_when_the_agent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let first = spawn(command(dir.path(), 1, &["--dashboard", "none"]), dir.path().join("1.sock")).await;
    let at = first.get("/peer/status")["Node"]["Addr"].as_str().unwrap().to_owned();
    let token = first.get("/peer/token")["Token"].as_str().unwrap().to_owned();
    let secret = token.rsplit('-').next().unwrap();
    let joined = format!("--token={token}");
    for (number, words) in [(2, vec!["--token", &token]), (3, vec![&joined])] {
        let more = [&["--dashboard", "none", "--join", &at][..], &words, &["--label", "zone=east"]].concat();
        let agent = spawn(command(dir.path(), number, &more), dir.path().join(format!("{number}.sock"))).await;
        assert_eq!(agent.get("/peer/status")["Cluster"]["ID"], first.get("/peer/status")["Cluster"]["ID"]);
        let arguments = std::fs::read_to_string(agent.proc("cmdline")).unwrap();
        assert!(!arguments.contains(secret) && !arguments.contains("--token"), "{arguments}");
        // The rest is as it was.
        assert!(
            arguments.contains("--label\0zone=east") && arguments.contains(&format!("--join\0{at}")),
            "{arguments}"
        );
        let environment = std::fs::metadata(agent.proc("environ")).unwrap();
        assert_eq!(environment.permissions().mode() & 0o077, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_where_it_is_written_down_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let page = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mut command = command(dir.path(), 1, &["--dashboard", &page.to_string()]);
    let log = std::fs::File::create(&said).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let agent = spawn(command, dir.path().join("1.sock")).await;
    let token = agent.get("/peer/token")["Token"].as_str().unwrap().to_owned();
    let link = agent.get("/peer/dashboard")["Link"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + DEADLINE;
    let said = loop {
        let text = std::fs::read_to_string(&said).unwrap();
        if text.contains("peer token") {
            break text;
        }
        assert!(Instant::now() < deadline, "it says how to add a node: {text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for secret in [token.rsplit('-').next().unwrap(), link.split("token=").nth(1).unwrap()] {
        assert!(secret.len() > 10 && !said.contains(secret), "{said}");
    }
}

/// How a process ends whose core would be dumped if it could.
fn core_of(mut command: Command) -> bool {
    // Of the directory it runs in.
    let status = command.status().unwrap();
    assert!(status.signal().is_some(), "{status}");
    status.core_dumped()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_no_core_dump_and_is_not_to_be_looked_into() {
    let dir = open_dir();
    let as_nobody = is_root();
    let peer = binary(dir.path());
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    if as_nobody {
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&home);
        if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    // What the machine does with others.
    let others = core_of(shell("ulimit -c unlimited; kill -ABRT $$"));
    println!("another process's core is dumped here: {others}");

    let words = command(&home, 1, &["--dashboard", "none"]);
    let words: Vec<String> = words.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut agent =
        spawn(shell(&format!("ulimit -c unlimited; exec {} {}", peer.display(), words.join(" "))), home.join("1.sock"))
            .await;
    assert_eq!(agent.get("/peer/status")["Nodes"]["Ready"], 1);
    let limits = std::fs::read_to_string(agent.proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    // The kernel gives what tells of such a process's memory to root alone.
    assert_eq!(std::fs::metadata(agent.proc("environ")).unwrap().uid(), 0);
    if as_nobody {
        let mut look = Command::new("cat");
        look.arg(agent.proc("environ")).uid(NOBODY).gid(NOBODY);
        assert!(!look.output().unwrap().status.success(), "its own user can't look into it");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&agent.child), rustix::process::Signal::ABORT)
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match agent.child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(Instant::now() < deadline, "it ends");
    };
    assert!(status.signal().is_some() && !status.core_dumped(), "{status}");
}

fn post(agent: &Process, path: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let mut stream = UnixStream::connect(&agent.socket).unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{path}: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_metrics_or_on_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let page = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let agent = spawn(command(dir.path(), 1, &["--dashboard", &page.to_string()]), dir.path().join("1.sock")).await;
    let id = post(&agent, "/secrets/create", &json!({"Name": "key", "Data": "aHVudGVyMi1pbi1hLXNlY3JldA=="}));
    let id: serde_json::Value = serde_json::from_str(id.split_once("\r\n\r\n").unwrap().1.trim()).unwrap();
    let file = json!({"Name": "key", "UID": "0", "GID": "0", "Mode": 292});
    let container = json!({
        "Image": "demo/greeter:1", "Env": ["PASSWORD=hunter2-of-the-environment"],
        "Secrets": [{"SecretID": id["ID"], "SecretName": "key", "File": file}],
    });
    let spec =
        json!({"Name": "web", "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": 1}}});
    post(&agent, "/services/create", &spec);
    let deadline = Instant::now() + DEADLINE;
    while agent.get("/services?status=true")[0]["ServiceStatus"]["RunningTasks"] != 1 {
        assert!(Instant::now() < deadline, "the task runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    let token = agent.get("/peer/token")["Token"].as_str().unwrap().to_owned();
    let link = agent.get("/peer/dashboard")["Link"].as_str().unwrap().to_owned();
    let key = std::fs::read_to_string(dir.path().join("data1/ca-key.pem")).unwrap();
    let secrets = [
        "hunter2-in-a-secret",
        "aHVudGVyMi1pbi1hLXNlY3JldA==",
        "hunter2-of-the-environment",
        token.rsplit('-').next().unwrap(),
        link.split("token=").nth(1).unwrap(),
        key.lines().nth(1).unwrap(),
    ];
    for path in ["/metrics", "/live", "/history/web", "/logs/web", "/network", "/page.js", "/"] {
        let mut stream = TcpStream::connect(page).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // A stream without end is read for as long as the timeout.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
        for secret in secrets {
            assert!(secret.len() > 10 && !answer.contains(secret), "{path} shows {secret}");
        }
    }
}
