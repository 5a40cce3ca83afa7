//! One moment of the world.
//!
//! What makes it up is shared with the moments before it where it is the same, and hashed once: a search keeps millions.

use super::{DAWN, STEP, Scenario};
use crate::law::Breach;
use crate::law::lease::{Electorates, Holders};
use crate::sim::hash::Hash as Digest;
use peer::ids::NodeId;
use peer::lease::{Durable, Lease};
use peer::model::node::Liveness;
use peer::model::record::Term;
use peer::time::Mono;
use peer::wire::message::LeaseMessage;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A node that runs, by its own clock.
#[derive(Clone)]
pub struct Peer {
    pub lease: Lease,
    pub now: Mono,
    pub disk: Durable,
    pub held: Option<Term>,
    hash: u64,
    /// What the hash will be one and two steps later, if nothing happens.
    older: [u64; 2],
}

impl Peer {
    /// `life`: how many restarts there were, of anybody; what a life asks is told apart from what earlier ones asked.
    pub fn start(scenario: &Scenario, node: usize, disk: Durable, life: u8, now: Mono) -> Self {
        let id = node_id(node);
        let views = &scenario.views[node];
        let live: BTreeMap<NodeId, Liveness> =
            views.iter().enumerate().map(|(other, state)| (node_id(other), *state)).collect();
        let seed = u64::from(life);
        let mut lease =
            Lease::new(id, scenario.timing, disk.clone(), life == 0, seed, now).with_upkeep(scenario.upkeep);
        if !scenario.changes {
            lease.forbid_changes();
        }
        lease.set_live(&live, now);
        // Last, so that the first campaign is planned by what it sees.
        let lease = lease.impatient(now);
        let mut peer = Self { lease, now, disk, held: None, hash: 0, older: [0; 2] };
        peer.settle();
        peer
    }

    /// To be called after all that touches it.
    pub fn settle(&mut self) {
        self.held = self.lease.held(self.now);
        self.hash = self.outline(self.now);
        self.older = [self.outline(self.now + STEP), self.outline(self.now + STEP * 2)];
    }

    fn outline(&self, now: Mono) -> u64 {
        let mut hasher = Digest::default();
        self.lease.outline(now, STEP, &mut hasher);
        self.lease.held(now).hash(&mut hasher);
        let Durable { promised, electorate, round_used, floor, put_back } = &self.disk;
        (promised, electorate.id, round_used, floor, put_back).hash(&mut hasher);
        hasher.finish()
    }

    /// It makes a difference whether its clock moves by one step or by two.
    pub fn has_a_pace(&self) -> bool {
        self.older[0] != self.older[1]
    }

    /// What it becomes when its clock moves on; `None` if nothing about it depends on that.
    pub fn older(&self, fast: bool) -> Option<Self> {
        if self.older[usize::from(fast)] == self.hash {
            return None;
        }
        let mut older = self.clone();
        older.now = older.now + if fast { STEP * 2 } else { STEP };
        older.settle();
        Some(older)
    }

    pub fn is_like(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// A message that was sent; it may arrive from now on.
#[derive(Debug)]
pub struct Letter {
    pub from: usize,
    pub to: usize,
    pub message: LeaseMessage,
    hash: u64,
}

impl Letter {
    pub fn new(from: usize, to: usize, message: LeaseMessage) -> Self {
        let mut hasher = Digest::default();
        (from, to, &message).hash(&mut hasher);
        let hash = hasher.finish();
        Self { from, to, message, hash }
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, message, .. } = self;
        write!(f, "n{from} to n{to}: {}", Told(message))
    }
}

struct Told<'a>(&'a LeaseMessage);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LeaseMessage::Prepare { ballot, electorate } => {
                write!(f, "prepare {} under {}", term(*ballot), told(electorate))
            }
            LeaseMessage::Promise { ballot } => write!(f, "promise {}", term(*ballot)),
            LeaseMessage::Newer { electorate } => write!(f, "there is {}", told(electorate)),
            LeaseMessage::Held { promised, holder, remaining_ms } => {
                let holder = holder.map(|h| format!(", granted to n{} for {remaining_ms} ms", index(h)));
                write!(f, "refused: promised {}{}", term(*promised), holder.unwrap_or_default())
            }
            LeaseMessage::Propose { ballot, seq, electorate } => {
                write!(f, "propose {} #{seq} under {}", term(*ballot), told(electorate))
            }
            LeaseMessage::Accepted { ballot, seq } => write!(f, "accepted {} #{seq}", term(*ballot)),
            LeaseMessage::Release { ballot } => write!(f, "release {}", term(*ballot)),
            LeaseMessage::Recall { .. } => write!(f, "what is promised?"),
            LeaseMessage::Recalled { promised, electorate, sure, .. } => {
                let doubts = if *sure { "" } else { ", itself in doubt" };
                write!(f, "promised {} under {}{doubts}", term(*promised), told(electorate))
            }
        }
    }
}

pub fn term(term: Term) -> String {
    if term == Term::ZERO { "0".to_owned() } else { format!("{}.n{}", term.round, index(term.node)) }
}

fn told(electorate: &peer::model::lease::Electorate) -> String {
    let voters: Vec<String> = electorate.voters.iter().map(|v| format!("n{}", index(*v))).collect();
    format!("({} v{}: {})", term(electorate.id.term), electorate.id.version, voters.join(" "))
}

pub fn node_id(node: usize) -> NodeId {
    NodeId::from_u128(node as u128 + 1)
}

pub fn index(id: NodeId) -> usize {
    usize::try_from(id.as_u128()).unwrap_or(0).saturating_sub(1)
}

/// What was used of the bounds, and what was seen on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub elections: u8,
    pub restarts: u8,
    /// Somebody held the lease before the first restart.
    pub held_before_a_restart: bool,
}

#[derive(Clone)]
pub struct State {
    pub nodes: Vec<Arc<Peer>>,
    /// All that was ever sent, by hash.
    pub letters: Vec<Arc<Letter>>,
    pub spent: Spent,
    pub holders: Holders,
    pub electorates: Arc<Electorates>,
    pub breach: Option<Arc<Breach>>,
}

impl State {
    pub fn first(scenario: &Scenario) -> Self {
        let disk = Durable::new(scenario.first.clone());
        let peers = (0..scenario.nodes).map(|n| Arc::new(Peer::start(scenario, n, disk.clone(), 0, DAWN)));
        Self {
            nodes: peers.collect(),
            letters: Vec::new(),
            spent: Spent::default(),
            holders: Holders::default(),
            electorates: Arc::default(),
            breach: None,
        }
    }

    /// True if it is the first of its kind.
    pub fn post(&mut self, letter: Letter) -> bool {
        let place = self.letters.binary_search_by_key(&letter.hash, |l| l.hash);
        if let Err(place) = place {
            self.letters.insert(place, Arc::new(letter));
        }
        place.is_err()
    }

    /// Nothing that may still happen makes a difference to what this letter can do: nothing.
    ///
    /// - No ballot is stood for twice once its round is on the disk: replies to one that was given up come too late, and promises
    ///   to one that has its majority say nothing new.
    /// - No promise and no electorate on a disk goes back (a law here): what lies below can only be refused, or be no news.
    ///   Refusals are letters too: where they may arrive, what causes them may.
    /// - Who is in doubt takes answers to its own question only, and no two lives ask the same one.
    pub fn is_spent(&self, letter: &Letter, refusals: bool) -> bool {
        let peer = &self.nodes[letter.to];
        let (lease, disk) = (&peer.lease, &peer.disk);
        match &letter.message {
            LeaseMessage::Promise { ballot } => {
                let wanted = lease.ballot() == Some(*ballot) && lease.proposes().is_none();
                !wanted && ballot.round <= disk.round_used
            }
            LeaseMessage::Accepted { ballot, .. } => lease.ballot() != Some(*ballot) && ballot.round <= disk.round_used,
            LeaseMessage::Prepare { ballot, .. } | LeaseMessage::Propose { ballot, .. } => {
                !refusals && *ballot < lease.promised().min(disk.promised)
            }
            LeaseMessage::Newer { electorate } => electorate.id <= lease.electorate().id.min(disk.electorate.id),
            LeaseMessage::Recall { nonce } => self.nodes[letter.from].lease.asks() != Some(*nonce),
            LeaseMessage::Recalled { nonce, .. } => lease.asks() != Some(*nonce),
            LeaseMessage::Held { .. } | LeaseMessage::Release { .. } => false,
        }
    }

    pub fn forget_spent(&mut self, node: usize, refusals: bool) {
        let mut letters = std::mem::take(&mut self.letters);
        letters.retain(|letter| (letter.to != node && letter.from != node) || !self.is_spent(letter, refusals));
        self.letters = letters;
    }

    fn digest(&self, hasher: &mut impl Hasher) {
        for node in &self.nodes {
            node.hash.hash(hasher);
        }
        for letter in &self.letters {
            letter.hash.hash(hasher);
        }
        (self.spent, &self.holders, &self.electorates, self.breach.is_some()).hash(hasher);
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let [mut a, mut b] = [Digest::default(), Digest::default()];
        self.digest(&mut a);
        other.digest(&mut b);
        a.finish() == b.finish()
    }
}
