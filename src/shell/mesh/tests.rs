//! The userspace data plane over loopback, and what a hostile member gets out of the answering side of a tunnel.

use super::copy::{IDLE_TIMEOUT, copy_for};
use super::table::Shared;
use super::{DataPlane, ReplicaState, TunnelFuture, Tunnels, Userspace, tunnel};
use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::model::spec::{PortOptions, Protocol, ProxyProtocol};
use crate::routes::{Backend, Reach, RouteTable};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// For things that happen at once unless something is broken.
const DEADLINE: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

struct NoTunnels;

impl Tunnels for NoTunnels {
    fn open(&self, _: NodeId, _: SocketAddr) -> TunnelFuture {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

pub struct Mesh {
    pub plane: Userspace,
    events: mpsc::Receiver<MeshEvent>,
    _stop: DropGuard,
}

impl Mesh {
    pub fn start() -> Self {
        Self::start_on(HERE)
    }

    fn start_on(bind: IpAddr) -> Self {
        let (sink, events) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let plane = Userspace::start(bind, None, Arc::new(NoTunnels), sink, stop.clone());
        Self { plane, events, _stop: stop.drop_guard() }
    }

    pub async fn event(&mut self) -> MeshEvent {
        within("an event of the mesh", self.events.recv()).await.expect("the mesh runs")
    }
}

/// A number nobody listens on.
pub async fn free_port() -> u16 {
    TcpListener::bind((HERE, 0)).await.unwrap().local_addr().unwrap().port()
}

pub fn table(published: u16, targets: &[u16]) -> Arc<RouteTable> {
    let backend = |(n, target): (usize, &u16)| Backend {
        task: TaskId::from_u128(n as u128 + 1),
        node: NodeId::from_u128(1),
        target: *target,
        reach: Reach::Local(HERE),
    };
    let backends = targets.iter().enumerate().map(backend).collect();
    let ports = BTreeMap::from([((Protocol::Tcp, published), backends)]);
    Arc::new(RouteTable { ports, ..RouteTable::default() })
}

/// Reads to the client's half-close, then answers with its name and what it read.
async fn replica(name: &'static str) -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            client.write_all(format!("{name}:{said}").as_bytes()).await.unwrap();
        }
    });
    port
}

async fn ask(port: u16, words: &str) -> String {
    let talk = async {
        let mut client = TcpStream::connect((HERE, port)).await.unwrap();
        client.write_all(words.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    within("an answer through the mesh", talk).await
}

#[tokio::test]
async fn connections_take_turns_a_refused_one_goes_to_another_replica_and_half_closes_are_passed_on() {
    let (a, b, refuses) = (replica("a").await, replica("b").await, free_port().await);
    let port = free_port().await;
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, table(port, &[a, refuses, b]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..6 {
        *answers.entry(ask(port, "hello").await).or_default() += 1;
    }
    // A refused try uses up a turn of its own, so the one that refuses doesn't load its neighbour.
    assert_eq!(answers, BTreeMap::from([("a:hello".to_owned(), 3), ("b:hello".to_owned(), 3)]));
}

#[tokio::test]
async fn a_port_held_by_somebody_else_is_told_and_taken_when_it_is_free_while_others_serve() {
    let a = replica("a").await;
    let held = TcpListener::bind((HERE, 0)).await.unwrap();
    let (port, other) = (held.local_addr().unwrap().port(), free_port().await);
    let mut both = (*table(port, &[a])).clone();
    both.ports.extend(table(other, &[a]).ports.clone());
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, Arc::new(both));
    let MeshEvent::Blocked(blocked) = mesh.event().await else { panic!("the held port must be told first") };
    assert_eq!(blocked.keys().copied().collect::<Vec<_>>(), [port]);
    assert!(blocked[&port].contains("in use"), "{blocked:?}");
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    assert_eq!(ask(other, "hi").await, "a:hi");
    drop(held);
    assert_eq!(mesh.event().await, MeshEvent::Blocked(BTreeMap::new()));
    assert_eq!(ask(port, "hi").await, "a:hi");
}

#[tokio::test]
async fn a_port_that_asks_for_it_tells_replicas_the_clients_address() {
    // The second listens for IPv6 clients, too, and is shown IPv4 ones as mapped addresses.
    for bind in [HERE, Ipv4Addr::UNSPECIFIED.into()] {
        let port = free_port().await;
        let mut with = (*table(port, &[replica("a").await])).clone();
        let options = PortOptions { proxy_protocol: Some(ProxyProtocol::V1), ..PortOptions::default() };
        with.options = BTreeMap::from([((Protocol::Tcp, port), options)]);
        let mut mesh = Mesh::start_on(bind);
        mesh.plane.apply(1, Arc::new(with));
        assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
        let mut client = TcpStream::connect((HERE, port)).await.unwrap();
        let own = client.local_addr().unwrap().port();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        within("an answer", client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, format!("a:PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}\r\nhello"));
    }
}

#[tokio::test]
async fn what_breaks_at_the_replica_breaks_at_the_client() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let (port, target) = (free_port().await, listener.local_addr().unwrap().port());
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, table(port, &[target]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let mut client = TcpStream::connect((HERE, port)).await.unwrap();
    let (mut server, _) = within("the connection at the replica", listener.accept()).await.unwrap();
    server.write_all(b"half an ans").await.unwrap();
    let mut half = [0; 11];
    within("half an answer", client.read_exact(&mut half)).await.unwrap();
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let end = within("the end", client.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    // And the other way: half a question is none.
    let mut client = TcpStream::connect((HERE, port)).await.unwrap();
    let (mut server, _) = within("the connection at the replica", listener.accept()).await.unwrap();
    client.write_all(b"half a quest").await.unwrap();
    let mut half = [0; 12];
    within("half a question", server.read_exact(&mut half)).await.unwrap();
    super::copy::break_off(&client);
    drop(client);
    let end = within("the end", server.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_view_is_what_is_really_there_while_a_replica_drains() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let (port, target) = (free_port().await, listener.local_addr().unwrap().port());
    let mut mesh = Mesh::start();
    mesh.plane.apply(1, table(port, &[target, free_port().await]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 1 });
    let client = TcpStream::connect((HERE, port)).await.unwrap();
    let (server, _) = within("the connection at the replica", listener.accept()).await.unwrap();
    mesh.plane.apply(2, table(port, &[]));
    assert_eq!(mesh.event().await, MeshEvent::Applied { version: 2 });
    let view = mesh.plane.view();
    let seen = &view.ports[0];
    assert_eq!((view.plane, seen.port, seen.totals.open, seen.totals.connections), ("userspace", port, 1, 1));
    let shown: Vec<_> = seen.replicas.iter().map(|r| (r.task.as_u128(), r.state, r.open, r.total)).collect();
    assert_eq!(shown, [(1, ReplicaState::Draining, 1, 1)]);
    drop((client, server));
    within("the end of the connection", async {
        while mesh.plane.view().ports[0].totals.open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(mesh.plane.view().ports[0].replicas.is_empty(), "what has gone for good isn't shown");
}

/// Time is the test's own: an hour passes at once, and what moves in it is counted.
#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_after_an_hour_of_silence_and_not_before() {
    let shared = Shared::new();
    drop(shared.swap(table(80, &[1])));
    let counted = shared.pick((Protocol::Tcp, 80), HERE, &[]).unwrap().counted;
    let (mut client, near) = tokio::io::duplex(64);
    let (mut server, far) = tokio::io::duplex(64);
    let copying = tokio::spawn(async move { copy_for(&counted, near, far, IDLE_TIMEOUT).await });
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }
    let ended = copying.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() >= IDLE_TIMEOUT * 5 / 2 - Duration::from_secs(1), "{:?}", began.elapsed());
}

/// What the answering side says to these bytes, a tunnel's header without its first, when nothing follows.
async fn answer_to(shared: &Arc<Shared>, header: &[u8]) -> Vec<u8> {
    let (mut peer, ours) = tokio::io::duplex(1024);
    let (recv, send) = tokio::io::split(ours);
    let talk = async {
        peer.write_all(header).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let serving = async { drop(tunnel::serve(shared.clone(), false, send, recv).await) };
    within("the tunnel's end", async { tokio::join!(serving, talk).1 }).await
}

#[tokio::test]
async fn whatever_a_member_asks_its_tunnel_ends_at_a_published_target_or_nowhere() {
    let published = replica("published").await;
    let private = TcpListener::bind((HERE, 0)).await.unwrap();
    let private_port = private.local_addr().unwrap().port();
    let task = TaskId::from_u128(u128::from_be_bytes(*b"a published task"));
    let shared = Shared::new();
    let local = BTreeMap::from([((task, published), SocketAddr::new(HERE, published))]);
    drop(shared.swap(Arc::new(RouteTable { local, ..RouteTable::default() })));

    let asked = tunnel::encode(tunnel::VERSION, task, published);
    assert_eq!(answer_to(&shared, &asked[1..]).await, b"\0published:", "the honest question");
    // The same machine and task, a port that isn't published.
    assert_eq!(answer_to(&shared, &tunnel::encode(tunnel::VERSION, task, private_port)[1..]).await, [1]);
    // One bit off anywhere, task or port: not the target any more.
    for bit in 0..(asked.len() - 1) * 8 {
        let mut header = asked[1..].to_vec();
        header[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(answer_to(&shared, &header).await, [1], "bit {bit}");
    }
    // Cut anywhere: no answer, no connection.
    for length in 0..asked.len() - 1 {
        assert_eq!(answer_to(&shared, &asked[1..=length]).await, b"", "{length} bytes");
    }
    // Nobody knocked where nobody may: what waits in the backlog now is our own knock alone.
    let own = TcpStream::connect((HERE, private_port)).await.unwrap();
    let (_first, from) = within("our own knock", private.accept()).await.unwrap();
    assert_eq!(from, own.local_addr().unwrap());
}
