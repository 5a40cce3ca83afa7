//! Requests as any HTTP client sends them.

use super::{Server, views};
use crate::core::face::{Accepted, Refused, Request as Ask};
use crate::limits::MAX_API_BODY_BYTES;
use crate::model::node::Availability;
use crate::model::record::Hlc;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::Path;
use tokio::net::UnixStream;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn message(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json", "or the docker CLI prints the raw JSON");
        self.json()["message"].as_str().expect("a message").to_owned()
    }
}

pub async fn send(socket: &Path, request: Request<Body>) -> Answer {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: body.into() }
}

impl Server {
    pub async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        send(&self.socket(), request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Body::empty()).await
    }
}

fn filters(value: &Value) -> String {
    value.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn the_mesh_is_told_with_the_names_of_what_it_carries() {
    let server = Server::start(None).await;
    let told = server.get("/peer/mesh").await.json();
    let port = &told["Ports"][0];
    assert_eq!((told["Plane"].as_str(), port["Service"].as_str()), (Some("userspace"), Some("web")));
    assert_eq!((port["Port"].as_u64(), port["Options"].as_str()), (Some(30000), Some("prefer=local")));
    let shown = |n: usize| {
        let replica = &port["Replicas"][n];
        ["Name", "Hostname", "State"].map(|key| replica[key].as_str().unwrap().to_owned())
    };
    assert_eq!(shown(0), ["web.1", "node1", "routable"]);
    assert_eq!(shown(1), ["web.2", "node2", "draining"]);
    server.stop().await;
}

#[tokio::test]
async fn a_ping_says_what_we_speak() {
    let server = Server::start(None).await;
    for method in ["GET", "HEAD"] {
        let answer = server.call(method, "/_ping", Body::empty()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["api-version"], "1.50");
        assert_eq!(answer.headers["ostype"], "linux");
        assert_eq!(answer.headers["docker-experimental"], "false");
        assert_eq!(answer.headers["swarm"], "active/manager");
    }
    server.stop().await;
}

#[tokio::test]
async fn things_are_found_by_id_name_or_prefix_with_any_version_or_none() {
    let server = Server::start(None).await;
    let id = views::service("web", 2).service.id.to_string();
    for path in ["/services/web".to_owned(), format!("/v1.24/services/{id}"), format!("/v1.50/services/{}", &id[..12])]
    {
        assert_eq!(server.get(&path).await.json()["ID"], id, "{path}");
    }
    for path in ["/nodes/node2", "/nodes/self"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    let missing = server.get("/v1.41/services/missing?insertDefaults=true").await;
    assert_eq!((missing.status, missing.message()), (StatusCode::NOT_FOUND, "service missing not found".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn the_status_of_services_comes_only_when_asked_for() {
    let server = Server::start(None).await;
    assert_eq!(server.get("/services").await.json()[0].get("ServiceStatus"), None);
    assert_eq!(server.get("/services?status=true").await.json()[0]["ServiceStatus"]["RunningTasks"], 2);
    let with_defaults = server.get("/services/web?insertDefaults=true").await.json();
    assert_eq!(with_defaults["Spec"]["UpdateConfig"]["Parallelism"], 1);
    server.stop().await;
}

#[tokio::test]
async fn tasks_are_filtered_as_the_docker_cli_asks() {
    let server = Server::start(None).await;
    server.agent.state.lock().unwrap().tasks[1].up_to_date = false;
    let web = views::service("web", 2).service.id.to_string();
    let count = async |filter: Value| {
        let answer = server.get(&format!("/v1.41/tasks?filters={}", filters(&filter))).await;
        answer.json().as_array().unwrap_or_else(|| panic!("{filter}: {}", answer.json())).len()
    };
    assert_eq!(count(json!({ "service": { web.clone(): true } })).await, 2);
    assert_eq!(count(json!({ "service": { web.clone(): true }, "_up-to-date": { "true": true } })).await, 1);
    assert_eq!(count(json!({ "service": ["db"], "desired-state": ["running"] })).await, 1);
    assert_eq!(count(json!({ "node": ["node1"] })).await, 1);
    assert_eq!(count(json!({ "node": [&views::node_id(2).to_string()[..4]] })).await, 1);
    assert_eq!(count(json!({ "name": ["web.2"] })).await, 1);
    assert_eq!(count(json!({ "label": ["tier=front"] })).await, 3);
    assert_eq!(count(json!({ "desired-state": ["shutdown"] })).await, 0);
    for bad in [json!({ "colour": ["red"] }), json!({ "desired-state": ["happy"] })] {
        let answer = server.get(&format!("/tasks?filters={}", filters(&bad))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.message());
    }
    let answer = server.get(&format!("/tasks?filters={}", filters(&json!({ "service": ["nope"] })))).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn a_new_service_goes_to_the_agent_to_the_letter() {
    let server = Server::start(None).await;
    let text = "{ \"Name\":\"new\",\n\"Unheard\": 1.10 }";
    let request = Request::post("/v1.47/services/create").header("host", "docker").header("x-registry-auth", "e30=");
    let answer = send(&server.socket(), request.body(Body::from(text)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let id = views::service("new", 1).service.id.to_string();
    assert_eq!(answer.json(), json!({ "ID": id, "Warnings": null }));
    let asked = Ask::CreateService { spec_json: text.to_owned(), auth: Some("e30=".to_owned()) };
    assert_eq!(server.agent.last(), asked);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_never_reaches_the_agent() {
    let server = Server::start(None).await;
    let bad = server.call("POST", "/services/create", "{\n\"Name\": }").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.message().contains("line 2 column 9"), "{}", bad.message());
    let list = server.call("POST", "/services/create", "[]").await;
    assert_eq!(list.status, StatusCode::BAD_REQUEST);
    let binary = server.call("POST", "/services/create", vec![b'{', 0xff, b'}']).await;
    assert!(binary.message().contains("UTF-8"));
    let huge = server.call("POST", "/services/create", vec![b' '; MAX_API_BODY_BYTES + 1]).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(huge.message().contains("MAX_API_BODY_BYTES"));
    let version = server.call("POST", "/services/web/update?version=x", "{}").await;
    assert_eq!(version.status, StatusCode::BAD_REQUEST);
    assert!(server.agent.asked.lock().unwrap().is_empty());
    server.stop().await;
}

/// The docker CLI said "broken pipe" when a refusal came before its body had been read.
#[tokio::test]
async fn a_body_is_read_even_where_it_says_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start(None).await;
    for path in ["/swarm/join", "/containers/create", "/nonsense", "/services/web/update?rollback=previous&version=1"] {
        let mut client = UnixStream::connect(server.socket()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: 4\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), client.read_u8()).await;
        assert!(early.is_err(), "{path} was answered before its body came");
        client.write_all(b"{  }").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_update_names_the_version_it_read() {
    let server = Server::start(None).await;
    let view = views::service("web", 2);
    let path = format!("/services/web/update?registryAuthFrom=spec&version={}", view.index.0);
    let spec = views::spec_json("web", 4, "greeter:2");
    let answer = server.call("POST", &path, spec.clone()).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "Warnings": null })));
    let id = view.service.id;
    let asked = Ask::UpdateService { id, version: Some(view.index), spec_json: spec.clone(), auth: None };
    assert_eq!(server.agent.last(), asked);

    let stale = server.call("POST", &path, spec).await;
    assert_eq!(stale.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stale.message(), "rpc error: code = Unknown desc = update out of sequence");

    let index = view.index.0 + 1;
    server.call("POST", &format!("/services/web/update?rollback=previous&version={index}"), "{}").await;
    assert_eq!(server.agent.last(), Ask::RollbackService { id, version: Some(Hlc(index)), to: None });
    let odd = server.call("POST", &format!("/services/web/update?rollback=next&version={index}"), "{}").await;
    assert_eq!(odd.message(), "unrecognized rollback option next");
    server.stop().await;
}

#[tokio::test]
async fn refusals_and_warnings_come_through() {
    let server = Server::start(None).await;
    for (refused, status) in [
        (Refused::NotFound("a".to_owned()), StatusCode::NOT_FOUND),
        (Refused::Conflict("b".to_owned()), StatusCode::CONFLICT),
        (Refused::Invalid("c".to_owned()), StatusCode::BAD_REQUEST),
        (Refused::Unavailable("d".to_owned()), StatusCode::SERVICE_UNAVAILABLE),
    ] {
        *server.agent.next.lock().unwrap() = Some(Err(refused.clone()));
        let answer = server.call("DELETE", "/services/web", Body::empty()).await;
        assert_eq!((answer.status, answer.message()), (status, refused.to_string()));
    }
    let warnings = vec!["pending: held by 1 of 3 nodes".to_owned()];
    *server.agent.next.lock().unwrap() =
        Some(Ok(Accepted { id: "x".to_owned(), index: Hlc(1), warnings: warnings.clone() }));
    let answer = server.call("POST", "/services/create", "{}").await;
    assert_eq!(answer.json(), json!({ "ID": "x", "Warnings": warnings }));
    server.agent.state.lock().unwrap().services[0].pending = Some("held by 1 of 3 nodes".to_owned());
    assert_eq!(server.get("/services/web").await.json()["PeerPending"], "held by 1 of 3 nodes");
    server.stop().await;
}

#[tokio::test]
async fn a_node_is_drained_labelled_and_removed_but_never_demoted() {
    let server = Server::start(None).await;
    let index = views::node(2, "node2").index;
    let path = format!("/v1.41/nodes/node2/update?version={}", index.0);
    let drain = r#"{"Labels":{"zone":"a"},"Role":"manager","Availability":"drain"}"#;
    assert_eq!(server.call("POST", &path, drain).await.status, StatusCode::OK);
    let Ask::UpdateNode { id, version, availability, labels } = server.agent.last() else { panic!("an update") };
    assert_eq!((id, version, availability), (views::node_id(2), Some(index), Some(Availability::Drain)));
    assert_eq!(labels.unwrap()["zone"], "a");

    let demote = server.call("POST", &path, r#"{"Role":"worker","Availability":"active"}"#).await;
    assert_eq!(demote.status, StatusCode::BAD_REQUEST);
    assert!(demote.message().contains("nothing to demote"));
    let typo = server.call("POST", &path, r#"{"Role":"manager","Availability":"drian"}"#).await;
    assert!(typo.message().contains("drian"));

    let refused = server.call("DELETE", "/nodes/node3", Body::empty()).await;
    assert!(refused.message().contains("is not down"));
    assert_eq!(server.call("DELETE", "/nodes/node3?force=1", Body::empty()).await.status, StatusCode::OK);
    assert_eq!(server.get("/nodes").await.json().as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn versions_from_1_24_to_1_50_are_spoken() {
    let server = Server::start(None).await;
    for path in ["/v1.24/nodes", "/v1.41/nodes", "/v1.50/nodes", "/nodes"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    for (path, why) in [("/v1.51/nodes", "is too new. Maximum"), ("/v1.23/nodes", "is too old. Minimum")] {
        let refused = server.get(path).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_swarms_own_commands_say_what_to_do_instead() {
    let server = Server::start(None).await;
    let swarm = server.get("/swarm").await.json();
    assert_eq!(swarm["JoinTokens"]["Worker"], "PEERTKN-1-secret");
    let join = server.call("POST", "/swarm/join", "{}").await;
    assert_eq!(join.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(join.message().contains("peer start --join"));
    let leave = server.call("POST", "/swarm/leave", Body::empty()).await;
    assert_eq!(leave.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(leave.message().contains("peer leave"));
    assert_eq!(server.call("POST", "/swarm/leave?force=1", Body::empty()).await.status, StatusCode::OK);
    assert_eq!(server.agent.last(), Ask::RemoveNode { id: views::node_id(1), force: true });
    let rotate = "/swarm/update?rotateWorkerToken=true&rotateManagerToken=false&version=1";
    assert_eq!(server.call("POST", rotate, "{}").await.status, StatusCode::OK);
    assert_eq!(server.agent.last(), Ask::RotateToken { secret: "fresh".to_owned() });
    assert_eq!(server.get("/swarm").await.json()["JoinTokens"]["Manager"], "PEERTKN-1-fresh");
    server.stop().await;
}

#[tokio::test]
async fn our_own_paths() {
    let server = Server::start(None).await;
    assert_eq!(
        server.get("/peer/status").await.json()["Nodes"],
        json!({ "Total": 3, "Ready": 3, "Away": 0, "Down": 0 })
    );
    assert_eq!(server.get("/peer/token").await.json()["Token"], "PEERTKN-1-secret");
    let rotated = server.call("POST", "/peer/token/rotate", Body::empty()).await;
    assert_eq!(rotated.json()["Token"], "PEERTKN-1-fresh");

    let history = server.get("/peer/services/web/history").await;
    assert_eq!(history.json()[1]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "greeter:2");
    assert_eq!((&history.json()[1]["Number"], &history.json()[1]["Current"]), (&json!(2), &json!(true)));
    assert!(!String::from_utf8_lossy(&history.body).contains("c2VjcmV0"), "credentials are never shown");

    assert_eq!(server.call("POST", "/peer/services/web/rollback?to=1", Body::empty()).await.status, StatusCode::OK);
    let id = views::service("web", 2).service.id;
    assert_eq!(server.agent.last(), Ask::RollbackService { id, version: None, to: Some(views::revision_id(1)) });
    let none = server.call("POST", "/peer/services/web/rollback?to=9", Body::empty()).await;
    assert_eq!(none.message(), "service web has no revision 9 (kept: 1, 2)");

    server.call("POST", "/peer/recover", Body::empty()).await;
    assert_eq!(server.agent.last(), Ask::Recover);
    server.call("POST", "/peer/stop", Body::empty()).await;
    assert_eq!(server.agent.last(), Ask::Stop);
    assert_eq!(server.get("/peer/nonsense").await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn a_node_without_an_engine_says_so() {
    let server = Server::start(None).await;
    let containers = server.get("/v1.47/containers/json").await;
    assert_eq!(containers.status, StatusCode::NOT_IMPLEMENTED);
    assert!(containers.message().contains("Docker Engine"));
    assert_eq!(server.get("/v1.47/distribution/reg:5000/a/b:1/json").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/version").await.json()["ApiVersion"], "1.50");
    let info = server.get("/info").await.json();
    assert_eq!((&info["Name"], &info["Swarm"]["Nodes"]), (&json!("node1"), &json!(3)));
    server.stop().await;
}

#[tokio::test]
async fn an_event_stream_ends_when_the_agent_stops() {
    let server = Server::start(None).await;
    let socket = server.socket();
    let stop = server.stop.clone();
    let request = Request::get("/events").header("host", "docker").body(Body::empty()).unwrap();
    let stream = UnixStream::connect(&socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    stop.cancel();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 1024).await.unwrap();
    assert!(body.is_empty());
    server.stop().await;
}
