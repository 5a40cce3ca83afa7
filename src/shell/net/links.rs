//! Who is connected to whom by what, and what waits to be sent. Plain data under one lock; [`super::Shared`] does the
//! work. Two nodes that dial each other at once get two connections: both are read, the one opened by the lower id is
//! preferred for sending, and whoever opened the other closes it once it has been idle for a while.

use super::reason::Refusal;
use crate::ids::NodeId;
use bytes::Bytes;
use quinn::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Waiting for one node; beyond it the oldest go.
pub const MAX_QUEUED: usize = 1_024;
pub const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// On their way to one node, not acknowledged yet.
pub const MAX_IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;
/// Connections to one node at a time.
const MAX_LINKS: usize = 8;
/// Nodes we remember anything of; idle ones go beyond it.
const MAX_PEERS: usize = 2 * crate::limits::MAX_MEMBERS;

const _: () = assert!(MAX_QUEUED_BYTES >= crate::limits::MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_IN_FLIGHT_BYTES >= crate::limits::MAX_MESSAGE_BYTES);

/// One live connection to a member, proven from both sides.
#[derive(Debug)]
pub struct Link {
    pub conn: Connection,
    pub node: NodeId,
    pub opened_by: NodeId,
    /// Which life of the other side's agent this belongs to.
    pub instance: u64,
    /// In the order of their making here.
    pub number: u64,
    /// A tunnel has run here, and one may still: never closed to save a connection.
    pub tunnels: AtomicBool,
    /// Messages that are being read or written.
    pub busy: AtomicUsize,
    /// Somebody is finding out whether the other side's port is still open.
    pub knocking: AtomicBool,
    last_used: Mutex<Instant>,
}

impl Link {
    pub fn new(conn: Connection, node: NodeId, opened_by: NodeId, instance: u64, number: u64) -> Self {
        Self {
            conn,
            node,
            opened_by,
            instance,
            number,
            tunnels: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            knocking: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
        }
    }

    pub fn is_live(&self) -> bool {
        self.conn.close_reason().is_none()
    }

    pub fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle_for(&self, linger: Duration) -> bool {
        !self.tunnels.load(Ordering::Relaxed)
            && self.busy.load(Ordering::Relaxed) == 0
            && self.last_used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= linger
    }

    /// Both ends rank the same; between two opened by one side its younger one, which that side settles.
    fn rank(&self) -> (NodeId, std::cmp::Reverse<u64>) {
        (self.opened_by, std::cmp::Reverse(self.number))
    }
}

/// One message on its way.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub bytes: Bytes,
    pub datagram: bool,
    /// Connections that died under it.
    pub tries: u8,
}

/// First in, first out, bounded twice: the oldest make room for the newest.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Outgoing>,
    bytes: usize,
}

impl Queue {
    /// How many had to go.
    pub fn push(&mut self, item: Outgoing) -> usize {
        self.bytes += item.bytes.len();
        self.items.push_back(item);
        let before = self.items.len();
        while self.items.len() > MAX_QUEUED || self.bytes > MAX_QUEUED_BYTES {
            self.pop();
        }
        before - self.items.len()
    }

    pub fn push_front(&mut self, item: Outgoing) {
        self.bytes += item.bytes.len();
        self.items.push_front(item);
    }

    pub fn pop(&mut self) -> Option<Outgoing> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes.len();
        Some(item)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn clear(&mut self) -> usize {
        self.bytes = 0;
        std::mem::take(&mut self.items).len()
    }
}

#[derive(Debug)]
pub struct Peer {
    pub addr: Option<SocketAddr>,
    pub links: Vec<Arc<Link>>,
    pub queue: Queue,
    /// A task is sending what the queue holds.
    pub pumping: bool,
    /// A task is opening a connection.
    pub dialing: bool,
    pub retry_at: Option<Instant>,
    pub redialed_at: Option<Instant>,
    /// Why the last attempt to connect failed.
    pub failure: Option<Refusal>,
    pub in_flight: Arc<Semaphore>,
    /// Touched whenever a link comes or goes or a dial ends.
    pub changed: watch::Sender<()>,
}

impl Peer {
    fn new() -> Self {
        Self {
            addr: None,
            links: Vec::new(),
            queue: Queue::default(),
            pumping: false,
            dialing: false,
            retry_at: None,
            redialed_at: None,
            failure: None,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT_BYTES)),
            changed: watch::Sender::new(()),
        }
    }

    /// The one to send by.
    pub fn best(&self) -> Option<Arc<Link>> {
        self.links.iter().filter(|link| link.is_live()).min_by_key(|link| link.rank()).cloned()
    }

    /// Takes it in; returns what it replaces: links to an earlier life of that agent, and any beyond the limit.
    pub fn add(&mut self, link: Arc<Link>) -> Vec<Arc<Link>> {
        let (mut replaced, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.links).into_iter().partition(|old| old.instance != link.instance);
        self.links = kept;
        self.links.push(link);
        if self.links.len() > MAX_LINKS {
            replaced.push(self.links.remove(0));
        }
        self.failure = None;
        self.retry_at = None;
        self.changed.send_replace(());
        replaced
    }

    /// Whether it was still counted.
    pub fn remove(&mut self, link: &Link) -> bool {
        let before = self.links.len();
        self.links.retain(|other| other.number != link.number);
        self.changed.send_replace(());
        self.links.len() < before
    }

    /// Opened by us, idle, and another one serves both sides.
    pub fn is_redundant(&self, link: &Link, us: NodeId, linger: Duration) -> bool {
        link.opened_by == us
            && link.is_idle_for(linger)
            && self.best().is_some_and(|best| best.number != link.number && best.rank() < link.rank())
    }

    fn is_idle(&self) -> bool {
        self.links.is_empty() && self.queue.is_empty() && !self.pumping && !self.dialing
    }
}

#[derive(Debug, Default)]
pub struct Links {
    pub peers: BTreeMap<NodeId, Peer>,
    pub closing: bool,
    next_number: u64,
}

impl Links {
    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn peer(&mut self, node: NodeId) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&node) {
            self.peers.retain(|_, peer| !peer.is_idle());
        }
        self.peers.entry(node).or_insert_with(Peer::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(len: usize, mark: u8) -> Outgoing {
        Outgoing { bytes: Bytes::from(vec![mark; len]), datagram: false, tries: 0 }
    }

    #[test]
    fn a_full_queue_drops_the_oldest() {
        let mut queue = Queue::default();
        for n in 0..MAX_QUEUED {
            assert_eq!(queue.push(item(1, n as u8)), 0);
        }
        assert_eq!(queue.push(item(1, 77)), 1);
        assert_eq!(queue.pop().unwrap().bytes[0], 1);
        assert_eq!(queue.clear(), MAX_QUEUED - 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_too() {
        let mut queue = Queue::default();
        let quarter = MAX_QUEUED_BYTES / 4;
        for mark in 0..4 {
            assert_eq!(queue.push(item(quarter, mark)), 0);
        }
        assert_eq!(queue.push(item(quarter + 1, 4)), 2);
        assert_eq!(queue.pop().unwrap().bytes[0], 2);
        queue.push_front(item(1, 9));
        assert_eq!(queue.pop().unwrap().bytes[0], 9);
    }
}
