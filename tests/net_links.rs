//! Links between members: what gets through, who is kept out, and what happens when a side stops, dies or moves.
#![cfg(feature = "shell")]

mod net_support;

use net_support::*;
use peer::limits::MAX_MESSAGE_BYTES;
use peer::shell::clock::wall;
use peer::shell::identity::{Identity, NodeName, Pem, certs};
use peer::shell::net::{NetConfig, NetEvent};
use peer::time::Wall;
use peer::wire::codec;
use quinn::{ConnectionError, VarInt};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const MEMBER: &[u8] = b"peer/1";

fn pair() -> (Node, Node) {
    let founder = founder();
    (start(&founder), start(&member_of(&founder)))
}

#[tokio::test]
async fn messages_go_both_ways_small_large_and_as_datagrams() {
    let (mut a, mut b) = pair();
    a.send(&b, "hello", false);
    assert_eq!(b.text_from(&a).await, "hello");
    b.send(&a, "hello yourself", true);
    assert_eq!(a.text_from(&b).await, "hello yourself");
    // Once for a fresh link, once for one whose path MTU is known.
    for _ in 0..2 {
        let large = "x".repeat(MAX_MESSAGE_BYTES);
        a.send(&b, &large, false);
        assert!(b.text_from(&a).await == large);
        // Too large for a datagram: takes a stream instead.
        let medium = "y".repeat(20_000);
        b.send(&a, &medium, true);
        assert!(a.text_from(&b).await == medium);
    }
    assert!(a.net.rtt(b.id()).is_some() && b.net.is_connected(a.id()));
    assert_eq!(a.net.remote_addr(b.id()), Some(b.addr));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_not_sent() {
    let (a, mut b) = pair();
    a.net.send(b.id(), b.addr, vec![0; MAX_MESSAGE_BYTES + 1], false);
    b.heard_only(&a).await;
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_lose_nothing_and_keep_one_connection() {
    for _ in 0..5 {
        let (mut a, mut b) = pair();
        for n in 0..20 {
            a.send(&b, &n.to_string(), n % 2 == 0);
            b.send(&a, &n.to_string(), n % 2 == 0);
        }
        let all: BTreeSet<String> = (0..20).map(|n: i32| n.to_string()).collect();
        let (a_id, b_id) = (a.id(), b.id());
        for (to, from) in [(&mut a, b_id), (&mut b, a_id)] {
            let mut got = BTreeSet::new();
            while got.len() < all.len() {
                match to.next("all messages").await {
                    NetEvent::Message { from: node, bytes } => {
                        assert_eq!(node, from);
                        got.insert(String::from_utf8(bytes).unwrap());
                    }
                    NetEvent::LinkUp { node } => assert_eq!(node, from),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(got, all);
        }
        until("one connection is left", || a.net.connections(b.id()) == 1 && b.net.connections(a.id()) == 1).await;
        // Still in order, and the settling was no loss.
        b.heard_only(&a).await;
        a.heard_only(&b).await;
    }
}

#[tokio::test]
async fn what_was_sent_before_a_graceful_close_arrives_and_the_loss_is_told_at_once() {
    let (a, mut b) = pair();
    a.send(&b, "first", false);
    assert_eq!(b.text_from(&a).await, "first");
    for n in 0..50 {
        a.send(&b, &n.to_string(), false);
    }
    a.net.close().await;
    let mut got = BTreeSet::new();
    while got.len() < 50 {
        got.insert(b.text_from(&a).await);
    }
    b.link_lost(a.id()).await;
    assert!(!b.net.is_connected(a.id()));
}

#[tokio::test]
async fn a_restart_without_a_goodbye_is_noticed_long_before_the_idle_timeout() {
    let founder = founder();
    let identity = member_of(&founder);
    let mut a = start(&founder);
    let (life, mut b) = start_mortal(&identity, loopback());
    a.send(&b, "before", false);
    assert_eq!(b.text_from(&a).await, "before");
    let addr = b.addr;
    drop((life, b));
    let (_life, mut b) = start_mortal(&identity, addr);
    // Whatever we send tells the new life of b that there is something to reset.
    a.send(&b, "lost in the old connection", true);
    a.link_lost(b.id()).await;
    a.send(&b, "after", false);
    assert_eq!(b.text_from(&a).await, "after");
    b.send(&a, "back", false);
    assert_eq!(a.text_from(&b).await, "back");
}

#[tokio::test]
async fn a_restarted_node_that_calls_replaces_its_dead_connection() {
    let founder = founder();
    let identity = member_of(&founder);
    let mut a = start(&founder);
    let (life, mut b) = start_mortal(&identity, loopback());
    a.send(&b, "before", false);
    assert_eq!(b.text_from(&a).await, "before");
    drop((life, b));
    // Elsewhere this time, so that nobody answers at the old address.
    let (_life, mut b) = start_mortal(&identity, loopback());
    b.send(&a, "here I am", false);
    assert_eq!(a.text_from(&b).await, "here I am");
    assert_eq!(a.net.remote_addr(b.id()), Some(b.addr));
    a.send(&b, "welcome back", false);
    assert_eq!(b.text_from(&a).await, "welcome back");
}

#[tokio::test]
async fn a_node_that_moved_is_found_at_its_new_address_though_its_old_link_seems_alive() {
    let founder = founder();
    let identity = member_of(&founder);
    let a = start(&founder);
    let (life, mut b) = start_mortal(&identity, loopback());
    a.send(&b, "before", false);
    assert_eq!(b.text_from(&a).await, "before");
    drop((life, b));
    let (_life, mut b) = start_mortal(&identity, loopback());
    until("a found b", || {
        a.send(&b, "are you there", true);
        a.net.remote_addr(b.id()) == Some(b.addr)
    })
    .await;
    assert_eq!(b.text_from(&a).await, "are you there");
}

#[tokio::test]
async fn a_killed_agent_on_a_living_machine_is_noticed_long_before_the_idle_timeout() {
    let founder = founder();
    let mut a = start(&founder);
    let (life, mut b) = start_mortal(&member_of(&founder), loopback());
    a.send(&b, "before", false);
    assert_eq!(b.text_from(&a).await, "before");
    let (id, addr) = (b.id(), b.addr);
    drop((life, b));
    a.net.send(id, addr, b"anybody?".to_vec(), true);
    a.link_lost(id).await;
    // Nor does a new connection wait for the handshake's timeout: the machine says that nobody listens.
    let error = a.net.open_tunnel(id, addr).await.unwrap_err();
    assert!(error.why.contains("nothing listens"), "{error}");
}

#[tokio::test]
async fn a_dead_peer_is_told_by_silence_in_the_end() {
    let founder = founder();
    let quick = |config: &mut NetConfig| {
        config.timing.keep_alive = Duration::from_millis(200);
        config.timing.idle = Duration::from_millis(800);
    };
    let mut a = start_with(&founder, quick, nobody_joins());
    let (life, mut b) = start_mortal(&member_of(&founder), loopback());
    a.send(&b, "before", false);
    assert_eq!(b.text_from(&a).await, "before");
    let (id, addr) = (b.id(), b.addr);
    drop((life, b));
    // The port is open, so nobody says that it isn't.
    let mut mute = Err(std::io::ErrorKind::NotFound.into());
    until("the dead node's port can be had", || {
        mute = UdpSocket::bind(addr);
        mute.is_ok()
    })
    .await;
    a.link_lost(id).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_by_both_sides() {
    let (mut a, friend) = pair();
    let mut stranger = start(&founder());
    stranger.send(&a, "let me in", false);
    let (by, removed, why) = stranger.refused().await;
    assert_eq!((by, removed), (a.id(), false));
    assert!(why.contains("another cluster"), "{why}");
    // And one that does not mind whom it talks to.
    let rogue = Rogue::new(Some(&stranger.identity), MEMBER);
    let error = match rogue.connect(&a).await {
        Ok(conn) => closed(&conn).await,
        Err(error) => error,
    };
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    a.heard_only(&friend).await;
}

#[tokio::test]
async fn a_certificate_signed_by_a_ca_that_borrows_our_names_is_refused() {
    let (mut a, friend) = pair();
    // Right node id, right cluster id, wrong CA.
    let name = friend.identity.name();
    let ca = certs::new_ca(name.cluster, &certs::new_key().unwrap(), wall()).unwrap();
    let forger = Identity::found(wall()).unwrap();
    let pem = Pem { ca: ca.cert_pem, ca_key: ca.key_pem, ..forger.pem().clone() };
    let key = certs::new_key().unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem.ca, rcgen::KeyPair::from_pem(&pem.ca_key).unwrap()).unwrap();
    let cert = certs::issue(name, &key, &issuer, wall()).unwrap();
    let forged = Identity::assemble(name, wall(), Pem { cert, key: key.serialize_pem(), ..pem }).unwrap();
    let rogue = Rogue::new(Some(&forged), MEMBER);
    let error = match rogue.connect(&a).await {
        Ok(conn) => closed(&conn).await,
        Err(error) => error,
    };
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    a.heard_only(&friend).await;
}

#[tokio::test]
async fn a_stranger_without_a_certificate_gets_a_reason_and_nothing_else() {
    let (mut a, friend) = pair();
    let conn = Rogue::new(None, MEMBER).connect(&a).await.unwrap();
    // Whatever it hurries to say is not read.
    let hurried = async {
        let mut stream = conn.open_uni().await.ok()?;
        stream.write_all(&codec::encode(&(7u64,))).await.ok()?;
        stream.finish().ok()
    };
    let _ = timeout(DEADLINE, hurried).await.expect("an end");
    let _ = conn.send_datagram("psst".into());
    match closed(&conn).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, VarInt::from_u32(2));
            assert!(String::from_utf8_lossy(&close.reason).contains("certificate"), "{close:?}");
        }
        other => panic!("{other:?}"),
    }
    a.heard_only(&friend).await;
}

#[tokio::test]
async fn another_protocol_is_refused_in_the_handshake() {
    let (mut a, friend) = pair();
    let error = Rogue::new(Some(&friend.identity), b"peer/2").connect(&a).await.unwrap_err();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    a.heard_only(&friend).await;
}

#[tokio::test]
async fn a_banned_node_loses_its_connections_and_gets_no_new_one() {
    let founder = founder();
    let (mut a, mut b, friend) = (start(&founder), start(&member_of(&founder)), start(&member_of(&founder)));
    b.send(&a, "hello", false);
    assert_eq!(a.text_from(&b).await, "hello");
    let rogue = Rogue::new(Some(&b.identity), MEMBER);
    let rogues = rogue.connect_as_member(&a).await;
    a.net.ban(&set(b.id()));
    a.link_lost(b.id()).await;
    b.link_lost(a.id()).await;
    assert!(matches!(closed(&rogues).await, ConnectionError::ApplicationClosed(_)));
    // It learns why, when it tries again.
    b.send(&a, "hello?", false);
    let (by, removed, why) = b.refused().await;
    assert_eq!((by, removed), (a.id(), true));
    assert!(why.contains("removed"), "{why}");
    // With the very configuration that got in before: no session is resumed past the ban.
    let error = match rogue.connect(&a).await {
        Ok(conn) => closed(&conn).await,
        Err(error) => error,
    };
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    // Nor do we call it.
    a.send(&b, "gone", false);
    a.send(&b, "gone", true);
    assert!(a.net.open_tunnel(b.id(), b.addr).await.unwrap_err().why.contains("removed"));
    assert_eq!(a.net.connections(b.id()), 0);
    a.heard_only(&friend).await;
}

/// It has containers to stop, and may have nothing to say for a while.
#[tokio::test]
async fn a_banned_node_is_told_why_by_what_closes_its_connection() {
    let founder = founder();
    let (mut a, mut b) = (start(&founder), start(&member_of(&founder)));
    b.send(&a, "hello", false);
    assert_eq!(a.text_from(&b).await, "hello");
    a.net.ban(&set(b.id()));
    b.link_lost(a.id()).await;
    let (by, removed, _) = b.refused().await;
    assert_eq!((by, removed), (a.id(), true));
}

#[tokio::test]
async fn who_is_banned_at_the_start_never_gets_in() {
    let founder = founder();
    let mut b = start(&member_of(&founder));
    let id = b.id();
    let a = start_with(&founder, |config| config.banned = set(id), nobody_joins());
    b.send(&a, "hello", false);
    assert!(b.refused().await.1);
    assert!(!a.net.is_connected(id));
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_one_meant() {
    let founder = founder();
    let (mut a, mut b) = (start(&founder), start(&member_of(&founder)));
    let elsewhere = member_of(&founder);
    a.net.send(elsewhere.node(), b.addr, b"for you alone".to_vec(), false);
    let (by, _, why) = a.refused().await;
    assert_eq!(by, elsewhere.node());
    assert!(why.contains("another node") && why.contains(&b.id().to_string()), "{why}");
    let error = a.net.open_tunnel(elsewhere.node(), b.addr).await.unwrap_err();
    assert!(error.why.contains("another node"), "{error}");
    b.heard_only(&a).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_until_it_is_renewed() {
    let founder = founder();
    let b = start(&member_of(&founder));
    let long_ago = Wall(wall().0 - 400 * 24 * 60 * 60 * 1_000);
    let key = certs::new_key().unwrap();
    let node = certs::node_of_key(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let name = NodeName { node, cluster: founder.cluster() };
    let cert = founder.admit(name.node, &certs::request(name, &key).unwrap(), long_ago).unwrap();
    let pem = Pem { cert, key: key.serialize_pem(), ..founder.pem().clone() };
    let old = Arc::new(Identity::assemble(name, long_ago, pem).unwrap());
    let mut a = start(&old);
    a.send(&b, "hello", false);
    let (_, _, why) = a.refused().await;
    assert!(why.contains("not valid"), "{why}");
    let renewed = Arc::new(old.renewed(wall()).unwrap().expect("due"));
    a.net.replace_identity(renewed).unwrap();
    until("the renewed certificate is taken", || {
        a.send(&b, "hello", false);
        a.net.is_connected(b.id())
    })
    .await;
    // And the other way round, from a node that has no link yet.
    let mut c = start(&member_of(&founder));
    c.send(&a, "hello", false);
    assert_eq!(a.text_from(&c).await, "hello");
    c.heard_only(&a).await;
}

#[tokio::test]
async fn a_message_too_long_is_stopped_and_the_link_lives_on() {
    let (mut a, friend) = pair();
    let conn = Rogue::new(Some(&member_of(&friend.identity)), MEMBER).connect_as_member(&a).await;
    let mut stream = conn.open_uni().await.unwrap();
    let flood = vec![0; 4 * MAX_MESSAGE_BYTES];
    let error = timeout(DEADLINE, stream.write_all(&flood)).await.expect("a verdict").unwrap_err();
    assert_eq!(error, quinn::WriteError::Stopped(VarInt::from_u32(1)));
    // One byte too many may all be there before the verdict is; it is no message all the same.
    send_uni(&conn, &flood[..=MAX_MESSAGE_BYTES]).await;
    send_uni(&conn, b"shorter").await;
    assert_eq!(a.message().await.1, b"shorter");
}

#[tokio::test]
async fn a_message_too_slow_is_stopped_and_holds_up_nobody() {
    let founder = founder();
    let quick = |config: &mut NetConfig| config.timing.message = Duration::from_millis(400);
    let mut a = start_with(&founder, quick, nobody_joins());
    let conn = Rogue::new(Some(&member_of(&founder)), MEMBER).connect_as_member(&a).await;
    let mut slow = conn.open_uni().await.unwrap();
    slow.write_all(b"and then").await.unwrap();
    send_uni(&conn, b"quick").await;
    assert_eq!(a.message().await.1, b"quick");
    let code = timeout(DEADLINE, slow.stopped()).await.expect("a verdict").unwrap();
    assert_eq!(code, Some(VarInt::from_u32(2)));
    send_uni(&conn, b"again").await;
    assert_eq!(a.message().await.1, b"again");
}

#[tokio::test]
async fn garbage_on_the_socket_and_in_the_hello_harms_nobody() {
    let (mut a, friend) = pair();
    let socket = UdpSocket::bind(loopback()).unwrap();
    for len in [0, 1, 20, 1_199, 1_200, 1_400, 9_000] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        socket.send_to(&bytes, a.addr).unwrap();
        let initial = [&[0xc3, 0, 0, 0, 1, 8], bytes.as_slice()].concat();
        socket.send_to(&initial, a.addr).unwrap();
    }
    let rogue = Rogue::new(Some(&member_of(&friend.identity)), MEMBER);
    for hello in [&b""[..], b"garbage", &[0xb2, 1], &[0xb2, 9, 7], &[0; 5_000]] {
        let conn = rogue.connect(&a).await.unwrap();
        let mut stream = conn.open_uni().await.unwrap();
        let _ = stream.write_all(hello).await;
        let _ = stream.finish();
        let error = closed(&conn).await;
        assert!(
            matches!(&error, ConnectionError::ApplicationClosed(c) if c.error_code == VarInt::from_u32(6)),
            "{error:?}"
        );
    }
    a.heard_only(&friend).await;
}

#[tokio::test]
async fn a_member_that_says_no_hello_is_shown_out() {
    let founder = founder();
    let quick = |config: &mut NetConfig| config.timing.handshake = Duration::from_millis(300);
    let a = start_with(&founder, quick, nobody_joins());
    let rogue = Rogue::new(Some(&member_of(&founder)), MEMBER);
    let conn = rogue.connect(&a).await.unwrap();
    assert!(matches!(closed(&conn).await, ConnectionError::ApplicationClosed(_)));
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_says_who_opened_it() {
    let (a, mut b) = pair();
    let (to, at) = (b.id(), b.addr);
    let net = a.net.clone();
    let opened = tokio::spawn(async move {
        let (mut send, mut recv) = net.open_tunnel(to, at).await.unwrap();
        send.write_all(b"ping").await.unwrap();
        send.finish().unwrap();
        recv.read_to_end(100).await.unwrap()
    });
    let (from, mut send, mut recv) = b
        .wait("a tunnel", |event| match event {
            NetEvent::Tunnel { from, send, recv } => Some((from, send, recv)),
            _ => None,
        })
        .await;
    assert_eq!(from, a.id());
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"ping");
    send.write_all(b"pong").await.unwrap();
    send.finish().unwrap();
    assert_eq!(timeout(DEADLINE, opened).await.expect("an answer").unwrap(), b"pong");
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_for_a_tunnel_and_nothing_for_a_message() {
    let founder = founder();
    let quick = |config: &mut NetConfig| config.timing.handshake = Duration::from_millis(500);
    let mut a = start_with(&founder, quick, nobody_joins());
    let absent = member_of(&founder).node();
    let silent = UdpSocket::bind(loopback()).unwrap();
    let addr = silent.local_addr().unwrap();
    for _ in 0..10_000 {
        a.net.send(absent, addr, vec![0; 10_000], false);
    }
    let error = a.net.open_tunnel(absent, addr).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    let friend = start(&member_of(&founder));
    a.heard_only(&friend).await;
}
