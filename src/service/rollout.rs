//! A rollout's record: when one begins, whose failures count for it, and how it ends. Progress itself is not kept:
//! it is what the slots run.

use super::slots::Slots;
use super::*;
use crate::limits::START_TIMEOUT;
use crate::model::rollout::RolloutState;
use crate::model::spec::FailureAction;
use crate::plant::{Bug, is_planted};
use crate::time::Wall;

/// A record that another one names is here within this, or nowhere.
const LOST_WAY_GRACE: Duration = Duration::from_secs(10);
/// Docker's defaults for what a health check leaves unset.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
const HEALTH_RETRIES: u32 = 3;

impl ServicePlan<'_> {
    /// A new current revision that running slots don't match, in what they run or in where, is a rollout. One that an
    /// operator rolled back to is, too, where nothing has to change: who asked for it wants to see it completed.
    pub(super) fn begin_rollout(&mut self, spec: &ServiceSpec, slots: &Slots, placer: &Placer) {
        if self.rollout.is_some() {
            return;
        }
        let live = self.tasks.values().filter(|t| t.desired.is_live() && slots.wanted.contains(&t.slot));
        let dirty: Vec<&Task> = live
            .filter(|t| self.is_dirty(t) || self.is_sent_away(t, spec) && self.is_misplaced(t, spec, placer))
            .collect();
        let total = dirty.iter().map(|t| t.slot).collect::<BTreeSet<_>>().len();
        let manual = self.service.rolled_back;
        if dirty.is_empty() && !manual {
            return;
        }
        let from = self.proven_before().or(dirty.first().map(|t| t.revision));
        if !self.takes_over() {
            self.acquit_what_is_there();
        }
        self.rollout = Some(Rollout {
            service: self.service.id,
            from,
            to: self.service.current,
            state: if manual { RolloutState::RollbackStarted } else { RolloutState::Updating },
            started: self.now.wall,
            completed: None,
            message: if manual { "manually requested rollback" } else { "update in progress" }.to_owned(),
            total: u32::try_from(total).unwrap_or(u32::MAX),
            failed: BTreeSet::new(),
        });
    }

    /// `spec` has other words on where it may run than what the task was made from.
    fn is_sent_away(&self, task: &Task, spec: &ServiceSpec) -> bool {
        self.specs.get(&task.revision).is_some_and(|has| has.task.placement != spec.task.placement)
    }

    /// The task may not stay where it is. (A global service's slots are their nodes: those that don't fit are let go.)
    fn is_misplaced(&self, task: &Task, spec: &ServiceSpec, placer: &Placer) -> bool {
        let Some(node) = task.node.and_then(|id| self.nodes.get(&id)) else { return false };
        matches!(task.slot, Slot::Replica(_)) && node.is_ready() && placer.check(node.id, spec).is_err()
    }

    /// The rollout that was under way asked for the same (somebody scales in the middle of it): what it has started is this
    /// one's, failures and all.
    fn takes_over(&self) -> bool {
        let specs = |r: &Rollout| Some((self.specs.get(&self.service.current)?, self.specs.get(&r.to)?));
        let under_way = self.rollout_before.filter(|r| r.state == RolloutState::Updating);
        under_way.and_then(specs).is_some_and(|(new, old)| !new.needs_replacement(old))
    }

    /// What runs the target already was made by no rollout that counts, and how it did before is not held against one.
    fn acquit_what_is_there(&mut self) {
        let there: BTreeSet<TaskId> = self.tasks.values().filter(|t| !self.is_dirty(t)).map(|t| t.id).collect();
        for task in self.tasks.values_mut().filter(|t| there.contains(&t.id)) {
            task.in_rollout = false;
        }
    }

    /// What the new revision replaces, as far as it ever got through: a write on top of what has not ended well, or was
    /// never begun, must not make that the thing to go back to. (Somebody scales while it is paused, or updates after an
    /// operator's rollback that failed; two operators write within a moment, each on top of what he knew.)
    fn proven_before(&self) -> Option<RevisionId> {
        let previous = self.service.previous?;
        let ended_well = |state| matches!(state, RolloutState::Completed | RolloutState::RollbackCompleted);
        let unproven = self.rollout_before.filter(|r| !ended_well(r.state));
        let before_that = unproven.and_then(|r| r.from).filter(|from| self.specs.contains_key(from));
        before_that.or_else(|| self.runs_instead_of(previous)).or(Some(previous))
    }

    /// What serves, if none of it is what `revision` asks for.
    fn runs_instead_of(&self, revision: RevisionId) -> Option<RevisionId> {
        let asked = self.specs.get(&revision)?;
        let serving: Vec<&Task> = self.tasks.values().filter(|t| t.desired.is_live() && self.serves(t)).collect();
        let other = |t: &&Task| self.specs.get(&t.revision).is_none_or(|has| asked.needs_replacement(has));
        if !serving.iter().all(other) {
            return None;
        }
        serving.into_iter().min_by_key(|t| (t.created, t.id)).map(|t| t.revision)
    }

    /// Counts each failed task of an active rollout once, and acts when there are too many.
    pub(super) fn account_failures(&mut self, memory: &Memory) {
        let Some(rollout) = self.rollout.clone().filter(|r| r.state.is_active()) else { return };
        let target = self.target();
        let Some(spec) = self.specs.get(&target).cloned() else { return };
        let config = self.config(&spec);
        let own = |t: &Task| !is_planted(Bug::FailuresOfOthers) || t.revision == target;
        // A later revision that asks for the same (a scale) takes over what an earlier one has started.
        let of_this: Vec<Task> =
            self.tasks.values().filter(|t| t.in_rollout && !self.is_dirty(t) && own(t)).cloned().collect();
        let mut failed = rollout.failed.clone();
        let mut last = None;
        for task in of_this.iter().filter(|t| !rollout.failed.contains(&t.id)) {
            if self.has_failed(task, &spec, &config, memory) {
                failed.insert(task.id);
                last = Some(task.id);
            }
        }
        let Some(culprit) = last else { return };
        let ratio = failed.len() as f64 / f64::from(rollout.total.max(1));
        let updated = Rollout { failed, ..rollout };
        let was_rollback = updated.state.is_rollback();
        let updated =
            if ratio > config.max_failure_ratio { self.fail(updated, culprit, config.failure_action) } else { updated };
        let turned = updated.state.is_rollback() && !was_rollback;
        self.rollout = Some(updated);
        if turned {
            // What already runs what is gone back to was not made by the way back.
            self.acquit_what_is_there();
        }
    }

    fn fail(&self, mut rollout: Rollout, culprit: TaskId, action: FailureAction) -> Rollout {
        let because = format!("due to failure or early termination of task {culprit}");
        let rolling_back = rollout.state.is_rollback();
        let can_roll_back = rollout.from.is_some_and(|from| self.specs.contains_key(&from));
        match action {
            FailureAction::Continue => {}
            FailureAction::Rollback if !rolling_back && can_roll_back => {
                let to = rollout.to;
                let spread = self.tasks.values().filter(|t| t.desired.is_live() && t.revision == to);
                rollout.total = u32::try_from(spread.count()).unwrap_or(u32::MAX);
                rollout.state = RolloutState::RollbackStarted;
                rollout.message = format!("update rolled back {because}");
                rollout.failed.clear();
            }
            // Nobody rolls back a rollback; it pauses, and stays paused.
            FailureAction::Pause | FailureAction::Rollback => {
                rollout.state = if rolling_back { RolloutState::RollbackPaused } else { RolloutState::Paused };
                let what = if rolling_back { "rollback" } else { "update" };
                rollout.message = format!("{what} paused {because}");
            }
        }
        rollout
    }

    /// What a rollback goes back to may be gone for good: somebody who hadn't heard of the service removed it and made another of
    /// its name, whose update is the later word. Then the update stays where it is, paused, for somebody to look at. The record
    /// may also be on its way, and is waited for.
    pub(super) fn cant_go_back(&mut self, memory: &Memory) {
        let since = memory.lost_way_since(self.service.id);
        if !self.overdue(since, LOST_WAY_GRACE) {
            return;
        }
        let Some(old) = &self.rollout else { return };
        self.rollout = Some(Rollout {
            from: None,
            state: RolloutState::Paused,
            // Another rollout than the one that went back: no record of one ever turns round twice.
            started: self.now.wall.max(Wall(old.started.0 + 1)),
            message: "update paused: it failed, and what ran before is no longer known".to_owned(),
            failed: BTreeSet::new(),
            ..old.clone()
        });
    }

    fn has_failed(&mut self, task: &Task, spec: &ServiceSpec, config: &UpdateConfig, memory: &Memory) -> bool {
        // Stopped because it was told to, or lost with its node: not its own failure.
        let told = !task.desired.is_live();
        if told || task.node.is_some_and(|n| self.is_lost(n, memory)) {
            return false;
        }
        let now = self.now.mono;
        let proven = memory.running_for(task.id, now).is_some_and(|for_| for_ >= config.monitor);
        let Some(status) = self.status.get(&task.id) else {
            return self.overdue(memory.unplaced_since(task.id), START_TIMEOUT);
        };
        if (status.ever_failed() || status.is_over()) && !proven {
            return true;
        }
        self.overdue(memory.starting_since(task.id), start_bound(spec))
            || self.overdue(memory.unplaced_since(task.id), START_TIMEOUT)
    }

    fn overdue(&mut self, since: Option<Mono>, bound: Duration) -> bool {
        let Some(since) = since else { return false };
        self.wake_at(since + bound);
        self.now.mono.since(since) >= bound
    }

    /// Done when every wanted slot serves what it should and the last has done so for the monitor period. A slot in which
    /// that failed, without bringing the rollout to an end, is not waited for (Swarm's aren't, either): there it is tried
    /// again for as long as it takes.
    pub(super) fn finish_rollout(&mut self, spec: &ServiceSpec, slots: &Slots, memory: &Memory, placer: &Placer) {
        let Some(mut rollout) = self.rollout.clone().filter(|r| r.state.is_active()) else { return };
        let config = self.config(spec);
        let target = self.target();
        let by_slot = self.slot_tasks(memory);
        let tried = self.tasks.values().filter(|t| rollout.failed.contains(&t.id) && !self.is_dirty(t));
        let tried: BTreeSet<Slot> = tried.map(|t| t.slot).collect();
        let mut in_vain = 0;
        for slot in &slots.wanted {
            let Some(tasks) = by_slot.get(slot) else { return };
            let Some(current) = tasks.current.map(|id| self.tasks[&id].clone()) else { return };
            // A node that is paused or away can't take the new version: it does when it is back.
            let absent =
                matches!(current.slot, Slot::Node(node) if self.nodes.get(&node).is_some_and(|n| !n.is_ready()));
            if absent {
                continue;
            }
            let sent_away = self.is_sent_away(&current, spec) && self.is_misplaced(&current, spec, placer);
            let serves = tasks.successor.is_none() && !self.is_dirty(&current) && self.serves(&current) && !sent_away;
            let latest = tasks.successor.map_or_else(|| current.clone(), |id| self.tasks[&id].clone());
            // What was there before is no affair of this rollout.
            let foreign = !latest.in_rollout && !self.is_dirty(&latest);
            if !serves && (tried.contains(slot) || foreign && self.has_failed(&latest, spec, &config, memory)) {
                in_vain += 1;
                continue;
            }
            if !serves {
                return;
            }
            let counts = current.in_rollout && current.revision == target && !tried.contains(slot);
            if let Some(since) = memory.running_since(current.id).filter(|_| counts)
                && self.now.mono.since(since) < config.monitor
            {
                self.wake_at(since + config.monitor);
                return;
            }
        }
        let rolling_back = rollout.state.is_rollback();
        rollout.state = if rolling_back { RolloutState::RollbackCompleted } else { RolloutState::Completed };
        rollout.message = if rolling_back { "rollback completed" } else { "update completed" }.to_owned();
        if in_vain > 0 {
            let tasks = if in_vain == 1 { "1 task".to_owned() } else { format!("{in_vain} tasks") };
            rollout.message += &format!("; {tasks} failed");
        }
        rollout.completed = Some(self.now.wall);
        self.rollout = Some(rollout);
    }
}

/// How long a task may take from "start" to serving: the worker's own bound, and what its health check may need
/// to make up its mind. The holder's clock only backs up the worker's.
fn start_bound(spec: &ServiceSpec) -> Duration {
    let health = spec.task.container.healthcheck.as_ref().filter(|h| !h.test.is_empty()).map_or(Duration::ZERO, |h| {
        let or = |d: Duration| if d.is_zero() { HEALTH_INTERVAL } else { d };
        let retries = if h.retries == 0 { HEALTH_RETRIES } else { h.retries };
        h.start_period + (or(h.interval) + or(h.timeout)) * retries
    });
    START_TIMEOUT * 2 + health
}
