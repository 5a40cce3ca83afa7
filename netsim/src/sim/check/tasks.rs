//! P1 only the holder of a term decides under it; P2 a task stays on its node; P3 what is said of it moves forward; P4, D1,
//! E2 assignments are possible in their author's own eyes; P5 one container a task, and none of a task that nobody knows;
//! P7 planning twice changes nothing; U3 a release that is paused doesn't spread, and a rollout's account is kept.

use super::World;
use crate::law::rollout::moves_forward_from_some;
use crate::law::tasks::{Taken, goes_back_a_release, runs_alone, spreads_a_paused_release};
use peer::core::Core;
use peer::ids::{NodeId, TaskId};
use peer::model::container::EngineOp;
use peer::model::node::{Availability, Liveness};
use peer::model::record::{Key, Record, Term, Value};
use peer::model::spec;
use peer::model::task::{Desired, Slot, Task};

/// Of the moments at which a holder has just decided, every so many are planned for again.
const SECOND_THOUGHTS_AT: u64 = 4;

impl World {
    /// A container of this task has just been started.
    pub(in crate::sim) fn check_started(&mut self, n: usize, task: TaskId) {
        let nodes = self.nodes.iter().enumerate();
        let places = nodes.flat_map(|(o, node)| node.engine.running(task).map(move |_| o));
        let breach = runs_alone(task, n, places);
        self.judge(breach);
    }

    pub(in crate::sim) fn check_engine_op(&mut self, n: usize, what: &EngineOp) {
        let EngineOp::Create(plan) = what else { return };
        let task = plan.task;
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        match core.store().task(task) {
            // It may be removed by now: what was decided before waits for the disk, and is undone next.
            None if self.check.tombstones.last(&Key::Task(task), self.nodes[n].id).is_some() => {}
            None => self.violate("P5", || format!("n{n} creates a container of {task:?}, of which it has no record")),
            Some(known) if known.node != Some(self.nodes[n].id) => {
                self.violate("P2", || format!("n{n} creates a container of task {task:?}, which is another node's"));
            }
            Some(_) => {}
        }
    }

    /// What `n` has written in this very event, judged by what it knows itself.
    pub(super) fn check_written(&mut self, n: usize, held_before: Option<Term>) {
        let node = &self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let (own, after) = (core.store().own_seq(), node.seen_own);
        if own <= after {
            return;
        }
        let new: Vec<Record> = core.store().written_since(after).cloned().collect();
        let terms = [held_before, node.held];
        self.nodes[n].seen_own = own;
        let mut decided = false;
        for record in &new {
            self.note_written(record);
            self.trace.say_more(self.now, Some(n), || match &record.value {
                Some(Value::Task(task)) => {
                    let (id, desired, why) = (task.id, task.desired.as_str(), &task.message);
                    let at = task.node.and_then(|node| self.by_id.get(&node));
                    format!("write {}: {id:?} on {at:?}: {desired} {why}", record.seq)
                }
                Some(_) => format!("write {}: {:?}", record.seq, record.key),
                None => format!("write {}: removes {:?}", record.seq, record.key),
            });
            if !record.key.is_decision() {
                continue;
            }
            decided |= matches!(record.key, Key::Task(_));
            if !self.nodes[n].lost_disk && !terms.contains(&Some(record.stamp.term)) {
                let (key, term) = (&record.key, record.stamp.term.round);
                self.violate("P1", || format!("n{n} decides {key:?} under term {term} without holding it: {terms:?}"));
            }
            match &record.value {
                Some(Value::Task(task)) => self.check_decided(n, task),
                Some(Value::Rollout(rollout)) => {
                    let known = self.check.rollouts.entry(rollout.service).or_default();
                    let from = self.nodes[n].rollouts.get(&rollout.service).copied();
                    let breach = moves_forward_from_some(known, from, record.stamp, rollout);
                    let another = known.last().is_some_and(|(stamp, old)| {
                        stamp.author != record.stamp.author && (old.to, old.started) == (rollout.to, rollout.started)
                    });
                    known.push((record.stamp, rollout.clone()));
                    if another {
                        self.probes.hit("a rollout was continued by another holder");
                    }
                    self.judge_of(n, breach);
                }
                _ => {}
            }
        }
        if decided && self.check.decisions.is_multiple_of(SECOND_THOUGHTS_AT) {
            self.check_second_thoughts(n);
        }
        self.check.decisions += u64::from(decided);
    }

    fn check_second_thoughts(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let changes = core.second_thoughts(node.clock.now(self.now));
        if let Some(first) = changes.first() {
            self.violate("P7", || format!("n{n} planned, and would now change {} things: {first}", changes.len()));
        }
    }

    /// Which version of each rollout `n` had before the next event.
    pub(super) fn note_rollouts(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        for rollout in core.store().rollouts() {
            if let Some(record) = core.store().record(&Key::Rollout(rollout.service)) {
                node.rollouts.insert(rollout.service, record.stamp);
            }
        }
    }

    fn check_decided(&mut self, n: usize, task: &Task) {
        let Some(place) = task.node.filter(|_| task.desired.is_live()) else {
            if task.node.is_none() && task.desired.is_live() {
                self.probes.hit("a task had no node for a while");
            }
            return;
        };
        match self.check.homes.get(&task.id) {
            Some(home) if *home == place => return,
            Some(home) => {
                let home = self.index_of(*home);
                self.violate("P2", || format!("n{n} gives {:?} to {place:?}, which was given to n{home:?}", task.id));
                return;
            }
            None => drop(self.check.homes.insert(task.id, place)),
        }
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let mut wrong = misplaced(core, task, place);
        let rollout = core.store().rollout(task.service);
        let current = core.store().service(task.service).map(|s| s.current);
        let spec = |revision| spec::parse(&core.store().revision(task.service, revision)?.spec_json).ok();
        if spreads_a_paused_release(task, rollout, current, spec) {
            wrong = wrong.or(Some(("U3", format!("{:?} is made of a release that is paused", task.id))));
        }
        let replaced = task.replaces.and_then(|old| core.store().task(old));
        if goes_back_a_release(task, replaced, rollout, current) {
            wrong = wrong.or(Some(("U3", format!("{:?} goes back to the old release without a rollback", task.id))));
        }
        if task.replaces.is_some() && task.desired == Desired::Running {
            self.probes.hit("a replacement started first");
        }
        if let Some((law, text)) = wrong {
            self.violate(law, || format!("n{n}: {text}"));
        }
    }
}

/// Why this place is impossible, by what the author knows.
fn misplaced(core: &Core, task: &Task, place: NodeId) -> Option<(&'static str, String)> {
    let id = task.id;
    let views = core.nodes();
    let Some(view) = views.iter().find(|v| v.id == place) else {
        return Some(("P4", format!("{id:?} goes to a node that is no member")));
    };
    if view.liveness > Liveness::Suspect {
        return Some(("P4", format!("{id:?} goes to a node that is {:?}", view.liveness)));
    }
    if view.policy.availability != Availability::Active && matches!(task.slot, Slot::Replica(_)) {
        return Some(("D1", format!("{id:?} goes to a node that is {:?}", view.policy.availability)));
    }
    let spec = core.parsed(task.revision)?;
    let hostname = view.fact.as_ref().map_or("", |fact| fact.hostname.as_str());
    if let Some(unmet) = crate::law::tasks::unmet_constraint(spec, hostname) {
        return Some(("P4", format!("{id:?} goes to {hostname}, against {unmet}")));
    }
    let mut taken = Taken::default();
    let there = core.store().tasks().filter(|t| t.node == Some(place));
    // What makes room for a task that waits for it has its place no longer.
    let waits = |old: TaskId| {
        core.store().tasks().any(|t| t.replaces == Some(old) && t.node == Some(place) && t.desired == Desired::Ready)
    };
    for other in there {
        let over = core.store().status(other.id).is_some_and(|s| s.is_over()) && !other.desired.is_live();
        if !over && !waits(other.id) && other.id != id {
            taken.add(core.parsed(other.revision)?);
        }
    }
    let (cpus, memory) = view.fact.as_ref().map_or((0, 0), |fact| (fact.nano_cpus, fact.memory_bytes));
    // Two holders may have filled it too far between them: that is not this decision's.
    if taken.breach(cpus, memory).is_some() {
        return None;
    }
    taken.add(spec);
    taken.breach(cpus, memory).map(|(law, text)| (law, format!("{id:?} goes to {hostname}: {text}")))
}
