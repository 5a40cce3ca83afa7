//! Across all areas: every queue and table stays within its bound, and nothing is asked or answered twice.

use super::World;
use peer::core::face::{PersistId, RequestId};
use peer::limits::{MAX_GOSSIP_PACKET_BYTES, MAX_MESSAGE_BYTES, MAX_REVISIONS};
use peer::model::container::OpId;
use std::collections::BTreeMap;

/// What a message adds around a packet of membership.
const ENVELOPE_BYTES: usize = 16;

impl World {
    pub(super) fn check_sizes(&mut self, n: usize) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let over = core.sizes().into_iter().find(|(_, size, most)| size > most);
        let mut of_service: BTreeMap<_, usize> = BTreeMap::new();
        for (service, _) in core.store().all_revisions() {
            *of_service.entry(service).or_default() += 1;
        }
        // The holder clears away; what was added meanwhile, and what tasks still run, comes on top.
        let most = 2 * MAX_REVISIONS;
        let revisions = of_service.into_values().max().filter(|count| *count > most);
        if let Some((what, size, most)) = over.or(revisions.map(|count| ("revisions of a service", count, most))) {
            self.violate("limit", || format!("n{n}: {size} {what}, at most {most} are allowed"));
        }
    }

    pub(in crate::sim) fn check_size_sent(&mut self, n: usize, datagram: bool, bytes: usize) {
        let most = if datagram { MAX_GOSSIP_PACKET_BYTES + ENVELOPE_BYTES } else { MAX_MESSAGE_BYTES };
        if bytes > most {
            self.violate("limit", || format!("n{n} sends {bytes} bytes at once, at most {most} are allowed"));
        }
    }

    /// The ids of a life's writes and of its engine operations only rise.
    pub(in crate::sim) fn check_persist(&mut self, n: usize, id: PersistId) {
        let last = self.nodes[n].last_persist.replace(id);
        if last.is_some_and(|last| last >= id) {
            self.violate("once", || format!("n{n} writes {id:?} after {last:?}"));
        }
    }

    pub(in crate::sim) fn check_op(&mut self, n: usize, op: OpId) {
        let last = self.nodes[n].last_op.replace(op);
        if last.is_some_and(|last| last >= op) {
            self.violate("once", || format!("n{n} asks its engine {op:?} after {last:?}"));
        }
    }

    pub(in crate::sim) fn check_answered(&mut self, n: usize, id: RequestId) {
        if !self.check.answered.insert(id) {
            self.violate("once", || format!("n{n} answers {id:?} again"));
        }
    }
}
