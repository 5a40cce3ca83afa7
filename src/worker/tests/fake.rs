//! An engine that does what engines do, late, wrongly or not at all, on virtual time.

use super::*;
use std::net::IpAddr;

#[derive(Debug, Clone)]
pub(super) struct Behaviour {
    pub pull: Result<Duration, OpError>,
    pub create: Result<(), OpError>,
    pub start: Result<(), OpError>,
    pub stop: Result<(), OpError>,
    pub remove: Result<(), OpError>,
    /// What a container reports when it has just started.
    pub health: Health,
    /// Its port accepts connections.
    pub accepts: bool,
    /// Containers exit with this as soon as they have started.
    pub exits: Option<i64>,
    /// Effects happen, answers don't come.
    pub mute: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            pull: Ok(Duration::from_millis(20)),
            create: Ok(()),
            start: Ok(()),
            stop: Ok(()),
            remove: Ok(()),
            health: Health::None,
            accepts: true,
            exits: None,
            mute: false,
        }
    }
}

struct Pending {
    op: OpId,
    what: EngineOp,
    done: Mono,
    within: Mono,
    /// The agent that asked is still there to hear the answer.
    heard: bool,
}

#[derive(Default)]
pub(super) struct FakeEngine {
    pub up: bool,
    pub behaviour: Behaviour,
    pub containers: BTreeMap<String, ObservedContainer>,
    pending: Vec<Pending>,
    events: VecDeque<(Mono, EngineEvent)>,
    /// How old an observation is when it arrives.
    pub observation_delay: Duration,
    /// Changes are reported by themselves.
    pub quiet: bool,
    born: u64,
}

const OP_TIME: Duration = Duration::from_millis(10);

impl FakeEngine {
    pub fn connect(&mut self, now: Mono) {
        self.up = true;
        let info =
            EngineInfo { version: "28.2".into(), os: "linux".into(), arch: "x86_64".into(), ..EngineInfo::default() };
        self.tell(now, EngineEvent::Reachable(info));
        let seen = self.snapshot();
        self.tell(now, seen);
    }

    /// What was under way is answered with an error, if at all; its effect comes, or not.
    pub fn disconnect(&mut self, now: Mono, effects: bool, answers: bool) {
        self.up = false;
        let pending = std::mem::take(&mut self.pending);
        for p in pending {
            if effects {
                let _ = self.act(&p.what, now);
            }
            if answers && p.heard {
                let lost = Err(OpError::Unreachable("broken pipe".into()));
                self.tell(now, EngineEvent::Done { op: p.op, result: lost });
            }
        }
        self.tell(now, EngineEvent::Unreachable("connection refused".into()));
    }

    pub fn agent_died(&mut self) {
        self.events.clear();
        self.pending.iter_mut().for_each(|p| p.heard = false);
    }

    pub fn ask(&mut self, op: OpId, what: EngineOp, now: Mono) {
        if !self.up {
            assert!(
                self.events.iter().any(|(_, e)| matches!(e, EngineEvent::Unreachable(_))),
                "asked while away: {what:?}"
            );
            return;
        }
        if let Some(task) = task_of(&what) {
            let harmless = |what: &EngineOp| matches!(what, EngineOp::Probe { .. } | EngineOp::Pull { .. });
            let busy = self.pending.iter().find(|p| p.heard && task_of(&p.what) == Some(task) && !harmless(&p.what));
            assert!(busy.is_none() || self.behaviour.mute, "{what:?} while {:?} is in flight", busy.map(|p| &p.what));
        }
        let (took, within) = match &what {
            EngineOp::Pull { .. } => (*self.behaviour.pull.as_ref().unwrap_or(&OP_TIME), Duration::ZERO),
            EngineOp::Probe { within, .. } => (OP_TIME, *within),
            EngineOp::List => (Duration::from_millis(1), Duration::ZERO),
            _ => (OP_TIME, Duration::ZERO),
        };
        self.pending.push(Pending { op, what, done: now + took, within: now + within, heard: true });
    }

    /// When it next does something.
    pub fn next(&self) -> Option<Mono> {
        self.pending.iter().map(|p| p.done).chain(self.events.front().map(|(at, _)| *at)).min()
    }

    pub fn take(&mut self, now: Mono) -> Option<EngineEvent> {
        self.work(now);
        let due = self.events.front().is_some_and(|(at, _)| *at <= now);
        if due { self.events.pop_front().map(|(_, event)| event) } else { None }
    }

    fn work(&mut self, now: Mono) {
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(|p| p.done <= now);
        self.pending = rest;
        for mut p in due {
            if let EngineOp::Probe { name, .. } = &p.what {
                let running = self.is_running(name);
                if running && !self.behaviour.accepts && now < p.within {
                    p.done = (now + Duration::from_millis(500)).min(p.within);
                    self.pending.push(p);
                    continue;
                }
            }
            let result = self.act(&p.what, now);
            if p.heard && !self.behaviour.mute {
                self.tell(now, EngineEvent::Done { op: p.op, result });
            }
        }
    }

    fn act(&mut self, what: &EngineOp, now: Mono) -> Result<(), OpError> {
        let b = self.behaviour.clone();
        match what {
            EngineOp::Pull { .. } => return b.pull.map(|_| ()),
            EngineOp::Create(plan) => {
                b.create?;
                self.create(plan);
            }
            EngineOp::Start { name } => {
                b.start?;
                self.start(name, now)?;
            }
            EngineOp::Stop { name, .. } => {
                b.stop?;
                let container = self.containers.get_mut(name).ok_or_else(|| gone(name))?;
                if matches!(container.state, ContainerState::Running { .. }) {
                    container.state = ContainerState::Exited { code: 143, error: String::new(), at: Wall(0) };
                }
            }
            EngineOp::Remove { name } => {
                b.remove?;
                self.containers.remove(name);
            }
            EngineOp::Probe { name, .. } => {
                return match (self.is_running(name), b.accepts) {
                    (true, true) => Ok(()),
                    (true, false) => Err(OpError::Refused("connection refused".into())),
                    (false, _) => Err(OpError::Refused("container is not running".into())),
                };
            }
            EngineOp::List => {}
        }
        if !self.quiet || *what == EngineOp::List {
            self.report(now);
        }
        Ok(())
    }

    fn create(&mut self, plan: &ContainerPlan) {
        if self.containers.contains_key(&plan.name) {
            return;
        }
        self.born += 1;
        let container = ObservedContainer {
            name: plan.name.clone(),
            id: format!("c{}", self.born),
            task: plan.task,
            attempt: plan.attempt,
            state: ContainerState::Created,
            pid: None,
            address: None,
        };
        self.containers.insert(plan.name.clone(), container);
    }

    fn start(&mut self, name: &str, _: Mono) -> Result<(), OpError> {
        let (health, exits) = (self.behaviour.health, self.behaviour.exits);
        let container = self.containers.get_mut(name).ok_or_else(|| gone(name))?;
        assert!(!matches!(container.state, ContainerState::Exited { .. }), "starts {name} a second time");
        container.pid = Some(4_711);
        container.address = Some(IpAddr::from([172, 17, 0, 9]));
        container.state = match exits {
            Some(code) => ContainerState::Exited { code, error: String::new(), at: Wall(0) },
            None => ContainerState::Running { health },
        };
        Ok(())
    }

    // What happens to containers by itself.

    pub fn exit(&mut self, name: &str, code: i64, now: Mono) {
        if let Some(container) = self.containers.get_mut(name) {
            container.state = ContainerState::Exited { code, error: String::new(), at: Wall(0) };
        }
        self.report(now);
    }

    pub fn turns(&mut self, name: &str, health: Health, now: Mono) {
        if let Some(container) = self.containers.get_mut(name) {
            container.state = ContainerState::Running { health };
        }
        self.report(now);
    }

    pub fn vanish(&mut self, name: &str, now: Mono) {
        self.containers.remove(name);
        self.report(now);
    }

    pub fn is_running(&self, name: &str) -> bool {
        self.containers.get(name).is_some_and(|c| matches!(c.state, ContainerState::Running { .. }))
    }

    pub fn report(&mut self, now: Mono) {
        if self.up {
            let seen = self.snapshot();
            self.tell(now + self.observation_delay, seen);
        }
    }

    fn tell(&mut self, at: Mono, event: EngineEvent) {
        let place = self.events.partition_point(|(other, _)| *other <= at);
        self.events.insert(place, (at, event));
    }

    fn snapshot(&self) -> EngineEvent {
        EngineEvent::Observed(self.containers.values().cloned().collect())
    }
}

fn gone(name: &str) -> OpError {
    OpError::Refused(format!("no such container: {name}"))
}

/// Container names carry the task's id, images in the chaos test too.
pub(super) fn task_of(what: &EngineOp) -> Option<TaskId> {
    let text = match what {
        EngineOp::Create(plan) => return Some(plan.task),
        EngineOp::Pull { image, .. } => image.split(':').nth(1)?,
        EngineOp::Start { name } | EngineOp::Stop { name, .. } | EngineOp::Remove { name } => name.split('.').nth(2)?,
        EngineOp::Probe { name, .. } => name.split('.').nth(2)?,
        EngineOp::List => return None,
    };
    text.parse().ok()
}
