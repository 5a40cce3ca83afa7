//! HTTP-aware ports over loopback: real clients, real replicas, and replicas that misbehave.

use super::super::DataPlane;
use super::super::tests::{HERE, Mesh, free_port, table, within};
use crate::core::face::MeshEvent;
use crate::ids::TaskId;
use crate::model::spec::{AppProtocol, PortOptions, Protocol};
use crate::routes::RouteTable;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

type Text = Full<Bytes>;

/// A replica that says its name, the request's version, method, path and headers; `/held` waits until it is let go.
struct Server {
    port: u16,
    /// Connections that are open to it.
    open: watch::Receiver<usize>,
    let_go: CancellationToken,
    /// A request is being held.
    holds: watch::Receiver<bool>,
    /// Ends it and all its connections at once.
    _alive: DropGuard,
}

async fn server(name: &'static str) -> Server {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (counter, open) = watch::channel(0);
    let (holding, holds) = watch::channel(false);
    let (let_go, alive) = (CancellationToken::new(), CancellationToken::new());
    let (gate, end) = (let_go.clone(), alive.clone());
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (counter, holding, gate, end) = (counter.clone(), holding.clone(), gate.clone(), end.clone());
            tokio::spawn(async move {
                counter.send_modify(|open| *open += 1);
                let service = service_fn(|request: Request<Incoming>| {
                    let (holding, gate) = (holding.clone(), gate.clone());
                    async move {
                        if request.uri().path() == "/held" {
                            holding.send_replace(true);
                            gate.cancelled().await;
                        }
                        Ok::<_, Infallible>(told(name, request).await)
                    }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                tokio::select! {
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                    () = end.cancelled() => {}
                }
                counter.send_modify(|open| *open -= 1);
            });
        }
    };
    let end = alive.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = serve => {}
            () = end.cancelled() => {}
        }
    });
    Server { port, open, let_go, holds, _alive: alive.drop_guard() }
}

async fn told(
    name: &str,
    request: Request<Incoming>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut text = format!("{name} {:?} {} {} {}\n", parts.version, parts.method, parts.uri.path(), body.len());
    for (key, value) in &parts.headers {
        text.push_str(&format!("{key}: {}\n", value.to_str().unwrap()));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
    let stream = StreamBody::new(futures_util::stream::iter(frames));
    Response::builder().header("trailer", "grpc-status").body(BodyExt::boxed(stream)).unwrap()
}

/// Takes connections and closes each as soon as something has come over it; counts them.
async fn rude() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, count)
}

fn with(protocol: AppProtocol, published: u16, targets: &[u16]) -> Arc<RouteTable> {
    let mut table = (*table(published, targets)).clone();
    let options = PortOptions { protocol, ..PortOptions::default() };
    table.options = BTreeMap::from([((Protocol::Tcp, published), options)]);
    Arc::new(table)
}

fn http(published: u16, targets: &[u16]) -> Arc<RouteTable> {
    with(AppProtocol::Http, published, targets)
}

struct Client(http1::SendRequest<Text>);

impl Client {
    async fn to(port: u16) -> Self {
        let stream = TcpStream::connect((HERE, port)).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    async fn send(&mut self, request: Request<Text>) -> (StatusCode, HeaderMap, String) {
        let exchange = async {
            self.0.ready().await.unwrap();
            let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status, head.headers, String::from_utf8(body.into()).unwrap())
        };
        within("an answer through the mesh", exchange).await
    }

    async fn get(&mut self, path: &str) -> String {
        let (status, _, text) = self.send(request("GET", path, "")).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }
}

fn request(method: &str, path: &str, body: &'static str) -> Request<Text> {
    Request::builder().method(method).uri(path).header("host", "shop").body(Full::new(Bytes::from(body))).unwrap()
}

fn name(text: &str) -> &str {
    text.split(' ').next().unwrap()
}

#[tokio::test]
async fn requests_of_one_connection_take_turns_and_a_replica_that_goes_costs_it_nothing() {
    let (a, b) = (server("a").await, server("b").await);
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[a.port, b.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut client = Client::to(port).await;
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..6 {
        *counts.entry(name(&client.get("/").await).to_owned()).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 3)]));
    assert_eq!((*a.open.borrow(), *b.open.borrow()), (1, 1), "connections are kept");
    let text = client.get("/some/path?q=1").await;
    for line in
        [" HTTP/1.1 GET /some/path 0\n", "host: shop\n", "x-forwarded-for: 127.0.0.1\n", "x-forwarded-host: shop\n"]
    {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }

    // Withdrawn: its idle connection is closed, the client's isn't.
    mesh.plane.apply(2, http(port, &[a.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 2 });
    mesh.plane.await_drained(TaskId::from_u128(2), true);
    assert_eq!(mesh.event().await, MeshEvent::Drained { task: TaskId::from_u128(2) });
    let mut open = b.open.clone();
    within("the end of the kept connection", open.wait_for(|open| *open == 0)).await.unwrap();
    drop(b);
    for _ in 0..4 {
        assert_eq!(name(&client.get("/").await), "a");
    }
}

#[tokio::test]
async fn a_replica_that_dies_at_once_costs_no_request_of_kept_or_new_connections() {
    let (a, b) = (server("a").await, server("b").await);
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[a.port, b.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::to(port).await;
        client.get("/").await;
        client.get("/").await;
        clients.push(client);
    }
    // Nobody was told: its connections end, and its port refuses.
    drop(b);
    for client in &mut clients {
        for _ in 0..4 {
            assert_eq!(name(&client.get("/").await), "a");
        }
    }
    assert_eq!(name(&Client::to(port).await.get("/").await), "a");
}

#[tokio::test]
async fn what_was_never_answered_is_asked_of_another_replica_if_it_may_be_done_twice() {
    let ((rude, asked), good, refuses) = (rude().await, server("good").await, free_port().await);
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[rude, good.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut client = Client::to(port).await;
    for (method, body) in [("GET", ""), ("PUT", "some"), ("DELETE", ""), ("OPTIONS", "")] {
        for _ in 0..2 {
            let (status, _, text) = client.send(request(method, "/", body)).await;
            assert_eq!((status, name(&text)), (StatusCode::OK, "good"), "{method}");
        }
    }
    assert!(asked.load(Ordering::Relaxed) >= 4, "it was asked and said nothing");
    // One of two meets it: whether it was done nobody knows.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let (status, _, text) = client.send(request("POST", "/", "some")).await;
        assert!(status == StatusCode::OK || text.ends_with('\n') && text.contains("did not answer"), "{text}");
        statuses.push(status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    // Nothing of it was sent: it goes to the other one.
    mesh.plane.apply(2, http(port, &[refuses, good.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 2 });
    for _ in 0..4 {
        let (status, _, text) = client.send(request("POST", "/", "some")).await;
        assert_eq!((status, name(&text)), (StatusCode::OK, "good"));
    }
    mesh.plane.apply(3, http(port, &[refuses]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 3 });
    let (status, _, text) = client.send(request("GET", "/", "")).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("no replica could be reached") && text.lines().count() == 1, "{text}");
    mesh.plane.apply(4, http(port, &[]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 4 });
    let (status, _, text) = client.send(request("GET", "/", "")).await;
    assert_eq!((status, text), (StatusCode::SERVICE_UNAVAILABLE, format!("port {port}: no replica is ready\n")));
    let view = mesh.plane.view();
    assert_eq!(view.ports[0].totals.failures, 3);
    assert!(view.ports[0].totals.retries >= 4);
}

#[tokio::test]
async fn a_request_holds_up_its_replicas_stop_until_it_has_its_answer() {
    let (mut a, b) = (server("a").await, server("b").await);
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[a.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let asked = tokio::spawn(async move {
        let mut client = Client::to(port).await;
        (client.get("/held").await, client.get("/").await)
    });
    within("the request at its replica", a.holds.wait_for(|holds| *holds)).await.unwrap();
    let mut without = (*http(port, &[a.port, b.port])).clone();
    without.ports.values_mut().for_each(|backends| *backends = backends[1..].into());
    mesh.plane.apply(2, Arc::new(without));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 2 });
    mesh.plane.await_drained(TaskId::from_u128(1), true);
    assert!(!mesh.plane.is_quiet(TaskId::from_u128(1)));
    a.let_go.cancel();
    assert_eq!(mesh.event().await, MeshEvent::Drained { task: TaskId::from_u128(1) });
    let (held, next) = within("both answers", asked).await.unwrap();
    assert_eq!((name(&held), name(&next)), ("a", "b"));
}

#[tokio::test]
async fn upgrades_pass_as_bytes() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let target = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
    });
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[target]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let talk = async {
        let mut client = Client::to(port).await;
        let mut asked = request("GET", "/chat", "");
        asked.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        asked.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        let answer = client.0.send_request(asked).await.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["upgrade"].as_bytes()),
            (StatusCode::SWITCHING_PROTOCOLS, &b"websocket"[..])
        );
        let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(within("the echo", talk).await, "HELLO");
}

#[tokio::test]
async fn h2c_clients_are_served_and_replicas_that_speak_it_are_spoken_to_with_trailers() {
    let a = server("a").await;
    let (plain, grpc) = (free_port().await, free_port().await);
    let mut both = (*http(plain, &[a.port])).clone();
    let other = with(AppProtocol::H2c, grpc, &[a.port]);
    both.ports.extend(other.ports.clone());
    both.options.extend(other.options.clone());
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, Arc::new(both));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    for (port, version) in [(plain, "HTTP/1.1"), (grpc, "HTTP/2.0")] {
        let stream = TcpStream::connect((HERE, port)).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let asked = (0..20).map(|_| {
            let mut sender = sender.clone();
            async move {
                let request: Request<Text> =
                    Request::builder().uri("http://shop/x").header("te", "trailers").body(Full::default()).unwrap();
                sender.send_request(request).await.unwrap().into_body().collect().await.unwrap()
            }
        });
        for body in within("all answers", futures_util::future::join_all(asked)).await {
            let trailers = body.trailers().cloned().unwrap_or_default();
            let text = String::from_utf8(body.to_bytes().into()).unwrap();
            assert!(text.starts_with(&format!("a {version} GET /x 0\n")), "{text}");
            assert_eq!(trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]), "{version}");
        }
    }
    // A client of HTTP/1.1 on the port whose replicas speak h2c.
    let mut client = Client::to(grpc).await;
    assert!(client.get("/y").await.starts_with("a HTTP/2.0 GET /y 0\n"));
}

#[tokio::test]
async fn at_the_end_answers_are_whole_and_say_that_the_connection_ends() {
    let mut a = server("a").await;
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[a.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut idle = Client::to(port).await;
    idle.get("/").await;
    let asked = tokio::spawn(async move { Client::to(port).await.send(request("GET", "/held", "")).await });
    within("the request at its replica", a.holds.wait_for(|holds| *holds)).await.unwrap();
    let closing = tokio::spawn(mesh.plane.close());
    // Between requests: closed at once.
    within("the end of the idle connection", async {
        while !idle.0.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    a.let_go.cancel();
    let (status, headers, text) = within("the answer", asked).await.unwrap();
    assert_eq!((status, name(&text)), (StatusCode::OK, "a"));
    assert_eq!(headers["connection"], "close");
    within("the end", closing).await.unwrap();
    assert!(TcpStream::connect((HERE, port)).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn heads_are_bounded() {
    let a = server("a").await;
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, http(port, &[a.port]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut stream = TcpStream::connect((HERE, port)).await.unwrap();
    let talk = async {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n").await;
        let line = format!("X-Long: {}\r\n", "x".repeat(1_000));
        // Until it is refused.
        while stream.write_all(line.as_bytes()).await.is_ok() {}
    };
    within("a refusal", talk).await;
    assert_eq!(name(&Client::to(port).await.get("/").await), "a");
}
