//! The second phase, as users see it: P6 what is wanted runs, and nothing else; U4 no rollout hangs; what waits says why;
//! D3 a drained node ends empty where there is room elsewhere; E3 every data plane leads to what serves, and to nothing
//! else.

use super::World;
use crate::sim::engine::Kind;
use crate::sim::world::SECOND;
use peer::core::Core;
use peer::core::view::ServiceView;
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::node::{Availability, Liveness};
use peer::model::spec::{Mode, Protocol, PublishMode, ServiceSpec};
use peer::model::task::{Slot, Task};
use std::collections::BTreeSet;

/// A start may take a minute, and what it replaces some seconds to stop.
const TRIAL_US: u64 = 80 * SECOND;

impl World {
    pub(super) fn pending_services(&self, core: &Core) -> Option<(&'static str, String)> {
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
            let good = is_good(&service.spec.task.container.image);
            let said = || self.told_of(core, service.service.id);
            let tasks: Vec<_> =
                core.store().tasks().filter(|t| t.service == service.service.id && t.desired.is_live()).collect();
            // What needs a certain place may have to wait for it, and says so.
            let unplaced = tasks.iter().filter(|t| t.node.is_none()).count();
            let waits = unplaced > 0 && !fits_anywhere(&service.spec);
            if let Some(rollout) = service.rollout.as_ref().filter(|r| r.state.is_active() && !waits) {
                let state = rollout.state.as_str();
                return Some((
                    "U4",
                    format!(
                        "service {name}: {state}: {}; {} failed: {:?}",
                        rollout.message,
                        rollout.failed.len(),
                        said()
                    ),
                ));
            }
            wanted.extend(tasks.iter().map(|t| t.id));
            if let Some(silent) = tasks.iter().find(|t| t.node.is_none() && t.message.is_empty()) {
                return Some(("reason", format!("task {:?} has no node and no reason", silent.id)));
            }
            let serving = tasks.iter().filter(|t| self.serves(t.id)).count();
            let expected = match service.spec.mode {
                Mode::Replicated(replicas) => {
                    if eligible > 0 {
                        replicas as usize
                    } else {
                        serving
                    }
                }
                Mode::Global => eligible,
                // The plans have none yet.
                Mode::ReplicatedJob { .. } | Mode::GlobalJob => continue,
            };
            let expected = match service.spec.mode {
                _ if fits_anywhere(&service.spec) => expected,
                Mode::Replicated(_) if serving + unplaced >= expected => serving.min(expected),
                Mode::Replicated(_) => expected,
                _ => serving.min(expected),
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

    /// How much longer what is settled may take because something is tried that never works: a slot takes as long as a start may.
    pub(super) fn trials_us(&self) -> u64 {
        let Some(core) = self.holder().and_then(|n| self.nodes[n].core.as_ref()) else { return 0 };
        let tried = core.services().into_iter().filter(|s| {
            s.rollout.as_ref().is_some_and(|r| r.state.is_active()) && !is_good(&s.spec.task.container.image)
        });
        tried.map(|s| u64::from(s.desired) * TRIAL_US).sum()
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
            let attempt = status.map_or(0, |s| s.attempt);
            let counts = if t.in_rollout { ", in the rollout" } else { "" };
            format!(
                "{id:?} {slot:?} of {image} ({rev:x}, for {old:?}{counts}) on {at:?}: {wants}, {phase} (attempt {attempt}) {why}"
            )
        };
        tasks.map(told).collect()
    }

    fn serves(&self, task: TaskId) -> bool {
        let mut containers = self.nodes.iter().flat_map(|n| n.engine.containers.values());
        containers.any(|c| c.plan.task == task && c.serves(self.now))
    }

    /// A drained node that still runs a replica which could run elsewhere.
    pub(super) fn pending_drains(&self, core: &Core) -> Option<(&'static str, String)> {
        let nodes = core.nodes();
        let is = |id: &NodeId, availability: Availability| {
            nodes.iter().any(|v| v.id == *id && v.liveness == Liveness::Alive && v.policy.availability == availability)
        };
        if !nodes.iter().any(|v| is(&v.id, Availability::Active)) {
            return None;
        }
        // What needs a certain place, or can't be made to run, stays where it is.
        let moves = |s: &ServiceView| {
            let good = is_good(&s.spec.task.container.image);
            fits_anywhere(&s.spec) && good && s.rollout.as_ref().is_none_or(|r| !r.state.is_paused())
        };
        let services: BTreeSet<ServiceId> = core.services().iter().filter(|s| moves(s)).map(|s| s.service.id).collect();
        let stays = |t: &&Task| {
            let replica = matches!(t.slot, Slot::Replica(_)) && t.desired.is_live();
            replica && services.contains(&t.service) && t.node.is_some_and(|n| is(&n, Availability::Drain))
        };
        let left = core.store().tasks().find(stays)?;
        Some((
            "D3",
            format!("{:?} stays on n{:?}, which is drained", left.id, left.node.and_then(|n| self.index_of(n))),
        ))
    }

    /// A data plane that leads elsewhere than to what serves.
    pub(super) fn pending_routes(&self, core: &Core) -> Option<(&'static str, String)> {
        for service in core.services() {
            let of_service = || core.store().tasks().filter(|t| t.service == service.service.id && t.desired.is_live());
            // Of what comes and goes the tables are always a little behind.
            let image = |t: &Task| core.parsed(t.revision).is_some_and(|s| is_good(&s.task.container.image));
            if !of_service().all(image) {
                continue;
            }
            let lives = |t: &&Task| t.node.and_then(|n| self.index_of(n)).is_some_and(|n| self.nodes[n].core.is_some());
            let serving: BTreeSet<TaskId> =
                of_service().filter(lives).map(|t| t.id).filter(|t| self.serves(*t)).collect();
            let ingress = service.service.ports.iter().filter(|p| p.mode == PublishMode::Ingress);
            for port in ingress.filter(|p| p.protocol == Protocol::Tcp) {
                for (n, _) in self.live() {
                    let table = self.nodes[n].mesh.table.ports.get(&(port.protocol, port.published));
                    let leads: BTreeSet<TaskId> = table.into_iter().flat_map(|b| b.iter()).map(|b| b.task).collect();
                    if leads != serving {
                        let (name, port) = (&service.service.name, port.published);
                        return Some((
                            "E3",
                            format!("n{n} leads port {port} of {name} to {leads:?}, and {serving:?} serve"),
                        ));
                    }
                }
            }
        }
        None
    }
}

/// Any active node will do.
fn fits_anywhere(spec: &ServiceSpec) -> bool {
    spec.task.resources.reserve_nano_cpus == 0
        && spec.task.resources.reserve_memory == 0
        && spec.task.placement.constraints.is_empty()
        && spec.host_ports().next().is_none()
}

fn is_good(image: &str) -> bool {
    !matches!(Kind::of(image), Kind::Bad | Kind::Sick | Kind::Missing)
}
