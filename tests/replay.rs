//! What the docker CLI asked of a real swarm, and what that answered (docker 28.2.2, dockerd 20.10.24; `recorded/`), asked of a
//! peer cluster: every answer has the same status, and every field that was there, with the same types. More may be there.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::shell::demo::Demo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

const RECORDED: &str = include_str!("recorded/conversations.json");
const PATIENCE: Duration = Duration::from_secs(60);

/// What a peer cluster leaves out on purpose: the places, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    // The built-in engine has no plugins, and isn't Docker's.
    ("Description.Engine.Plugins", "the engine's"),
    ("Description.TLSInfo", "nodes are proven by ids and not by a subject"),
    ("TLSInfo.CertIssuer", "likewise"),
    ("Plugins.", "likewise"),
    ("SecurityOptions", "likewise"),
    ("IPAM.Config", "each node's engine chooses the addresses of its bridge"),
    ("ContainerSpec.Isolation", "Windows; the CLI doesn't show it"),
    ("TaskTemplate.Runtime", "written only where it was said; the CLI doesn't read it"),
    ("Placement.Platforms", "the CLI writes them, from what a registry says"),
    ("NetworksAttachments", "a bridge of the node's own, whose addresses mean nothing elsewhere"),
    ("Endpoint.VirtualIPs", "there are no virtual addresses"),
    // The CLI reads them for `docker swarm update`, which is refused.
    ("Spec.Raft", "no raft"),
    ("Spec.EncryptionConfig", "no lock"),
    ("Swarm.Cluster", "in /swarm"),
];
/// Of /info and /version, which are the local engine's but for these.
const OURS_OF_INFO: &[&str] = &[
    "Swarm",
    "ID",
    "Name",
    "NCPU",
    "MemTotal",
    "ServerVersion",
    "OSType",
    "Architecture",
    "Plugins",
    "SecurityOptions",
];

struct Api {
    demo: Demo,
    recorded: Vec<Value>,
    wrong: Vec<String>,
}

impl Api {
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u64, Value) {
        let asking = async {
            let mut stream = UnixStream::connect(self.demo.socket(0)).await.unwrap();
            let body = body.map(Value::to_string).unwrap_or_default();
            // As 1.0, the answer ends with the connection.
            let head = format!(
                "{method} /v1.41{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{method} {path} hangs"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// The exchange as it was recorded.
    fn recorded(&self, from: &str, path: &str) -> Value {
        let is_it = |e: &&Value| e["from"] == from && e["path"].as_str().unwrap().starts_with(path);
        self.recorded.iter().find(is_it).unwrap_or_else(|| panic!("{from} {path} was not recorded")).clone()
    }

    /// Asks what was asked then, at `path`, with `request`; the answer must be as it was.
    async fn replay(&mut self, from: &str, path_then: &str, path: &str, request: Option<Value>) -> Value {
        let then = self.recorded(from, path_then);
        let (status, answer) = self.ask(then["method"].as_str().unwrap(), path, request.as_ref()).await;
        if status != then["status"] {
            self.wrong.push(format!("{from} {path}: {} then, {status} now: {answer}", then["status"]));
        }
        compare(&then["answer"], &answer, "", &mut |what| self.wrong.push(format!("{from} {path}: {what}")));
        answer
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn compare(then: &Value, now: &Value, at: &str, wrong: &mut impl FnMut(String)) {
    if LEFT_OUT.iter().any(|(place, _)| at.contains(place)) || then.is_null() {
        return;
    }
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, value) in then {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                // Labels, options and the like are by names that are nobody's fields.
                let free = ["Labels", "Options", "Sysctls"].iter().any(|map| at.contains(&format!("{map}.")));
                match now.get(key) {
                    Some(found) => compare(value, found, &at, wrong),
                    None if free || value.is_null() => {}
                    None => compare(value, &Value::Null, &at, wrong),
                }
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if let (Some(then), Some(now)) = (then.first(), now.first()) {
                compare(then, now, &format!("{at}[]"), wrong);
            } else if !then.is_empty() {
                wrong(format!("{at} is empty"));
            }
        }
        (then, now) if kind(then) == kind(now) => {}
        (then, now) => wrong(format!("{at} was {} and is {}", kind(then), kind(now))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_are_answered_with_every_field_of_the_same_type() {
    let demo = Demo::start(1).await.unwrap();
    demo.wait_formed(1).await.unwrap();
    let recorded = serde_json::from_str(RECORDED).unwrap();
    let mut api = Api { demo, recorded, wrong: Vec::new() };

    // What the rich service needs, made by the requests of then.
    for (from, path) in [
        ("29-secret-create", "/secrets/create"),
        ("32-config-create", "/configs/create"),
        ("34-network-create", "/networks/create"),
    ] {
        let request = api.recorded(from, path)["request"].clone();
        api.replay(from, path, path, Some(request)).await;
    }
    let rich = "36-service-create-rich";
    let network = api.replay(rich, "/networks/net1", "/networks/net1?scope=swarm", None).await;
    let secrets =
        api.replay(rich, "/secrets?", "/secrets?filters=%7B%22name%22%3A%7B%22token%22%3Atrue%7D%7D", None).await;
    let configs =
        api.replay(rich, "/configs?", "/configs?filters=%7B%22name%22%3A%7B%22motd%22%3Atrue%7D%7D", None).await;

    // The same service, of an image that the built-in engine has.
    let mut spec = api.recorded(rich, "/services/create")["request"].clone();
    let task = &mut spec["TaskTemplate"];
    task["ContainerSpec"]["Image"] = json!("demo/greeter:1");
    task["ContainerSpec"]["Secrets"][0]["SecretID"] = secrets[0]["ID"].clone();
    task["ContainerSpec"]["Configs"][0]["ConfigID"] = configs[0]["ID"].clone();
    task["Networks"][0]["Target"] = network["Id"].clone();
    task["Placement"]["Constraints"] = json!(["node.platform.os==linux"]);
    task["Placement"]["Platforms"] = Value::Null;
    spec["Name"] = json!("rich");
    // It has a port of its node's, of which there is one here.
    spec["Mode"]["Replicated"]["Replicas"] = json!(1);
    spec["UpdateConfig"]["Order"] = json!("stop-first");
    spec["UpdateConfig"]["Monitor"] = json!(100_000_000);
    api.replay(rich, "/services/create", "/services/create", Some(spec.clone())).await;
    let deadline = Instant::now() + PATIENCE;
    let tasks = "/tasks?filters=%7B%22service%22%3A%7B%22rich%22%3Atrue%7D%7D";
    loop {
        let running = |task: &Value| task["Status"]["State"] == "running";
        let (_, answer) = api.ask("GET", tasks, None).await;
        if answer.as_array().is_some_and(|tasks| !tasks.is_empty() && tasks.iter().all(running)) {
            break;
        }
        assert!(Instant::now() < deadline, "rich doesn't run: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let service =
        api.replay("37-service-inspect-rich", "/services/rich", "/services/rich?insertDefaults=true", None).await;
    api.replay("38-service-ps-rich", "/tasks?", tasks, None).await;
    api.replay("40-service-ls-two", "/services?", "/services?status=true", None).await;

    // An update, with its status.
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let update = format!("/services/rich/update?version={}", service["Version"]["Index"]);
    assert_eq!(api.ask("POST", &update, Some(&spec)).await.0, 200);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, answer) = api.ask("GET", "/services/rich?insertDefaults=false", None).await;
        if answer["UpdateStatus"]["State"] == "completed" {
            break;
        }
        assert!(Instant::now() < deadline, "the update doesn't end: {}", answer["UpdateStatus"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let then = api.recorded("10-service-update-image", "/services/greeters")["answer"]["UpdateStatus"].clone();
    let (_, now) = api.ask("GET", "/services/rich?insertDefaults=false", None).await;
    compare(&then, &now["UpdateStatus"], "UpdateStatus", &mut |what| api.wrong.push(what));

    // Nodes, and the cluster.
    let nodes = api.replay("03-node-ls", "/nodes", "/nodes", None).await;
    let node = format!("/nodes/{}", nodes[0]["ID"].as_str().unwrap());
    api.replay("18-node-inspect", "/nodes/", &node, None).await;
    api.replay("61-swarm-join-token", "/swarm", "/swarm", None).await;
    for (from, path) in [("02-info", "/info"), ("01-version", "/version")] {
        let then = api.recorded(from, path)["answer"].clone();
        let (status, now) = api.ask("GET", path, None).await;
        assert_eq!(status, 200);
        for (key, value) in then.as_object().unwrap() {
            if path == "/version" || OURS_OF_INFO.contains(&key.as_str()) {
                let mut told = |what| api.wrong.push(format!("{path}: {what}"));
                match (path, key.as_str()) {
                    ("/version", "Components" | "BuildTime" | "GitCommit" | "GoVersion" | "Platform") => {}
                    _ => compare(value, &now[key], key, &mut told),
                }
            }
        }
    }

    // And what is refused.
    api.replay("41-service-create-duplicate", "/services/create", "/services/create", Some(spec)).await;
    api.replay("44-service-inspect-missing", "/services/missing", "/services/missing?insertDefaults=true", None).await;
    api.replay("51-node-rm-refused", "/nodes/", &node, None).await;
    api.replay("70-swarm-leave-last-manager", "/swarm/leave", "/swarm/leave", None).await;
    api.replay("28-service-rm", "/services/", "/services/rich", None).await;
    api.replay("52-secret-rm", "/secrets/", "/secrets/token", None).await;
    assert!(api.wrong.is_empty(), "{}", api.wrong.join("\n"));
    api.demo.end().await;
}
