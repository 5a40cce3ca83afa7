//! Messages and tunnels between members, over QUIC on one UDP socket. Who sent a message is read from the certificate
//! of its connection and from nowhere else. Sending is best effort and never waits: connections are made on demand and
//! kept, queues are bounded and drop their oldest. What the messages mean is none of this module's business.
//!
//! [`dial`] and [`accept`] make links, [`serve`] reads them, [`pump`] writes them, [`shared`] keeps count;
//! [`join`] is the stranger's side of joining and [`join_desk`] ours.

mod accept;
mod dial;
mod guesses;
pub mod interface;
mod join;
mod join_desk;
mod knock;
mod links;
mod pump;
mod reason;
mod serve;
mod shared;
mod tls;
mod transport;

pub use join::{JoinError, Joined, join};
pub use tls::TlsError;

use crate::ids::NodeId;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::shell::identity::Identity;
use crate::shell::identity::random::{self, NoRandomness};
use crate::wire::message::MemberEntry;
use bytes::Bytes;
use links::Outgoing;
use quinn::{Endpoint, RecvStream, SendStream, TokioRuntime};
use shared::{Credentials, Parts, Shared, Way};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tls::BanList;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Where agents listen (UDP) unless told otherwise.
pub const DEFAULT_PORT: u16 = 7373;

/// Events that the agent has not taken yet; beyond it reading stops.
const MAX_EVENTS: usize = 1_024;
/// Asked of the kernel, which may give less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// What may come of a connection before its handshake is begun; of all of them together eight times as much.
const INCOMING_BYTES: u64 = 64 * 1024;
/// A graceful close waits this long for what is on its way, and then for the goodbyes.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);

pub struct NetConfig {
    pub listen: SocketAddr,
    pub identity: Arc<Identity>,
    /// Banned from the first moment on.
    pub banned: BTreeSet<NodeId>,
    pub timing: Timing,
}

impl NetConfig {
    pub fn new(listen: SocketAddr, identity: Arc<Identity>) -> Self {
        Self { listen, identity, banned: BTreeSet::new(), timing: Timing::default() }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A quiet link is used at least this often, which also keeps NAT entries alive.
    pub keep_alive: Duration,
    /// A link from which nothing comes for this long is dead. Several keep-alives long.
    pub idle: Duration,
    /// From the first packet to the hello. Three retransmissions fit in.
    pub handshake: Duration,
    /// One message, from its first byte to its last. Too short and large states never cross slow lines.
    pub message: Duration,
    /// A second connection to the same node is closed after it was idle for this long.
    pub linger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            handshake: Duration::from_secs(3),
            message: Duration::from_secs(30),
            linger: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub enum NetEvent {
    /// A whole message; `from` is proven.
    Message { from: NodeId, bytes: Vec<u8> },
    /// The first connection with this node.
    LinkUp { node: NodeId },
    /// No connection with this node is left.
    LinkLost { node: NodeId },
    /// A member opened a stream to us; what it says first is for the mesh to read.
    Tunnel { from: NodeId, send: SendStream, recv: RecvStream },
    /// A node to which we have something to say does not take our connection; told once until the reason changes.
    /// `removed`: it says that we were removed from the cluster.
    Refused { by: NodeId, removed: bool, why: String },
}

/// A stranger wants to join.
#[derive(Clone)]
pub struct JoinAsk {
    /// To be held against the cluster's with [`crate::shell::identity::token::same_secret`].
    pub secret: String,
    pub node: NodeId,
    pub hostname: String,
    /// Where it says that it will listen, or its source address if it doesn't know.
    pub addr: SocketAddr,
    pub source: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinRefusal {
    /// Counted, per source.
    WrongToken,
    /// In words for the one who joins.
    Other(String),
}

pub type JoinFuture = Pin<Box<dyn Future<Output = Result<Vec<MemberEntry>, JoinRefusal>> + Send>>;
/// Decides over a join: the members that the joiner is told, or why not. Refuses a node id that is in use.
pub type JoinService = Arc<dyn Fn(JoinAsk) -> JoinFuture + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("can't listen on {addr} (UDP): {error}")]
    Listen { addr: SocketAddr, error: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tunnel to node {node} at {addr}: {why}")]
pub struct TunnelError {
    pub node: NodeId,
    pub addr: SocketAddr,
    pub why: String,
}

/// Cheap to clone; the connections live until [`Net::close`].
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
}

impl Net {
    /// Must be called within a tokio runtime.
    pub fn start(config: NetConfig, join: JoinService) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        let NetConfig { listen, identity, banned: banned_at_start, timing } = config;
        let banned = BanList::default();
        banned.add(&banned_at_start);
        let server = server_config(&identity, &banned, &timing)?;
        let listen_error = |error| NetError::Listen { addr: listen, error };
        let socket = bind(listen).map_err(listen_error)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            Endpoint::new(transport::endpoint(&identity), Some(server), socket, runtime).map_err(listen_error)?;
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let (herald, heralded) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(Parts {
            credentials: Credentials::new(identity, &banned, &timing)?,
            instance: random::number()?,
            endpoint,
            timing,
            banned,
            events: events.clone(),
            herald,
            join,
        }));
        shared.tasks.spawn(accept::run(shared.clone()));
        tokio::spawn(pass_on(heralded, events));
        Ok((Self { shared }, receiver))
    }

    /// Never waits. Best effort: lost if the node can't be reached, if too much waits for it already, or if it dies.
    pub fn send(&self, to: NodeId, addr: SocketAddr, bytes: Vec<u8>, datagram: bool) {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return tracing::error!(%to, "not sent: a message of {} bytes, more than the {MAX_MESSAGE_BYTES} allowed", bytes.len());
        }
        let bytes = Bytes::from(bytes);
        if datagram
            && let Some(link) = self.shared.link_at(to, addr)
            && pump::try_datagram(&link, &bytes)
        {
            return;
        }
        self.shared.enqueue(to, addr, Outgoing { bytes, datagram, tries: 0 });
    }

    /// Closes the connections of these nodes and takes none from them again. Only ever adds.
    pub fn ban(&self, nodes: &BTreeSet<NodeId>) {
        self.shared.ban(nodes);
    }

    /// A stream to a node's mesh. Opens a connection if there is none.
    pub async fn open_tunnel(&self, to: NodeId, addr: SocketAddr) -> Result<(SendStream, RecvStream), TunnelError> {
        let error = |why: String| TunnelError { node: to, addr, why };
        let opening = async {
            let mut asked = false;
            loop {
                match self.shared.way_to(to, addr, asked) {
                    Way::None(why) => return Err(why),
                    Way::Wait(mut changed) => {
                        asked = true;
                        // Fails when the peer was banned; the next look sees it.
                        let _ = changed.changed().await;
                    }
                    // A link that dies at this instant is not counted the next time.
                    Way::Link(link) => match link.conn.open_bi().await {
                        Ok(streams) => return Ok(streams),
                        Err(e) => tracing::debug!(%to, "no stream: {}", reason::explain(&e)),
                    },
                }
            }
        };
        let limit = 2 * self.shared.timing.handshake;
        timeout(limit, opening).await.unwrap_or_else(|_| Err("it took too long".to_owned())).map_err(error)
    }

    /// Shows a renewed certificate from now on; open connections keep what they have.
    pub fn replace_identity(&self, identity: Arc<Identity>) -> Result<(), NetError> {
        let server = server_config(&identity, &self.shared.banned, &self.shared.timing)?;
        self.shared.set_credentials(Credentials::new(identity, &self.shared.banned, &self.shared.timing)?);
        self.shared.endpoint.set_server_config(Some(server));
        Ok(())
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    pub fn is_connected(&self, node: NodeId) -> bool {
        self.shared.link(node).is_some()
    }

    /// Usually one; two for a while when both sides dialed at once.
    pub fn connections(&self, node: NodeId) -> usize {
        self.shared.connections(node)
    }

    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.shared.link(node).map(|link| link.conn.rtt())
    }

    /// Where the node's connection comes from or leads to.
    pub fn remote_addr(&self, node: NodeId) -> Option<SocketAddr> {
        self.shared.link(node).map(|link| link.remote())
    }

    /// Graceful: what is on its way may arrive, then every connection is closed. Takes about a second at most.
    pub async fn close(&self) {
        self.shared.start_closing();
        let flushed = async {
            while !self.shared.is_flushed() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // Whoever doesn't take it in time has lost it.
        let _ = timeout(FLUSH_LIMIT, flushed).await;
        self.shared.endpoint.close(reason::STOPPING, b"the agent is stopping");
        self.shared.tasks.close();
        let _ = timeout(GOODBYE_LIMIT, async {
            self.shared.endpoint.wait_idle().await;
            self.shared.tasks.wait().await;
        })
        .await;
    }
}

/// Links come and go in the order in which they did, even when the agent is slow to listen.
async fn pass_on(mut heralded: mpsc::UnboundedReceiver<NetEvent>, events: mpsc::Sender<NetEvent>) {
    while let Some(event) = heralded.recv().await {
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn server_config(identity: &Identity, banned: &BanList, timing: &Timing) -> Result<quinn::ServerConfig, TlsError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls::server(identity, banned)?));
    config.transport_config(Arc::new(transport::stranger(timing)));
    config.max_incoming(2 * shared::MAX_HANDSHAKES);
    config.incoming_buffer_size(INCOMING_BYTES).incoming_buffer_size_total(8 * INCOMING_BYTES);
    Ok(config)
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // As much as the kernel allows; it says nothing when that is less.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
