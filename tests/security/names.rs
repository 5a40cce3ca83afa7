//! Names that would lead out of where they belong. A bind mount names a path of the node and may: it is by design as strong as in
//! Docker (docs/threat-model.md).

use crate::agents::{command, spawn};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const ELSEWHERE: [&str; 7] = ["../up", "..", "/etc/passwd", "a/../../b", "a/b", "a\\..\\b", "a\u{0}b"];

fn post(socket: &Path, path: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let mut stream = UnixStream::connect(socket).unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn service(name: &str, container: Value) -> Value {
    let mut container = container;
    container["Image"] = json!("demo/greeter:1");
    json!({"Name": name, "TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": 0}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_leads_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let agent = spawn(command(dir.path(), 1, &["--dashboard", "none"]), dir.path().join("1.sock")).await;
    let socket = &agent.socket;
    for name in ELSEWHERE {
        for (path, body) in [
            ("/services/create", service(name, json!({}))),
            ("/secrets/create", json!({"Name": name, "Data": "eA=="})),
            ("/configs/create", json!({"Name": name, "Data": "eA=="})),
            ("/networks/create", json!({"Name": name, "Driver": "overlay", "Scope": "swarm"})),
            (
                "/services/create",
                service("web", json!({"Mounts": [{"Type": "volume", "Source": name, "Target": "/data"}]})),
            ),
        ] {
            let (status, text) = post(socket, path, &body);
            assert_eq!(status, 400, "{path} {body}: {text}");
        }
    }
    let (status, made) = post(socket, "/secrets/create", &json!({"Name": "key", "Data": "eA=="}));
    assert_eq!(status, 201, "{made}");
    let id = serde_json::from_str::<Value>(&made).unwrap()["ID"].clone();
    let as_file = |target: &str| {
        let file = json!({"Name": target, "UID": "0", "GID": "0", "Mode": 292});
        service("web", json!({"Secrets": [{"SecretID": id, "SecretName": "key", "File": file}]}))
    };
    for target in ["../key", "a/../../key", "..", "/run/../etc/key", "key/"] {
        let (status, text) = post(socket, "/services/create", &as_file(target));
        assert!(status == 400 && text.contains(".."), "{target}: {status} {text}");
    }
    // Elsewhere within the container is what Docker allows.
    assert_eq!(post(socket, "/services/create", &as_file("/etc/app/key")).0, 201);
    let bind = service("binds", json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}));
    assert_eq!(post(socket, "/services/create", &bind).0, 201, "a bind may name any path, as in Docker");
    for stack in ["../x", "a/b", ".."] {
        let (done, text) = agent.peer(&["stack", "ps", stack]);
        assert!(!done && text.contains("invalid value"), "{stack}: {text}");
    }
    for client in ["../x", "a/b", "a.b"] {
        let (done, text) = agent.peer(&["cert", "issue", "--client", client, "--out", "certs"]);
        assert!(!done && text.contains("no client's name"), "{client}: {text}");
    }
}
