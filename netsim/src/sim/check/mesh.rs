//! E1: no request meets a replica that was stopped on purpose: before its SIGTERM no data plane leads to it any more.

use super::World;
use peer::model::task::Task;

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
