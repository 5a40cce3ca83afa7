//! Joining a cluster, from the joiner's side. It trusts whoever shows the CA whose digest stands in the token, sends
//! the secret over that connection only, keeps its own key to itself and comes back with an identity.

use super::dial::canonical;
use super::knock;
use super::reason::{self, Refusal, printable};
use super::tls;
use super::{Timing, transport};
use crate::ids::NodeId;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::shell::identity::{Identity, NodeName, Pem, Token, certs, digest};
use crate::time::Wall;
use crate::wire::codec;
use crate::wire::message::MemberEntry;
use quinn::{Connection, Endpoint};
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Nobody answers the first packets within this: the next address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The whole exchange with one node.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
pub const MAX_JOIN_REQUEST_BYTES: usize = 16 * 1024;
pub const MAX_HOSTNAME_BYTES: usize = 253;

#[derive(Serialize, Deserialize)]
pub(super) struct JoinRequest {
    pub secret: String,
    pub node: NodeId,
    /// A PKCS#10 request: proves that the joiner holds its key.
    pub csr_der: Vec<u8>,
    pub hostname: String,
    /// Where the joiner will listen. An unspecified address stands for the one it is seen under.
    pub addr: SocketAddr,
    pub version: String,
}

#[derive(Serialize, Deserialize)]
pub(super) enum JoinReply {
    Welcome(Box<JoinAnswer>),
    Refused(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct JoinAnswer {
    pub cluster: crate::ids::ClusterId,
    pub ca_pem: String,
    pub ca_key_pem: String,
    pub cert_pem: String,
    pub members: Vec<MemberEntry>,
    /// The joiner's address as the server sees it.
    pub seen: IpAddr,
    pub version: String,
}

/// What a join brings.
#[derive(Debug)]
pub struct Joined {
    pub identity: Identity,
    pub members: Vec<MemberEntry>,
    /// Under which address the cluster sees us.
    pub seen: IpAddr,
    /// The version of the agent that admitted us.
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("no address to join was given")]
    NoAddress,
    #[error("no such host: {host}: {why}")]
    Unknown { host: String, why: String },
    #[error("no answer from {addr}: {why}")]
    Unreachable { addr: SocketAddr, why: String },
    #[error("{addr}: the cluster's CA does not match the token: this token belongs to another cluster")]
    OtherCluster { addr: SocketAddr },
    #[error("refused by {addr}: {why}")]
    Refused { addr: SocketAddr, why: String },
    #[error("{addr} sent an answer that makes no sense: {why}")]
    Nonsense { addr: SocketAddr, why: String },
    #[error("this machine can't join: {0}")]
    Local(String),
}

/// Asks each address in turn until one admits or refuses; silence moves on to the next. `listen` is where this node
/// will be reachable.
pub async fn join(
    addrs: &[SocketAddr],
    token: &Token,
    hostname: &str,
    listen: SocketAddr,
    now: Wall,
) -> Result<Joined, JoinError> {
    let mut last = JoinError::NoAddress;
    for addr in addrs {
        match join_at(*addr, token, hostname, listen, now).await {
            Err(error @ JoinError::Unreachable { .. }) => last = error,
            result => return result,
        }
    }
    Err(last)
}

async fn join_at(
    addr: SocketAddr,
    token: &Token,
    hostname: &str,
    listen: SocketAddr,
    now: Wall,
) -> Result<Joined, JoinError> {
    let local = |why: String| JoinError::Local(why);
    let key = certs::new_key().map_err(|e| local(e.to_string()))?;
    let node = certs::node_of_key(&key.subject_public_key_info());
    // The cluster's id is not known yet; the cluster puts the name into the certificate itself.
    let name = NodeName { node, cluster: crate::ids::ClusterId::from_u128(0) };
    let request = JoinRequest {
        secret: token.secret().to_owned(),
        node,
        csr_der: certs::request(name, &key).map_err(|e| local(e.to_string()))?,
        hostname: hostname.chars().take(MAX_HOSTNAME_BYTES / 4).collect(),
        addr: listen,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = timeout(JOIN_TIMEOUT, exchange(addr, token, &request))
        .await
        .unwrap_or_else(|_| Err(silent(addr, format!("nothing within {} s", JOIN_TIMEOUT.as_secs()))))?;
    accept(addr, token, node, key.serialize_pem(), *answer, now)
}

async fn exchange(addr: SocketAddr, token: &Token, request: &JoinRequest) -> Result<Box<JoinAnswer>, JoinError> {
    let endpoint = client_endpoint(addr, token).map_err(JoinError::Local)?;
    // The name is not looked at: the digest in the token is what counts.
    let connecting = endpoint.connect(addr, "join.peer.internal").map_err(|e| silent(addr, e.to_string()))?;
    let silence = |why: String| refused(addr, Refusal::Silent(why));
    let connected = async {
        tokio::select! {
            result = connecting => result.map_err(|e| refused(addr, reason::explain(&e))),
            () = knock::until_shut(addr) => Err(silence("nothing listens at that port".to_owned())),
        }
    };
    let conn = timeout(CONNECT_TIMEOUT, connected)
        .await
        .unwrap_or_else(|_| Err(silence(format!("nothing within {} s", CONNECT_TIMEOUT.as_secs()))))?;
    let result = ask(addr, &conn, request).await;
    reason::close(&conn, reason::JOIN_OVER);
    // Lets the goodbye out; the other side does not depend on it.
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    match result? {
        JoinReply::Welcome(answer) => Ok(answer),
        JoinReply::Refused(why) => Err(JoinError::Refused { addr, why: printable(why.as_bytes()) }),
    }
}

async fn ask(addr: SocketAddr, conn: &Connection, request: &JoinRequest) -> Result<JoinReply, JoinError> {
    let gone =
        || refused(addr, conn.close_reason().map_or(Refusal::Silent("cut short".into()), |e| reason::explain(&e)));
    let (mut send, mut recv) = conn.open_bi().await.map_err(|_| gone())?;
    send.write_all(&codec::encode(request)).await.map_err(|_| gone())?;
    send.finish().map_err(|_| gone())?;
    let bytes = recv.read_to_end(MAX_MESSAGE_BYTES).await.map_err(|_| gone())?;
    codec::decode(&bytes, MAX_MESSAGE_BYTES).map_err(|e| JoinError::Nonsense { addr, why: e.to_string() })
}

fn client_endpoint(addr: SocketAddr, token: &Token) -> Result<Endpoint, String> {
    let any: IpAddr =
        if addr.ip().to_canonical().is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut endpoint = Endpoint::client(SocketAddr::new(any, 0)).map_err(|e| e.to_string())?;
    let tls = tls::joiner(*token.ca()).map_err(|e| e.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport::joiner(&Timing::default())));
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Believes nothing that does not fit together and to the token.
fn accept(
    addr: SocketAddr,
    token: &Token,
    node: NodeId,
    key: String,
    answer: JoinAnswer,
    now: Wall,
) -> Result<Joined, JoinError> {
    let nonsense = |why: String| JoinError::Nonsense { addr, why };
    let ca = CertificateDer::from_pem_slice(answer.ca_pem.as_bytes()).map_err(|e| nonsense(e.to_string()))?;
    if digest(&ca) != *token.ca() {
        return Err(JoinError::OtherCluster { addr });
    }
    let name = NodeName { node, cluster: answer.cluster };
    let pem = Pem { ca: answer.ca_pem, ca_key: answer.ca_key_pem, cert: answer.cert_pem, key };
    let identity = Identity::assemble(name, now, pem).map_err(|e| nonsense(e.to_string()))?;
    if answer.members.len() > crate::limits::MAX_MEMBERS {
        return Err(nonsense(format!("{} members", answer.members.len())));
    }
    Ok(Joined { identity, members: answer.members, seen: answer.seen, version: printable(answer.version.as_bytes()) })
}

fn silent(addr: SocketAddr, why: String) -> JoinError {
    JoinError::Unreachable { addr: canonical(addr), why }
}

fn refused(addr: SocketAddr, refusal: Refusal) -> JoinError {
    match refusal {
        Refusal::WrongCa => JoinError::OtherCluster { addr },
        Refusal::Silent(why) => silent(addr, format!("{why} (does an agent run there, and is its UDP port open?)")),
        other => JoinError::Refused { addr, why: other.to_string() },
    }
}
