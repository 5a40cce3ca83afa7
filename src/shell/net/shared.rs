//! The working state behind [`super::Net`] and its tasks: registering and losing links, choosing what happens next for
//! a peer. Every decision is taken under one lock and announced in the order in which it was taken.

use super::links::{Link, Links, Outgoing, Peer};
use super::reason::{self, Refusal};
use super::tls::{self, BanList, TlsError};
use super::{JoinService, NetEvent, Timing, dial, serve, transport};
use crate::ids::NodeId;
use crate::shell::identity::Identity;
use crate::shell::net::guesses::Guesses;
use crate::shell::places::{Complaints, Places};
use quinn::{Connection, Endpoint};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// After silence: whoever sends next dials again.
const RETRY_SILENT: Duration = Duration::from_millis(100);
/// After a refusal, which will hardly change at once.
const RETRY_REFUSED: Duration = Duration::from_secs(1);
/// A node whose address changed is dialed beside its old link at most this often.
const REDIAL: Duration = Duration::from_secs(5);
/// Handshakes under way at a time; beyond half of it callers must prove their address first.
pub const MAX_HANDSHAKES: usize = 256;
/// Joins under way at a time.
pub const MAX_JOINS: usize = 32;

pub struct Shared {
    pub us: NodeId,
    /// This life of the agent, told to the other side of each link.
    pub instance: u64,
    pub endpoint: Endpoint,
    pub timing: Timing,
    pub banned: BanList,
    pub events: mpsc::Sender<NetEvent>,
    pub join: JoinService,
    pub guesses: Mutex<Guesses>,
    complaints: Mutex<Complaints>,
    pub handshakes: Arc<Places>,
    pub joins: Arc<Places>,
    pub tasks: TaskTracker,
    credentials: RwLock<Credentials>,
    links: Mutex<Links>,
    /// Links coming and going, in order; a task passes them on to `events`.
    herald: mpsc::UnboundedSender<NetEvent>,
}

#[derive(Clone)]
pub struct Credentials {
    pub identity: Arc<Identity>,
    pub client: quinn::ClientConfig,
}

impl Credentials {
    pub fn new(identity: Arc<Identity>, banned: &BanList, timing: &Timing) -> Result<Self, TlsError> {
        let mut client = quinn::ClientConfig::new(Arc::new(tls::client(&identity, banned)?));
        client.transport_config(Arc::new(transport::member(timing)));
        Ok(Self { identity, client })
    }
}

/// What the task that empties a peer's queue does next.
pub enum Step {
    Send { link: Arc<Link>, item: Outgoing, in_flight: Arc<Semaphore> },
    Wait(watch::Receiver<()>),
    Done,
}

/// The way to a peer, for those who need one and can wait for it.
pub enum Way {
    Link(Arc<Link>),
    Wait(watch::Receiver<()>),
    None(String),
}

pub struct Parts {
    pub credentials: Credentials,
    pub instance: u64,
    pub endpoint: Endpoint,
    pub timing: Timing,
    pub banned: BanList,
    pub events: mpsc::Sender<NetEvent>,
    pub herald: mpsc::UnboundedSender<NetEvent>,
    pub join: JoinService,
}

impl Shared {
    pub fn new(parts: Parts) -> Self {
        Self {
            us: parts.credentials.identity.node(),
            instance: parts.instance,
            endpoint: parts.endpoint,
            timing: parts.timing,
            banned: parts.banned,
            events: parts.events,
            join: parts.join,
            guesses: Mutex::new(Guesses::default()),
            complaints: Mutex::new(Complaints::default()),
            handshakes: Places::new(MAX_HANDSHAKES),
            joins: Places::new(MAX_JOINS),
            tasks: TaskTracker::new(),
            credentials: RwLock::new(parts.credentials),
            links: Mutex::new(Links::default()),
            herald: parts.herald,
        }
    }

    pub fn credentials(&self) -> Credentials {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_credentials(&self, credentials: Credentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in the log that somebody was turned away, unless too many were of late.
    pub fn complain(&self, from: SocketAddr, why: &str) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.may_complain(Instant::now()) {
            tracing::warn!(%from, "turned away: {why}");
        } else {
            tracing::debug!(%from, "turned away: {why}");
        }
    }

    fn announce(&self, event: NetEvent) {
        // Nobody listens any more once the agent has stopped.
        let _ = self.herald.send(event);
    }

    /// The best live link, after noting where the peer is said to be.
    pub fn link_at(self: &Arc<Self>, node: NodeId, addr: SocketAddr) -> Option<Arc<Link>> {
        let mut links = self.links();
        if links.closing || self.is_out_of_bounds(node) {
            return None;
        }
        let peer = links.peer(node);
        self.note_addr(peer, node, addr);
        peer.best()
    }

    pub fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.links().peers.get(&node)?.best()
    }

    pub fn connections(&self, node: NodeId) -> usize {
        self.links().peers.get(&node).map_or(0, |peer| peer.links.len())
    }

    pub fn enqueue(self: &Arc<Self>, node: NodeId, addr: SocketAddr, item: Outgoing) {
        let mut links = self.links();
        if links.closing || self.is_out_of_bounds(node) {
            return;
        }
        let peer = links.peer(node);
        self.note_addr(peer, node, addr);
        let dropped = peer.queue.push(item);
        if dropped > 0 {
            tracing::debug!(%node, dropped, "queue full: dropped the oldest messages");
        }
        if !peer.pumping {
            peer.pumping = true;
            self.tasks.spawn(super::pump::run(self.clone(), node));
        }
    }

    pub fn next_step(self: &Arc<Self>, node: NodeId) -> Step {
        let mut links = self.links();
        let closing = links.closing;
        let Some(peer) = links.peers.get_mut(&node) else { return Step::Done };
        let wait = match (peer.best(), peer.retry_at) {
            (Some(link), _) => match peer.queue.pop() {
                Some(item) => return Step::Send { link, item, in_flight: peer.in_flight.clone() },
                None => None,
            },
            (None, _) if closing || peer.queue.is_empty() => None,
            (None, Some(at)) if at > Instant::now() => None,
            (None, _) => self.start_dial(peer, node),
        };
        wait.map_or_else(
            || {
                peer.queue.clear();
                peer.pumping = false;
                Step::Done
            },
            Step::Wait,
        )
    }

    /// An item whose connection died under it goes first on the next one, but not for ever.
    pub fn give_back(&self, node: NodeId, mut item: Outgoing) {
        const MAX_TRIES: u8 = 2;
        item.tries += 1;
        if let Some(peer) = self.links().peers.get_mut(&node).filter(|_| item.tries < MAX_TRIES) {
            peer.queue.push_front(item);
        }
    }

    /// `asked`: a dial was already waited for, so its failure is the answer.
    pub fn way_to(self: &Arc<Self>, node: NodeId, addr: SocketAddr, asked: bool) -> Way {
        let mut links = self.links();
        if links.closing {
            return Way::None("the agent is stopping".to_owned());
        }
        if self.is_out_of_bounds(node) {
            return Way::None("it was removed from the cluster".to_owned());
        }
        let peer = links.peer(node);
        self.note_addr(peer, node, addr);
        if let Some(link) = peer.best() {
            link.tunnels.store(true, Ordering::Relaxed);
            return Way::Link(link);
        }
        match &peer.failure {
            Some(failure) if asked && !peer.dialing => Way::None(failure.to_string()),
            _ => self.start_dial(peer, node).map_or_else(|| Way::None("no address".to_owned()), Way::Wait),
        }
    }

    fn is_out_of_bounds(&self, node: NodeId) -> bool {
        node == self.us || self.banned.contains(node)
    }

    /// A node that moved may not know yet that its old connection leads nowhere, and neither may we.
    fn note_addr(self: &Arc<Self>, peer: &mut Peer, node: NodeId, addr: SocketAddr) {
        if peer.addr.replace(addr).is_none_or(|old| old == addr) {
            return;
        }
        let leads_there = peer.links.iter().any(|link| dial::canonical(link.conn.remote_address()) == addr);
        let just_did = peer.redialed_at.is_some_and(|at| at.elapsed() < REDIAL);
        if !peer.links.is_empty() && !leads_there && !just_did {
            peer.redialed_at = Some(Instant::now());
            self.start_dial(peer, node);
        }
    }

    fn start_dial(self: &Arc<Self>, peer: &mut Peer, node: NodeId) -> Option<watch::Receiver<()>> {
        let addr = peer.addr?;
        let changed = peer.changed.subscribe();
        if !peer.dialing {
            peer.dialing = true;
            self.tasks.spawn(dial::run(self.clone(), node, addr));
        }
        Some(changed)
    }

    pub fn dial_failed(&self, node: NodeId, addr: SocketAddr, refusal: Refusal) {
        let mut links = self.links();
        let closing = links.closing;
        let Some(peer) = links.peers.get_mut(&node) else { return };
        peer.dialing = false;
        peer.changed.send_replace(());
        if closing || peer.best().is_some() {
            return;
        }
        let silent = matches!(refusal, Refusal::Silent(_));
        peer.retry_at = Some(Instant::now() + if silent { RETRY_SILENT } else { RETRY_REFUSED });
        let dropped = peer.queue.clear();
        if peer.failure.as_ref() == Some(&refusal) {
            tracing::debug!(%node, %addr, dropped, "still no connection: {refusal}");
            return;
        }
        tracing::warn!(%node, %addr, dropped, "no connection: {refusal}");
        peer.failure = Some(refusal.clone());
        if !silent {
            let removed = refusal == Refusal::Removed;
            self.announce(NetEvent::Refused { by: node, removed, why: refusal.to_string() });
        }
    }

    /// From here on the connection counts; both sides were proven.
    pub fn register(self: &Arc<Self>, conn: Connection, node: NodeId, opened_by: NodeId, instance: u64) {
        let mut links = self.links();
        if opened_by == self.us
            && let Some(peer) = links.peers.get_mut(&node)
        {
            peer.dialing = false;
            peer.changed.send_replace(());
        }
        if links.closing {
            return reason::close(&conn, reason::STOPPING);
        }
        if self.banned.contains(node) {
            return reason::close(&conn, reason::BANNED);
        }
        let number = links.next_number();
        let link = Arc::new(Link::new(conn, node, opened_by, instance, number));
        let peer = links.peer(node);
        let was_up = !peer.links.is_empty();
        for old in peer.add(link.clone()) {
            reason::close(&old.conn, reason::SUPERSEDED);
        }
        if !was_up {
            self.announce(NetEvent::LinkUp { node });
        }
        self.tasks.spawn(serve::run(self.clone(), link));
    }

    pub fn unregister(&self, link: &Link) {
        let mut links = self.links();
        let Some(peer) = links.peers.get_mut(&link.node) else { return };
        if peer.remove(link) && peer.links.is_empty() {
            self.announce(NetEvent::LinkLost { node: link.node });
        }
        let said = link.conn.close_reason().map(|error| reason::explain(&error));
        if said == Some(Refusal::Removed) {
            self.announce(NetEvent::Refused { by: link.node, removed: true, why: Refusal::Removed.to_string() });
        }
    }

    pub fn is_redundant(&self, link: &Link) -> bool {
        let links = self.links();
        links.peers.get(&link.node).is_some_and(|peer| peer.is_redundant(link, self.us, self.timing.linger))
    }

    /// On the list first, under the lock second: a handshake that ends in between sees one or the other.
    pub fn ban(&self, nodes: &BTreeSet<NodeId>) {
        let others: BTreeSet<NodeId> = nodes.iter().copied().filter(|node| *node != self.us).collect();
        self.banned.add(&others);
        let mut links = self.links();
        for node in &others {
            let Some(peer) = links.peers.remove(node) else { continue };
            for link in &peer.links {
                reason::close(&link.conn, reason::BANNED);
            }
            peer.changed.send_replace(());
            if !peer.links.is_empty() {
                self.announce(NetEvent::LinkLost { node: *node });
            }
        }
    }

    pub fn start_closing(&self) {
        self.links().closing = true;
    }

    /// Whether anything that could still be delivered is on its way.
    pub fn is_flushed(&self) -> bool {
        self.links().peers.values().filter(|peer| peer.best().is_some()).all(|peer| {
            peer.queue.is_empty()
                && !peer.pumping
                && peer.in_flight.available_permits() == super::links::MAX_IN_FLIGHT_BYTES
        })
    }
}
