//! The second phase: after the faults everything must come to rest within a bound, and what doesn't has a reason that is
//! told. L5 one holder; M4, M5 members seen as they are; S1 equal records; P6 what is wanted runs, and nothing else;
//! U4 no rollout hangs; P7 then nothing moves any more; S3 nothing acknowledged is lost.

use super::World;
use crate::sim::engine::Kind;
use crate::sim::world::{QUIET_US, SETTLE_US};
use peer::core::Core;
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::node::{Availability, Liveness};
use peer::model::record::Log;
use peer::model::spec::{FailureAction, Mode};
use peer::model::task::Task;
use peer::wire::message::Digest;
use std::collections::BTreeSet;

impl World {
    pub(in crate::sim) fn look_whether_settled(&mut self) {
        let since_heal = self.now.saturating_sub(self.plan.secs * 1_000_000);
        self.note_digests();
        let pending = self.pending();
        match pending {
            Some(reason) => {
                self.check.quiet_since = None;
                let id = reason.0;
                if since_heal > SETTLE_US {
                    self.violate(id, || {
                        format!("not settled {} s after the faults: {}", since_heal / 1_000_000, reason.1)
                    });
                }
                self.check.reason = reason.1;
            }
            None => self.look_whether_quiet(),
        }
    }

    /// Everything is as it should be: now nothing may move.
    fn look_whether_quiet(&mut self) {
        let mark: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .map(|n| (n.core.as_ref().map_or(0, |c| c.store().own_seq()), n.engine.operations))
            .collect();
        let began = *self.check.quiet_since.get_or_insert(self.now);
        let moved = self.check.quiet_mark != mark;
        self.check.quiet_mark = mark;
        if moved && !self.has_restless() {
            self.check.rest_since = self.now;
            if self.now - began > SETTLE_US {
                self.violate("P7", || "records or containers never come to rest".to_owned());
            }
            return;
        }
        if self.now - self.check.rest_since.max(began) >= QUIET_US {
            self.settled = Some(began);
            if let Some(lost) = self.lost_write() {
                self.violate("S3", || lost);
            }
            self.done = true;
        }
    }

    /// Some service's containers keep failing, and are rightly tried again.
    fn has_restless(&self) -> bool {
        let restless = |c: &crate::sim::engine::Container| matches!(c.kind, Kind::Bad | Kind::Sick | Kind::Missing);
        self.nodes.iter().any(|n| n.engine.containers.values().any(restless))
            || self.live().any(|(_, core)| {
                core.store().all_revisions().any(|(s, r)| {
                    core.store()
                        .revision(s, r)
                        .is_some_and(|r| ["-bad", "-sick", "-missing"].iter().any(|k| r.spec_json.contains(k)))
                })
            })
    }

    /// What is not yet as it must be, with the law.
    pub(in crate::sim) fn pending(&self) -> Option<(&'static str, String)> {
        if let Some(n) = (0..self.nodes.len()).find(|n| !self.nodes[*n].gone && self.nodes[*n].core.is_none()) {
            return Some(("boot", format!("n{n} is not up")));
        }
        let live: Vec<(usize, &Core)> = self.live().collect();
        let ids: BTreeSet<NodeId> = live.iter().map(|(n, _)| self.nodes[*n].id).collect();
        let Some(holder) = self.holder() else { return Some(("L5", "nobody holds the lease".to_owned())) };
        for (n, core) in &live {
            for view in core.nodes() {
                let Some(other) = self.index_of(view.id) else { continue };
                let right = if ids.contains(&view.id) {
                    view.liveness == Liveness::Alive
                } else {
                    view.liveness >= Liveness::Away
                };
                if !right {
                    return Some(("M5", format!("n{n} sees n{other} {:?}", view.liveness)));
                }
            }
            let seen: BTreeSet<NodeId> = core.nodes().iter().map(|v| v.id).collect();
            if let Some(missing) = ids.iter().find(|id| !seen.contains(id)) {
                return Some(("M5", format!("n{n} doesn't know n{:?}", self.index_of(*missing))));
            }
        }
        if let Some(apart) = self.apart(&live) {
            return Some(("S1", apart));
        }
        let core = self.nodes[holder].core.as_ref()?;
        self.pending_services(core)
    }

    /// Where replicas differ. While something is rightly tried again and again, what was written lately may be on its
    /// way; what is older may not.
    fn apart(&self, live: &[(usize, &Core)]) -> Option<String> {
        let (first, core) = live.first()?;
        // A log of which nothing is left is in nobody's digest.
        let union = self.held_by_anybody();
        let before = self.check.digest_before.iter().filter(|(log, _)| union.contains_key(log));
        let before: Vec<(&Log, &u32)> = before.collect();
        for (n, other) in live {
            let held = other.store().digest();
            let lacks = before.iter().find(|(log, number)| held.get(log).is_none_or(|h| h < number));
            if let Some((log, number)) = lacks {
                let (author, life) = (self.index_of(log.author), log.life);
                let has = held.get(log).copied().unwrap_or(0);
                return Some(format!("n{n} has {has} of the {number} writes of n{author:?} in its life {life:x}"));
            }
            if self.has_restless() {
                continue;
            }
            if core.store().digest() != held {
                return Some(format!("n{first} and n{n} have different digests"));
            }
            if !core.store().records().eq(other.store().records()) {
                return Some(format!("n{first} and n{n} have equal digests and different records"));
            }
        }
        None
    }

    /// Every ten seconds: all that anybody holds now must soon be everybody's.
    fn note_digests(&mut self) {
        if !(self.now / 1_000_000).is_multiple_of(10) {
            return;
        }
        let latest = std::mem::take(&mut self.check.digest_now);
        self.check.digest_before = latest;
        self.check.digest_now = self.held_by_anybody();
    }

    fn held_by_anybody(&self) -> Digest {
        let mut union = Digest::new();
        for (_, core) in self.live() {
            for (log, number) in core.store().digest() {
                let held = union.entry(*log).or_default();
                *held = (*held).max(*number);
            }
        }
        union
    }

    fn pending_services(&self, core: &Core) -> Option<(&'static str, String)> {
        let nodes = core.nodes();
        let takes = |id: &NodeId| {
            nodes
                .iter()
                .any(|v| v.id == *id && v.policy.availability == Availability::Active && v.liveness == Liveness::Alive)
        };
        let eligible = nodes.iter().filter(|v| takes(&v.id)).count();
        let mut wanted: BTreeSet<TaskId> = BTreeSet::new();
        for service in core.services() {
            let name = &service.service.name;
            let good = Kind::of(&service.spec.task.container.image);
            let good = !matches!(good, Kind::Bad | Kind::Sick | Kind::Missing);
            let said = || self.told_of(core, service.service.id);
            // An update that is to go on whatever fails, of an image that always fails, has no end.
            let keeps_trying = service.spec.update.failure_action == FailureAction::Continue && !good;
            if let Some(rollout) = service.rollout.as_ref().filter(|r| r.state.is_active() && !keeps_trying) {
                let state = rollout.state.as_str();
                return Some(("U4", format!("service {name}: {state}: {}: {:?}", rollout.message, said())));
            }
            let tasks: Vec<_> =
                core.store().tasks().filter(|t| t.service == service.service.id && t.desired.is_live()).collect();
            wanted.extend(tasks.iter().map(|t| t.id));
            if let Some(silent) = tasks.iter().find(|t| t.node.is_none() && t.message.is_empty()) {
                return Some(("reason", format!("task {:?} has no node and no reason", silent.id)));
            }
            let serving = tasks
                .iter()
                .filter(|t| {
                    self.nodes
                        .iter()
                        .any(|n| n.engine.containers.values().any(|c| c.plan.task == t.id && c.serves(self.now)))
                })
                .count();
            let expected = match service.spec.mode {
                Mode::Replicated(replicas) => {
                    if eligible > 0 {
                        replicas as usize
                    } else {
                        serving
                    }
                }
                Mode::Global => eligible,
            };
            let paused = service.rollout.as_ref().is_some_and(|r| r.state.is_paused());
            if good
                && !paused
                && serving != expected
                && (serving < expected || matches!(service.spec.mode, Mode::Replicated(_)))
            {
                return Some(("P6", format!("service {name}: {serving} of {expected} serve: {:?}", said())));
            }
        }
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.gone) {
            if let Some(orphan) =
                node.engine.containers.values().find(|c| c.is_running() && !wanted.contains(&c.plan.task))
            {
                return Some((
                    "P6",
                    format!("n{n} runs a container of task {:?}, which nobody wants", orphan.plan.task),
                ));
            }
        }
        None
    }

    fn told_of(&self, core: &Core, service: ServiceId) -> Vec<String> {
        let tasks = core.store().tasks().filter(|t| t.service == service && t.desired.is_live());
        let told = |t: &Task| {
            let status = core.store().status(t.id);
            let (slot, wants) = (t.slot, t.desired.as_str());
            let phase = status.map_or("-", |s| s.phase.as_str());
            let why = status.filter(|s| !s.error.is_empty()).map_or(t.message.as_str(), |s| s.error.as_str());
            let image = core.store().revision(service, t.revision).map_or(String::new(), |r| {
                r.spec_json
                    .split("\"Image\":\"")
                    .nth(1)
                    .and_then(|s| s.split('"').next())
                    .unwrap_or_default()
                    .to_owned()
            });
            let (rev, id, old) = (t.revision.hlc.0, t.id, t.replaces);
            let at = t.node.and_then(|n| self.index_of(n));
            format!("{id:?} {slot:?} of {image} ({rev:x}, for {old:?}) on {at:?}: {wants}, {phase} {why}")
        };
        tasks.map(told).collect()
    }
}
