//! A tiny discrete world for the lease alone: nodes with clocks that drift, disks that take their time, a
//! network that loses, doubles and delays, and a checker that looks at every instant at which something happens.
//!
//! The world keeps the driver's promise (a send waits for the persists before it) and nothing else. Everything
//! follows from one seed.

use super::{Durable, Lease, Output, Timing, Upkeep};
use crate::ids::NodeId;
use crate::law::majorities_meet;
use crate::model::lease::{Electorate, ElectorateId};
use crate::model::node::Liveness;
use crate::model::record::Term;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub loss_percent: u32,
    pub double_percent: u32,
    /// Messages that take up to `slow_us` instead of a LAN's time.
    pub slow_percent: u32,
    pub slow_us: u64,
    /// Writes that take up to a second instead of a good disk's time.
    pub slow_disk_percent: u32,
}

#[derive(Debug)]
enum Event {
    Wake { node: usize, life: u32 },
    Deliver { from: usize, to: usize, message: LeaseMessage },
    Written { node: usize, life: u32 },
    Look { node: usize },
}

pub struct Node {
    pub id: NodeId,
    pub lease: Option<Lease>,
    pub disk: Durable,
    /// What it was before.
    older: Vec<Durable>,
    pub removed: bool,
    life: u32,
    rate_ppm: i64,
    booted: u64,
    booted_local: u64,
    paused_until: u64,
    /// Outputs behind the first unfinished persist, that persist first.
    gate: VecDeque<Output>,
    writing: bool,
    woken_at: Option<u64>,
}

impl Node {
    fn local(&self, now: u64) -> Mono {
        let rate = (1_000_000 + self.rate_ppm) as u128;
        Mono(self.booted_local + (u128::from(now - self.booted) * rate / 1_000_000) as u64)
    }

    fn when(&self, local: Mono) -> u64 {
        let rate = (1_000_000 + self.rate_ppm) as u128;
        let elapsed = u128::from(local.0.saturating_sub(self.booted_local));
        self.booted + (elapsed * 1_000_000).div_ceil(rate) as u64
    }
}

/// What the laws say about the whole, whatever any node believes.
#[derive(Debug, Default)]
pub struct Checker {
    pub holder: Option<(usize, Term)>,
    pub last: Option<(usize, Term)>,
    pub committed: Vec<Electorate>,
    written: BTreeMap<ElectorateId, BTreeSet<NodeId>>,
    pub violation: Option<String>,
    pub reigns: u32,
}

impl Checker {
    fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn holders(&mut self, now: u64, holders: &[(usize, Term)]) {
        if holders.len() > 1 {
            self.fail(format!("two holders at {now}: {holders:?}"));
        }
        self.holder = holders.first().copied();
        let Some(new) = self.holder else { return };
        if self.last == Some(new) {
            return;
        }
        if self.last.is_some_and(|(_, term)| term >= new.1) {
            self.fail(format!("terms went back at {now}: {:?} then {new:?}", self.last));
        }
        self.last = Some(new);
        self.reigns += 1;
    }

    fn stored(&mut self, electorate: &Electorate) {
        let known = self.written.entry(electorate.id).or_insert_with(|| electorate.voters.clone());
        if *known != electorate.voters {
            self.violation.get_or_insert(format!("one id, two electorates: {electorate:?} and {known:?}"));
        }
    }

    fn in_force(&mut self, electorate: Electorate) {
        if let Some(last) = self.committed.last() {
            if electorate.id <= last.id {
                let what = format!("electorate {:?} in force after {:?}", electorate.id, last.id);
                self.violation.get_or_insert(what);
            } else if electorate.id.epoch == last.id.epoch && !majorities_meet(&last.voters, &electorate.voters) {
                let what = format!("majorities of successive electorates need not meet: {last:?} {electorate:?}");
                self.violation.get_or_insert(what);
            }
        }
        self.committed.push(electorate);
    }
}

pub struct World {
    pub now: u64,
    pub rng: ChaCha8Rng,
    pub nodes: Vec<Node>,
    pub weather: Weather,
    pub check: Checker,
    pub timing: Timing,
    pub upkeep: Upkeep,
    /// Membership tells lies.
    pub rumours: bool,
    pub cut: BTreeSet<(usize, usize)>,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
}

pub fn node_id(index: usize) -> NodeId {
    NodeId::from_u128(index as u128 + 1)
}

pub fn timing() -> Timing {
    Timing {
        acceptor: Duration::from_millis(3_000),
        holder: Duration::from_millis(2_700),
        renew: Duration::from_millis(750),
    }
}

impl World {
    /// `voters` of `size` nodes vote at first; none runs yet.
    pub fn new(seed: u64, size: usize, voters: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let first = Electorate {
            id: ElectorateId { epoch: 0, term: Term::ZERO, version: 0 },
            voters: (0..voters).map(node_id).collect(),
        };
        let nodes = (0..size).map(|index| Node {
            id: node_id(index),
            lease: None,
            disk: Durable::new(first.clone()),
            older: Vec::new(),
            removed: false,
            life: 0,
            rate_ppm: rng.random_range(-30_000..=30_000),
            booted: 0,
            booted_local: 0,
            paused_until: 0,
            gate: VecDeque::new(),
            writing: false,
            woken_at: None,
        });
        let nodes = nodes.collect();
        Self {
            now: 0,
            rng,
            nodes,
            weather: Weather::default(),
            check: Checker::default(),
            timing: timing(),
            upkeep: Upkeep::default(),
            rumours: false,
            cut: BTreeSet::new(),
            events: BTreeMap::new(),
            order: 0,
        }
    }

    pub fn all_up(seed: u64, size: usize, voters: usize) -> Self {
        let mut world = Self::new(seed, size, voters);
        for node in 0..size {
            world.start(node);
        }
        world
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.insert((at.max(self.now), self.order), event);
    }

    // What happens to nodes.

    pub fn start(&mut self, index: usize) {
        let (seed, offset) = (self.rng.random(), self.rng.random_range(0..1_000 * SECOND));
        let (now, timing, upkeep) = (self.now, self.timing, self.upkeep);
        let node = &mut self.nodes[index];
        if node.lease.is_some() {
            return;
        }
        let first_life = node.life == 0;
        node.life += 1;
        (node.booted, node.booted_local) = (now, offset);
        let lease = Lease::new(node.id, timing, node.disk.clone(), first_life, seed, Mono(offset));
        node.lease = Some(lease.with_upkeep(upkeep));
        self.look(index);
        self.look_later();
    }

    /// Only what was written survives; the write under way may or may not.
    pub fn crash(&mut self, index: usize) {
        let torn = self.chance(50);
        let node = &mut self.nodes[index];
        if let (true, false, Some(Output::Persist(durable))) = (node.writing, torn, node.gate.front()) {
            node.disk = durable.clone();
        }
        node.lease = None;
        node.gate.clear();
        (node.writing, node.woken_at, node.paused_until) = (false, None, 0);
        self.look_later();
        self.check_now();
    }

    /// Down, and there again with its disk as it was at some time before; the records soon tell it so, or never.
    pub fn put_back(&mut self, index: usize) {
        self.crash(index);
        let node = &mut self.nodes[index];
        let older = self.rng.random_range(0..=node.older.len());
        if let Some(disk) = node.older.get(older) {
            node.disk = disk.clone();
            node.older.truncate(older);
        }
    }

    pub fn tell_that_it_was_put_back(&mut self, index: usize) {
        self.call(index, Lease::disk_was_put_back);
    }

    pub fn pause(&mut self, index: usize, length: u64) {
        self.nodes[index].paused_until = self.now + length;
    }

    pub fn call(&mut self, index: usize, what: impl FnOnce(&mut Lease, Mono)) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let local = node.local(now);
        if let Some(lease) = &mut node.lease {
            what(lease, local);
        }
        self.settle(index);
    }

    /// The disk refuses everything that is queued; the node is told and lives on.
    pub fn fail_writes(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.writing {
            node.gate.clear();
            node.writing = false;
            node.life += 1;
            node.woken_at = None;
            self.call(index, |lease, _| lease.persist_failed());
        }
    }

    pub fn remove(&mut self, index: usize) {
        self.crash(index);
        self.nodes[index].removed = true;
    }

    pub fn split(&mut self, side: &[usize]) {
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                if side.contains(&a) != side.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
        self.look_later();
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.look_later();
    }

    /// Membership notices within one to three seconds.
    pub fn look_later(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.now + self.rng.random_range(SECOND..3 * SECOND);
            self.at(at, Event::Look { node });
        }
    }

    fn look(&mut self, index: usize) {
        let lies = self.rumours && self.chance(60);
        let mut live = BTreeMap::new();
        for other in 0..self.nodes.len() {
            let reachable = other == index
                || (self.nodes[other].lease.is_some()
                    && !self.cut.contains(&(index, other))
                    && !self.cut.contains(&(other, index)));
            let mut state = if reachable { Liveness::Alive } else { Liveness::Down };
            if lies && other != index && self.chance(40) {
                state =
                    [Liveness::Alive, Liveness::Suspect, Liveness::Away, Liveness::Down][self.rng.random_range(0..4)];
            }
            if !self.nodes[other].removed {
                live.insert(node_id(other), state);
            }
        }
        self.call(index, |lease, now| lease.set_live(&live, now));
    }

    // The machinery.

    /// Takes what the node put out, lets through what needn't wait, and plans its next deadline.
    fn settle(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].lease.as_mut().and_then(Lease::poll_output) {
            match output {
                Output::Acquired(_) | Output::Lost(_) => {}
                Output::Electorate(electorate) => {
                    self.check.in_force(electorate.clone());
                    self.tell_records(index, &electorate);
                }
                Output::Persist(durable) => {
                    self.check.stored(&durable.electorate);
                    self.nodes[index].gate.push_back(Output::Persist(durable));
                }
                Output::Send { to, message } => {
                    if is_planted(Bug::AckBeforeFsync) || self.nodes[index].gate.is_empty() {
                        self.transmit(index, to, message);
                    } else {
                        self.nodes[index].gate.push_back(Output::Send { to, message });
                    }
                }
            }
        }
        self.pump(index);
        self.plan_wake(index);
        self.check_now();
    }

    /// The records carry the electorate to some nodes soon, to some never.
    fn tell_records(&mut self, from: usize, electorate: &Electorate) {
        for to in 0..self.nodes.len() {
            if to != from && self.chance(50) {
                let at = self.now + self.rng.random_range(MS..3 * SECOND);
                let message = LeaseMessage::Newer { electorate: electorate.clone() };
                self.at(at, Event::Deliver { from, to, message });
            }
        }
    }

    fn pump(&mut self, index: usize) {
        loop {
            let node = &mut self.nodes[index];
            match node.gate.front() {
                Some(Output::Persist(_)) if !node.writing => {
                    node.writing = true;
                    let (life, slow) = (node.life, self.weather.slow_disk_percent);
                    let worst = if self.chance(slow) { SECOND } else { 8 * MS };
                    let takes = self.rng.random_range(MS..worst);
                    self.at(self.now + takes, Event::Written { node: index, life });
                    return;
                }
                Some(Output::Send { .. }) => {
                    if let Some(Output::Send { to, message }) = node.gate.pop_front() {
                        self.transmit(index, to, message);
                    }
                }
                _ => return,
            }
        }
    }

    fn transmit(&mut self, from: usize, to: NodeId, message: LeaseMessage) {
        let to = to.as_u128() as usize - 1;
        if to == from {
            self.at(self.now, Event::Deliver { from, to, message });
            return;
        }
        let Weather { loss_percent, double_percent, slow_percent, slow_us, .. } = self.weather;
        if self.cut.contains(&(from, to)) || self.chance(loss_percent) {
            return;
        }
        let copies = if self.chance(double_percent) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.chance(slow_percent);
            let takes =
                if slow { self.rng.random_range(0..slow_us.max(1)) } else { self.rng.random_range(200..5 * MS) };
            self.at(self.now + takes, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn plan_wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(deadline) = node.lease.as_ref().and_then(Lease::deadline) else { return };
        let at = node.when(deadline).max(self.now);
        if node.woken_at.is_none_or(|planned| at < planned || planned < self.now) {
            node.woken_at = Some(at);
            let life = node.life;
            self.at(at, Event::Wake { node: index, life });
        }
    }

    fn check_now(&mut self) {
        let held = |(index, node): (usize, &Node)| {
            let term = node.lease.as_ref()?.held(node.local(self.now))?;
            Some((index, term))
        };
        let holders: Vec<(usize, Term)> = self.nodes.iter().enumerate().filter_map(held).collect();
        self.check.holders(self.now, &holders);
    }

    /// Runs for `length` or until `done`; true if `done`.
    pub fn run_until(&mut self, length: u64, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + length;
        while self.check.violation.is_none() {
            if done(self) {
                return true;
            }
            let Some((&(at, order), _)) = self.events.first_key_value() else { break };
            if at > end {
                break;
            }
            self.now = at;
            if let Some(event) = self.events.remove(&(at, order)) {
                self.happen(event);
            }
        }
        self.now = self.now.max(end);
        self.check_now();
        done(self)
    }

    pub fn run(&mut self, length: u64) {
        self.run_until(length, |_| false);
    }

    fn happen(&mut self, event: Event) {
        let index = match &event {
            Event::Wake { node, .. } | Event::Written { node, .. } | Event::Look { node } => *node,
            Event::Deliver { to, .. } => *to,
        };
        if self.nodes[index].paused_until > self.now {
            let at = self.nodes[index].paused_until;
            self.at(at, event);
            return;
        }
        match event {
            Event::Wake { node, life } => self.wake(node, life),
            Event::Deliver { from, to, message } => {
                let from = node_id(from);
                self.call(to, |lease, now| lease.handle(from, message, now));
            }
            Event::Written { node: index, life } => {
                let node = &mut self.nodes[index];
                if node.life == life && node.writing {
                    node.writing = false;
                    if let Some(Output::Persist(durable)) = node.gate.pop_front() {
                        node.older.push(std::mem::replace(&mut node.disk, durable));
                    }
                    self.pump(index);
                }
            }
            Event::Look { node } => self.look(node),
        }
    }

    fn wake(&mut self, index: usize, life: u32) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if node.life != life {
            return;
        }
        node.woken_at = None;
        let local = node.local(now);
        if node.lease.as_ref().and_then(Lease::deadline).is_some_and(|at| at <= local) {
            self.call(index, Lease::handle_deadline);
        } else {
            self.plan_wake(index);
        }
    }

    // What the stories ask.

    pub fn holder(&self) -> Option<usize> {
        self.check.holder.map(|(index, _)| index)
    }

    /// The voters in force.
    pub fn voters(&self) -> BTreeSet<usize> {
        let last = self.check.committed.last();
        last.map(|e| e.voters.iter().map(|n| n.as_u128() as usize - 1).collect()).unwrap_or_default()
    }

    /// Nodes that run.
    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].lease.is_some()).collect()
    }

    #[track_caller]
    pub fn assert_lawful(&self) {
        assert_eq!(self.check.violation, None);
    }
}
