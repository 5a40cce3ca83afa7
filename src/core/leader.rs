//! The lease holder's turn: read a majority of the electorate first, then plan and write decisions under the term,
//! for as long as the lease is held and not a moment longer (DESIGN 5, rule R5 of the protocol).

use super::*;
use crate::ids::ServiceId;
use crate::law;
use crate::model::record::RevisionId;
use crate::model::rollout::Rollout;
use crate::plant::{Bug, is_planted};
use crate::schedule::NodeInfo;
use crate::service::{self, Change, Memory, Orphan, ServiceState, View};
use crate::wire::message::Digest;
use rand::{RngExt, SeedableRng};

/// A voter that hasn't answered the first question is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Changes that come close together are planned for together.
const PLAN_DEBOUNCE: Duration = Duration::from_millis(5);
/// The revisions of a removed service are kept for so long: a change made elsewhere meanwhile may win over the removal,
/// and refers to one of them.
const REVISIONS_OUTLIVE: Duration = Duration::from_secs(60 * 60);
/// Planning looks at every task: after a plan the holder does other things for so long per task.
const REST_PER_TASK: Duration = Duration::from_micros(4);

pub(super) struct Leading {
    term: Term,
    /// Distinguishes answers to this term's question from older ones still on their way.
    nonce: u64,
    caught_up_with: BTreeSet<NodeId>,
    ask_at: Option<Mono>,
    plan_at: Option<Mono>,
    /// No plan before then.
    rest_until: Mono,
    /// What a majority of the voters must hold before the electorate may change again: else what an earlier majority
    /// acknowledged could be left with a minority of the later one.
    baseline: Option<Digest>,
    memory: Memory,
    /// All nodes as planning sees them, until something about one of them changes.
    nodes: Option<BTreeMap<NodeId, NodeInfo>>,
}

impl Leading {
    pub(super) fn is_ready(&self) -> bool {
        self.ask_at.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        [self.ask_at, self.plan_at].into_iter().flatten().min()
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// What another plan at this instant would change, if this holder has planned and nothing has come in since.
    pub(super) fn would_change(&self, core: &Core, now: Now) -> Vec<String> {
        if self.ask_at.is_some() || self.plan_at.is_some_and(|at| at <= now.mono.max(self.rest_until)) {
            return Vec::new();
        }
        let nodes = core.node_infos();
        let mut memory = self.memory.clone();
        memory.stir_all();
        let mut next = u128::MAX;
        let mut new_id = || {
            next -= 1;
            TaskId::from_u128(next)
        };
        let plan = service::plan(&core.planning_view(&nodes, self.term), &mut memory, now, &mut new_id);
        plan.changes.iter().map(|change| format!("{change:?}")).collect()
    }
}

impl Core {
    pub(super) fn start_leading(&mut self, term: Term, now: Now) {
        self.notice(Notice::LeaseAcquired { term: term.round });
        if is_planted(Bug::CountsReset) {
            let active = self.store.rollouts().filter(|r| r.state.is_active() && !r.failed.is_empty());
            let anew = active.map(|r| Rollout { failed: BTreeSet::new(), ..r.clone() });
            let anew = anew.map(|r| (Key::Rollout(r.service), Some(Value::Rollout(r)))).collect();
            self.store.write(anew, term, now);
        }
        self.leading = Some(Box::new(Leading {
            term,
            nonce: self.rng.random_range(1..u64::MAX),
            caught_up_with: BTreeSet::new(),
            ask_at: Some(now.mono),
            plan_at: None,
            rest_until: Mono(0),
            baseline: None,
            memory: Memory::default(),
            nodes: None,
        }));
    }

    pub(super) fn stop_leading(&mut self, term: Term) {
        self.notice(Notice::LeaseLost { term: term.round });
        self.leading = None;
        self.lease.forbid_changes();
    }

    /// Something that the planning of these services rests on has changed.
    pub(super) fn plan_soon(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        if let Some(leading) = &mut self.leading {
            services.into_iter().for_each(|service| leading.memory.stir(service));
            let soon = leading.rest_until;
            leading.plan_at = Some(leading.plan_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Something that all planning rests on has changed.
    pub(super) fn plan_all_soon(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.memory.stir_all();
            leading.nodes = None;
        }
        self.plan_soon([]);
    }

    /// A voter's answer to this term's question has been merged whole.
    pub(super) fn note_answer(&mut self, from: NodeId, nonce: u64) {
        if let Some(leading) = self.leading.as_mut().filter(|l| l.nonce == nonce) {
            leading.caught_up_with.insert(from);
        }
    }

    /// The electorate has just changed, or this node has just come to lead it.
    pub(super) fn settle_electorate(&mut self) {
        let digest = self.store.digest().clone();
        if let Some(leading) = &mut self.leading {
            leading.baseline = Some(digest);
            self.lease.forbid_changes();
        }
    }

    /// Voters whose word on the baseline is still missing.
    pub(super) fn voters_behind(&self) -> Vec<NodeId> {
        let Some(baseline) = self.leading.as_ref().and_then(|l| l.baseline.as_ref()) else { return Vec::new() };
        let behind = |v: &NodeId| baseline.iter().any(|(log, number)| !self.store.peer_has(*v, *log, *number));
        self.lease.electorate().voters.iter().copied().filter(|v| *v != self.me && behind(v)).collect()
    }

    /// True if the electorate's next change had waited for it.
    fn check_baseline(&mut self, leading: &mut Leading, now: Now) -> bool {
        let Some(baseline) = &mut leading.baseline else { return false };
        // What was superseded meanwhile is held by no digest: what superseded it must be.
        let held = self.store.digest();
        if baseline.keys().any(|log| !held.contains_key(log)) {
            baseline.clone_from(held);
        }
        let holds = |voter: &NodeId| baseline.iter().all(|(log, number)| self.store.peer_has(*voter, *log, *number));
        let holders: Vec<NodeId> = self.lease.electorate().voters.iter().copied().filter(holds).collect();
        if !self.lease.electorate().is_majority(&holders) {
            return false;
        }
        leading.baseline = None;
        self.lease.allow_changes(now.mono)
    }

    /// One step as the holder; true if anything came of it.
    pub(super) fn lead(&mut self, now: Now) -> bool {
        let Some(mut leading) = self.leading.take() else { return false };
        if self.lease.held(now.mono) != Some(leading.term) {
            // Not ours at this moment: decide nothing. The lease itself says when it is lost.
            self.leading = Some(leading);
            return false;
        }
        let ready = self.catch_up(&mut leading, now);
        let changes = ready && self.check_baseline(&mut leading, now);
        let due = leading.plan_at.is_some_and(|at| at <= now.mono);
        let wrote = ready && due && self.plan(&mut leading, now);
        self.leading = Some(leading);
        wrote || changes
    }

    /// True once a majority of the electorate has given all it holds.
    fn catch_up(&mut self, leading: &mut Leading, now: Now) -> bool {
        let Some(ask_at) = leading.ask_at else { return true };
        let electorate = self.lease.electorate();
        if electorate.is_majority(leading.caught_up_with.iter().chain([&self.me])) {
            leading.ask_at = None;
            leading.plan_at = Some(now.mono);
            leading.baseline = Some(self.store.digest().clone());
            return true;
        }
        if ask_at <= now.mono {
            let silent: Vec<NodeId> = electorate
                .voters
                .iter()
                .copied()
                .filter(|v| *v != self.me && !leading.caught_up_with.contains(v))
                .collect();
            for voter in silent {
                self.store.ask(voter, leading.nonce);
            }
            leading.ask_at = Some(now.mono + ASK_AGAIN);
        }
        false
    }

    fn plan(&mut self, leading: &mut Leading, now: Now) -> bool {
        let nodes = leading.nodes.take().unwrap_or_else(|| self.node_infos());
        let mut rng = ChaCha8Rng::seed_from_u64(self.rng.random());
        let (plan, tasks) = {
            let view = self.planning_view(&nodes, leading.term);
            let tasks: usize = view.services.values().map(|state| state.tasks.len()).sum();
            let plan = service::plan(&view, &mut leading.memory, now, &mut || TaskId::from_u128(rng.random()));
            let tasks = tasks + plan.changes.len();
            (plan, tasks)
        };
        leading.nodes = Some(nodes);
        leading.rest_until = now.mono + REST_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX);
        leading.plan_at = plan.wake.map(|wake| wake.max(now.mono + PLAN_DEBOUNCE));
        let mut changes = Vec::with_capacity(plan.changes.len());
        let mut forgotten = Vec::new();
        for change in plan.changes {
            match change {
                Change::PutTask(task) => {
                    debug_assert!(
                        self.store.task(task.id).is_none_or(|old| law::task_moves_forward(old, &task)),
                        "a task went back: {:?} to {task:?}",
                        self.store.task(task.id)
                    );
                    changes.push((Key::Task(task.id), Some(Value::Task(task))));
                }
                Change::RemoveTask(id) => {
                    changes.push((Key::Task(id), None));
                    forgotten.push((Key::TaskStatus(id), None));
                }
                Change::PutRollout(rollout) => {
                    debug_assert!(
                        self.store.rollout(rollout.service).is_none_or(|old| law::rollout_moves_forward(old, &rollout)),
                        "a rollout went back: {:?} to {rollout:?}",
                        self.store.rollout(rollout.service)
                    );
                    self.tell_rollout(&rollout);
                    changes.push((Key::Rollout(rollout.service), Some(Value::Rollout(rollout))));
                }
                Change::RemoveRollout(service) => changes.push((Key::Rollout(service), None)),
            }
        }
        self.sweep(&mut changes, &mut forgotten, now);
        let wrote = !changes.is_empty() || !forgotten.is_empty();
        self.store.write(changes, leading.term, now);
        self.store.write(forgotten, Term::ZERO, now);
        wrote
    }

    fn tell_rollout(&mut self, rollout: &Rollout) {
        if self.store.rollout(rollout.service).is_none_or(|old| old.state != rollout.state) {
            let (service, state, message) = (rollout.service, rollout.state.as_str(), rollout.message.clone());
            self.notice(Notice::RolloutState { service, state, message });
        }
    }

    /// What nothing refers to any more: rollouts and revisions of services that are gone, revisions beyond the
    /// history's length, statuses whose task is gone.
    fn sweep(&self, decisions: &mut Vec<(Key, Option<Value>)>, facts: &mut Vec<(Key, Option<Value>)>, now: Now) {
        let stale = |r: &&Rollout| self.store.service(r.service).is_none();
        decisions.extend(self.store.rollouts().filter(stale).map(|r| (Key::Rollout(r.service), None)));
        let in_use: BTreeSet<RevisionId> = self.store.tasks().map(|t| t.revision).collect();
        let mut of_service: BTreeMap<ServiceId, Vec<RevisionId>> = BTreeMap::new();
        for (service, revision) in self.store.all_revisions() {
            of_service.entry(service).or_default().push(revision);
        }
        for (service, revisions) in of_service {
            let named: Vec<RevisionId> = match self.store.service(service) {
                Some(s) => [Some(s.current), s.previous].into_iter().flatten().collect(),
                None if self.removed_lately(service, now) => continue,
                None => Vec::new(),
            };
            let keep = if named.is_empty() { 0 } else { limits::MAX_REVISIONS };
            let excess = revisions.len().saturating_sub(keep);
            let oldest = revisions.into_iter().take(excess).filter(|r| !named.contains(r) && !in_use.contains(r));
            facts.extend(oldest.map(|r| (Key::Revision(service, r), None)));
        }
        let already: BTreeSet<Key> = facts.iter().map(|(key, _)| key.clone()).collect();
        let orphaned =
            self.store.statuses().filter(|s| self.store.task(s.task).is_none()).map(|s| Key::TaskStatus(s.task));
        facts.extend(orphaned.filter(|key| !already.contains(key)).map(|key| (key, None)));
    }

    fn removed_lately(&self, service: ServiceId, now: Now) -> bool {
        let removed = self.store.record(&Key::Service(service)).map(|r| r.stamp.hlc.wall());
        removed.is_some_and(|at| at.0 + REVISIONS_OUTLIVE.as_millis() as u64 > now.wall.0)
    }

    pub(super) fn node_infos(&self) -> BTreeMap<NodeId, NodeInfo> {
        let live = self.liveness();
        let info = |id: NodeId| match self.store.get(&Key::NodeFact(id)) {
            Some(Value::NodeFact(fact)) => {
                let liveness = live.get(&id).copied().unwrap_or(Liveness::Down);
                Some((id, NodeInfo { id, fact: fact.clone(), policy: self.policy(id), liveness }))
            }
            _ => None,
        };
        self.store.nodes().into_iter().filter_map(info).collect()
    }

    fn planning_view<'a>(&'a self, nodes: &'a BTreeMap<NodeId, NodeInfo>, term: Term) -> View<'a> {
        let mut services: BTreeMap<ServiceId, ServiceState<'a>> = BTreeMap::new();
        for service in self.store.services() {
            let rollout = self.store.rollout(service.id);
            services.insert(service.id, ServiceState { service, specs: BTreeMap::new(), rollout, tasks: Vec::new() });
        }
        let mut orphans = Vec::new();
        for task in self.store.tasks() {
            let status = self.store.status_of(task);
            match services.get_mut(&task.service) {
                Some(state) => state.tasks.push((task, status)),
                None => {
                    let spec = self.specs.get(&task.revision).cloned();
                    orphans.push(Orphan { task, status, spec });
                }
            }
        }
        for state in services.values_mut() {
            let named = [Some(state.service.current), state.service.previous, state.rollout.map(|r| r.to)];
            let named = named.into_iter().chain([state.rollout.and_then(|r| r.from)]).flatten();
            let all: BTreeSet<RevisionId> = named.chain(state.tasks.iter().map(|(t, _)| t.revision)).collect();
            state.specs = all.into_iter().filter_map(|id| Some((id, self.specs.get(&id)?.clone()))).collect();
        }
        let of_earlier = |id: &TaskId| self.store.record(&Key::Task(*id)).is_some_and(|r| r.stamp.term < term);
        let inherited = self.store.tasks().filter(|t| t.node.is_none() && t.desired.is_live()).map(|t| t.id);
        let inherited = inherited.filter(of_earlier).collect();
        View { services, nodes, orphans, inherited }
    }
}
