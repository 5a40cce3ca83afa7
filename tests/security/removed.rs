//! With the certificate of a node that was removed, or of another cluster.

use crate::agents::{pair, start, without_a_core};
use crate::net_support::{Rogue, closed};
use peer::core::face::Request;
use peer::ids::NodeId;
use peer::model::node::NodePolicy;
use peer::model::record::{Hlc, Key, Log, Record, Stamp, Term, Value};
use peer::shell::clock::wall;
use peer::shell::identity::Identity;
use peer::wire::codec;
use peer::wire::message::Message;
use quinn::ConnectionError;
use std::net::SocketAddr;

/// Whom TLS itself turns away.
async fn is_refused(identity: &Identity, node: NodeId, addr: SocketAddr) {
    let error = match Rogue::new(Some(identity), b"peer/1").call(node, addr).await {
        Ok(conn) => closed(&conn).await,
        Err(error) => error,
    };
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_certificate_opens_no_door_anywhere_nor_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = pair(dir.path()).await;
    let joined = one.joined_with(&one.token().await).await.unwrap();
    let mut gone = without_a_core(joined.identity.clone());
    let id = gone.id();
    // It says something of itself, so that there is something to remove.
    let record = Record {
        key: Key::NodePolicy(id),
        value: Some(Value::NodePolicy(NodePolicy::new(id))),
        stamp: Stamp { term: Term::ZERO, hlc: Hlc::new(wall(), 0), author: id },
        seq: Log { author: id, life: 1 }.seq(1),
    };
    let said = codec::encode(&Message::Push { records: vec![record] });
    gone.net.send(one.id(), one.agent.addr, said, false);
    one.until("the node is known", move |core| core.node(id).is_some()).await;
    let removed = Request::RemoveNode { id: gone.id(), force: true };
    one.request(removed).await.unwrap();
    gone.link_lost(one.id()).await;
    for node in [&one, &two] {
        node.until("it knows of the removal", move |core| core.is_removed(id)).await;
        is_refused(&joined.identity, node.id(), node.agent.addr).await;
    }
    let two = two.again().await;
    is_refused(&joined.identity, two.id(), two.agent.addr).await;
    // Nor does anybody call it.
    assert!(!gone.net.is_connected(two.id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_member_stays_outside_of_this_one() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = start(here.path(), 1, None).await;
    let foreign = start(there.path(), 2, None).await;
    is_refused(&foreign.agent.identity, one.id(), one.agent.addr).await;
    is_refused(&one.agent.identity, foreign.id(), foreign.agent.addr).await;
}
