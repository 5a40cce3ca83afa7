//! Forgetting: what has ended is kept a while as history and then removed.

use super::slots::Slots;
use super::*;
use crate::limits::TASK_HISTORY;

/// Tasks that a lost node was told to give up are forgotten after this; its containers, should it return, are
/// stopped by the tombstone.
const LOST_FOR_GOOD: Duration = Duration::from_secs(24 * 60 * 60);

/// Nothing of it runs any more, or nobody will ever know.
fn is_gone(
    task: &Task,
    status: Option<&TaskStatus>,
    nodes: &BTreeMap<NodeId, NodeInfo>,
    memory: &Memory,
    now: Mono,
) -> bool {
    let Some(node) = task.node else { return true };
    let removed = nodes.get(&node).is_some_and(|n| n.policy.removed);
    let lost = memory.down_for(node, now).is_some_and(|for_| for_ >= LOST_FOR_GOOD);
    removed || lost || status.is_some_and(|s| s.is_over())
}

impl ServicePlan<'_> {
    pub(super) fn reap(&mut self, slots: &Slots, memory: &Memory) {
        let mut history: BTreeMap<Slot, Vec<(Option<Mono>, crate::time::Wall, TaskId)>> = BTreeMap::new();
        let mut forget = Vec::new();
        // What is done of a job is known by its tasks alone.
        let is_job = self.specs.get(&self.target()).is_some_and(|spec| spec.mode.is_job());
        for task in self.tasks.values().filter(|t| !t.desired.is_live()) {
            let status = self.status.get(&task.id).copied();
            if !is_gone(task, status, self.nodes, memory, self.now.mono) {
                continue;
            }
            if is_job && task.desired < Desired::Remove && self.phase(task.id) == TaskPhase::Complete {
                continue;
            }
            // Of a node that was removed no last word comes any more: what it said last would stand for ever.
            let removed = task.node.and_then(|node| self.nodes.get(&node)).is_some_and(|n| n.policy.removed);
            let told = status.is_some_and(|s| s.is_over() || !removed);
            let keeps = task.desired == Desired::Shutdown && task.node.is_some() && told;
            if keeps && (slots.wanted.contains(&task.slot) || matches!(task.slot, Slot::Node(_))) {
                // By our own clock first: a wall clock that was set back would have the latest forgotten at once, and how
                // often a slot was tried lately with them.
                let ended = memory.ended_since(task.id);
                history.entry(task.slot).or_default().push((ended, task.created, task.id));
            } else {
                forget.push(task.id);
            }
        }
        for mut ended in history.into_values() {
            ended.sort_unstable_by(|a, b| b.cmp(a));
            forget.extend(ended.into_iter().skip(TASK_HISTORY).map(|(.., id)| id));
        }
        for id in forget {
            self.tasks.remove(&id);
            // One made and dropped within this very plan was never written.
            if self.before.contains_key(&id) {
                self.removed.push(id);
            }
        }
    }
}

/// Tasks of services that are gone: stopped, then forgotten.
pub(super) fn orphans(view: &View, memory: &Memory, now: Now, out: &mut Plan) {
    for Orphan { task, status, .. } in &view.orphans {
        if is_gone(task, *status, view.nodes, memory, now.mono) {
            out.changes.push(Change::RemoveTask(task.id));
        } else if task.desired < Desired::Remove {
            let message = "service removed".to_owned();
            let updated = now.wall;
            out.changes.push(Change::PutTask(Task { desired: Desired::Remove, updated, message, ..(*task).clone() }));
        }
    }
}
