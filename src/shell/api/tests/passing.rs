//! What isn't ours goes to the engine: an engine made up of a socket and a few lines stands in for Docker.

use super::Server;
use super::http::send;
use super::views::CLUSTER;
use crate::ids::ObjectId;
use crate::model::object::ObjectKind;
use crate::shell::api::remote::serve_client;
use crate::shell::identity::ClientName;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Answers each connection by what the first line of its request asks for.
async fn engine(dir: &Path) -> PathBuf {
    let path = dir.join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    path
}

async fn answer(mut stream: UnixStream) {
    let head = read_head(&mut stream).await;
    let line = head.lines().next().unwrap_or_default().to_owned();
    // (The network's id, wherever it stands.)
    let json = |body: &str| {
        let body = &body.replace("NETWORK", &front().to_string());
        format!(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let reply = if line.contains("/_ping") {
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nBuilder-Version: 2\r\nContent-Length: 0\r\n\r\n".to_owned()
    } else if line.contains("/version") {
        json(r#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12","Components":[]}"#)
    } else if line.contains("/info") {
        json(r#"{"ServerVersion":"20.10.24","Images":36,"Swarm":{"LocalNodeState":"inactive"}}"#)
    } else if line.contains("/networks?") {
        json(
            r#"[{"Name":"bridge","Id":"b1","Driver":"bridge","Scope":"local","Labels":{}},
            {"Name":"front","Id":"f1","Driver":"bridge","Scope":"local","Labels":{"peer.network":"NETWORK"}}]"#,
        )
    } else if line.contains("/attach") {
        assert!(head.to_ascii_lowercase().contains("upgrade: tcp"), "{head}");
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".to_owned()
    } else {
        format!("HTTP/1.1 404 Not Found\r\nX-Seen: {line}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n0\r\n\r\n")
    };
    stream.write_all(reply.as_bytes()).await.unwrap();
    if line.contains("/attach") {
        echo(stream).await;
    }
}

/// Says back in capitals what comes, and goodbye at its end.
async fn echo(mut stream: UnixStream) {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            n => stream.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap(),
        }
    }
    stream.write_all(b"bye").await.unwrap();
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn what_is_not_ours_passes_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let request = Request::get("/v1.41/images/json?all=1").header("host", "docker").body(Body::empty()).unwrap();
    let answer = send(&server.socket(), request).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.headers["x-seen"], "GET /v1.41/images/json?all=1 HTTP/1.1");
    assert_eq!(answer.body, b"gone");
    server.stop().await;
}

#[tokio::test]
async fn clients_are_told_to_speak_what_the_engine_understands() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let ping = server.get("/_ping").await;
    assert_eq!(ping.headers["api-version"], "1.41");
    assert_eq!(ping.headers["builder-version"], "2");
    let version = server.get("/version").await.json();
    assert_eq!((&version["Version"], &version["ApiVersion"]), (&json!("20.10.24"), &json!("1.41")));
    assert_eq!(version["Components"][0]["Name"], "peer");
    server.stop().await;
}

#[tokio::test]
async fn info_is_the_engines_with_our_swarm_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let info = server.get("/v1.41/info").await.json();
    assert_eq!(info["Images"], 36);
    assert_eq!(info["Swarm"]["LocalNodeState"], "active");
    server.stop().await;
}

fn front() -> ObjectId {
    ObjectId::of_name(CLUSTER, ObjectKind::Network, "front")
}

#[tokio::test]
async fn networks_are_the_engines_and_the_clusters_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let made =
        server.call("POST", "/v1.41/networks/create", Body::from(r#"{"Name":"front","Driver":"overlay"}"#)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let listed = server.get("/v1.41/networks?filters={}").await.json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|n| (&n["Name"], &n["Scope"])).collect();
    assert_eq!(names, [(&json!("front"), &json!("swarm")), (&json!("bridge"), &json!("local"))]);
    // One of the engine's own, and whatever is asked of it, goes through.
    for path in ["/v1.41/networks/bridge", "/v1.41/networks/front?scope=local"] {
        assert_eq!(server.get(path).await.headers["x-seen"], format!("GET {path} HTTP/1.1"));
    }
    let local = server.call("POST", "/v1.41/networks/create", Body::from(r#"{"Name":"x","Driver":"bridge"}"#)).await;
    assert_eq!(local.headers["x-seen"], "POST /v1.41/networks/create HTTP/1.1");
    server.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_gone_takes_only_its_own_paths_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(dir.path().join("nobody.sock"))).await;
    assert_eq!(server.get("/_ping").await.headers["api-version"], "1.50");
    let images = server.get("/images/json").await;
    assert_eq!(images.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(images.message().contains("doesn't answer"));
    let info = server.get("/info").await.json();
    assert!(info["Warnings"][0].as_str().unwrap().contains("unreachable"));
    assert_eq!(info["Swarm"]["ControlAvailable"], true);
    assert_eq!(server.get("/nodes").await.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn an_attached_terminal_is_joined_both_ways_until_each_half_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let mut client = UnixStream::connect(server.socket()).await.unwrap();
    let request = "POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("application/vnd.docker.raw-stream"), "{head}");
    client.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"HELLO");
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    server.stop().await;
}

#[tokio::test]
async fn a_terminal_ends_when_its_clients_certificate_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let (mut client, far) = tokio::io::duplex(4096);
    let ann = ClientName { name: "ann".to_owned(), generation: 0, cluster: CLUSTER };
    let serving = tokio::spawn(serve_client(server.api.clone(), far, ann, Duration::from_millis(10)));
    let request = "POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"HELLO");
    assert!(!serving.is_finished(), "what was upgraded is still watched over");

    let revoked = server.call("POST", "/peer/certs/ann/revoke?force=1", Body::empty()).await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.message());
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
    let _ = ended.expect("the terminal is ended within 10 s");
    serving.await.unwrap();
    server.stop().await;
}

/// The connection's place is given back when the last of what it was upgraded to has ended, and not before.
#[tokio::test]
async fn a_connection_that_was_upgraded_is_over_when_the_terminal_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Some(engine(dir.path()).await)).await;
    let (mut client, far) = tokio::io::duplex(4096);
    let ann = ClientName { name: "ann".to_owned(), generation: 0, cluster: CLUSTER };
    let serving = tokio::spawn(serve_client(server.api.clone(), far, ann, Duration::from_secs(60)));
    let request = "POST /v1.41/containers/x/attach HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(client.read_u8().await.unwrap());
    }
    client.shutdown().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut all)).await.unwrap().unwrap();
    assert!(all.ends_with(b"bye"), "{}", String::from_utf8_lossy(&all));
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it is over").unwrap();
    server.stop().await;
}
