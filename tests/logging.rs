//! What two real agents log, at the highest level and as JSON: a change is followed from the command to the other node's container,
//! and no secret is in any line.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const ENV_SECRET: &str = "hunter2-of-the-environment";
const LOGIN: &str = "bG9naW4tb2YtdGhlLXJlZ2lzdHJ5LWh1bnRlcjI=";
/// "content-of-a-secret-hunter2"
const SECRET_BASE64: &str = "Y29udGVudC1vZi1hLXNlY3JldC1odW50ZXIy";

struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(dir: &Path, number: u8, join: Option<(&str, &str)>) -> Self {
        let (socket, log) = (dir.join(format!("{number}.sock")), dir.join(format!("{number}.log")));
        let ip = format!("127.0.0.{number}");
        let udp = std::net::UdpSocket::bind((ip.as_str(), 0)).unwrap().local_addr().unwrap();
        let page = std::net::TcpListener::bind((ip.as_str(), 0)).unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.args(["start", "--engine", "demo", "--log-format", "json", "--log-level", "trace"]);
        command.args(["--hostname", &format!("node{number}"), "--publish-addr", &ip]);
        command.args(["--listen-addr", &udp.to_string(), "--advertise-addr", &udp.to_string()]);
        command.args(["--dashboard", &page.to_string()]).arg("--socket").arg(&socket);
        command.arg("--data-dir").arg(dir.join(format!("data{number}")));
        if let Some((host, token)) = join {
            command.args(["--join", host]).env("PEER_TOKEN", token);
        }
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let agent = Self { child, socket, log };
        until("the agent's socket answers", || UnixStream::connect(&agent.socket).is_ok());
        agent
    }

    fn call(&self, method: &str, path: &str, more: &str, body: Option<&Value>) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n{more}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        serde_json::from_str(body.trim()).unwrap_or(Value::Null)
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_change_is_followed_over_nodes_and_no_secret_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let first = Agent::start(dir.path(), 1, None);
    let token = first.call("GET", "/peer/token", "", None)["Token"].as_str().unwrap().to_owned();
    let at = first.call("GET", "/peer/status", "", None)["Node"]["Addr"].as_str().unwrap().to_owned();
    let second = Agent::start(dir.path(), 2, Some((&at, &token)));
    until("both are ready", || first.call("GET", "/peer/status", "", None)["Nodes"]["Ready"] == 2);
    let secret = json!({"Name": "s", "Data": SECRET_BASE64});
    let secret = first.call("POST", "/secrets/create", "", Some(&secret))["ID"].as_str().unwrap().to_owned();
    let spec = json!({
        "Name": "web",
        "TaskTemplate": {"ContainerSpec": {
            "Image": "demo/greeter:1", "Env": [format!("PASSWORD={ENV_SECRET}")],
            "Secrets": [{"SecretID": secret, "SecretName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}}],
        }},
        "Mode": {"Replicated": {"Replicas": 2}},
    });
    let headers = format!("X-Registry-Auth: {LOGIN}\r\nX-Request-Id: deploy-17\r\n");
    first.call("POST", "/services/create", &headers, Some(&spec));
    let history = first.call("GET", "/peer/services/web/history", "", None);
    let change = history[0]["Change"].as_str().unwrap().to_owned();
    let of_change = |agent: &Agent, message: &str| {
        agent.lines().into_iter().find(|line| line["message"] == message && line["change"] == change.as_str())
    };
    let running = |agent: &Agent| {
        agent
            .lines()
            .iter()
            .any(|line| line["message"] == "task" && line["change"] == change.as_str() && line["phase"] == "running")
    };
    until("the first node's task runs", || running(&first));
    until("the second node's task runs", || running(&second));
    // The command, from the API's first word on it, is known by the name that its client gave it; and from when it was accepted on
    // by its change too, which is its name on every node.
    let accepted = of_change(&first, "change accepted").expect("the command's line");
    assert_eq!(accepted["service"], "web");
    let span = &accepted["spans"][0];
    assert_eq!(
        (&span["name"], &span["request"], &span["method"]),
        (&json!("api"), &json!("deploy-17"), &json!("POST"))
    );
    assert_eq!((&span["path"], &span["change"]), (&json!("/services/create"), &json!(change)));
    let answered = first.lines().into_iter().find(|line| line["message"] == "api" && line["spans"][0] == *span);
    assert_eq!(answered.expect("the API's last word on it")["status"], 201);
    // Who gives no name is given one.
    let named = |line: &Value| line["message"] == "api" && line["spans"][0]["path"] == "/secrets/create";
    let id = first.lines().into_iter().find(named).expect("the secret's line")["spans"][0]["request"].clone();
    assert!(id.as_str().is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{id}");
    // The engine's calls on the other node stand in spans of the change.
    let started = second.lines().into_iter().find(|line| line["message"] == "starting the container: done");
    let spans = started.expect("a call of the engine")["spans"].clone();
    assert_eq!((&spans[0]["name"], &spans[0]["change"]), (&json!("engine"), &json!(change)));

    let rotated = first.call("POST", "/peer/token/rotate", "", None)["Token"].as_str().unwrap().to_owned();
    let page = first.call("GET", "/peer/dashboard", "", None)["Link"].as_str().unwrap().to_owned();
    let page = page.split("token=").nth(1).unwrap().to_owned();
    let key = std::fs::read_to_string(dir.path().join("data1/ca-key.pem")).unwrap();
    let key = key.lines().nth(1).unwrap().to_owned();
    let last = |token: &str| token.rsplit('-').next().unwrap().to_owned();
    let secrets = [
        ENV_SECRET.to_owned(),
        LOGIN.to_owned(),
        SECRET_BASE64.to_owned(),
        "content-of-a-secret-hunter2".to_owned(),
        last(&token),
        last(&rotated),
        page,
        key,
    ];
    for agent in [&first, &second] {
        let text = std::fs::read_to_string(&agent.log).unwrap();
        assert!(text.lines().count() > 100, "there is a log to look at");
        for secret in &secrets {
            assert!(secret.len() > 10, "{secret}");
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "a secret is in the log");
        }
    }
}
