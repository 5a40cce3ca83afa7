//! What was recorded on the way, sent again; and what a member said, said twice.

use crate::agents::{Running, pair, without_a_core};
use crate::net_support::{DEADLINE, founder, loopback, member_of, start, until};
use peer::core::face::Request;
use peer::ids::NodeId;
use peer::model::node::{Availability, NodePolicy};
use peer::model::record::{Hlc, Key, Log, Record, Stamp, Term, Value};
use peer::wire::codec;
use peer::wire::message::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

/// Somebody on the way, who passes everything on and keeps what goes one way.
struct OnTheWay {
    addr: SocketAddr,
    /// The side that the server sees.
    upstream: Arc<UdpSocket>,
    recorded: Arc<Mutex<Vec<Vec<u8>>>>,
}

async fn on_the_way_to(server: SocketAddr) -> OnTheWay {
    let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let upstream = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let (addr, recorded) = (front.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (keep, up) = (recorded.clone(), upstream.clone());
    tokio::spawn(async move {
        let mut client = None;
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((len, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    keep.lock().unwrap().push(there[..len].to_vec());
                    up.send_to(&there[..len], server).await.unwrap();
                }
                Ok((len, _)) = up.recv_from(&mut back) => {
                    if let Some(client) = client {
                        front.send_to(&back[..len], client).await.unwrap();
                    }
                }
            }
        }
    });
    OnTheWay { addr, upstream, recorded }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_datagrams_of_a_connection_say_nothing_a_second_time() {
    let founder = founder();
    let (mut a, b, friend) = (start(&founder), start(&member_of(&founder)), start(&member_of(&founder)));
    let way = on_the_way_to(a.addr).await;
    b.net.send(b_to(&a), way.addr, b"on a stream".to_vec(), false);
    assert_eq!(a.text_from(&b).await, "on a stream");
    b.net.send(b_to(&a), way.addr, b"in a datagram".to_vec(), true);
    assert_eq!(a.text_from(&b).await, "in a datagram");
    let recorded = way.recorded.lock().unwrap().clone();
    assert!(recorded.len() >= 4, "a handshake and two messages were recorded");
    // From where they came and from elsewhere, in their order and in the other.
    let elsewhere = UdpSocket::bind(loopback()).await.unwrap();
    for socket in [&*way.upstream, &elsewhere] {
        for datagram in recorded.iter().chain(recorded.iter().rev()) {
            socket.send_to(datagram, a.addr).await.unwrap();
        }
    }
    // Nothing was heard twice, nobody seems to have a second connection, and the first one lives.
    loop {
        friend.send(&a, "still there", false);
        let (from, text) = a.message().await;
        assert_eq!((from, text.as_slice()), (friend.id(), &b"still there"[..]));
        if a.net.is_connected(friend.id()) {
            break;
        }
    }
    assert_eq!(a.net.connections(b.id()), 1);
    b.net.send(b_to(&a), way.addr, b"new".to_vec(), false);
    let wait = tokio::time::timeout(DEADLINE, async {
        loop {
            let (from, text) = a.message().await;
            if from == b.id() {
                return text;
            }
        }
    });
    assert_eq!(wait.await.expect("a message"), b"new");
}

fn b_to(a: &crate::net_support::Node) -> NodeId {
    a.id()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_datagrams_open_nothing_at_the_servers_next_life() {
    let founder = founder();
    let identity = member_of(&founder);
    let (life, mut a) = crate::net_support::start_mortal(&identity, loopback());
    let b = start(&founder);
    let way = on_the_way_to(a.addr).await;
    b.net.send(a.id(), way.addr, b"before".to_vec(), false);
    assert_eq!(a.text_from(&b).await, "before");
    let recorded = way.recorded.lock().unwrap().clone();
    let addr = a.addr;
    b.net.close().await;
    drop((life, a));
    let (_life, mut a) = crate::net_support::start_mortal(&identity, addr);
    let stranger = UdpSocket::bind(loopback()).await.unwrap();
    for datagram in &recorded {
        stranger.send_to(datagram, addr).await.unwrap();
    }
    let friend = start(&member_of(&founder));
    a.heard_only(&friend).await;
    assert_eq!(a.net.connections(b.id()), 0);
}

fn policy(of: NodeId, said_by: NodeId, number: u32, availability: Availability, hlc: Hlc) -> Record {
    let log = Log { author: said_by, life: 7 };
    Record {
        key: Key::NodePolicy(of),
        value: Some(Value::NodePolicy(NodePolicy { availability, ..NodePolicy::new(of) })),
        stamp: Stamp { term: Term::ZERO, hlc, author: said_by },
        seq: log.seq(number),
    }
}

async fn availability(of: NodeId, by: &Running) -> Availability {
    by.ask(move |core| core.node(of).unwrap().policy.availability).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_said_again_undoes_nothing_that_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = pair(dir.path()).await;
    let member = without_a_core(one.joined_with(&one.token().await).await.unwrap().identity);
    let (id, hlc) = (two.id(), Hlc::new(peer::shell::clock::wall(), 0));
    let first = Message::Push { records: vec![policy(id, member.id(), 1, Availability::Drain, hlc)] };
    let tell = |message: &Message| member.net.send(one.id(), one.agent.addr, codec::encode(message), false);
    tell(&first);
    one.until("it is taken", move |core| core.node(id).unwrap().policy.availability == Availability::Drain).await;
    let update = Request::UpdateNode { id, version: None, availability: Some(Availability::Active), labels: None };
    one.request(update).await.unwrap();
    let records = one.ask(|core| core.cluster().records).await;
    for _ in 0..20 {
        tell(&first);
    }
    // The same behind something new, of which is known that it was heard.
    let marker = policy(member.id(), member.id(), 2, Availability::Pause, Hlc(hlc.0 + 1));
    tell(&Message::Push { records: vec![policy(id, member.id(), 1, Availability::Drain, hlc), marker] });
    let other = member.id();
    one.until("the rest is heard", move |core| {
        core.node(other).is_some_and(|n| n.policy.availability == Availability::Pause)
    })
    .await;
    assert_eq!(availability(id, &one).await, Availability::Active);
    assert_eq!(one.ask(|core| core.cluster().records).await, records + 1);
    until("the links live", || member.net.is_connected(one.id())).await;
}
