//! The userspace data plane over loopback, and what a hostile member gets out of the answering side of a tunnel.

use super::table::Shared;
use super::{DataPlane, TunnelFuture, Tunnels, Userspace, tunnel};
use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::model::spec::Protocol;
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

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// For things that happen at once unless something is broken.
const DEADLINE: Duration = Duration::from_secs(30);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

struct NoTunnels;

impl Tunnels for NoTunnels {
    fn open(&self, _: NodeId, _: SocketAddr) -> TunnelFuture {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

struct Mesh {
    plane: Userspace,
    events: mpsc::Receiver<MeshEvent>,
    _stop: DropGuard,
}

impl Mesh {
    fn start() -> Self {
        let (sink, events) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let plane = Userspace::start(HERE, None, Arc::new(NoTunnels), sink, stop.clone());
        Self { plane, events, _stop: stop.drop_guard() }
    }

    async fn event(&mut self) -> MeshEvent {
        within("an event of the mesh", self.events.recv()).await.expect("the mesh runs")
    }
}

/// A number nobody listens on.
async fn free_port() -> u16 {
    TcpListener::bind((HERE, 0)).await.unwrap().local_addr().unwrap().port()
}

fn table(published: u16, targets: &[u16]) -> Arc<RouteTable> {
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
    within("the tunnel's end", async { tokio::join!(tunnel::serve(shared.clone(), send, recv), talk).1 }).await
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

    let asked = tunnel::encode(task, published);
    assert_eq!(answer_to(&shared, &asked[1..]).await, b"\0published:", "the honest question");
    // The same machine and task, a port that isn't published.
    assert_eq!(answer_to(&shared, &tunnel::encode(task, private_port)[1..]).await, [1]);
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
