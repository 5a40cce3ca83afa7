//! What happens in the cluster, for people: the one place where changes of records, of membership and of the lease become
//! events. Off unless [`Core::keep_chronicle`] was called, so that a simulator pays nothing for it.
//!
//! The law: an event says how something differs from what the last event of it said. What was written before this node's
//! life began is remembered in silence: a node that joins or returns tells what happens, not what has happened. (Only who
//! holds the lease is told at the start, once: nobody knows since when.)

use super::view::Since;
use super::*;
use crate::ids::{ObjectId, ServiceId};
use crate::model::node::Availability;
use crate::model::object::ObjectKind;
use crate::model::record::Hlc;
use crate::model::rollout::Rollout;
use crate::model::spec::Mode;
use crate::model::task::{Desired, Slot, TaskPhase};
use crate::time::Wall;
use std::collections::VecDeque;

/// Events that nobody has taken yet; beyond it the oldest go.
const MAX_WAITING: usize = 4_096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When this node saw it, by its wall clock.
    pub at: Wall,
    pub kind: Kind,
    pub action: &'static str,
    /// Of what it happened to. A rollout has its service's id, the lease its holder's.
    pub id: String,
    /// Under Docker's names where it has some.
    pub attributes: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Node,
    Service,
    Task,
    Rollout,
    Lease,
    Secret,
    Config,
    Network,
    /// Of the API from afar.
    Client,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
            Kind::Rollout => "rollout",
            Kind::Lease => "lease",
            Kind::Secret => "secret",
            Kind::Config => "config",
            Kind::Network => "network",
            Kind::Client => "client",
        }
    }
}

impl From<ObjectKind> for Kind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Secret => Kind::Secret,
            ObjectKind::Config => Kind::Config,
            ObjectKind::Network => Kind::Network,
            ObjectKind::Client => Kind::Client,
        }
    }
}

/// What was last told, or was there at the start.
pub(super) struct Chronicle {
    /// What is stamped no later was there before this life.
    began: Hlc,
    touched: BTreeSet<Key>,
    /// Nodes that came, went or fell silent.
    stirred: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
    services: BTreeMap<ServiceId, Service>,
    rollouts: BTreeMap<ServiceId, Rollout>,
    tasks: BTreeMap<TaskId, Task>,
    objects: BTreeMap<(ObjectKind, ObjectId), (String, Hlc)>,
    /// The lease's term by what the last life has left behind.
    last_term: Term,
    /// The cluster has said who holds it: what comes after that is news.
    lease_known: bool,
    holder: Option<(NodeId, Term)>,
    /// Of `holder`.
    holder_since: Since,
    voters: BTreeSet<NodeId>,
    out: VecDeque<Happening>,
}

#[derive(Clone, PartialEq, Eq)]
struct Node {
    name: String,
    availability: Availability,
    /// `None` until it was seen in this life.
    state: Option<&'static str>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Service {
    name: String,
    current: RevisionId,
    replicas: Option<u32>,
    image: String,
}

#[derive(Clone, PartialEq, Eq)]
struct Task {
    service: ServiceId,
    revision: RevisionId,
    slot: Slot,
    node: Option<NodeId>,
    desired: Desired,
    phase: TaskPhase,
    attempt: u32,
}

impl Chronicle {
    pub(super) fn touch(&mut self, key: &Key) {
        self.touched.insert(key.clone());
    }

    pub(super) fn stir(&mut self, node: NodeId) {
        self.stirred.insert(node);
    }

    pub(super) fn holder_since(&self, term: Term) -> Option<Since> {
        self.holder.is_some_and(|(_, held)| held == term).then_some(self.holder_since)
    }

    fn tell(&mut self, happening: Happening) {
        if self.out.len() == MAX_WAITING {
            self.out.pop_front();
        }
        self.out.push_back(happening);
    }
}

/// What happened, without when: filled in field by field.
struct Said {
    kind: Kind,
    action: &'static str,
    id: String,
    attributes: BTreeMap<&'static str, String>,
}

impl Said {
    fn new(kind: Kind, action: &'static str, id: impl ToString) -> Self {
        Self { kind, action, id: id.to_string(), attributes: BTreeMap::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.attributes.insert(name, value);
        }
        self
    }

    /// Both, if they differ, and the old one only where there was one.
    fn changed<T: ToString + PartialEq>(self, names: [&'static str; 2], old: Option<T>, new: Option<T>) -> Self {
        let [old_name, new_name] = names;
        match (old, new) {
            (old, new) if old == new => self,
            (Some(old), Some(new)) => self.with(old_name, old).with(new_name, new),
            (None, Some(new)) => self.with(new_name, new),
            (Some(old), None) => self.with(old_name, old),
            (None, None) => self,
        }
    }
}

const AVAILABILITY: [&str; 2] = ["availability.old", "availability.new"];
const STATE: [&str; 2] = ["state.old", "state.new"];
const REPLICAS: [&str; 2] = ["replicas.old", "replicas.new"];
const IMAGE: [&str; 2] = ["image.old", "image.new"];
const UPDATE: [&str; 2] = ["updatestate.old", "updatestate.new"];
const DESIRED: [&str; 2] = ["desiredstate.old", "desiredstate.new"];

impl Core {
    /// From now on what happens is kept for [`Core::take_happenings`]. To be called right after the boot.
    pub fn keep_chronicle(&mut self, now: Now) {
        let began = self.store.record(&Key::NodeFact(self.me)).map_or(Hlc(u64::MAX), |record| record.stamp.hlc);
        self.chronicle = Some(Chronicle {
            began,
            touched: self.store.records().map(|record| record.key.clone()).collect(),
            stirred: BTreeSet::new(),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            objects: BTreeMap::new(),
            last_term: self.store.record(&Key::Electorate).map_or(Term::ZERO, |record| record.stamp.term),
            lease_known: false,
            holder: None,
            holder_since: Since { at: now.wall, is_exact: false },
            voters: self.lease.electorate().voters.clone(),
            out: VecDeque::new(),
        });
        // What is here already is remembered, not told.
        drop(self.take_happenings(now));
    }

    /// What has happened since the last call.
    pub fn take_happenings(&mut self, now: Now) -> Vec<Happening> {
        let Some(mut chronicle) = self.chronicle.take() else { return Vec::new() };
        // In the order of the keys: nodes before services before tasks, so that what is named is known. A rollout goes on,
        // pauses or ends because of its tasks: after them.
        let begins = |key: &Key| match key {
            Key::Rollout(id) => self
                .store
                .rollout(*id)
                .is_some_and(|rollout| chronicle.rollouts.get(id).is_none_or(|was| was.started != rollout.started)),
            _ => true,
        };
        let touched = std::mem::take(&mut chronicle.touched);
        let (first, later): (Vec<Key>, Vec<Key>) = touched.into_iter().partition(begins);
        for key in first.into_iter().chain(later) {
            let news = self.store.record(&key).is_none_or(|record| record.stamp.hlc > chronicle.began);
            let said = match key {
                Key::NodeFact(id) | Key::NodePolicy(id) => self.node_said(&mut chronicle, id),
                Key::Service(id) | Key::Revision(id, _) => self.service_said(&mut chronicle, id),
                Key::Rollout(id) => self.rollout_said(&mut chronicle, id),
                Key::Task(id) | Key::TaskStatus(id) => self.task_said(&mut chronicle, id),
                Key::Object(kind, id) => self.object_said(&mut chronicle, kind, id),
                Key::Electorate | Key::Cluster => Vec::new(),
            };
            if news {
                said.into_iter().for_each(|said| chronicle.tell(at(said, now)));
            }
        }
        let mut said = Vec::new();
        for node in std::mem::take(&mut chronicle.stirred) {
            said.append(&mut self.node_said(&mut chronicle, node));
        }
        said.append(&mut self.lease_said(&mut chronicle, now));
        said.into_iter().for_each(|said| chronicle.tell(at(said, now)));
        let happened = chronicle.out.drain(..).collect();
        self.chronicle = Some(chronicle);
        happened
    }

    fn host_name(&self, id: NodeId) -> String {
        match self.store.get(&Key::NodeFact(id)) {
            Some(Value::NodeFact(fact)) => fact.hostname.clone(),
            _ => String::new(),
        }
    }

    /// Docker's word for it, as its API says it.
    fn node_state(&self, fact: &NodeFact) -> &'static str {
        let liveness = if fact.id == self.me {
            Some(Liveness::Alive)
        } else {
            self.membership.member(fact.id).map(|member| member.liveness)
        };
        match (liveness, &fact.engine) {
            (None | Some(Liveness::Down), _) => "down",
            (Some(Liveness::Away), _) => "disconnected",
            (Some(Liveness::Alive | Liveness::Suspect), EngineState::Ready) => "ready",
            (Some(Liveness::Alive | Liveness::Suspect), EngineState::Unknown | EngineState::Unreachable(_)) => {
                "unknown"
            }
        }
    }

    fn node_said(&self, chronicle: &mut Chronicle, id: NodeId) -> Vec<Said> {
        let policy = self.policy(id);
        let fact = match self.store.get(&Key::NodeFact(id)) {
            Some(Value::NodeFact(fact)) if !policy.removed => fact,
            _ => {
                let gone = chronicle.nodes.remove(&id);
                return gone
                    .map(|was| Said::new(Kind::Node, "remove", id).with("name", was.name))
                    .into_iter()
                    .collect();
            }
        };
        let state = Some(self.node_state(fact));
        let is = |state| Node {
            name: fact.hostname.clone(),
            availability: policy.availability,
            state,
            labels: policy.labels.clone(),
        };
        // That those who were there come up in this node's eyes after its start is no news.
        let unseen = |state: Option<&'static str>| state.filter(|state| !matches!(*state, "down" | "unknown"));
        // Nor that an agent which has just started again hasn't asked its engine yet.
        let asks = fact.engine == EngineState::Unknown;
        let state = match chronicle.nodes.get(&id).and_then(|was| was.state) {
            Some(before) if asks && state == Some("unknown") => Some(before),
            _ => state,
        };
        let Some(was) = chronicle.nodes.get(&id).cloned() else {
            chronicle.nodes.insert(id, is(unseen(state)));
            return vec![Said::new(Kind::Node, "create", id).with("name", &fact.hostname)];
        };
        let is = is(if was.state.is_none() { unseen(state) } else { state });
        if is == was {
            return Vec::new();
        }
        let old_state = if was.state.is_none() { is.state } else { was.state };
        let said = Said::new(Kind::Node, "update", id)
            .with("name", &fact.hostname)
            .changed(AVAILABILITY, Some(was.availability.as_str()), Some(is.availability.as_str()))
            .changed(STATE, old_state, is.state);
        let silent = said.attributes.len() <= 1 && is.labels == was.labels && is.name == was.name;
        chronicle.nodes.insert(id, is);
        if silent { Vec::new() } else { vec![said] }
    }

    fn service_said(&self, chronicle: &mut Chronicle, id: ServiceId) -> Vec<Said> {
        let Some(service) = self.store.service(id) else {
            let gone = chronicle.services.remove(&id);
            chronicle.rollouts.remove(&id);
            return gone.map(|was| Said::new(Kind::Service, "remove", id).with("name", was.name)).into_iter().collect();
        };
        // Its revision is still on its way: that record brings us here again.
        let Some(spec) = self.specs.get(&service.current) else { return Vec::new() };
        let replicas = match spec.mode {
            Mode::Replicated(count) => Some(count),
            Mode::ReplicatedJob { total, .. } => Some(total),
            Mode::Global | Mode::GlobalJob => None,
        };
        let image = spec.task.container.image.clone();
        let is = Service { name: service.name.clone(), current: service.current, replicas, image };
        let was = chronicle.services.insert(id, is.clone());
        if was.as_ref() == Some(&is) {
            return Vec::new();
        }
        let action = if was.is_some() { "update" } else { "create" };
        let said = Said::new(Kind::Service, action, id)
            .with("name", &is.name)
            .with("change", change_id(is.current))
            .with("by", self.host_name(is.current.author));
        let Some(was) = was else { return vec![said] };
        vec![said.changed(REPLICAS, was.replicas, is.replicas).changed(IMAGE, Some(was.image), Some(is.image))]
    }

    /// Docker's update of the service, and the rollout's own.
    fn rollout_said(&self, chronicle: &mut Chronicle, id: ServiceId) -> Vec<Said> {
        let Some(rollout) = self.store.rollout(id) else {
            chronicle.rollouts.remove(&id);
            return Vec::new();
        };
        let was = chronicle.rollouts.insert(id, rollout.clone());
        let name = self.store.service(id).map(|service| service.name.clone()).unwrap_or_default();
        // Of one that is over.
        let took = rollout.completed.map(|end| end.since(rollout.started).as_secs_f64());
        let own = |action| {
            Said::new(Kind::Rollout, action, id)
                .with("seconds", took.map(|took| format!("{took:.3}")).unwrap_or_default())
                .with("name", &name)
                .with("change", change_id(rollout.to))
                .with("message", &rollout.message)
                .with("total", rollout.total)
                .with("failed", rollout.failed.len())
        };
        // The failure that turns an update round is the last of the old account, and in none of the new one.
        let more = was.as_ref().filter(|was| was.to == rollout.to).map_or(!rollout.failed.is_empty(), |was| {
            let turned = rollout.state.is_rollback() && !was.state.is_rollback();
            turned || was.failed.len() < rollout.failed.len()
        });
        let failures: Vec<Said> = more.then(|| own("failure")).into_iter().collect();
        match was {
            Some(was) if was.to == rollout.to && was.state == rollout.state => failures,
            was => {
                let update = Said::new(Kind::Service, "update", id).with("name", &name).changed(
                    UPDATE,
                    was.map(|was| was.state.as_str()),
                    Some(rollout.state.as_str()),
                );
                failures.into_iter().chain([update, own(rollout.state.as_str())]).collect()
            }
        }
    }

    fn task_said(&self, chronicle: &mut Chronicle, id: TaskId) -> Vec<Said> {
        let Some(task) = self.store.task(id) else {
            let gone = chronicle.tasks.remove(&id);
            return gone.map(|was| self.task_named("remove", id, &was)).into_iter().collect();
        };
        let status = self.store.status(id);
        let is = Task {
            service: task.service,
            revision: task.revision,
            slot: task.slot,
            node: task.node,
            desired: task.desired,
            phase: status.map_or(TaskPhase::Pending, |status| status.phase),
            attempt: status.map_or(0, |status| status.attempt),
        };
        let was = chronicle.tasks.insert(id, is.clone());
        if was.as_ref() == Some(&is) {
            return Vec::new();
        }
        let said = self.task_named(if was.is_some() { "update" } else { "create" }, id, &is);
        let mut said = said
            .changed(DESIRED, was.as_ref().map(|was| was.desired.as_str()), Some(is.desired.as_str()))
            .changed(STATE, was.as_ref().map(|was| was.phase.as_str()), Some(is.phase.as_str()))
            .with("message", &task.message);
        if let Some(status) = status {
            said = said.with("error", &status.error);
            if let Some(code) = status.exit_code.filter(|_| status.phase >= TaskPhase::Complete) {
                said = said.with("exitCode", code);
            }
        }
        vec![said]
    }

    fn task_named(&self, action: &'static str, id: TaskId, task: &Task) -> Said {
        let spec = self.specs.get(&task.revision);
        let service = self.store.service(task.service).map(|service| service.name.clone());
        let service = service.or_else(|| spec.map(|spec| spec.name.clone())).unwrap_or_default();
        let node = task.node.map(|node| self.host_name(node)).unwrap_or_default();
        let name = match task.slot {
            Slot::Replica(slot) => format!("{service}.{slot}"),
            Slot::Node(_) => format!("{service}.{node}"),
        };
        Said::new(Kind::Task, action, id)
            .with("name", name)
            .with("com.docker.swarm.service.id", task.service)
            .with("com.docker.swarm.service.name", service)
            .with("com.docker.swarm.node.id", task.node.map(|node| node.to_string()).unwrap_or_default())
            .with("node.name", node)
            .with("image", spec.map(|spec| spec.task.container.image.clone()).unwrap_or_default())
            .with("attempt", task.attempt)
            .with("change", change_id(task.revision))
    }

    fn object_said(&self, chronicle: &mut Chronicle, kind: ObjectKind, id: ObjectId) -> Vec<Said> {
        let Some(object) = self.store.object(kind, id) else {
            let gone = chronicle.objects.remove(&(kind, id));
            return gone.map(|(name, _)| Said::new(kind.into(), "remove", id).with("name", name)).into_iter().collect();
        };
        let index = self.store.index(&Key::Object(kind, id)).unwrap_or_default();
        let was = chronicle.objects.insert((kind, id), (object.name.clone(), index));
        let said = |action| vec![Said::new(kind.into(), action, id).with("name", &object.name)];
        match was {
            None => said("create"),
            Some((_, before)) if before != index => said("update"),
            Some(_) => Vec::new(),
        }
    }

    fn lease_said(&self, chronicle: &mut Chronicle, now: Now) -> Vec<Said> {
        let mut said = Vec::new();
        let electorate = self.lease.electorate();
        if electorate.voters != chronicle.voters {
            let names: Vec<String> = electorate.voters.iter().map(|voter| self.host_name(*voter)).collect();
            chronicle.voters.clone_from(&electorate.voters);
            said.push(
                Said::new(Kind::Lease, "electorate", self.cluster)
                    .with("voters", names.join(" "))
                    .with("epoch", electorate.id.epoch),
            );
        }
        let holder = self.holder();
        if holder == chronicle.holder {
            return said;
        }
        let mut is_news = true;
        if let Some((_, term)) = holder.filter(|(node, _)| !chronicle.lease_known && *node != self.me) {
            // Its record says whether it was got in this life; until that is here nothing is told.
            let Some(record) = self.store.record(&Key::Electorate).filter(|record| record.stamp.term == term) else {
                return said;
            };
            is_news = self.acquired(term).is_some() && record.stamp.hlc > chronicle.began;
            chronicle.lease_known = term != chronicle.last_term;
        }
        match (chronicle.holder.take(), holder) {
            (_, Some(_)) if !is_news => {}
            (_, Some((node, term))) => said.push(
                Said::new(Kind::Lease, "acquire", node).with("name", self.host_name(node)).with("term", term.round),
            ),
            (Some((node, term)), None) => said
                .push(Said::new(Kind::Lease, "lose", node).with("name", self.host_name(node)).with("term", term.round)),
            (None, None) => {}
        }
        (chronicle.holder, chronicle.holder_since) = (holder, Since { at: now.wall, is_exact: is_news });
        said
    }

    /// When the lease was got under `term`: its holder begins by writing the electorate as it was. One that has changed it since
    /// has written over that.
    pub(super) fn acquired(&self, term: Term) -> Option<Wall> {
        let record = self.store.record(&Key::Electorate).filter(|record| record.stamp.term == term)?;
        let is_first = matches!(&record.value, Some(Value::Electorate(electorate)) if electorate.id.version == 0);
        is_first.then(|| record.stamp.hlc.wall())
    }
}

/// The name under which a change of a service can be followed, from the command to the containers of all nodes: when
/// it was accepted (hybrid time), and by which node.
pub fn change_id(revision: RevisionId) -> String {
    format!("{:x}-{}", revision.hlc.0, revision.author)
}

fn at(said: Said, now: Now) -> Happening {
    let Said { kind, action, id, attributes } = said;
    Happening { at: now.wall, kind, action, id, attributes }
}
