//! P2 a task stays on its node; P4 assignments are possible in their author's own eyes; P5 one container a task.

use super::World;
use crate::law::tasks::{runs_alone, spreads_a_paused_release};
use peer::ids::TaskId;
use peer::model::container::EngineOp;
use peer::model::node::{Availability, Liveness};
use peer::model::task::Slot;

impl World {
    /// A container of this task has just been started.
    pub(in crate::sim) fn check_started(&mut self, n: usize, task: TaskId) {
        let nodes = self.nodes.iter().enumerate();
        let places = nodes.flat_map(|(o, node)| node.engine.running(task).map(move |_| o));
        let breach = runs_alone(task, n, places);
        self.judge(breach);
    }

    pub(in crate::sim) fn check_ended(&mut self, _: usize, _: TaskId) {}

    pub(in crate::sim) fn check_engine_op(&mut self, n: usize, what: &EngineOp) {
        let EngineOp::Create(plan) = what else { return };
        let task = plan.task;
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let assigned = core.store().task(task).and_then(|t| t.node);
        if assigned.is_some_and(|node| node != self.nodes[n].id) {
            self.violate("P2", || format!("n{n} creates a container of task {task:?}, which is another node's"));
        }
    }

    /// What the holder has just decided, judged by what it knows itself.
    pub(super) fn check_decisions(&mut self, n: usize) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let new: Vec<TaskId> =
            core.store().tasks().map(|t| t.id).filter(|id| !self.check.known_tasks.contains(id)).collect();
        let mut wrong = Vec::new();
        if !new.is_empty() {
            let views = core.nodes();
            for id in &new {
                let record = core.store().record(&peer::model::record::Key::Task(*id));
                let Some(task) = core.store().task(*id) else { continue };
                // Written by this very node, just now.
                if record.is_none_or(|r| r.stamp.author != self.nodes[n].id) || !task.desired.is_live() {
                    continue;
                }
                let Some(node) = task.node else {
                    self.probes.hit("a task had no node for a while");
                    continue;
                };
                let view = views.iter().find(|v| v.id == node);
                match view {
                    None => wrong.push(("P4", format!("task {id:?} went to a node that is no member"))),
                    Some(v) if v.liveness > Liveness::Suspect => {
                        wrong.push(("P4", format!("n{n} gave task {id:?} to a node it sees {:?}", v.liveness)));
                    }
                    Some(v)
                        if v.policy.availability != Availability::Active && matches!(task.slot, Slot::Replica(_)) =>
                    {
                        wrong.push((
                            "D1",
                            format!("n{n} gave task {id:?} to a node that is {:?}", v.policy.availability),
                        ));
                    }
                    Some(_) => {}
                }
                let rollout = core.store().rollout(task.service);
                let current = core.store().service(task.service).map(|s| s.current);
                let kept = |from| core.store().revision(task.service, from).is_some();
                if spreads_a_paused_release(task, rollout, current, kept) {
                    wrong.push(("U3", format!("n{n} made task {id:?} of a release that is paused")));
                }
            }
        }
        self.check.known_tasks.extend(new);
        for (law, text) in wrong {
            self.violate(law, || text);
        }
    }
}
