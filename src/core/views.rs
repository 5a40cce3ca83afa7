//! Answers to the API's questions.

use super::view::*;
use super::*;
use crate::ids::ServiceId;
use crate::model::service::{Revision, Service};
use crate::model::spec::{Mode, ServiceSpec};
use crate::model::task::{Desired, Slot, Task, TaskPhase, TaskStatus};
use crate::time::Wall;
use crate::wire::message::MemberEntry;

/// A service's tasks, as its view tells them.
#[derive(Default)]
struct Count {
    running: u32,
    wanted: u32,
    /// Of those that are wanted: not ended for good.
    to_end: u32,
    completed: BTreeSet<(RevisionId, Slot)>,
    /// Why one of them has no node yet.
    waits: String,
}

impl Count {
    fn completed_of(&self, run: RevisionId) -> u32 {
        let of_run = self.completed.iter().filter(|(revision, _)| *revision == run);
        u32::try_from(of_run.count()).unwrap_or(u32::MAX)
    }
}

impl Core {
    pub fn services(&self) -> Vec<ServiceView> {
        let mut counts: BTreeMap<ServiceId, Count> = BTreeMap::new();
        for task in self.store.tasks() {
            self.count(counts.entry(task.service).or_default(), task);
        }
        let view = |s: &Service| self.service_view(s, counts.get(&s.id).unwrap_or(&Count::default()));
        self.store.services().filter_map(view).collect()
    }

    pub fn service(&self, id: ServiceId) -> Option<ServiceView> {
        let mut count = Count::default();
        for task in self.store.tasks().filter(|t| t.service == id) {
            self.count(&mut count, task);
        }
        self.service_view(self.store.service(id)?, &count)
    }

    fn count(&self, count: &mut Count, task: &Task) {
        let status = self.store.status_of(task);
        let live = task.desired.is_live();
        count.running += u32::from(live && self.runs(task));
        count.wanted += u32::from(live);
        if live && task.node.is_none() && count.waits.is_empty() {
            count.waits.clone_from(&task.message);
        }
        count.to_end += u32::from(live && !status.is_some_and(|s| s.is_over() && s.is_given_up()));
        if task.desired < Desired::Remove && status.is_some_and(|s| s.phase == TaskPhase::Complete) {
            count.completed.insert((task.revision, task.slot));
        }
    }

    /// Running, and on a node that is there: unlike Swarm's, our count leaves out the dead.
    fn runs(&self, task: &Task) -> bool {
        task.node.is_some_and(|node| self.is_there(node))
            && self.store.status_of(task).is_some_and(|s| s.phase == TaskPhase::Running)
    }

    /// A node whose agent was stopped is: its containers run on.
    fn is_there(&self, node: NodeId) -> bool {
        node == self.me || self.membership.member(node).is_some_and(|m| m.liveness != Liveness::Down)
    }

    /// What has ended can't become anything else.
    fn out_of_sight(&self, task: &Task) -> Option<String> {
        let node = task.node.filter(|node| !self.is_there(*node))?;
        let over = self.store.status_of(task).is_some_and(TaskStatus::is_over);
        (!over).then(|| format!("node {} is down", self.hostname(node)))
    }

    /// `None` until the revision's record has arrived too.
    fn service_view(&self, service: &Service, count: &Count) -> Option<ServiceView> {
        let effective = self.effective_revision(service);
        let revision = self.store.revision(service.id, effective)?;
        let spec = match self.specs.get(&effective) {
            Some(spec) => spec.clone(),
            None => Arc::new(spec::parse(&revision.spec_json).ok()?),
        };
        let record = self.store.record(&Key::Service(service.id))?;
        let mut rollout = self.store.rollout(service.id).filter(|r| r.to == service.current).cloned();
        if let Some(rollout) = rollout.as_mut().filter(|r| r.state.is_active() && !count.waits.is_empty()) {
            rollout.message = format!("{}; waiting: {}", rollout.message, count.waits);
        }
        let previous = service.previous.and_then(|p| self.store.revision(service.id, p));
        Some(ServiceView {
            index: record.stamp.hlc,
            effective,
            spec_json: revision.spec_json.clone(),
            previous_json: previous.map(|r| r.spec_json.clone()),
            rollout,
            running: count.running,
            desired: match spec.mode {
                Mode::Replicated(replicas) => replicas,
                Mode::ReplicatedJob { concurrent, .. } => concurrent,
                Mode::Global => count.wanted,
                Mode::GlobalJob => count.to_end,
            },
            completed: if spec.mode.is_job() { count.completed_of(effective) } else { 0 },
            spec,
            pending: self.pending_note(record.stamp.author, record.seq),
            service: service.clone(),
        })
    }

    /// What to tell of a write that no majority of the electorate is known to hold.
    fn pending_note(&self, author: NodeId, seq: u64) -> Option<String> {
        let electorate = self.lease.electorate();
        let holders: Vec<NodeId> =
            electorate.voters.iter().copied().filter(|v| self.store.peer_holds(*v, author, seq)).collect();
        // Of others' writes the news that voters hold them may be under way; without a quorum it is no news at all.
        let doubtful = author == self.me || !self.has_quorum();
        if electorate.is_majority(&holders) || !doubtful {
            return None;
        }
        let all = self.liveness();
        let held = all.keys().filter(|n| self.store.peer_holds(**n, author, seq)).count();
        Some(format!("pending: held by {held} of {} nodes", all.len()))
    }

    pub fn revisions(&self, id: ServiceId) -> Vec<RevisionView> {
        let Some(service) = self.store.service(id) else { return Vec::new() };
        let effective = self.effective_revision(service);
        let (left, fallback) = (self.rolled_back_from(service), self.fallback(service));
        let view = |(r, number): (&Revision, u32)| RevisionView {
            number,
            revision: r.clone(),
            current: r.id == effective,
            rolled_back_from: left == Some(r.id) && r.id != effective,
            fallback: fallback == Some(r.id) && r.id != effective,
        };
        self.store.revisions(id).zip(1..).map(view).collect()
    }

    /// By an operator, or by itself, for as long as nothing is written on top.
    fn rolled_back_from(&self, service: &Service) -> Option<RevisionId> {
        if service.rolled_back {
            return service.previous;
        }
        let rollout = self.store.rollout(service.id).filter(|r| r.to == service.current);
        rollout.filter(|r| r.state.is_rollback()).map(|r| r.to)
    }

    /// The revision before may be one that never ran, too: what the rollout's record has as `from` is what ran last.
    fn fallback(&self, service: &Service) -> Option<RevisionId> {
        let rollout = self.store.rollout(service.id).filter(|r| r.to == service.current)?;
        let from = rollout.from.filter(|_| rollout.state.is_active() || rollout.state.is_paused())?;
        let wanted = self.specs.get(&from)?;
        let same = |task: &Task| {
            let has = self.specs.get(&task.revision);
            task.revision == from || has.is_some_and(|has| !wanted.needs_replacement(has))
        };
        let mut of_it = self.store.tasks().filter(|t| t.service == service.id && t.desired.is_live());
        of_it.any(|task| self.runs(task) && same(task)).then_some(from)
    }

    pub fn tasks(&self) -> Vec<TaskView> {
        let effective: BTreeMap<ServiceId, RevisionId> =
            self.store.services().map(|s| (s.id, self.effective_revision(s))).collect();
        self.store.tasks().map(|task| self.task_view(task, effective.get(&task.service).copied())).collect()
    }

    fn task_view(&self, task: &Task, effective: Option<RevisionId>) -> TaskView {
        let spec = self.specs.get(&task.revision).cloned();
        let wanted = effective.and_then(|id| self.specs.get(&id));
        // An earlier run of a job was of the same spec, and yet another run. Where it may run is judged by the holder, whose
        // rollout is over once it is so.
        let moves = self.store.rollout(task.service).is_some_and(|r| r.state.is_active());
        let is_same = |wanted: &ServiceSpec, spec: &ServiceSpec| {
            let stays = !moves || wanted.task.placement == spec.task.placement;
            !spec.mode.is_job() && !wanted.needs_replacement(spec) && stays
        };
        let up_to_date = Some(task.revision) == effective
            || matches!((wanted, &spec), (Some(wanted), Some(spec)) if is_same(wanted, spec));
        let name = self.store.service(task.service).map(|s| s.name.clone());
        TaskView {
            index: self.store.index(&Key::Task(task.id)).unwrap_or_default(),
            status: self.store.status_of(task).cloned(),
            service_name: name.or_else(|| spec.as_ref().map(|s| s.name.clone())).unwrap_or_default(),
            spec_json: self.store.revision(task.service, task.revision).map(|r| r.spec_json.clone()),
            spec,
            up_to_date,
            out_of_sight: self.out_of_sight(task),
            task: task.clone(),
        }
    }

    pub fn nodes(&self) -> Vec<NodeView> {
        let live = self.liveness();
        let holder = self.holder().map(|(node, _)| node);
        let heard: BTreeMap<NodeId, Wall> =
            self.membership.sightings().filter_map(|seen| Some((seen.node, self.wall_ago(seen.heard?)))).collect();
        let view = |id: NodeId| {
            let fact = match self.store.get(&Key::NodeFact(id)) {
                Some(Value::NodeFact(fact)) => Some(fact.clone()),
                _ => None,
            };
            NodeView {
                id,
                fact,
                policy: self.policy(id),
                index: self.store.index(&Key::NodePolicy(id)).unwrap_or_default(),
                liveness: live.get(&id).copied().unwrap_or(Liveness::Down),
                heard: heard.get(&id).copied(),
                is_self: id == self.me,
                is_holder: holder == Some(id),
                is_voter: self.lease.electorate().voters.contains(&id),
            }
        };
        self.store.nodes().into_iter().filter(|n| !self.removed.contains(n)).map(view).collect()
    }

    /// A service's name, and the change of it that is wanted now.
    pub fn change_of_service(&self, id: ServiceId) -> Option<(String, String)> {
        self.store.service(id).map(|service| (service.name.clone(), chronicle::change_id(service.current)))
    }

    /// The change that made this task.
    pub fn change_of_task(&self, id: TaskId) -> Option<String> {
        self.store.task(id).map(|task| chronicle::change_id(task.revision))
    }

    /// The task that an engine operation is for.
    pub fn task_of(&self, op: crate::model::container::OpId) -> Option<TaskId> {
        self.worker.task_of(op)
    }

    pub fn health(&self) -> HealthView {
        let there = self.membership.members().filter(|m| m.liveness != Liveness::Down);
        let there = there.filter(|m| !self.removed.contains(&m.node));
        HealthView {
            suspicions: self.suspicions,
            refuted: self.refuted,
            patience: self.membership.patience(),
            lags: there.map(|m| (m.node, self.store.lag_of(m.node))).collect(),
        }
    }

    /// All others, as this node sees them at this moment.
    pub fn neighbours(&self) -> Vec<Sighting> {
        self.membership.sightings().filter(|seen| !self.removed.contains(&seen.node)).collect()
    }

    fn wall_ago(&self, ago: Duration) -> Wall {
        Wall(self.last_now.wall.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
    }

    pub fn node(&self, id: NodeId) -> Option<NodeView> {
        self.nodes().into_iter().find(|n| n.id == id)
    }

    /// Who holds the lease, as far as this node knows: by its own grants, else by who wrote the electorate last.
    pub(super) fn holder(&self) -> Option<(NodeId, Term)> {
        let now = self.last_now.mono;
        let recorded = || match self.store.record(&Key::Electorate) {
            Some(record) if record.stamp.term != Term::ZERO => Some((record.stamp.term.node, record.stamp.term)),
            _ => None,
        };
        let holder = self.lease.holder(now).or_else(recorded)?;
        if holder.0 == self.me {
            return self.lease.held(now).map(|term| (self.me, term));
        }
        // A holder that is down holds nothing any more, nor one that no majority can renew it for.
        let live = self.membership.member(holder.0).is_some_and(|m| m.liveness <= Liveness::Suspect);
        (live && self.has_quorum()).then_some(holder)
    }

    /// Since when: by the electorate that the holder wrote as it began, or else since this node has known of it.
    fn holder_since(&self, term: Term) -> Option<Since> {
        let seen = || self.chronicle.as_ref().and_then(|chronicle| chronicle.holder_since(term));
        self.acquired(term).map(|at| Since { at, is_exact: true }).or_else(seen)
    }

    /// What a node that joins is told: where we and the others are.
    pub fn member_table(&self) -> Vec<MemberEntry> {
        self.membership.table()
    }

    pub fn cluster(&self) -> ClusterView {
        let (created, join_secret) = match self.store.get(&Key::Cluster) {
            Some(Value::Cluster(settings)) => (settings.created, settings.join_secret.clone()),
            _ => (Wall(0), String::new()),
        };
        let electorate = self.lease.electorate();
        let holder = self.holder();
        ClusterView {
            id: self.cluster,
            node: self.me,
            created,
            join_secret,
            index: self.store.index(&Key::Cluster).unwrap_or_default(),
            voters: electorate.voters.iter().copied().collect(),
            electorate_epoch: electorate.id.epoch,
            holder,
            holder_since: holder.and_then(|(_, term)| self.holder_since(term)),
            has_quorum: self.has_quorum(),
            records: self.store.len(),
            disk_trouble: self.outbox.trouble().map(str::to_owned),
            refused_records: self.store.refused(),
            tasks_here: self.store.tasks().filter(|t| t.node == Some(self.me)).map(|t| t.id).collect(),
        }
    }
}
