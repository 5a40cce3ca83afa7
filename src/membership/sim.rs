//! A tiny network on virtual time for the tests of this module: seeded latency and loss, cuts, crashes and stalls.
//! Messages travel encoded. A stream survives loss (each lost flight costs a retransmission) but not a cut.

use super::{Config, Membership, Output};
use crate::ids::NodeId;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::model::node::Liveness;
use crate::time::Mono;
use crate::wire::codec;
use crate::wire::message::{MemberEntry, MemberState, Message};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub const SEC: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

enum Event {
    Deliver { from: usize, bytes: Vec<u8> },
    Wake,
}

pub struct Node {
    pub membership: Membership,
    up: bool,
    stalled_until: Mono,
    next_wake: Option<Mono>,
    /// What a disk would hold.
    pub bump: u64,
    pub renewals: u32,
}

pub struct Report {
    pub at: Mono,
    pub by: usize,
    pub about: usize,
    pub to: Liveness,
}

pub struct Sim {
    pub now: Mono,
    pub nodes: Vec<Node>,
    pub reports: Vec<Report>,
    pub loss: f64,
    /// Nodes on different sides don't hear each other.
    pub side: Vec<u8>,
    pub packets: u64,
    pub bytes: u64,
    events: BTreeMap<(Mono, u64), (usize, Event)>,
    serial: u64,
    rng: ChaCha8Rng,
}

pub fn timing() -> Config {
    let timing = crate::core::face::Timing::default();
    Config { probe_period: timing.probe_period, probe_rtt: timing.probe_rtt, suspect_to_down: timing.suspect_to_down }
}

pub fn id(index: usize) -> NodeId {
    NodeId::from_u128(1_000 + index as u128)
}

pub fn addr(index: usize) -> SocketAddr {
    ([10, 0, (index >> 8) as u8, index as u8], 7946).into()
}

fn index(node: NodeId) -> usize {
    (node.as_u128() - 1_000) as usize
}

pub fn list(count: usize) -> Vec<MemberEntry> {
    let entry = |i| MemberEntry { node: id(i), addr: addr(i), bump: 1, incarnation: 0, state: MemberState::Alive };
    (0..count).map(entry).collect()
}

impl Sim {
    /// `count` nodes that start at once, each with the list of all.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut sim = Self {
            now: Mono(1_000_000),
            nodes: Vec::new(),
            reports: Vec::new(),
            loss: 0.0,
            side: Vec::new(),
            packets: 0,
            bytes: 0,
            events: BTreeMap::new(),
            serial: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        for _ in 0..count {
            sim.add(count);
        }
        sim
    }

    /// One more node that knows the first `known`.
    pub fn add(&mut self, known: usize) -> usize {
        let i = self.nodes.len();
        let mut membership = Membership::new(id(i), addr(i), 1, timing(), self.rng.random(), self.now);
        membership.restore(list(known), self.now);
        let node = Node { membership, up: true, stalled_until: Mono(0), next_wake: None, bump: 1, renewals: 0 };
        self.nodes.push(node);
        self.side.push(0);
        self.drain(i);
        i
    }

    /// All know all, and no two probe in step.
    pub fn joined(count: usize, seed: u64) -> Self {
        let mut sim = Self::new(1, seed);
        for _ in 1..count {
            let pause = Duration::from_micros(sim.rng.random_range(0..50_000));
            sim.run(pause);
            sim.add(sim.nodes.len());
        }
        assert!(sim.run_until(10 * SEC, |sim| sim.all_alive()), "{count} nodes did not join");
        sim.run(10 * SEC);
        assert!(sim.all_alive());
        sim.reports.clear();
        sim
    }

    pub fn sees(&self, by: usize, about: usize) -> Option<Liveness> {
        self.nodes[by].membership.member(id(about)).map(|member| member.liveness)
    }

    pub fn all_alive(&self) -> bool {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].up).collect();
        up.iter().all(|a| up.iter().all(|b| a == b || self.sees(*a, *b) == Some(Liveness::Alive)))
    }

    pub fn crash(&mut self, i: usize) {
        self.nodes[i].up = false;
    }

    /// Comes back with what a disk holds.
    pub fn restart(&mut self, i: usize) {
        let members = self.nodes[i].membership.table();
        let bump = self.nodes[i].bump + 1;
        let mut membership = Membership::new(id(i), addr(i), bump, timing(), self.rng.random(), self.now);
        membership.restore(members, self.now);
        let node = &mut self.nodes[i];
        (node.membership, node.up, node.bump, node.next_wake) = (membership, true, bump, None);
        self.drain(i);
    }

    /// Starts it if it is not running.
    pub fn revive(&mut self, i: usize) {
        if !self.nodes[i].up {
            self.restart(i);
        }
    }

    pub fn stall(&mut self, i: usize, length: Duration) {
        self.nodes[i].stalled_until = self.now + length;
    }

    pub fn act(&mut self, i: usize, act: impl FnOnce(&mut Membership, Mono)) {
        act(&mut self.nodes[i].membership, self.now);
        self.drain(i);
    }

    pub fn run(&mut self, length: Duration) {
        self.run_until(length, |_| false);
    }

    /// False if it did not come true within `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Sim) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if done(self) {
                return true;
            }
            // A condition is looked at every 10 ms.
            let look = (self.now + 10 * MS).min(end);
            while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= look) {
                self.step();
            }
            self.now = look;
        }
        done(self)
    }

    fn step(&mut self) {
        let Some(((at, _), (i, event))) = self.events.pop_first() else { return };
        self.now = at;
        let node = &mut self.nodes[i];
        if !node.up {
            return;
        }
        if node.stalled_until > at {
            // Nothing is lost, all is late; what was due fires first, before the socket is read.
            let wake = matches!(event, Event::Wake);
            let until = node.stalled_until + if wake { Duration::ZERO } else { MS };
            node.next_wake = if wake { Some(until) } else { node.next_wake };
            return self.push(until, i, event);
        }
        match event {
            Event::Wake => {
                // An earlier deadline replaced this one.
                if node.next_wake != Some(at) {
                    return;
                }
                node.next_wake = None;
                if node.membership.deadline().is_some_and(|deadline| deadline <= at) {
                    node.membership.handle_deadline(at);
                }
            }
            Event::Deliver { from, bytes } => {
                let message = codec::decode(&bytes, MAX_MESSAGE_BYTES).unwrap();
                match message {
                    Message::Gossip(packet) => node.membership.handle_gossip(id(from), &packet, at),
                    Message::Members { members, reply } => {
                        node.membership.handle_members(id(from), members, reply, at);
                    }
                    Message::MembersHash { buckets } => node.membership.handle_members_hash(id(from), &buckets, at),
                    Message::MembersPart { of, buckets, members, reply } => {
                        let part = super::MembersPart { of, buckets, members, reply };
                        node.membership.handle_members_part(id(from), part, at);
                    }
                    Message::Leaving { for_good } => node.membership.handle_leaving(id(from), for_good, at),
                    _ => unreachable!(),
                }
            }
        }
        self.drain(i);
    }

    fn push(&mut self, at: Mono, i: usize, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), (i, event));
    }

    fn drain(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].membership.poll_output() {
            match output {
                Output::Send { to, addr: to_addr, message, datagram } => {
                    assert_eq!(to_addr, addr(index(to)), "sent to where nobody listens");
                    self.send(i, index(to), &message, datagram);
                }
                Output::Changed { node, from, to } => {
                    assert_ne!(from, Some(to));
                    self.reports.push(Report { at: self.now, by: i, about: index(node), to });
                }
                Output::Bump(bump) => {
                    let node = &mut self.nodes[i];
                    assert!(bump > node.bump, "a bump must only grow");
                    node.bump = bump;
                    node.renewals += 1;
                }
                Output::AddrChanged { .. } => {}
            }
        }
        let node = &mut self.nodes[i];
        if let Some(deadline) = node.membership.deadline()
            && node.next_wake.is_none_or(|wake| wake > deadline)
        {
            let at = deadline.max(self.now);
            node.next_wake = Some(at);
            self.push(at, i, Event::Wake);
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message, datagram: bool) {
        let bytes = codec::encode(message);
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        let mut delay = Duration::from_micros(self.rng.random_range(200..1_500));
        if datagram {
            assert!(bytes.len() <= 1_160, "does not fit a datagram");
            if self.loss > 0.0 && self.rng.random_bool(self.loss) {
                return;
            }
        } else {
            while self.loss > 0.0 && self.rng.random_bool(self.loss) {
                delay += 100 * MS;
            }
        }
        if self.side[from] == self.side[to] && to < self.nodes.len() {
            let at = self.now + delay;
            self.push(at, to, Event::Deliver { from, bytes });
        }
    }
}
