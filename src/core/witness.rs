//! What a checker may look at: the parts as they are, read only. The agent never asks; the simulator compares what
//! the core believes with what is true.

use super::*;
use crate::membership::Member;
use crate::model::lease::Electorate;

impl Core {
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The term under which this node would decide at this instant of its own clock.
    pub fn held(&self, now: Mono) -> Option<Term> {
        self.lease.held(now)
    }

    pub fn electorate(&self) -> &Electorate {
        self.lease.electorate()
    }

    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.membership.members()
    }

    /// The record in which a life finds what it promised: its key on disk.
    pub fn lease_on_disk(durable: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<lease::Durable> {
        codec::decode(durable.get(DISK_LEASE)?, limits::MAX_MESSAGE_BYTES).ok()
    }
}
