//! The loop: a heap of events on true time, and N real cores that are handed theirs with the time of their own clocks.
//! Everything follows from the plan. What a core asks for is carried out by `net`, `disk`, `engine` and `mesh`; what it
//! believes is compared with what is true in `check`.

use super::check::{Checks, Violation};
use super::clock::Clock;
use super::disk::{Disk, Image, Writes};
use super::engine::{Engine, EngineEv};
use super::hash::Hash;
use super::mesh::{Clients, Mesh, MeshEv};
use super::net::{Bytes, Net};
use super::operator::Asked;
use super::plan::Plan;
use super::probes::Probes;
use super::rng::Rng;
use super::scale::gauge::{self, Gauge};
use super::trace::{Mark, Trace};
use peer::core::Core;
use peer::core::face::*;
use peer::ids::{ClusterId, NodeId, ServiceId, TaskId};
use peer::model::container::OpId;
use peer::model::node::Availability;
use peer::model::record::{Key, Stamp, Term};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// After the faults a cluster must have settled within this.
pub const SETTLE_US: u64 = 240 * SECOND;
/// And then nothing may change for this long.
pub const QUIET_US: u64 = 25 * SECOND;
/// More events of one node within one second than any cluster of ours needs: it spins.
const STORM: u32 = 60_000;

#[derive(Debug)]
pub enum Ev {
    Start {
        node: usize,
    },
    Wake {
        node: usize,
        life: u32,
    },
    Deliver {
        from: usize,
        to: usize,
        life: u32,
        bytes: Bytes,
    },
    Dialed {
        from: usize,
        to: usize,
        epoch: u32,
        began: u64,
    },
    LinkDead {
        from: usize,
        to: usize,
        epoch: u32,
    },
    Written {
        node: usize,
        life: u32,
        id: PersistId,
    },
    WriteFailed {
        node: usize,
        life: u32,
        id: PersistId,
    },
    Engine {
        node: usize,
        ev: EngineEv,
    },
    EngineBack {
        node: usize,
    },
    Mesh {
        node: usize,
        life: u32,
        ev: MeshEv,
    },
    Client,
    ClientTry(u64),
    ClientArrive {
        id: u64,
        task: TaskId,
        at: NodeId,
        port: u16,
    },
    ClientDone {
        id: u64,
        task: TaskId,
    },
    Op(usize),
    /// The very same request once more.
    Again(usize),
    Fault(usize),
    /// What a fault changed is put back.
    End(usize),
    Tick,
}

struct Entry {
    at: u64,
    seq: u64,
    ev: Ev,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

pub struct Node {
    pub id: NodeId,
    pub core: Option<Core>,
    /// Counts the agent's lives; 0 before the first.
    pub life: u32,
    pub started_at: u64,
    pub clock: Clock,
    pub disk: Disk,
    pub engine: Engine,
    pub engine_back_at: u64,
    pub mesh: Mesh,
    pub banned: BTreeSet<NodeId>,
    /// What its very first life is started with.
    pub first: Option<FirstBoot>,
    pub paused_until: u64,
    pub slow_until: u64,
    pub slow_cost: u64,
    busy_until: u64,
    wake_at: u64,
    /// Removed from the cluster, or left for good.
    pub gone: bool,
    told_removed: bool,
    /// When it is started again after a graceful stop.
    pub back_at: Option<u64>,
    pub down_since: Option<u64>,
    pub held: Option<Term>,
    pub seen_changes: u64,
    /// Which life of it membership knew after the last event.
    pub seen_bump: u64,
    /// Up to which of its own numbers its writes were looked at.
    pub seen_own: u64,
    /// The version of each rollout that it had after the last event.
    pub rollouts: BTreeMap<ServiceId, Stamp>,
    pub last_persist: Option<PersistId>,
    pub last_op: Option<OpId>,
    /// By how much its wall clock is off while it is off by days.
    pub leapt_ms: i64,
    /// It was days ahead: others refuse what it writes, until another machine takes its place.
    pub is_refused: bool,
    /// Its disk was put back to an earlier state, or lost.
    pub lost_disk: bool,
    /// When its disk last took a write for nothing.
    pub refused_at: u64,
    events_this_second: u32,
}

pub struct World {
    pub now: u64,
    pub plan: Plan,
    pub cluster: ClusterId,
    heap: BinaryHeap<Entry>,
    seq: u64,
    pub nodes: Vec<Node>,
    pub by_id: BTreeMap<NodeId, usize>,
    /// Whose machine was lost, and is another by now.
    pub replaced: Vec<NodeId>,
    pub net: Net,
    pub rng: Rng,
    pub disk_rng: Rng,
    pub clients_rng: Rng,
    pub clients: Clients,
    pub asked: BTreeMap<RequestId, Asked>,
    pub next_request: u64,
    /// What may be asked once more, by the operation's number.
    pub repeats: BTreeMap<usize, (Request, Key)>,
    /// Which nodes each cut that is under way lies between.
    pub cuts: BTreeMap<usize, Vec<(usize, usize)>>,
    pub check: Checks,
    pub probes: Probes,
    pub trace: Trace,
    pub hash: Hash,
    pub events: u64,
    pub healed: bool,
    /// When the cluster had settled after the faults.
    pub settled: Option<u64>,
    /// True time at which the last disturbance ended, or will.
    pub disturbed_until: u64,
    /// The electorate as it was last told of.
    pub(in crate::sim) voters: Vec<NodeId>,
    /// Likewise, of those that keep nodes from hearing each other.
    pub shaken_until: u64,
    pub done: bool,
    /// In place of the cores: what they would have been told. See [`super::rig`].
    pub tap: Option<Vec<(usize, Event)>>,
    pub violation: Option<Violation>,
    /// Only when figures are taken.
    pub(super) gauge: Option<Gauge>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let gap = if plan.nodes <= 10 { 250 * MS } else { 10 * MS };
        let mut world = Self::made(plan);
        for node in 0..world.nodes.len() {
            world.push_at(node as u64 * gap, Ev::Start { node });
        }
        world.begin();
        world
    }

    /// A world to take figures of: all but the founder start together, at `after`.
    pub(super) fn measured(plan: Plan, after: u64) -> Self {
        let mut world = Self::made(plan);
        for node in 0..world.nodes.len() {
            world.push_at(if node == 0 { 0 } else { after }, Ev::Start { node });
        }
        world.gauge = Some(Gauge::default());
        world.begin();
        world
    }

    fn made(plan: Plan) -> Self {
        let seed = plan.seed;
        let mut rng = Rng::of(seed, "world");
        let rewinds = plan.faults.iter().any(|f| matches!(f.fault, super::plan::Fault::Rewind { .. }));
        let weather = plan.weather.clone();
        let nodes: Vec<Node> = (0..plan.all_nodes())
            .map(|n| {
                let ppm = rng.below(2 * u64::from(weather.drift_ppm) + 1) as i64 - i64::from(weather.drift_ppm);
                let off = rng.below(2 * weather.wall_off_ms + 1) as i64 - weather.wall_off_ms as i64;
                Node {
                    id: NodeId::from_u128(rng.draw_u128()),
                    core: None,
                    life: 0,
                    started_at: 0,
                    clock: Clock::new(ppm, off),
                    disk: Disk::new(rewinds),
                    engine: Engine::new(seed, n),
                    engine_back_at: 0,
                    mesh: Mesh::default(),
                    banned: BTreeSet::new(),
                    first: None,
                    paused_until: 0,
                    slow_until: 0,
                    slow_cost: 0,
                    busy_until: 0,
                    wake_at: u64::MAX,
                    // Those that join later are not there yet.
                    gone: n >= plan.nodes,
                    told_removed: false,
                    back_at: None,
                    down_since: None,
                    held: None,
                    seen_changes: 0,
                    seen_bump: 0,
                    seen_own: 0,
                    rollouts: BTreeMap::new(),
                    last_persist: None,
                    last_op: None,
                    leapt_ms: 0,
                    is_refused: false,
                    lost_disk: false,
                    refused_at: 0,
                    events_this_second: 0,
                }
            })
            .collect();
        let by_id = nodes.iter().enumerate().map(|(n, node)| (node.id, n)).collect();
        Self {
            now: 0,
            cluster: ClusterId::from_u128(rng.draw_u128()),
            heap: BinaryHeap::new(),
            seq: 0,
            by_id,
            replaced: Vec::new(),
            net: Net::new(nodes.len(), seed, weather.loss_permille),
            check: Checks::new(nodes.len()),
            nodes,
            rng,
            disk_rng: Rng::of(seed, "disk"),
            clients_rng: Rng::of(seed, "clients"),
            clients: Clients::default(),
            asked: BTreeMap::new(),
            next_request: 0,
            repeats: BTreeMap::new(),
            cuts: BTreeMap::new(),
            probes: Probes::default(),
            trace: Trace::default(),
            hash: Hash::default(),
            events: 0,
            healed: false,
            settled: None,
            disturbed_until: 0,
            voters: Vec::new(),
            shaken_until: 0,
            done: false,
            tap: None,
            violation: None,
            gauge: None,
            plan,
        }
    }

    fn begin(&mut self) {
        for n in 0..self.plan.ops.len() {
            self.push_at(self.plan.ops[n].at_ms * MS, Ev::Op(n));
        }
        for n in 0..self.plan.faults.len() {
            self.push_at(self.plan.faults[n].at_ms * MS, Ev::Fault(n));
        }
        self.push_at(5 * SECOND, Ev::Client);
        self.push_at(SECOND, Ev::Tick);
    }

    pub fn push_at(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        self.heap.push(Entry { at: at.max(self.now), seq: self.seq, ev });
    }

    pub fn push_in(&mut self, after: u64, ev: Ev) {
        self.push_at(self.now + after, ev);
    }

    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.by_id.get(&node).copied()
    }

    pub fn run(&mut self) {
        while !self.done && self.violation.is_none() && self.advance() {}
    }

    /// One event; false if there is none left.
    pub fn advance(&mut self) -> bool {
        let Some(Entry { at, ev, .. }) = self.heap.pop() else { return false };
        self.now = at;
        self.step(ev);
        true
    }

    /// All that happens up to this instant.
    pub(super) fn run_to(&mut self, end: u64) {
        while self.violation.is_none() && self.heap.peek().is_some_and(|entry| entry.at <= end) {
            let Some(Entry { at, ev, .. }) = self.heap.pop() else { break };
            self.now = at;
            self.step(ev);
        }
        self.now = end;
    }

    /// Whose process it takes to handle this.
    fn process_of(ev: &Ev) -> Option<usize> {
        match ev {
            Ev::Wake { node, .. } | Ev::Written { node, .. } | Ev::WriteFailed { node, .. } => Some(*node),
            Ev::Deliver { to, .. } => Some(*to),
            Ev::LinkDead { from, .. } | Ev::Dialed { from, .. } => Some(*from),
            Ev::Mesh { node, .. } | Ev::Engine { node, ev: EngineEv::Tell(..) | EngineEv::Look(_) } => Some(*node),
            _ => None,
        }
    }

    fn step(&mut self, ev: Ev) {
        if let Some(n) = Self::process_of(&ev) {
            let node = &mut self.nodes[n];
            let free = node.paused_until.max(node.busy_until);
            if free > self.now {
                if !matches!(ev, Ev::LinkDead { .. }) {
                    self.push_at(free, ev);
                    return;
                }
            } else if node.slow_until > self.now {
                node.busy_until = self.now + node.slow_cost;
            }
        }
        self.events += 1;
        match ev {
            Ev::Start { node } => self.start(node),
            Ev::Wake { node, life } => self.wake(node, life),
            Ev::Deliver { from, to, life, bytes } => {
                let banned = self.nodes[to].banned.contains(&self.nodes[from].id);
                if self.nodes[to].life == life && !self.nodes[from].gone && !banned {
                    let from = self.nodes[from].id;
                    self.feed(to, Event::Message { from, bytes: bytes.to_vec() });
                }
            }
            Ev::Dialed { from, to, epoch, began } => self.dialed(from, to, epoch, began),
            Ev::LinkDead { from, to, epoch } => self.link_dead(from, to, epoch),
            Ev::Written { node, life, id } => {
                if self.nodes[node].life == life && self.nodes[node].core.is_some() {
                    self.nodes[node].disk.complete(id, self.now);
                    self.check.disks[node].acknowledge(id);
                    self.feed(node, Event::Persisted(id));
                }
            }
            Ev::WriteFailed { node, life, id } => {
                if self.nodes[node].life == life && self.nodes[node].core.is_some() {
                    self.nodes[node].disk.refuse(id);
                    self.check.disks[node].refuse(id);
                    self.nodes[node].refused_at = self.now;
                    self.feed(node, Event::PersistFailed { id, why: "no space left on device".to_owned() });
                }
            }
            Ev::Engine { node, ev } => self.engine_event(node, ev),
            Ev::EngineBack { node } => self.engine_back(node),
            Ev::Mesh { node, life, ev } => {
                if self.nodes[node].life == life && self.nodes[node].core.is_some() {
                    self.mesh_event(node, ev);
                }
            }
            Ev::Client => self.client_comes(),
            Ev::ClientTry(id) => self.client_try(id),
            Ev::ClientArrive { id, task, at, port } => self.client_arrives(id, task, at, port),
            Ev::ClientDone { id, task } => self.client_done(id, task),
            Ev::Op(n) => self.operate(n),
            Ev::Again(n) => self.operate_again(n),
            Ev::Fault(n) => self.break_something(n),
            Ev::End(n) => self.end_fault(n),
            Ev::Tick => self.tick(),
        }
    }

    fn tick(&mut self) {
        self.push_in(SECOND, Ev::Tick);
        for n in 0..self.nodes.len() {
            if self.nodes[n].events_this_second > STORM {
                let count = self.nodes[n].events_this_second;
                self.violate("storm", || format!("n{n} handled {count} events within a second"));
            }
            self.nodes[n].events_this_second = 0;
        }
        self.check_each_second();
        if !self.healed && self.now >= self.plan.secs * SECOND {
            self.heal();
        } else if self.healed {
            self.look_whether_settled();
        }
    }

    // ---- a node's life

    pub fn start_soon(&mut self, n: usize) {
        self.push_in(MS, Ev::Start { node: n });
    }

    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].core.is_some() || self.nodes[n].gone {
            return;
        }
        if self.nodes[n].disk.image().is_empty() && self.nodes[n].first.is_none() {
            match self.first_boot(n) {
                Some(first) => self.nodes[n].first = Some(first),
                None => return self.push_in(500 * MS, Ev::Start { node: n }),
            }
        }
        self.check_boot(n);
        let image = self.nodes[n].disk.image().clone();
        let first = if image.is_empty() { self.nodes[n].first.clone() } else { None };
        let boot = self.boot(n, image, first);
        let node = &mut self.nodes[n];
        let now = node.clock.now(self.now);
        node.life += 1;
        node.started_at = self.now;
        node.busy_until = 0;
        node.wake_at = u64::MAX;
        node.held = None;
        node.seen_changes = 0;
        node.seen_own = 0;
        node.rollouts.clear();
        node.last_persist = None;
        node.last_op = None;
        node.back_at = None;
        node.down_since = None;
        self.mesh_reset(n);
        match Core::boot(boot, now) {
            Ok(core) => self.nodes[n].core = Some(core),
            Err(error) => return self.violate("boot", || format!("n{n} can't start from its own disk: {error}")),
        }
        let life = self.nodes[n].life;
        self.trace.say(self.now, Some(n), || format!("starts (life {life})"));
        self.trace.mark(self.now, || Mark::Lives(n, true));
        self.nodes[n].seen_own = 0;
        self.check_booted(n);
        self.engine_attach(n);
        self.after(n);
    }

    /// What a life of the node starts from.
    pub fn boot(&mut self, n: usize, durable: Image, first: Option<FirstBoot>) -> Boot {
        Boot {
            cluster: self.cluster,
            node: self.nodes[n].id,
            boot: self.rng.draw(),
            hostname: format!("n{n}"),
            addr: SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 2377)),
            agent_version: "sim".to_owned(),
            timing: self.timing(),
            delivers: true,
            durable: durable.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
            first,
            keep: if self.gauge.is_some() { gauge::keep_once } else { Arc::new },
        }
    }

    /// The founder's, or from the answer of a member that can be reached.
    fn first_boot(&self, n: usize) -> Option<FirstBoot> {
        let new = |members, join_secret: &str| FirstBoot {
            members,
            join_secret: join_secret.to_owned(),
            availability: Availability::Active,
            labels: BTreeMap::new(),
        };
        if n == 0 && self.nodes[n].life == 0 {
            return Some(new(None, "secret"));
        }
        let contacts = (0..self.nodes.len()).filter(|o| *o != n && !self.net.is_cut_any(n, *o));
        let ready = contacts.filter_map(|o| self.nodes[o].core.as_ref()).find(|c| !c.cluster().join_secret.is_empty());
        ready.map(|core| new(Some(core.member_table()), ""))
    }

    /// Its process ends.
    pub fn end(&mut self, n: usize, goodbye: bool, power: bool) {
        self.check_ending(n);
        if self.nodes[n].core.take().is_none() {
            return;
        }
        let now = self.now;
        self.trace.mark(now, || Mark::Lives(n, false));
        self.trace.mark(now, || Mark::Holds(n, None));
        let node = &mut self.nodes[n];
        node.disk.crash(&mut self.disk_rng);
        node.held = None;
        node.down_since = Some(now);
        if power {
            node.clock.reboot(now);
        }
        self.asked.retain(|_, asked| asked.node != n);
        self.check_disk(n);
        self.forget_unsaid(n);
        self.links_of_the_dead(n, goodbye, power);
        if power {
            self.engine_power_cut(n);
        }
    }

    /// Its certificate is refused: it stops its containers, and then ends.
    pub fn told_of_removal(&mut self, n: usize, by: usize) {
        self.trace.say(self.now, Some(n), || format!("is told by n{by} that it was removed"));
        self.probes.hit("a removed node heard of it by a refused connection");
        let by = self.nodes[by].id;
        self.feed(n, Event::TurnedAway { by });
    }

    fn wake(&mut self, n: usize, life: u32) {
        let node = &mut self.nodes[n];
        if node.life != life || node.core.is_none() || node.wake_at > self.now {
            return;
        }
        node.wake_at = u64::MAX;
        let due = node.core.as_ref().and_then(Core::deadline).map(|at| node.clock.when(at));
        if due.is_some_and(|due| due <= self.now) {
            self.feed(n, Event::Wake);
        } else {
            self.schedule_wake(n);
        }
    }

    fn schedule_wake(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(at) = node.core.as_ref().and_then(Core::deadline) else { return };
        // A timer is never sharper than this.
        let at = node.clock.when(at).max(self.now + 100);
        if at < node.wake_at {
            node.wake_at = at;
            let life = node.life;
            self.push_at(at, Ev::Wake { node: n, life });
        }
    }

    pub fn feed(&mut self, n: usize, event: Event) {
        if let Some(tap) = &mut self.tap {
            return tap.push((n, event));
        }
        let node = &mut self.nodes[n];
        let now = node.clock.now(self.now);
        let Some(core) = node.core.as_mut() else { return };
        self.hash.word(self.now << 8 | n as u64);
        node.events_this_second += 1;
        core.handle(event, now);
        self.after(n);
    }

    fn after(&mut self, n: usize) {
        while let Some(effect) = self.nodes[n].core.as_mut().and_then(Core::poll_effect) {
            self.carry_out(n, effect);
        }
        self.schedule_wake(n);
        self.check_after(n);
        self.gauge_after(n);
    }

    fn carry_out(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Send { to, datagram, bytes, .. } => {
                self.hash.bytes(&bytes);
                self.check_sent(n, &bytes);
                self.check_acknowledged(n, &bytes);
                self.check_size_sent(n, datagram, bytes.len());
                if let Some(to) = self.index_of(to) {
                    self.send(n, to, datagram, bytes);
                }
            }
            Effect::Persist { id, writes } => self.persist(n, id, writes),
            Effect::Engine { op, what } => self.engine_ask(n, op, what),
            Effect::Publish { version, table } => self.mesh_publish(n, version, table),
            Effect::AwaitDrained { task, .. } => self.mesh_await(n, task),
            Effect::Reply { id, reply } => self.answered(n, id, reply),
            Effect::Ban(nodes) => {
                self.nodes[n].banned = nodes;
                self.close_banned(n);
            }
            Effect::Notice(notice) => self.noticed(n, notice),
            Effect::Stopped => {
                if self.nodes[n].told_removed {
                    self.nodes[n].gone = true;
                }
                self.end(n, true, false);
                if let Some(at) = self.nodes[n].back_at {
                    self.push_at(at, Ev::Start { node: n });
                }
            }
        }
    }

    pub(super) fn persist(&mut self, n: usize, id: PersistId, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        self.check_persist(n, id);
        let mean = self.plan.weather.disk_us;
        let now = self.now;
        let disk = &mut self.nodes[n].disk;
        let slow = if disk.slow_until > now { self.disk_rng.around(disk.slow_us) } else { 0 };
        let life = self.nodes[n].life;
        let disk = &mut self.nodes[n].disk;
        for (key, value) in &writes {
            self.hash.bytes(key);
            self.hash.bytes(value.as_deref().unwrap_or_default());
        }
        let writes: Writes = match &mut self.gauge {
            Some(gauge) => writes.into_iter().map(|(k, v)| (gauge.blob(k), v.map(|v| gauge.blob(v)))).collect(),
            None => writes.into_iter().map(|(k, v)| (k.into(), v.map(Into::into))).collect(),
        };
        if self.gauge.is_none() {
            self.check.disks[n].issue(id, &writes);
        }
        disk.issue(id, writes);
        // What arrives while a write is under way ends with it or after it.
        let at = (now + 50 + self.disk_rng.around(mean) + slow).max(disk.busy_until);
        disk.busy_until = at;
        if disk.full_until > now {
            self.probes.hit("disk full");
            self.push_at(at, Ev::WriteFailed { node: n, life, id });
        } else {
            self.push_at(at, Ev::Written { node: n, life, id });
        }
    }

    fn noticed(&mut self, n: usize, notice: Notice) {
        if self.trace.on {
            let text = match &notice {
                Notice::NodeUp(node) => format!("sees n{} up", self.index_of(*node).unwrap_or(999)),
                Notice::NodeDown(node) => format!("sees n{} DOWN", self.index_of(*node).unwrap_or(999)),
                Notice::LeaseAcquired { term } => format!("HOLDS the lease, term {term}"),
                Notice::LeaseLost { term } => format!("lost the lease, term {term}"),
                Notice::ElectorateChanged { voters } => {
                    let voters: Vec<usize> = voters.iter().filter_map(|v| self.index_of(*v)).collect();
                    format!("electorate {voters:?}")
                }
                Notice::TaskStatus { task, phase, error } => format!("task {task:?} {phase} {error}"),
                Notice::RolloutState { state, message, .. } => format!("rollout {state}: {message}"),
                Notice::Removed => "is removed".to_owned(),
                Notice::Warning(text) => format!("warns: {text}"),
            };
            self.trace.say(self.now, Some(n), || text);
        }
        if let (Notice::NodeDown(node), Some(gauge)) = (&notice, &mut self.gauge) {
            gauge.downs.push((self.now, n, *node));
        }
        match notice {
            Notice::Removed => self.nodes[n].told_removed = true,
            Notice::LeaseLost { .. } => {
                self.probes.hit("a holder lost its lease");
                self.probe_drains(n);
                self.check_lost(n);
            }
            Notice::NodeUp(node) => self.check_seen(n, node, true),
            Notice::NodeDown(node) => {
                self.probes.hit("a node was seen down");
                self.check_seen(n, node, false);
            }
            Notice::RolloutState { state: "paused", .. } => self.probes.hit("an update paused"),
            Notice::RolloutState { state: "rollback_started", message, .. } => {
                let by_itself = message.contains("due to failure");
                self.probes.hit(if by_itself { "a rollback began by itself" } else { "an operator rolled back" });
            }
            Notice::ElectorateChanged { voters } => self.probe_electorate(voters),
            Notice::RolloutState { state: "rollback_completed", .. } => self.probes.hit("a rollback completed"),
            Notice::RolloutState { state: "completed", .. } => self.probes.hit("an update completed"),
            Notice::Warning(text) if text.contains("disk was put back") => self.probes.hit(super::probes::REWOUND),
            _ => {}
        }
    }

    fn probe_electorate(&mut self, voters: Vec<NodeId>) {
        let before = std::mem::replace(&mut self.voters, voters);
        if before.len() > self.voters.len() || before.iter().any(|v| !self.voters.contains(v)) {
            self.probes.hit("a voter was dropped");
        }
        if !before.is_empty() && before != self.voters {
            self.probes.hit("the electorate changed");
        }
    }

    /// The holder has just lost its lease: was it in the middle of a drain?
    fn probe_drains(&mut self, n: usize) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let drained: Vec<NodeId> =
            core.nodes().iter().filter(|v| v.policy.availability == Availability::Drain).map(|v| v.id).collect();
        if core.store().tasks().any(|t| t.desired.is_live() && t.node.is_some_and(|n| drained.contains(&n))) {
            self.probes.hit("a drain was interrupted by the loss of the lease");
        }
    }

    /// The clocks of the protocols in this run.
    pub fn timing(&self) -> Timing {
        let retention = self.plan.weather.retention_s.map(Duration::from_secs);
        let default = Timing::default();
        Timing { tombstone_retention: retention.unwrap_or(default.tombstone_retention), ..default }
    }

    /// Members that take part at this instant.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Core)> {
        self.nodes.iter().enumerate().filter(|(_, n)| !n.gone).filter_map(|(i, n)| Some((i, n.core.as_ref()?)))
    }

    /// The node that holds the lease by its own clock now.
    pub fn holder(&self) -> Option<usize> {
        self.live().find(|(n, core)| core.held(self.nodes[*n].clock.now(self.now).mono).is_some()).map(|(n, _)| n)
    }
}
