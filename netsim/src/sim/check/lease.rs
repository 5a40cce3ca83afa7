//! L1 never two holders at one true instant; L2 terms only rise; L4 no promise leaves before it is durable.

use super::World;
use peer::core::Core;
use peer::ids::NodeId;
use peer::limits::MAX_MESSAGE_BYTES;
use peer::model::record::Term;
use peer::wire::codec;
use peer::wire::message::{LeaseMessage, Message};
use std::sync::OnceLock;

/// The byte behind the format and the version that says "a lease message".
fn lease_tag() -> u8 {
    static TAG: OnceLock<u8> = OnceLock::new();
    *TAG.get_or_init(|| {
        let sample = LeaseMessage::Release { ballot: Term { round: 0, node: NodeId::from_u128(0) } };
        codec::encode(&Message::Lease(sample)).get(2).copied().unwrap_or_default()
    })
}

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
        if bytes.get(2) != Some(&lease_tag()) {
            return;
        }
        let Ok(Message::Lease(message)) = codec::decode::<Message>(bytes, MAX_MESSAGE_BYTES) else { return };
        let (LeaseMessage::Promise { ballot } | LeaseMessage::Accepted { ballot, .. }) = message else { return };
        let promised = Core::lease_on_disk(self.nodes[n].disk.image()).map(|durable| durable.promised);
        if promised.is_none_or(|promised| promised < ballot) {
            self.violate("L4", || format!("n{n} promises {} while its disk says {promised:?}", ballot.round));
        }
    }
}
