//! Opening a connection to a member: TLS proves who answers, then both sides say hello. The hello tells the dialer that
//! it was accepted (in TLS 1.3 a client is done before the server has looked at its certificate), and tells each side
//! which life of the other it talks to.

use super::knock;
use super::links::Link;
use super::reason::{Refusal, explain};
use super::shared::Shared;
use super::tls;
use crate::ids::NodeId;
use crate::shell::identity::NodeName;
use crate::wire::codec;
use quinn::{Connection, ConnectionError, ReadToEndError};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::timeout;

const MAX_HELLO_BYTES: usize = 64;

/// The first unidirectional stream of each side.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    instance: u64,
}

pub async fn run(shared: Arc<Shared>, node: NodeId, addr: SocketAddr) {
    match dial(&shared, node, addr).await {
        Ok((conn, instance)) => shared.register(conn, node, shared.us, instance),
        Err(refusal) => shared.dial_failed(node, addr, refusal),
    }
}

async fn dial(shared: &Shared, node: NodeId, addr: SocketAddr) -> Result<(Connection, u64), Refusal> {
    let limit = shared.timing.handshake;
    let attempt = async {
        let credentials = shared.credentials();
        let name = NodeName { node, cluster: credentials.identity.cluster() }.dns();
        let connecting = shared
            .endpoint
            .connect_with(credentials.client, addr, &name)
            .map_err(|e| Refusal::Silent(format!("can't connect: {e}")))?;
        let conn = connecting.await.map_err(|e| unproven(explain(&e)))?;
        // The verifier has seen to it already; nothing below may rest on that alone.
        if tls::proven_node(&conn) != Some(node) {
            return Err(Refusal::Said("another node answers there".to_owned()));
        }
        let instance = greet(&conn, shared.instance).await?;
        Ok((conn, instance))
    };
    let shut = async {
        knock::until_shut(addr).await;
        Err(Refusal::Silent("nothing listens at that port".to_owned()))
    };
    let either = async {
        tokio::select! {
            result = attempt => result,
            result = shut => result,
        }
    };
    timeout(limit, either)
        .await
        .unwrap_or_else(|_| Err(Refusal::Silent(format!("no answer within {} s", limit.as_secs_f32()))))
}

/// What is said before the other side has proven who it is can come from anybody on the way; of what a node does when
/// it was removed, nothing may follow from that.
fn unproven(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Removed => {
            Refusal::Said("somebody there, who proved nothing, says that this node was removed".to_owned())
        }
        other => other,
    }
}

/// Says hello and hears the other side's.
pub async fn greet(conn: &Connection, instance: u64) -> Result<u64, Refusal> {
    let lost = |e: ConnectionError| explain(&e);
    let odd = |what: &str| Refusal::Said(format!("it does not keep to the protocol ({what})"));
    let mut send = conn.open_uni().await.map_err(lost)?;
    let hello = codec::encode(&Hello { instance });
    send.write_all(&hello).await.map_err(|_| closed(conn))?;
    send.finish().map_err(|_| closed(conn))?;
    let mut recv = conn.accept_uni().await.map_err(lost)?;
    let bytes = recv.read_to_end(MAX_HELLO_BYTES).await.map_err(|e| match e {
        ReadToEndError::Read(_) if conn.close_reason().is_some() => closed(conn),
        _ => odd("its hello can't be read"),
    })?;
    let hello: Hello = codec::decode(&bytes, MAX_HELLO_BYTES).map_err(|e| odd(&e.to_string()))?;
    Ok(hello.instance)
}

fn closed(conn: &Connection) -> Refusal {
    conn.close_reason().map_or_else(|| Refusal::Said("the stream was refused".to_owned()), |e| explain(&e))
}

/// IPv4 addresses as such, also when they come through an IPv6 socket.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Link {
    pub fn remote(&self) -> SocketAddr {
        canonical(self.conn.remote_address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_on_the_way_can_not_say_that_this_node_was_removed() {
        assert!(matches!(unproven(Refusal::Removed), Refusal::Said(_)));
        assert_eq!(unproven(Refusal::OtherCluster), Refusal::OtherCluster);
    }
}
