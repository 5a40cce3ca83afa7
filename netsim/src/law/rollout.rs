//! U1 (D2 on a node that is drained): what is stopped on purpose never exceeds the service's budget, whoever leads. U2:
//! with start-first the last serving task of a slot is stopped only for one that serves. U3: a rollout's account is kept.

use super::Breach;
use peer::ids::{ServiceId, TaskId};
use peer::law::rollout_moves_forward;
use peer::model::record::{RevisionId, Stamp};
use peer::model::rollout::Rollout;
use peer::model::spec::{self, Order, UpdateConfig};
use peer::model::task::{Slot, Task};
use std::collections::{BTreeMap, BTreeSet};

/// The holder's words for stops that replace nothing within the budget.
const NOT_REPLACED: &[&str] = &["its node is down", "scaled down", "service removed", "another task has its slot"];

/// Those by which nobody wants the task's slot any more.
const LET_GO: &[&str] = &["scaled down", "service removed"];

/// The holder's word for a stop because operators drain the node.
const DRAINED: &str = "node is drained";

/// U3: a holder wrote `new` on top of the version that it had before (`from`), or of one that it heard of at the same
/// moment; `known` are all that were ever written.
pub fn moves_forward_from_some(
    known: &[(Stamp, Rollout)],
    from: Option<Stamp>,
    stamp: Stamp,
    new: &Rollout,
) -> Option<Breach> {
    let from = from?;
    let mut candidates = known.iter().filter(|(at, _)| (from..stamp).contains(at)).peekable();
    let (_, old) = candidates.peek()?;
    let text = || {
        let (was, is) = ((old.state, &old.failed), (new.state, &new.failed));
        format!("a rollout went from {was:?} to {is:?}")
    };
    candidates.all(|(_, old)| !rollout_moves_forward(old, new)).then(|| Breach::of("U3", text()))
}

/// This task of a service that is still there stops so that another can take its replica's place.
pub fn is_replaced(task: &Task) -> bool {
    !NOT_REPLACED.contains(&task.message.as_str()) && !matches!(task.slot, Slot::Node(_))
}

#[derive(Debug, Default)]
pub struct Budgets {
    known: BTreeSet<RevisionId>,
    /// The most parallel any revision of a service allows, and whether each starts first.
    budget: BTreeMap<ServiceId, (u64, bool)>,
    /// Slots whose serving task was stopped on purpose while nothing else served them, and when.
    disrupted: BTreeMap<(ServiceId, Slot), u64>,
    /// Tasks whose successor was let go with their slot.
    given_up: BTreeSet<TaskId>,
}

impl Budgets {
    pub fn learn(&mut self, service: ServiceId, revision: RevisionId, spec_json: &str) {
        if self.known.contains(&revision) {
            return;
        }
        let Ok(parsed) = spec::parse(spec_json) else { return };
        let most = |c: &UpdateConfig| if c.parallelism == 0 { u64::MAX } else { u64::from(c.parallelism) };
        let parallelism = most(&parsed.update).max(most(&parsed.rollback));
        let first = parsed.update.order == Order::StartFirst && parsed.rollback.order == Order::StartFirst;
        let entry = self.budget.entry(service).or_insert((0, true));
        *entry = (entry.0.max(parallelism), entry.1 && first);
        self.known.insert(revision);
    }

    /// The last task that served its slot is stopped for another to take its place; `is_over` tells of which slots
    /// no longer count.
    pub fn stopped(&mut self, task: &Task, now: u64, is_over: impl FnMut(ServiceId, Slot) -> bool) -> Vec<Breach> {
        let Some((parallelism, start_first)) = self.budget.get(&task.service).copied() else { return Vec::new() };
        if self.given_up.contains(&task.id) {
            return Vec::new();
        }
        let mut found = Vec::new();
        if start_first {
            let text = format!("{:?} is stopped, the last that serves {:?}: {}", task.id, task.slot, task.message);
            found.push(Breach::of("U2", text));
        }
        self.disrupted.insert((task.service, task.slot), now);
        self.forget(is_over);
        let of_service: Vec<_> = self.disrupted.iter().filter(|((s, _), _)| *s == task.service).collect();
        let slots = of_service.len() as u64;
        if parallelism > 0 && slots > parallelism {
            let text = format!(
                "{slots} slots of a service were stopped for replacements, the budget is {parallelism}: {}; {of_service:?}",
                task.message
            );
            found.push(Breach::of(if task.message == DRAINED { "D2" } else { "U1" }, text));
        }
        found
    }

    /// The slot is given up; should it be wanted again, that is another beginning. What this task replaced, and still
    /// lets its connections end, has nobody to wait for either (seed 20278 of calm at 600 s).
    pub fn dropped(&mut self, task: &Task) {
        self.disrupted.remove(&(task.service, task.slot));
        if LET_GO.contains(&task.message.as_str()) {
            self.given_up.extend(task.replaces);
        }
    }

    /// Slots that are served again, or whose replacement failed, or that are wanted no more, count no longer.
    pub fn forget(&mut self, mut is_over: impl FnMut(ServiceId, Slot) -> bool) {
        self.disrupted.retain(|(service, slot), _| !is_over(*service, *slot));
    }
}
