//! E1: no request meets a replica that was stopped on purpose: before its SIGTERM no data plane leads to it any more.
//! E4: no port is emptied while a replica behind it serves and can be reached.

use super::World;
use crate::sim::world::SECOND;
use peer::model::task::{Task, TaskPhase};
use peer::routes::{Backend, RouteTable};

/// Whoever has just started, or was cut off a moment ago, may not know yet what there is.
const BEARINGS_US: u64 = 15 * SECOND;

impl World {
    pub(super) fn check_withdrawn(&mut self, n: usize, task: &Task) {
        if !self.is_calm() {
            return;
        }
        let leads = |o: &usize| {
            let node = &self.nodes[*o];
            node.core.is_some() && node.mesh.table.ports.values().flat_map(|b| b.iter()).any(|b| b.task == task.id)
        };
        if let Some(other) = (0..self.nodes.len()).find(leads) {
            self.violate("E1", || format!("n{n} stops task {:?} while n{other} still routes to it", task.id));
        }
    }

    /// The data plane of `n` is about to follow this table.
    pub(in crate::sim) fn check_not_emptied(&mut self, n: usize, next: &RouteTable) {
        let before = &self.nodes[n].mesh.table.ports;
        let emptied = before.iter().filter(|(port, _)| next.ports.get(port).is_some_and(|b| b.is_empty()));
        let lost = emptied.flat_map(|(port, backends)| backends.iter().map(move |b| (port.1, b)));
        let lost = lost.filter(|(_, b)| self.is_good_backend(n, b)).map(|(port, b)| (port, b.task)).next();
        if let Some((port, task)) = lost {
            self.violate("E4", || format!("n{n} empties port {port}, and {task:?} serves and can be reached"));
        }
    }

    fn is_good_backend(&self, n: usize, backend: &Backend) -> bool {
        let Some(o) = self.index_of(backend.node) else { return false };
        let settled = |n: usize| {
            let node = &self.nodes[n];
            node.core.is_some() && node.paused_until <= self.now && self.now >= node.started_at + BEARINGS_US
        };
        let there = settled(n) && settled(o) && !self.net.is_cut_any(n, o) && self.now >= self.shaken_until;
        // Whoever was removed is turned away by all others.
        let known = self.nodes[n].core.as_ref().is_some_and(|core| {
            !core.is_removed(backend.node)
                && !core.is_removed(self.nodes[n].id)
                && core.store().task(backend.task).is_some_and(|t| t.desired.is_live())
                && core.store().status(backend.task).is_some_and(|s| s.phase == TaskPhase::Running)
        });
        there && known && self.nodes[o].engine.running(backend.task).any(|c| c.serves(self.now))
    }

    /// A user's request failed.
    pub(in crate::sim) fn check_request(&mut self, node: usize, port: u16, came: u64, why: &str, trouble: &[String]) {
        self.trace.say_more(self.now, Some(node), || format!("request to port {port} failed: {why}; {trouble:?}"));
        // A port whose service has no good replica has nobody to answer.
        let calm_then = came >= self.disturbed_until && self.is_calm();
        if !calm_then || why == "no replica answered" && trouble.is_empty() {
            return;
        }
        let trouble = trouble.join("; ");
        self.violate("E1", || format!("a request that n{node} took for port {port} failed: {why}; {trouble}"));
    }
}
