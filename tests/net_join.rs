//! Joining: who gets in, what the others are told, and what a joiner makes of it.
#![cfg(feature = "shell")]

mod net_support;

use net_support::*;
use peer::ids::NodeId;
use peer::shell::clock::wall;
use peer::shell::identity::token::{generate_secret, same_secret};
use peer::shell::identity::{BadToken, DataDir, Identity, Token};
use peer::shell::net::{JoinAsk, JoinError, JoinRefusal, JoinService, Joined, join};
use peer::wire::message::{MemberEntry, MemberState};
use quinn::ConnectionError;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use tokio::time::timeout;

const JOIN: &[u8] = b"peer-join/1";

/// A founder who admits whoever knows the secret, and remembers who asked.
struct Desk {
    node: Node,
    token: Token,
    asked: Arc<Mutex<Vec<JoinAsk>>>,
}

fn desk() -> Desk {
    let identity = founder();
    let secret = generate_secret().unwrap();
    let token = identity.token(&secret).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (notes, us) = (asked.clone(), identity.node());
    let service: JoinService = Arc::new(move |ask: JoinAsk| {
        let right = same_secret(&ask.secret, &secret);
        let taken = ask.hostname == "twin";
        notes.lock().unwrap().push(ask);
        let member = MemberEntry {
            node: us,
            addr: SocketAddr::from(([10, 0, 0, 1], 7373)),
            bump: 3,
            incarnation: 0,
            state: MemberState::Alive,
        };
        Box::pin(async move {
            match (right, taken) {
                (false, _) => Err(JoinRefusal::WrongToken),
                (true, true) => Err(JoinRefusal::Other("there is a twin already".to_owned())),
                (true, false) => Ok(vec![member]),
            }
        })
    });
    Desk { node: start_with(&identity, |_| {}, service), token, asked }
}

async fn join_as(hostname: &str, addr: SocketAddr, token: &Token) -> Result<Joined, JoinError> {
    let listen = SocketAddr::from(([0, 0, 0, 0], 7373));
    timeout(DEADLINE, join(&[addr], token, hostname, listen, wall())).await.expect("an end of the join")
}

#[tokio::test]
async fn with_the_token_a_stranger_becomes_a_member() {
    let mut desk = desk();
    let joined = join_as("box", desk.node.addr, &desk.token).await.unwrap();
    assert_eq!(joined.identity.cluster(), desk.node.identity.cluster());
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].node, desk.node.id());
    assert_eq!(joined.seen, desk.node.addr.ip());
    {
        let asked = desk.asked.lock().unwrap();
        assert_eq!(asked[0].node, joined.identity.node());
        assert_eq!(asked[0].hostname, "box");
        // It didn't know its address; the cluster saw it.
        assert_eq!(asked[0].addr, SocketAddr::new(desk.node.addr.ip(), 7373));
    }
    // It survives a restart, talks as a member, and can admit in turn.
    let root = tempfile::tempdir().unwrap();
    let dir = DataDir::open(root.path().join("data")).unwrap();
    dir.save(&joined.identity).unwrap();
    let loaded = Arc::new(dir.load().unwrap().expect("saved"));
    assert_eq!(loaded.token(desk.token.secret()), Ok(desk.token.clone()));
    let member = start(&loaded);
    desk.node.heard_only(&member).await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused_in_words() {
    let desk = desk();
    let token = desk.node.identity.token(&generate_secret().unwrap()).unwrap();
    match join_as("box", desk.node.addr, &token).await.unwrap_err() {
        JoinError::Refused { addr, why } => {
            assert_eq!(addr, desk.node.addr);
            assert!(why.starts_with("wrong token"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_of_another_cluster_is_told_as_such_and_shows_the_secret_to_nobody() {
    let desk = desk();
    let token = Identity::found(wall()).unwrap().token(&generate_secret().unwrap()).unwrap();
    let error = join_as("box", desk.node.addr, &token).await.unwrap_err();
    assert_eq!(error, JoinError::OtherCluster { addr: desk.node.addr });
    assert!(error.to_string().contains("this token belongs to another cluster"), "{error}");
    assert!(desk.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_cut_short_never_leaves_this_machine() {
    let text = desk().token.to_string();
    assert!(matches!(Token::parse(&text[..text.len() - 3]), Err(BadToken::Truncated { part: "secret", .. })));
    assert!(matches!(Token::parse(&text[..30]), Err(BadToken::Truncated { part: "CA digest", .. })));
}

#[tokio::test]
async fn what_the_agent_says_reaches_the_joiner() {
    let desk = desk();
    let error = join_as("twin", desk.node.addr, &desk.token).await.unwrap_err();
    assert_eq!(error.to_string(), format!("refused by {}: there is a twin already", desk.node.addr));
}

#[tokio::test]
async fn who_guesses_is_shut_out_for_a_while_even_with_the_right_token() {
    let desk = desk();
    let wrong = desk.node.identity.token(&generate_secret().unwrap()).unwrap();
    for _ in 0..5 {
        let error = join_as("box", desk.node.addr, &wrong).await.unwrap_err();
        assert!(error.to_string().contains("wrong token"), "{error}");
    }
    let error = join_as("box", desk.node.addr, &desk.token).await.unwrap_err();
    assert!(error.to_string().contains("too many wrong tokens"), "{error}");
    assert_eq!(desk.asked.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_silent_address_is_passed_over_and_alone_it_is_an_error() {
    let desk = desk();
    let silent = UdpSocket::bind(loopback()).unwrap();
    let nobody = silent.local_addr().unwrap();
    let listen = SocketAddr::from(([127, 0, 0, 1], 7373));
    let addrs = [nobody, desk.node.addr];
    let (both, alone) = tokio::join!(
        join(&addrs, &desk.token, "box", listen, wall()),
        join(&addrs[..1], &desk.token, "box", listen, wall()),
    );
    both.unwrap();
    let error = alone.unwrap_err();
    assert!(matches!(&error, JoinError::Unreachable { addr, .. } if *addr == nobody), "{error}");
    drop(silent);
    let shut = join(&addrs[..1], &desk.token, "box", listen, wall()).await.unwrap_err();
    assert!(shut.to_string().contains("nothing listens"), "{shut}");
    let nowhere = join(&[], &desk.token, "box", listen, wall()).await.unwrap_err();
    assert_eq!(nowhere, JoinError::NoAddress);
}

#[tokio::test]
async fn many_join_at_once_and_each_becomes_somebody_else() {
    let desk = desk();
    let joins: Vec<_> = (0..20)
        .map(|n| {
            let (addr, token) = (desk.node.addr, desk.token.clone());
            tokio::spawn(async move { join_as(&format!("box-{n}"), addr, &token).await })
        })
        .collect();
    let mut nodes: Vec<NodeId> = Vec::new();
    for join in joins {
        nodes.push(join.await.unwrap().unwrap().identity.node());
    }
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 20);
}

#[tokio::test]
async fn the_join_desk_takes_no_messages_no_garbage_and_no_novels() {
    let mut desk = desk();
    let rogue = Rogue::new(None, JOIN);
    // Messages and datagrams are for members.
    let conn = rogue.connect(&desk.node).await.unwrap();
    let mut stream = conn.open_uni().await.unwrap();
    let _ = stream.write_all(b"a message").await;
    let _ = conn.send_datagram("a datagram".into());
    // Garbage is refused in words.
    let (mut send, mut recv) = conn.open_bi().await.unwrap();
    send.write_all(b"garbage").await.unwrap();
    send.finish().unwrap();
    let answer = timeout(DEADLINE, recv.read_to_end(10_000)).await.expect("an answer").unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("can't read the request"), "{answer:?}");
    conn.close(0u32.into(), b"");
    // A novel isn't read to its end.
    let conn = rogue.connect(&desk.node).await.unwrap();
    let (mut send, _recv) = conn.open_bi().await.unwrap();
    let _ = timeout(DEADLINE, send.write_all(&[0; 200_000])).await.expect("an end");
    assert!(matches!(closed(&conn).await, ConnectionError::ApplicationClosed(_)));
    assert!(desk.asked.lock().unwrap().is_empty());
    let friend = start(&member_of(&desk.node.identity));
    desk.node.heard_only(&friend).await;
}
