//! A Docker Engine of one node, with the driver in front of it: operations take their time, may fail, and may succeed
//! with their answer lost; containers die, outlive the agent, and are listed when something hints at a change.
//! It keeps the driver's promises: an observation that follows an answer shows what came of it, `Reachable` is followed
//! by an observation, and an operation is always answered while the agent that asked lives.

use super::rng::Rng;
use super::trace::Mark;
use super::world::{Ev, MS, SECOND, World};
use peer::core::face::Event;
use peer::ids::TaskId;
use peer::model::container::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const LIST_EVERY_US: u64 = 10 * SECOND;
const HINT_US: u64 = 25 * MS;
/// A hung engine is declared unreachable after this.
const HANG_SEEN_US: u64 = 8 * SECOND;
/// No image listens there.
const CLOSED_PORT: u16 = 1;

/// How an image behaves, by its name: `app:3-sick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// Exits soon after its start.
    Bad,
    /// Runs, but never gets healthy or accepts.
    Sick,
    /// Takes seconds to accept.
    Slow,
    /// Ignores SIGTERM.
    Stubborn,
    /// No registry has it.
    Missing,
}

impl Kind {
    pub fn of(image: &str) -> Self {
        match image.rsplit_once('-').map(|(_, kind)| kind) {
            Some("bad") => Kind::Bad,
            Some("sick") => Kind::Sick,
            Some("slow") => Kind::Slow,
            Some("stubborn") => Kind::Stubborn,
            Some("missing") => Kind::Missing,
            _ => Kind::Good,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Container {
    pub plan: ContainerPlan,
    pub kind: Kind,
    pub state: ContainerState,
    /// From when it accepts connections.
    pub accepts_at: u64,
    /// It was told to stop.
    pub stopping: bool,
    /// It was ended by a fault, not by an order.
    pub killed: bool,
    /// Which start this is: what was planned for an earlier one is void.
    pub run: u32,
    pub requests: u32,
    /// It has a port that must accept before anybody takes it for serving.
    pub published: bool,
    address: Option<IpAddr>,
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// A request that comes now would be answered.
    pub fn serves(&self, now: u64) -> bool {
        self.is_running()
            && !self.stopping
            && self.accepts_at <= now
            && !matches!(self.state, ContainerState::Running { health: Health::Unhealthy | Health::Starting })
    }
}

struct Asked {
    op: OpId,
    what: EngineOp,
    since: u64,
    /// The life of the agent that asked.
    life: u32,
}

pub struct Engine {
    pub up: bool,
    pub hung_until: u64,
    pub containers: BTreeMap<String, Container>,
    asked: BTreeMap<u64, Asked>,
    /// What is asked of one container is done in its order, whoever asked.
    busy: BTreeMap<String, u64>,
    next: u64,
    /// What the driver last told its agent.
    told_up: bool,
    hint_at: Option<u64>,
    images: BTreeSet<String>,
    addresses: u16,
    pub rng: Rng,
    pub pulls_fail_until: u64,
    pub starts_fail_until: u64,
    pub replies_lost_until: u64,
    pub hints_lost_until: u64,
    pub operations: u64,
}

#[derive(Debug)]
pub enum EngineEv {
    Act(u64),
    /// What the driver says to its agent.
    Tell(u32, Box<EngineEvent>),
    Look(u32),
    List(u32),
    Exits {
        name: String,
        run: u32,
        code: i64,
    },
    Health {
        name: String,
        run: u32,
        healthy: bool,
    },
    Up,
    HangSeen,
}

impl Engine {
    pub fn new(seed: u64, node: usize) -> Self {
        Self {
            up: true,
            hung_until: 0,
            containers: BTreeMap::new(),
            asked: BTreeMap::new(),
            busy: BTreeMap::new(),
            next: 0,
            told_up: false,
            hint_at: None,
            images: BTreeSet::new(),
            addresses: 0,
            rng: Rng::of(seed ^ (node as u64) << 32, "engine"),
            pulls_fail_until: 0,
            starts_fail_until: 0,
            replies_lost_until: 0,
            hints_lost_until: 0,
            operations: 0,
        }
    }

    /// Another machine's: nothing is there.
    pub fn wipe(&mut self) {
        self.containers.clear();
        self.images.clear();
        self.asked.clear();
        self.busy.clear();
    }

    fn snapshot(&self) -> EngineEvent {
        let observed = |(name, c): (&String, &Container)| ObservedContainer {
            name: name.clone(),
            id: format!("{:x}-{}", c.plan.task.as_u128(), c.plan.attempt),
            task: c.plan.task,
            attempt: c.plan.attempt,
            state: c.state.clone(),
            pid: c.is_running().then(|| 1_000 + i64::from(c.run)),
            address: c.address.filter(|_| c.is_running()),
        };
        EngineEvent::Observed(self.containers.iter().map(observed).collect())
    }

    pub fn running(&self, task: TaskId) -> impl Iterator<Item = &Container> {
        self.containers.values().filter(move |c| c.plan.task == task && c.is_running())
    }
}

fn info() -> EngineInfo {
    EngineInfo {
        version: "28.2".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
        labels: BTreeMap::new(),
    }
}

impl World {
    fn engine_push(&mut self, node: usize, after: u64, ev: EngineEv) {
        self.push_in(after, Ev::Engine { node, ev });
    }

    fn engine_tell(&mut self, node: usize, event: EngineEvent) {
        let life = self.nodes[node].life;
        self.engine_push(node, 0, EngineEv::Tell(life, Box::new(event)));
    }

    /// A new life of the agent: its driver looks for the engine.
    pub(super) fn engine_attach(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let engine = &mut self.nodes[node].engine;
        engine.told_up = false;
        engine.hint_at = None;
        let after = 2 * MS + engine.rng.around(10 * MS);
        self.engine_push(node, after, EngineEv::Up);
        self.engine_push(node, LIST_EVERY_US, EngineEv::List(life));
    }

    pub(super) fn engine_ask(&mut self, node: usize, op: OpId, what: EngineOp) {
        let (now, life, mean) = (self.now, self.nodes[node].life, self.plan.weather.engine_us);
        self.check_op(node, op);
        self.check_engine_op(node, &what);
        let engine = &mut self.nodes[node].engine;
        engine.operations += u64::from(!matches!(what, EngineOp::List));
        if !engine.told_up {
            let result = Err(OpError::Unreachable("no such engine".to_owned()));
            self.engine_tell(node, EngineEvent::Done { op, result });
            return;
        }
        let takes = match &what {
            EngineOp::Pull { image, .. } if !engine.images.contains(image) => engine.rng.around(mean * 30),
            EngineOp::Start { .. } => engine.rng.around(mean * 3),
            EngineOp::List => 2 * MS,
            _ => engine.rng.around(mean),
        };
        engine.next += 1;
        let number = engine.next;
        let mut at = (now + MS + takes).max(engine.hung_until);
        if let EngineOp::Start { name } | EngineOp::Stop { name, .. } | EngineOp::Remove { name } = &what {
            let busy = engine.busy.entry(name.clone()).or_default();
            at = at.max(*busy + 1);
            *busy = at;
        }
        engine.asked.insert(number, Asked { op, what, since: now, life });
        self.push_at(at, Ev::Engine { node, ev: EngineEv::Act(number) });
    }

    pub(super) fn engine_event(&mut self, node: usize, ev: EngineEv) {
        match ev {
            EngineEv::Act(number) => self.engine_act(node, number),
            EngineEv::Tell(life, event) => {
                if self.nodes[node].life == life {
                    self.feed(node, Event::Engine(*event));
                }
            }
            EngineEv::Look(life) => {
                let engine = &mut self.nodes[node].engine;
                engine.hint_at = None;
                if engine.told_up && engine.up && engine.hung_until <= self.now && self.nodes[node].life == life {
                    let seen = self.nodes[node].engine.snapshot();
                    self.feed(node, Event::Engine(seen));
                }
            }
            EngineEv::List(life) => {
                if self.nodes[node].life == life && self.nodes[node].core.is_some() {
                    self.engine_hint(node, true);
                    self.engine_push(node, LIST_EVERY_US, EngineEv::List(life));
                }
            }
            EngineEv::Exits { name, run, code } => self.engine_exit(node, &name, run, code, false),
            EngineEv::Health { name, run, healthy } => {
                let now = self.now;
                let engine = &mut self.nodes[node].engine;
                if let Some(c) = engine.containers.get_mut(&name).filter(|c| c.run == run && c.is_running()) {
                    let health = if healthy { Health::Healthy } else { Health::Unhealthy };
                    c.state = ContainerState::Running { health };
                    c.accepts_at = c.accepts_at.min(now);
                    self.engine_hint(node, false);
                }
            }
            EngineEv::Up => self.engine_up(node),
            EngineEv::HangSeen => {
                if self.nodes[node].engine.hung_until > self.now {
                    self.engine_lost(node, "no answer within 6 s", false);
                }
            }
        }
    }

    /// Something may have changed: it is looked at soon.
    fn engine_hint(&mut self, node: usize, surely: bool) {
        let now = self.now;
        let life = self.nodes[node].life;
        let engine = &mut self.nodes[node].engine;
        if !engine.told_up || engine.hint_at.is_some() || (!surely && engine.hints_lost_until > now) {
            return;
        }
        let at = now + HINT_US + engine.rng.around(3 * MS);
        engine.hint_at = Some(at);
        self.push_at(at, Ev::Engine { node, ev: EngineEv::Look(life) });
    }

    fn engine_up(&mut self, node: usize) {
        let (gone, life) = (self.nodes[node].core.is_none(), self.nodes[node].life);
        let engine = &mut self.nodes[node].engine;
        if !engine.up || engine.told_up || engine.hung_until > self.now || gone {
            return;
        }
        engine.told_up = true;
        let outlived = life > 1 && engine.containers.values().any(Container::is_running);
        let seen = engine.snapshot();
        if outlived {
            self.probes.hit("containers outlived their agent, or their engine's absence");
        }
        self.engine_tell(node, EngineEvent::Reachable(info()));
        self.engine_tell(node, seen);
    }

    /// The driver has lost it: what was under way has been done, or not, or will be.
    fn engine_lost(&mut self, node: usize, why: &str, settle: bool) {
        let asked = if settle { std::mem::take(&mut self.nodes[node].engine.asked) } else { BTreeMap::new() };
        for (_, asked) in asked {
            if self.nodes[node].engine.rng.permille(500) {
                // Its answer has nowhere to go.
                let _ = self.engine_do(node, &asked.what);
            }
            self.engine_answer(node, &asked, Err(OpError::Unreachable(why.to_owned())));
        }
        let late: Vec<(OpId, u32)> = self.nodes[node].engine.asked.values().map(|a| (a.op, a.life)).collect();
        for (op, life) in late {
            if life == self.nodes[node].life {
                self.engine_tell(node, EngineEvent::Done { op, result: Err(OpError::Unreachable(why.to_owned())) });
            }
        }
        // Done later in the engine, answered now.
        self.nodes[node].engine.asked.values_mut().for_each(|a| a.life = 0);
        if std::mem::take(&mut self.nodes[node].engine.told_up) {
            self.engine_tell(node, EngineEvent::Unreachable(why.to_owned()));
        }
    }

    pub(super) fn engine_down(&mut self, node: usize, for_us: u64, takes_containers: bool) {
        self.nodes[node].engine.up = false;
        self.engine_lost(node, "connection refused", true);
        if takes_containers {
            let running: Vec<(String, u32)> = self.nodes[node]
                .engine
                .containers
                .iter()
                .filter(|(_, c)| c.is_running())
                .map(|(name, c)| (name.clone(), c.run))
                .collect();
            for (name, run) in running {
                self.engine_exit(node, &name, run, 137, true);
            }
        }
        self.nodes[node].engine_back_at = self.now + for_us;
        self.push_in(for_us, Ev::EngineBack { node });
    }

    /// The power is gone: what was asked is never done, and no container runs on.
    pub(super) fn engine_power_cut(&mut self, node: usize) {
        self.nodes[node].engine.asked.clear();
        self.nodes[node].engine.busy.clear();
        let running = self.nodes[node].engine.containers.iter().filter(|(_, c)| c.is_running());
        let running: Vec<(String, u32)> = running.map(|(name, c)| (name.clone(), c.run)).collect();
        for (name, run) in running {
            self.engine_exit(node, &name, run, 137, true);
        }
    }

    pub(super) fn engine_back(&mut self, node: usize) {
        if self.nodes[node].engine_back_at > self.now {
            return;
        }
        self.nodes[node].engine.up = true;
        let after = self.nodes[node].engine.rng.around(300 * MS);
        self.engine_push(node, after, EngineEv::Up);
    }

    pub(super) fn engine_hang(&mut self, node: usize, for_us: u64) {
        let until = self.nodes[node].engine.hung_until.max(self.now + for_us);
        self.nodes[node].engine.hung_until = until;
        self.engine_push(node, HANG_SEEN_US, EngineEv::HangSeen);
        self.push_at(until + MS, Ev::Engine { node, ev: EngineEv::Up });
    }

    fn engine_answer(&mut self, node: usize, asked: &Asked, result: Result<(), OpError>) {
        if asked.life == self.nodes[node].life {
            self.engine_tell(node, EngineEvent::Done { op: asked.op, result });
        }
    }

    fn engine_act(&mut self, node: usize, number: u64) {
        let now = self.now;
        let engine = &mut self.nodes[node].engine;
        if engine.hung_until > now {
            let until = engine.hung_until;
            self.push_at(until, Ev::Engine { node, ev: EngineEv::Act(number) });
            return;
        }
        let Some(asked) = engine.asked.remove(&number) else { return };
        if let Some(wait) = self.engine_waits(node, &asked) {
            // A stop or a probe that is not over yet.
            self.nodes[node].engine.asked.insert(number, asked);
            self.engine_push(node, wait, EngineEv::Act(number));
            return;
        }
        let result = self.engine_do(node, &asked.what);
        let lost = self.nodes[node].engine.replies_lost_until > now && !matches!(asked.what, EngineOp::List);
        if lost && self.nodes[node].engine.rng.permille(500) {
            self.probes.hit("engine reply lost");
            self.engine_answer(node, &asked, Err(OpError::Unreachable("broken pipe".to_owned())));
            return;
        }
        self.engine_answer(node, &asked, result);
    }

    /// How long to look again at an operation that waits for something, having begun it.
    fn engine_waits(&mut self, node: usize, asked: &Asked) -> Option<u64> {
        let now = self.now;
        match &asked.what {
            EngineOp::Stop { name, grace, signal } => {
                let engine = &mut self.nodes[node].engine;
                let container = engine.containers.get_mut(name).filter(|c| c.is_running())?;
                if container.stopping {
                    return Some(20 * MS);
                }
                container.stopping = true;
                let (run, stubborn, busy) = (container.run, container.kind == Kind::Stubborn, container.requests > 0);
                let grace = grace.as_micros() as u64;
                let killed = signal.as_deref() == Some("SIGKILL");
                let takes = match (stubborn, busy) {
                    _ if killed => MS,
                    (true, _) => grace,
                    (false, true) => grace.min(400 * MS),
                    (false, false) => engine.rng.around(60 * MS).min(grace),
                };
                let code = if stubborn || killed { 137 } else { 0 };
                self.check_stop(node, name);
                self.engine_push(node, takes, EngineEv::Exits { name: name.clone(), run, code });
                Some(takes + MS)
            }
            EngineOp::Probe { name, port, within } => {
                let container = self.nodes[node].engine.containers.get(name)?;
                let opens = match container.state {
                    ContainerState::Exited { .. } => return None,
                    ContainerState::Running { .. } if *port != CLOSED_PORT => container.accepts_at,
                    ContainerState::Running { .. } | ContainerState::Created => u64::MAX,
                };
                let until = opens.min(asked.since + within.as_micros() as u64);
                (until > now).then(|| until - now)
            }
            _ => None,
        }
    }

    /// Does it, whoever hears of it.
    fn engine_do(&mut self, node: usize, what: &EngineOp) -> Result<(), OpError> {
        let refused = |text: String| Err(OpError::Refused(text));
        let now = self.now;
        let life = self.nodes[node].life;
        let engine = &mut self.nodes[node].engine;
        match what {
            EngineOp::Pull { image, .. } => {
                if Kind::of(image) == Kind::Missing {
                    return refused(format!("manifest for {image} not found"));
                }
                if engine.pulls_fail_until > now && !engine.images.contains(image) {
                    return refused(format!("pulling {image}: registry unreachable"));
                }
                engine.images.insert(image.clone());
                Ok(())
            }
            EngineOp::Create(plan) => {
                let core = self.nodes[node].core.as_ref();
                let published = core.and_then(|c| c.store().service(plan.service)).is_none_or(|s| !s.ports.is_empty());
                let engine = &mut self.nodes[node].engine;
                if let Some(there) = engine.containers.get(&plan.name) {
                    let same = there.plan.task == plan.task && there.plan.attempt == plan.attempt;
                    return if same { Ok(()) } else { refused(format!("{} is already in use", plan.name)) };
                }
                let image = &plan.spec.container.image;
                if !engine.images.contains(image) {
                    return refused(format!("No such image: {image}"));
                }
                engine.addresses = engine.addresses.wrapping_add(1);
                let [high, low] = engine.addresses.to_be_bytes();
                let container = Container {
                    kind: Kind::of(&plan.spec.container.image),
                    plan: (**plan).clone(),
                    state: ContainerState::Created,
                    accepts_at: u64::MAX,
                    stopping: false,
                    killed: false,
                    run: 0,
                    requests: 0,
                    published,
                    address: Some(IpAddr::V4(Ipv4Addr::new(172, 17, high, low))),
                };
                engine.containers.insert(plan.name.clone(), container);
                self.engine_hint(node, false);
                Ok(())
            }
            EngineOp::Start { name } => self.engine_start(node, name),
            EngineOp::Stop { .. } => Ok(()),
            EngineOp::Remove { name } => {
                if let Some(c) = engine.containers.get(name)
                    && c.is_running()
                {
                    let run = c.run;
                    self.check_stop(node, name);
                    self.engine_exit(node, name, run, 137, false);
                }
                if self.nodes[node].engine.containers.remove(name).is_some() {
                    self.engine_hint(node, false);
                    self.end_probes(node, name);
                }
                Ok(())
            }
            EngineOp::Probe { name, port, .. } => match engine.containers.get(name).map(|c| (&c.state, c.accepts_at)) {
                None => refused(format!("No such container: {name}")),
                Some((ContainerState::Exited { code, .. }, _)) => refused(format!("the container exited with {code}")),
                Some((ContainerState::Running { .. }, opened)) if opened <= now && *port != CLOSED_PORT => Ok(()),
                Some(_) => Err(OpError::TimedOut(format!("port {port} accepted no connection"))),
            },
            EngineOp::List => {
                let seen = engine.snapshot();
                self.engine_push(node, 0, EngineEv::Tell(life, Box::new(seen)));
                Ok(())
            }
        }
    }

    fn engine_start(&mut self, node: usize, name: &str) -> Result<(), OpError> {
        let now = self.now;
        let engine = &mut self.nodes[node].engine;
        let fails = engine.starts_fail_until > now && engine.rng.permille(600);
        let (quick, slow) = (engine.rng.around(150 * MS), engine.rng.between(SECOND, 6 * SECOND));
        let (bad_lasts, exits) = (engine.rng.around(300 * MS), engine.rng.permille(200));
        let Some(c) = engine.containers.get_mut(name) else {
            return Err(OpError::Refused(format!("No such container: {name}")));
        };
        if c.is_running() {
            return Ok(());
        }
        let ports: Vec<u16> = c.plan.host_ports.iter().map(|p| p.published).filter(|p| *p != 0).collect();
        let binds = |c: &Container| c.is_running() && c.plan.host_ports.iter().any(|p| ports.contains(&p.published));
        if engine.containers.values().any(binds) {
            return Err(OpError::Refused(
                "driver failed programming external connectivity: port is already allocated".to_owned(),
            ));
        }
        let Some(c) = engine.containers.get_mut(name) else { return Ok(()) };
        if fails {
            return Err(OpError::Refused("OCI runtime create failed".to_owned()));
        }
        let published = c.published;
        c.run += 1;
        c.stopping = false;
        c.killed = false;
        c.requests = 0;
        let checked = c.plan.spec.container.healthcheck.as_ref().filter(|h| !h.test.is_empty()).cloned();
        let health = if checked.is_some() { Health::Starting } else { Health::None };
        c.state = ContainerState::Running { health };
        c.accepts_at = match c.kind {
            // Nobody looks whether it accepts.
            _ if !published && checked.is_none() => now,
            Kind::Bad | Kind::Sick => u64::MAX,
            Kind::Slow => now + slow,
            _ => now + quick,
        };
        let (run, kind, ready) = (c.run, c.kind, c.accepts_at);
        let task = c.plan.task;
        let (at, image) = (self.now, &c.plan.spec.container.image);
        self.trace.mark(at, || Mark::Runs { node, task: c.plan.name.clone(), image: image.clone(), on: true });
        if kind == Kind::Bad {
            let code = i64::from(!exits);
            self.engine_push(node, bad_lasts, EngineEv::Exits { name: name.to_owned(), run, code });
        } else if let Some(check) = checked {
            let interval = check.interval.max(Duration::from_millis(200)).as_micros() as u64;
            let healthy = kind != Kind::Sick;
            let at = if healthy { ready.max(now + interval) } else { now + interval * u64::from(check.retries.max(1)) };
            self.push_at(at, Ev::Engine { node, ev: EngineEv::Health { name: name.to_owned(), run, healthy } });
        }
        self.engine_hint(node, false);
        self.check_started(node, task);
        Ok(())
    }

    pub(super) fn engine_exit(&mut self, node: usize, name: &str, run: u32, code: i64, killed: bool) {
        let wall = self.nodes[node].clock.now(self.now).wall;
        let engine = &mut self.nodes[node].engine;
        let Some(c) = engine.containers.get_mut(name).filter(|c| c.run == run && c.is_running()) else { return };
        c.state = ContainerState::Exited { code, error: String::new(), at: wall };
        c.accepts_at = u64::MAX;
        c.killed = killed;
        let (at, image) = (self.now, &c.plan.spec.container.image);
        self.trace.mark(at, || Mark::Runs { node, task: c.plan.name.clone(), image: image.clone(), on: false });
        self.engine_hint(node, false);
        self.end_probes(node, name);
    }

    /// Whoever waits for this container to accept is told at once that it won't.
    fn end_probes(&mut self, node: usize, name: &str) {
        let waits = |a: &Asked| matches!(&a.what, EngineOp::Probe { name: probed, .. } if probed == name);
        let asked = self.nodes[node].engine.asked.iter();
        let numbers: Vec<u64> = asked.filter(|(_, a)| waits(a)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.engine_push(node, MS, EngineEv::Act(number));
        }
    }
}
