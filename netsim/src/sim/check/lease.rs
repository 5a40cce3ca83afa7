//! L1 never two holders at one true instant; L2 terms only rise; L3 a voter's grants never overlap, nor does it promise
//! backwards; L4 no promise leaves before it is durable; L5, as far as it is safety: in calm the lease is not lost.

use super::World;
use crate::sim::trace::Mark;
use peer::core::Core;
use peer::model::record::Term;

impl World {
    pub(super) fn check_lease(&mut self, n: usize) {
        self.check_grant(n);
        let node = &self.nodes[n];
        let held = node.core.as_ref().and_then(|core| core.held(node.clock.now(self.now).mono));
        if held == node.held {
            return;
        }
        let before = std::mem::replace(&mut self.nodes[n].held, held);
        self.trace.mark(self.now, || Mark::Holds(n, held.map(|term| term.round)));
        let Some(term) = held else { return };
        if before.is_none() {
            self.probes.hit("a node came to hold the lease");
        }
        // Whoever believes it still, by its own clock at this instant, stopped or not.
        let others: Vec<(usize, Term)> =
            self.live().filter_map(|(o, core)| Some((o, core.held(self.nodes[o].clock.now(self.now).mono)?))).collect();
        let breach = self.check.holders.begins(n, term, others);
        self.judge(breach);
    }

    fn check_grant(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(core) = node.core.as_ref() else { return };
        let grant = core.granted(node.clock.now(self.now).mono);
        // By the voter's own clock, a hair early.
        let grant = grant.map(|(ballot, until)| (ballot, node.clock.when(until).saturating_sub(10)));
        let breach = self.check.grants[n].see(n, node.life, self.now, grant, core.promised());
        self.judge(breach);
    }

    pub(in crate::sim) fn check_sent(&mut self, n: usize, bytes: &[u8]) {
        let Some(ballot) = Core::promise_in(bytes) else { return };
        let breach = self.check.grants[n].sends(n, ballot);
        self.judge(breach);
        let promised = Core::lease_on_disk(self.nodes[n].disk.image()).map(|durable| durable.promised);
        if promised.is_none_or(|promised| promised < ballot) {
            self.violate("L4", || format!("n{n} promises {} while its disk says {promised:?}", ballot.round));
        }
    }

    /// Its holder says that it no longer has the lease.
    pub(in crate::sim) fn check_lost(&mut self, n: usize) {
        let node = &self.nodes[n];
        let stops = node.back_at.is_some() || node.gone || node.core.as_ref().is_none_or(|c| c.is_removed(node.id));
        if self.is_calm() && !stops {
            self.violate("L5", || format!("n{n} lost the lease, and nothing was broken lately"));
        }
    }
}
