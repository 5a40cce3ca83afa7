//! L1 never two holders at one true instant; L2 terms only rise; L4 no promise leaves before it is durable.

use super::World;
use peer::core::Core;
use peer::model::record::Term;

impl World {
    pub(super) fn check_lease(&mut self, n: usize) {
        let node = &self.nodes[n];
        let held = node.core.as_ref().and_then(|core| core.held(node.clock.now(self.now).mono));
        if held == node.held {
            return;
        }
        self.nodes[n].held = held;
        let Some(term) = held else { return };
        // Whoever believes it still, by its own clock at this instant, stopped or not.
        let others: Vec<(usize, Term)> =
            self.live().filter_map(|(o, core)| Some((o, core.held(self.nodes[o].clock.now(self.now).mono)?))).collect();
        let breach = self.check.holders.begins(n, term, others);
        self.judge(breach);
    }

    pub(in crate::sim) fn check_sent(&mut self, n: usize, bytes: &[u8]) {
        let Some(ballot) = Core::promise_in(bytes) else { return };
        let promised = Core::lease_on_disk(self.nodes[n].disk.image()).map(|durable| durable.promised);
        if promised.is_none_or(|promised| promised < ballot) {
            self.violate("L4", || format!("n{n} promises {} while its disk says {promised:?}", ballot.round));
        }
    }
}
